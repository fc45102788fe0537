"""The live chart and the broker panel on a real broker, without a browser: what is done by a button is done, and the chart marks it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import chatlib
from chatlib import faults
from chatlib.brokers import LocalBroker
from chatlib.chat import Chat
from chatlib.lab.widgets.broker_panel import BrokerPanel
from chatlib.lab.widgets.queue_chart import PLOTLY, QueueChart
from chatlib.monitor import Monitor
from tests.support import wait_until


@pytest.fixture(scope="module")
def node(new_broker: Callable[[], LocalBroker]) -> Iterator[LocalBroker]:
    """A broker to break; every test leaves it running."""
    with new_broker() as broker:
        yield broker


@pytest.fixture(scope="module")
def chat(node: LocalBroker) -> Iterator[Chat]:
    with chatlib.connect(node) as opened:
        yield opened


@pytest.fixture
def monitor(node: LocalBroker) -> Iterator[Monitor]:
    with Monitor(node) as opened:
        yield opened


@pytest.fixture
def panel(node: LocalBroker) -> Iterator[BrokerPanel]:
    opened = BrokerPanel(node)
    wait_until(lambda: row(opened)["state"] == "running", 30, "it is seen to run")
    yield opened
    opened.close()


def row(panel: BrokerPanel) -> dict[str, Any]:
    """The only row of a panel, as the browser gets it."""
    return dict(panel.rows[0])


def done(panel: BrokerPanel, action: str, state: str) -> None:
    """Press, and wait until it is done and seen."""
    wait_until(lambda: panel.press(action), 30, f"{action} makes sense")
    wait_until(lambda: row(panel)["state"] == state and not row(panel)["busy"], 90, f"{action} ends in {state}")


def level(chart: QueueChart, queue: str) -> float | None:
    """What the chart draws for a queue, where it ends."""
    names = list(chart._shown.names) if chart._shown else []
    return chart._figure.data[names.index(queue)].y[-1] if queue in names and len(chart._figure.data[names.index(queue)].y) else None


def marks(chart: QueueChart) -> list[str]:
    return [each["text"] for each in chart._figure.to_plotly_json()["layout"].get("annotations", [])]


@pytest.mark.timeout(240)
def test_the_chart_shows_a_queue_that_fills_a_broker_that_falls_and_what_came_of_it(
    node: LocalBroker, chat: Chat, monitor: Monitor, panel: BrokerPanel, unique: Callable[[str], str]
) -> None:
    """1 messages for who is away are seen waiting; 2 the kill by the button is a mark that goes on, the line has a gap and the
    chart says so; 3 after the start the mark has its end, and the same messages wait; 4 the picture of the run has it all.
    """
    bob = unique("bob")
    user, queue = chat.user(bob), f"inbox.{bob}"
    user.go_offline()
    chart = QueueChart(monitor, [queue], hz=5)
    try:
        # 1
        for _ in range(5):
            user.send(f"@{bob}", "while you were away").wait(30)
        wait_until(lambda: level(chart, queue) == 5, 30, "five are drawn")
        # 2
        done(panel, "kill", "stopped")
        wait_until(lambda: "does not answer" in chart._status.value, 30, "the chart says that the broker is away")
        assert marks(chart) == ["kill"]
        wait_until(lambda: level(chart, queue) is None, 10, "the line has a gap")
        (fault,) = chart.sampler.faults
        assert fault.ended is None
        # 3
        done(panel, "start", "running")
        assert fault.ended is not None and fault.ended > fault.began
        wait_until(lambda: level(chart, queue) == 5, 60, "nothing was lost")
        wait_until(lambda: "Live" in chart._status.value, 10, "the chart says so")
        # 4
        figure = chart.figure("the run")
        assert [note.text for note in figure.layout.annotations] == ["kill"]
        lines = [trace for trace in figure.data if trace.name == queue]
        assert len(lines) >= 2 and max(lines[0].y) == 5 and lines[-1].y[-1] == 5
        frame = chart.frame(queue)
        assert frame["ready"].max() == 5 and not frame["up"].all()
        bundle = chart.still()[PLOTLY]
        assert len(json.dumps(bundle)) < 30_000
    finally:
        chart.close()


def test_a_paused_chart_stands_still_and_the_samples_go_on(chat: Chat, monitor: Monitor, unique: Callable[[str], str]) -> None:
    ann = unique("ann")
    user, queue = chat.user(ann), f"inbox.{ann}"
    user.go_offline()
    chart = QueueChart(monitor, queue, hz=5, window="2 min")
    try:
        wait_until(lambda: level(chart, queue) == 0, 30, "it is drawn")
        chart.pause()
        wait_until(lambda: "Paused at" in chart._status.value, 10, "it says so")
        user.send(f"@{ann}", "x").wait(30)
        wait_until(lambda: chart.sampler.latest("ready") == {queue: 1.0}, 30, "it is sampled")
        chart.log_scale = True
        wait_until(lambda: chart._figure.to_plotly_json()["layout"]["yaxis"].get("ticktext"), 10, "the axis is drawn anew")
        drawn = chart._figure.data[list(chart._shown.names).index(queue)].y if chart._shown else ()
        assert {each for each in drawn if each is not None} == {0}, "and the line is not (None: a sample was late)"
        chart.log_scale = False
        chart.resume()
        wait_until(lambda: level(chart, queue) == 1, 10, "it goes on")
    finally:
        chart.close()


def test_of_hundreds_of_queues_the_busiest_are_drawn_and_the_others_are_counted(
    chat: Chat, monitor: Monitor, unique: Callable[[str], str]
) -> None:
    prefix = unique("many")
    people = [chat.user(f"{prefix}-{number}") for number in range(12)]
    queues = [f"inbox.{prefix}-{number}" for number in range(12)]
    for user in people:
        user.go_offline()
    chart = QueueChart(monitor, queues, most=2, hz=5)
    try:
        for number in (7, 11):
            for _ in range(3):
                people[0].send(f"@{prefix}-{number}", "x").wait(30)
        wait_until(lambda: set(chart._places) == {queues[7], queues[11]}, 30, "the busiest are chosen")
        told = (f'title="{queues[0]},', "The 2 busiest of 12 queues. Left out: 10")
        wait_until(lambda: all(part in chart._left.value for part in told), 10, "the others are named and counted")
        assert {queues[7], queues[11]} <= {trace.name for trace in chart.figure().data}
    finally:
        chart.close()


def test_a_chart_gives_everything_back(monitor: Monitor) -> None:
    before = set(threading.enumerate())
    chart = QueueChart(monitor)
    wait_until(lambda: chart.tracks.last, 30, "the first sample")
    chart.stop()
    chart.stop()
    assert not chart.is_running and not chart.sampler.is_running
    chart.start()
    assert chart.is_running and chart.sampler.is_running
    marked = chart.mark(faults.Fault("mine", "", heal=lambda: None))
    assert marked in chart.sampler.faults
    chart.close()
    chart.close()
    faults.Fault("later", "")
    assert [fault.name for fault in chart.sampler.faults] == ["mine"], "it listens no more"
    wait_until(lambda: not {thread for thread in threading.enumerate() if thread.is_alive()} - before, 10, "no thread is left")
    with pytest.raises(RuntimeError, match="run its cell again"):
        chart.start()
    assert repr(chart) == "<QueueChart>"
    assert len(chart.frame()) > 0, "the samples stay"


@pytest.mark.parametrize("wrong", [{"most": 0}, {"most": 9}, {"hz": 0}, {"window": "1 h"}])
def test_wrong_arguments_are_refused_before_anything_runs(monitor: Monitor, wrong: dict[str, Any]) -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match="got"):
        QueueChart(monitor, **wrong)
    assert threading.active_count() == before


@pytest.mark.timeout(240)
def test_the_panel_freezes_thaws_and_raises_alarms_and_notes_it_all(node: LocalBroker, panel: BrokerPanel) -> None:
    with faults.recording() as made:
        done(panel, "freeze", "frozen")
        assert not panel.press("stop"), "that would wait for half a minute"
        done(panel, "thaw", "running")
        done(panel, "alarm_on", "alarm")
        assert row(panel)["word"] == "memory alarm"
        with Monitor(node) as monitor:
            assert list(monitor.alarms()["alarm"]) == ["memory"]
        done(panel, "alarm_off", "running")
        done(panel, "restart", "running")
    assert [(fault.name, fault.ended is not None) for fault in made] == [("freeze", True), ("memory_alarm", True), ("stop", True)]
    said = [line["text"].split(":")[0] for line in reversed(panel.lines) if line["kind"] == "did"]
    assert said == ["freeze", "thaw", "raise a memory alarm", "clear the memory alarm", "restart"]
    assert not [line for line in panel.lines if line["kind"] != "did"], "what it did itself is told once"


@pytest.mark.timeout(240)
def test_the_panel_sees_what_others_do_and_ends_its_faults_when_others_repair(node: LocalBroker, panel: BrokerPanel) -> None:
    """1 a fault made in a cell is noted with the change of the state; 2 what was killed here and is started there is no fault any more."""
    # 1
    with faults.freeze(node):
        wait_until(lambda: row(panel)["state"] == "frozen", 20, "the panel sees it")
    wait_until(lambda: row(panel)["state"] == "running", 20, "and its end")
    said = [line["text"] for line in panel.lines]
    assert {"freeze of broker", "freeze of broker is over", "broker: running → frozen", "broker: frozen → running"} <= set(said)
    # 2
    with faults.recording() as made:
        done(panel, "kill", "stopped")
        node.start()
        wait_until(lambda: made[0].ended is not None, 60, "the panel ends its fault")
    assert node.is_running


@pytest.mark.timeout(240)
def test_an_alarm_that_another_panel_raised_is_cleared(node: LocalBroker, panel: BrokerPanel) -> None:
    done(panel, "alarm_on", "alarm")
    panel.close()
    other = BrokerPanel(node)
    try:
        wait_until(lambda: row(other)["state"] == "alarm", 30, "it sees the alarm")
        done(other, "alarm_off", "running")
    finally:
        other.close()


def test_a_frozen_broker_holds_up_neither_the_panel_nor_the_chart(node: LocalBroker, monitor: Monitor) -> None:
    """With the broker frozen: both are made, tell it, and are closed again."""
    with faults.freeze(node):
        panel, chart = BrokerPanel(node), QueueChart(monitor)
        wait_until(lambda: row(panel)["state"] == "frozen", 20, "the panel tells it")
        wait_until(lambda: "does not answer" in chart._status.value, 30, "and the chart")
        assert panel.still() and chart.still()
        panel.close()
        chart.close()
        assert not panel.is_running and not chart.is_running


def test_what_a_click_could_not_do_is_shown_until_one_can(node: LocalBroker, panel: BrokerPanel, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise chatlib.BrokerUnavailable("planted: no such signal")

    monkeypatch.setattr(node, "freeze", refused)
    assert panel.press("freeze")
    wait_until(lambda: "planted: no such signal" in panel.error, 30, "the error is shown")
    assert panel.lines[0]["kind"] == "failed"
    monkeypatch.undo()
    done(panel, "freeze", "frozen")
    wait_until(lambda: panel.error == "", 10, "the error goes")
    done(panel, "thaw", "running")
