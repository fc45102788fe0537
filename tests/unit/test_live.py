"""What every live widget does at its end, and when it cannot begin: nothing is left behind, whatever is sent to it meanwhile."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import ipywidgets
import pytest
from ipywidgets.widgets.widget import _instances

from chatlib.brokers import LocalBroker
from chatlib.events import Event
from chatlib.faults import fault
from chatlib.lab.widgets import assets, cells
from chatlib.lab.widgets.broker_panel import BrokerPanel
from chatlib.lab.widgets.dashboard import Dashboard
from chatlib.lab.widgets.live import VIEW, Live
from chatlib.lab.widgets.queue_chart import QueueChart
from chatlib.lab.widgets.room import LONGEST, Room
from chatlib.lab.widgets.topology_map import TopologyMap
from chatlib.link import LinkState
from chatlib.monitor import Monitor
from tests.support import wait_until


class Box(Live, ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """A box in a box, with a button."""

    def __init__(self) -> None:
        super().__init__([ipywidgets.HBox([ipywidgets.Button(), ipywidgets.HTML()])])
        self.given_back = 0
        self._begin()

    def _look(self) -> None:
        """There is nothing to see."""

    def still(self) -> dict[str, str]:
        return assets.still("a picture")

    def _end(self) -> None:
        self.given_back += 1


class ClosedChat:
    """As much of a chat as a room asks while there is no broker."""

    state = LinkState.CLOSED
    reconnects = 0

    def __init__(self) -> None:
        self.listeners = 0

    def on_event(self, _: Callable[[Event], None]) -> Callable[[], None]:
        self.listeners += 1
        return self._off

    def _off(self) -> None:
        self.listeners -= 1


def looking() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("lab-")]


# ---- the end -----------------------------------------------------------------------------------------------------------------------


def test_a_close_that_is_interrupted_gives_everything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    box = Box()
    thread = box._thread
    assert thread is not None
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            box.close()
    assert box.given_back == 1 and box.comm is None
    thread.join(10)
    assert not thread.is_alive()


def test_of_the_widgets_of_the_last_run_all_are_closed_even_if_one_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    closed, halted = [], []

    class Old:
        def halt(self) -> None:
            halted.append(self)

        def close(self) -> None:
            closed.append(self)
            raise KeyboardInterrupt

    run = "first"
    monkeypatch.setattr(cells, "_running", lambda: ("test_live: a cell", run))
    old = [Old(), Old(), Old()]
    for each in old:
        cells.claim(each)
    cells._begins(None)  # another cell, or the same run
    assert halted == []
    run = "second"
    cells._begins(None)
    assert set(halted) == set(old) and closed == []
    with pytest.raises(KeyboardInterrupt):
        cells.claim(Old())
    assert len(closed) == 3


def test_who_is_interrupted_while_he_replaces_another_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    before = len(fault._recordings)
    monkeypatch.setattr(cells, "claim", interrupted)
    with pytest.raises(KeyboardInterrupt):
        BrokerPanel(LocalBroker())
    assert len(fault._recordings) == before


def test_nothing_that_a_closed_widget_was_made_of_is_kept() -> None:
    before = set(_instances)
    box = Box()
    assert len(set(_instances) - before) >= 8  # layouts and styles, too
    box.close()
    assert set(_instances) <= before


def test_a_closed_chart_is_forgotten_with_all_its_samples() -> None:
    chart = QueueChart(Monitor(LocalBroker()))
    figure = weakref.ref(chart._figure)
    chart.close()
    del chart
    wait_until(lambda: gc.collect() >= 0 and figure() is None, 10, "the figure is forgotten")


def test_a_closed_widget_shows_its_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr("chatlib.lab.widgets.live.DisplayHandle", lambda: SimpleNamespace(display=lambda bundle, raw: shown.append(bundle)))
    box = Box()
    box._ipython_display_()
    box.close()
    box._ipython_display_()
    assert VIEW in shown[0] and VIEW not in shown[1] and "a picture" in shown[1]["text/html"]


# ---- no beginning ------------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_made_leaves_nothing_behind() -> None:
    broker, chat, before, recordings = LocalBroker(), ClosedChat(), looking(), len(fault._recordings)
    monitor, anything = Monitor(broker), cast("Any", None)
    with pytest.raises(ValueError, match="1 to 6 people"):
        Dashboard(broker, anything, [f"user{number}" for number in range(7)])
    with pytest.raises(AttributeError):
        Room(LocalBroker(), ["alice"])  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        BrokerPanel(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="samples a second"):
        QueueChart(monitor, sample_hz=99)
    with pytest.raises(AttributeError):
        TopologyMap(monitor, [chat, 5])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        TopologyMap(monitor, rows=1.5)  # type: ignore[arg-type]
    assert (looking(), len(fault._recordings), chat.listeners) == (before, recordings, 0)


def test_a_room_that_cannot_listen_is_closed() -> None:
    class Deaf(ClosedChat):
        def on_event(self, _: object) -> Any:
            raise RuntimeError("no")

    before = looking()
    with pytest.raises(RuntimeError, match="no"):
        Room(Deaf(), ["alice"])  # type: ignore[arg-type]
    assert looking() == before


@pytest.mark.parametrize("users", ["alice", iter(["alice"])])
def test_a_dashboard_charts_the_inboxes_of_whom_its_room_shows(users: Any) -> None:
    chat: Any = ClosedChat()
    board = Dashboard(LocalBroker(), chat, users)
    try:
        assert board.chart.sampler._queues == ("inbox.alice",) and board.room.names == ["alice"]
    finally:
        board.close()
    assert chat.listeners == 0


# ---- what a page may send ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        *(None, [], "x", 5, {}, {"action": [1]}, {"action": "kill", "key": "x"}, {"action": "kill", "key": [1]}, {"action": "kill"}),
        *({"number": number} for number in (None, "x", [1], -5, 1.5, float("inf"), 10**30, "9" * 5000)),
    ],
)
def test_a_panel_takes_whatever_a_page_sends(content: object) -> None:
    panel = BrokerPanel(LocalBroker())
    try:
        panel._clicked(panel, content, [])
        assert (panel.heard, panel.error) == (0, "")
        panel._clicked(panel, {"key": "broker", "action": "explode", "number": 3}, [])
        assert panel.heard == 3
    finally:
        panel.close()


def test_a_room_takes_whatever_a_page_sends_and_sends_back_what_can_be_sent() -> None:
    chat: Any = ClosedChat()
    room = Room(chat, ["alice", "bob"])
    try:
        for pane in (float("inf"), "x", None, 7, [0]):
            room._on_click(room, {"do": "open", "pane": pane, "to": "@bob", "number": "1"}, [])
        room._on_click(room, {"do": "open", "pane": 0, "to": "@\ud800", "number": "\ud800"}, [])
        room._on_click(room, {"do": "open", "pane": 0, "to": "q" * 10**6, "number": "n" * 10**6}, [])
        room.names = ["a stranger"]  # a page can write traits
        room._on_click(room, {"do": "open", "pane": 1, "to": "@carol", "number": "2"}, [])
        room._look()
        assert [number for number, _ in room.panes[1]["answers"]] == ["2"] and len(room.panes[0]["answers"]) == 2
        assert len(json.dumps(room.panes, ensure_ascii=False).encode()) < 10 * LONGEST  # half a surrogate pair cannot be encoded
    finally:
        room.close()
