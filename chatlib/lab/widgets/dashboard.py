"""Room, map, chart and panel of one broker, arranged on one page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

import ipywidgets
import traitlets

from chatlib.brokers.base import Broker
from chatlib.chat import Chat
from chatlib.lab.widgets import assets
from chatlib.lab.widgets.broker_panel import BrokerPanel
from chatlib.lab.widgets.live import Live
from chatlib.lab.widgets.queue_chart import QueueChart
from chatlib.lab.widgets.room import Room
from chatlib.lab.widgets.topology_map import TopologyMap
from chatlib.monitor import Monitor
from chatlib.names import inbox_queue

__all__ = ["Dashboard"]

COLUMN: Final = "760px"  # a page of less than two of them shows all below each other


class Dashboard(Live, ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Everything to run a chat and to break its broker, in one place: `panel`, `room`, `map` and `chart`, each a widget of its own.

    users, groups: as `Room` takes them. queues: of the chart; None: the inboxes of `users`. Closed, it closes all four.
    """

    error = traitlets.Unicode("")
    hz = 0.5  # it has nothing to do itself

    def __init__(
        self,
        broker: Broker,
        chat: Chat,
        users: Iterable[str],
        groups: Iterable[str] | Mapping[str, Sequence[str]] = (),
        *,
        queues: Iterable[str] | None = None,
    ) -> None:
        names = [users] if isinstance(users, str) else list(users)
        with ExitStack() as made:  # one that cannot be made leaves none of the others behind
            self._monitor = Monitor(broker)
            made.callback(self._monitor.close)
            self.panel = BrokerPanel(broker)
            made.callback(self.panel.close)
            self.room = Room(chat, names, groups)
            made.callback(self.room.close)
            self.map = TopologyMap(self._monitor, chat)
            made.callback(self.map.close)
            self.chart = QueueChart(self._monitor, [inbox_queue(name) for name in names] if queues is None else queues)
            made.callback(self.chart.close)
            below = ipywidgets.GridBox(
                [self.map, self.chart],
                layout={"grid_template_columns": f"repeat(auto-fit, minmax(min({COLUMN}, 100%), 1fr))", "grid_gap": "8px"},
            )
            style = ipywidgets.HTML(f"<style>{assets.css('dashboard')}</style>", layout={"display": "none"})
            super().__init__([style, self.panel, self.room, below])
            self.add_class("chatlib-dashboard")
            self._made = made.pop_all()
        self._begin()

    @property
    def parts(self) -> tuple[Live, ...]:
        """The widgets, from above to below."""
        return self.panel, self.room, self.map, self.chart

    def stop(self) -> None:
        """Leave all four as they are from now on."""
        for part in self.parts:
            part.stop()
        super().stop()

    def start(self) -> Dashboard:
        """Keep all four up to date."""
        super().start()
        for part in self.parts:
            part.start()
        return self

    def still(self) -> dict[str, Any]:
        """The pictures of panel, room and map, below each other; the chart has one of its own (`chart.figure()`)."""
        pictures = [part.still().get("text/html", "") for part in (self.panel, self.room, self.map)]
        return assets.still("".join(f'<div style="margin-bottom:8px">{each}</div>' for each in pictures), width=1100, title="Dashboard")

    def _look(self) -> None:
        """The parts look for themselves."""

    def _show_error(self, text: str) -> None:
        self.error = text

    def _end(self) -> None:
        self._made.close()
