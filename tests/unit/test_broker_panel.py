"""The broker panel without a broker that runs: what can be done in which state, what it shows, what it notes."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest

from chatlib.brokers import LocalBroker, LocalCluster, RemoteBroker
from chatlib.faults.fault import Fault
from chatlib.lab.widgets.broker_model import ALARM, KEPT, WHOLE, BrokerModel, Note, Part, allowed
from chatlib.lab.widgets.broker_panel import BrokerPanel
from chatlib.lab.widgets.broker_rows import LABELS, LINES, card, lines_of, rows_of

STATES = ("stopped", "starting", "running", "frozen", ALARM)


def part(state: str, key: str = WHOLE, **how: object) -> Part:
    return Part(key, "broker" if key == WHOLE else f"node {key}", state, **how)  # type: ignore[arg-type]


@pytest.fixture
def model() -> Iterator[BrokerModel]:
    """Of a broker that was never started: no process is there, and none is made."""
    made = BrokerModel(LocalBroker())
    made.look()
    yield made
    made.close()


@pytest.fixture
def remote() -> Iterator[BrokerModel]:
    """Of a broker elsewhere where nobody listens."""
    made = BrokerModel(RemoteBroker("amqp://guest:guest@127.0.0.1:1/"))
    made.look()
    yield made
    made.close()


# ---- what can be done ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "actions"),
    [
        ("stopped", {"start"}),
        ("starting", {"stop", "kill"}),
        ("running", {"stop", "restart", "kill", "freeze", "alarm_on"}),
        (ALARM, {"stop", "restart", "kill", "freeze", "alarm_off"}),
        ("frozen", {"thaw", "kill"}),
        ("", set()),
    ],
)
def test_what_makes_sense_in_which_state(state: str, actions: set[str]) -> None:
    assert allowed(part(state), (), busy=False) == actions
    assert allowed(part(state), (), busy=True) == frozenset(), "one thing at a time"


@pytest.mark.parametrize(
    ("states", "actions"),
    [
        (("stopped", "stopped", "stopped"), {"start"}),
        (("running", ALARM, "running"), {"stop", "restart", "kill", "freeze"}),
        (("running", "stopped", "running"), {"start", "stop", "kill"}),
        (("running", "frozen", "running"), {"start", "kill", "thaw"}),
        (("stopped", "starting", "stopped"), {"start", "kill"}),
    ],
)
def test_what_makes_sense_for_a_whole_cluster(states: tuple[str, ...], actions: set[str]) -> None:
    nodes = tuple(part(state, str(index)) for index, state in enumerate(states))
    assert allowed(part("running"), nodes, busy=False) == actions


def test_something_makes_sense_in_every_mixture_of_states() -> None:
    for states in itertools.product(STATES, repeat=3):
        nodes = tuple(part(state, str(index)) for index, state in enumerate(states))
        assert allowed(part("running"), nodes, busy=False), states


def test_of_two_clicks_the_second_is_refused(model: BrokerModel) -> None:
    assert not model.begin(WHOLE, "kill"), "it does not run"
    assert not model.begin("0", "start"), "it is no cluster"
    assert model.begin(WHOLE, "start")
    assert not model.begin(WHOLE, "start") and not model.begin(WHOLE, "kill")
    assert model.parts[0].busy == "start" and model.parts[0].can == frozenset()


def test_of_many_clicks_at_once_one_is_taken(model: BrokerModel) -> None:
    taken: list[bool] = []
    gate = threading.Barrier(8)

    def click() -> None:
        gate.wait(10)
        taken.append(model.begin(WHOLE, "start"))

    threads = [threading.Thread(target=click) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(taken) == [False] * 7 + [True]


def test_nodes_of_a_cluster_are_done_to_one_by_one_and_not_beside_the_whole() -> None:
    model = BrokerModel(LocalCluster(3))
    try:
        model.look()
        assert [(each.name, each.state) for each in model.parts] == [
            ("cluster", "stopped"), ("node 0", "stopped"), ("node 1", "stopped"), ("node 2", "stopped"),
        ]  # fmt: skip
        assert model.begin("0", "start") and model.begin("1", "start"), "one node may have to wait for another"
        assert not model.begin(WHOLE, "start")
        assert [each.can for each in model.parts] == [frozenset(), frozenset(), frozenset(), {"start"}]
    finally:
        model.close()


def test_a_broker_elsewhere_can_be_watched_only(remote: BrokerModel) -> None:
    assert remote.parts[0].state == "stopped" and remote.parts[0].can == frozenset()
    assert not any(remote.begin(WHOLE, action) for action in LABELS)
    (row,) = rows_of(remote.parts, remote=True)
    assert (row["word"], row["buttons"]) == ("no answer", [])


# ---- the log ---------------------------------------------------------------------------------------------------------------


def test_faults_that_others_make_are_noted(model: BrokerModel) -> None:
    Fault("close_connections", "3 connections")
    Fault("kill", "broker", heal=lambda: None).heal()
    Fault("bob is away", "", heal=lambda: None)
    assert [(note.kind, note.text) for note in model.notes] == [
        ("fault", "close connections of 3 connections"),
        ("fault", "kill of broker"),
        ("fault", "kill of broker is over"),
        ("fault", "bob is away"),
    ]


def test_the_log_is_bounded_and_its_numbers_go_on(model: BrokerModel) -> None:
    for _ in range(KEPT + 50):
        Fault("x", "")
    assert len(model.notes) == KEPT
    assert model.notes[-1].number == KEPT + 50
    lines = lines_of(model.notes)
    assert len(lines) == LINES and lines[0]["number"] == KEPT + 50


def test_a_closed_model_hears_nothing_more() -> None:
    model = BrokerModel(LocalBroker())
    model.close()
    Fault("x", "")
    assert model.notes == []


def test_a_broker_that_was_closed_is_down_and_its_start_is_refused_with_the_reason() -> None:
    broker = LocalBroker()
    assert broker.url
    broker.close()
    model = BrokerModel(broker)
    model.look()
    assert model.parts[0].state == "stopped"
    assert model.begin(WHOLE, "start")
    with pytest.raises(Exception, match="make a new LocalBroker"):
        model.run(WHOLE, "start")
    assert model.parts[0].busy == "" and model.parts[0].can == {"start"}
    assert model.notes[-1].kind == "failed" and "make a new LocalBroker" in model.notes[-1].text
    model.close()


# ---- what is shown ---------------------------------------------------------------------------------------------------------


def test_each_state_has_a_sign_and_a_word_of_its_own() -> None:
    rows = [rows_of([part(state, alarms=("memory",) if state == ALARM else ())], remote=False)[0] for state in STATES]
    assert [row["word"] for row in rows] == ["down", "starting", "running", "frozen", "memory alarm"]
    assert len({row["sign"] for row in rows}) == len(STATES)


def test_a_cluster_without_a_majority_is_called_so() -> None:
    parts = [part("starting"), part("running", "0"), part("stopped", "1"), part("stopped", "2")]
    assert rows_of(parts, remote=False)[0]["word"] == "no majority"
    assert rows_of([part("starting", busy="start"), *parts[1:]], remote=False)[0]["word"] == "starting"


def test_the_buttons_are_always_the_same_and_in_the_same_place() -> None:
    seen = set()
    for state in STATES:
        (row,) = rows_of([part(state, can=allowed(part(state), (), busy=False))], remote=False)
        seen.add(tuple(button["action"] for button in row["buttons"][:-1]))
        assert [button["action"] for button in row["buttons"] if button["enabled"]], state
    assert seen == {("start", "stop", "restart", "kill", "freeze", "thaw")}
    (row,) = rows_of([part(ALARM, alarms=("disk", "memory"))], remote=False)
    assert (row["word"], row["buttons"][-1]["label"]) == ("disk and memory alarm", "Clear alarm")


def test_the_button_of_what_is_under_way_shows_it() -> None:
    (row,) = rows_of([part("stopped", busy="start")], remote=False)
    assert [button["action"] for button in row["buttons"] if button["busy"]] == ["start"]
    assert row["busy"] == "Start"


def test_the_picture_says_it_all_and_runs_no_code() -> None:
    html = card("<b>", [part("running")], [Note(1, 0.0, "did", "kill: <script>")], remote=False)
    assert "running" in html and "kill: &lt;script&gt;" in html and "&lt;b&gt;" in html and "<script" not in html


def test_the_widget_is_closed_once_and_its_words_are_checked() -> None:
    panel = BrokerPanel(LocalBroker())
    assert repr(panel) == "<BrokerPanel>"
    with pytest.raises(ValueError, match="there is no action 'explode'; there are start"):
        panel.press("explode")
    assert not panel.press("kill")
    panel._clicked(panel, {"key": WHOLE, "action": "kill", "number": 7}, [])
    panel._clicked(panel, {"key": "<", "action": "explode", "number": 8}, [])
    assert panel.heard == 8
    panel.stop()
    panel.stop()
    panel.start()
    panel.close()
    panel.close()
    assert not panel.press("start")
    with pytest.raises(RuntimeError, match="run its cell again"):
        panel.start()
    assert "chatlib-still" in panel.still()["text/html"]
