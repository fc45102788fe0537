"""A panel to watch a broker with and to break it: a lamp, buttons, and a log of what happened when.

::

    panel = BrokerPanel(broker)     # the last line of a cell shows it
    panel.press("kill")             # what the button does; charts mark it
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import anywidget
import traitlets

from chatlib.brokers.base import Broker
from chatlib.lab.widgets import assets
from chatlib.lab.widgets.broker_model import WHOLE, BrokerModel
from chatlib.lab.widgets.broker_rows import LABELS, card, lines_of, rows_of
from chatlib.lab.widgets.live import Live

__all__ = ["BrokerPanel"]

NUMBERS = 2**53  # a browser counts no further
ELSEWHERE = "Somebody else runs this broker: it can be watched from here, not broken. To break one, use a LocalBroker or a DockerBroker."


class BrokerPanel(Live, anywidget.AnyWidget):
    """How a broker is, and each node if it is a cluster, with buttons to stop, start, kill, freeze and thaw it, and to raise an alarm.

    Long actions run aside; what makes no sense in a state cannot be pressed. What is done by the buttons are faults of `chatlib.faults`:
    charts mark them from the click to the repair, also one that somebody else makes. `close` leaves the broker as it is.
    """

    _esm = assets.esm("broker_panel")
    _css = assets.css("broker_panel")

    title = traitlets.Unicode("").tag(sync=True)
    rows: Any = traitlets.List([]).tag(sync=True)
    lines: Any = traitlets.List([]).tag(sync=True)
    hint = traitlets.Unicode("").tag(sync=True)
    heard = traitlets.Int(0).tag(sync=True)  #: the number of the last click that came here
    error = traitlets.Unicode("").tag(sync=True)

    hz = 2.0

    def __init__(self, broker: Broker, *, title: str = "") -> None:
        super().__init__()
        self._writing = threading.Lock()
        self.title = title or f"{type(broker).__name__} “{broker.name}”"
        self.model = BrokerModel(broker)
        self.hint = ELSEWHERE if self.model.is_remote else ""
        self._write()
        self.on_msg(self._clicked)
        self._begin()

    def press(self, action: str, node: int | None = None) -> bool:
        """What a click on a button does; returns at once, the action runs aside. node: of a cluster, from 0.

        action: start, stop, restart, kill, freeze, thaw, alarm_on or alarm_off; ValueError for others. False: it makes no sense now,
        or something is under way.
        """
        if action not in LABELS:
            raise ValueError(f"there is no action {action!r}; there are {', '.join(LABELS)}")
        return self._press(WHOLE if node is None else str(node), action)

    def _press(self, key: str, action: str) -> bool:
        if self._is_closed or not self.model.begin(key, action):
            return False
        self._write()
        # a thread for each: of a cluster, one node may have to wait for another that is started beside it
        threading.Thread(target=self._do, args=(key, action), name=f"lab-BrokerPanel-{action}", daemon=True).start()
        return True

    def _do(self, key: str, action: str) -> None:
        self._guard(f"action {key}", lambda: self.model.run(key, action))
        self._write()

    def _clicked(self, _: object, content: object, __: object) -> None:
        """From the browser: {"key", "action", "number"}; anybody may have written it."""
        if not isinstance(content, dict):
            return
        with contextlib.suppress(TypeError):  # a key or an action that is a list
            if content.get("action") in LABELS:
                self._press(content.get("key", WHOLE), content["action"])
        number = content.get("number")
        if isinstance(number, int) and 0 <= number < NUMBERS:
            self.heard = number

    def _look(self) -> None:
        self.model.look()
        self._write()
        if self.model.has_faults:
            self._later(self.model.settle)

    def _write(self) -> None:
        with self._writing:
            rows, lines = rows_of(self.model.parts, remote=self.model.is_remote), lines_of(self.model.notes)
            if rows != self.rows:
                self.rows = rows
            if lines != self.lines:
                self.lines = lines

    def _show_error(self, text: str) -> None:
        self.error = text

    def still(self) -> dict[str, str]:
        """How it is now, and the last lines of the log."""
        body = card(self.title, self.model.parts, self.model.notes, remote=self.model.is_remote)
        return assets.still(body, title=self.title)

    def _end(self) -> None:
        self.model.close()
