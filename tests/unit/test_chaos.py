"""The pure parts of a chaos run: the cast, the schedule, the judgement."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from chatlib.chaos import draw
from chatlib.chaos.actor import EFFECT
from chatlib.chaos.cast import cast_for
from chatlib.chaos.chart import Curves, chart
from chatlib.chaos.judge import judge
from chatlib.chaos.moves import Moves
from chatlib.chaos.schedule import BROKERS, CALM, KINDS, LANES, PEACE, Schedule, ScheduleError
from chatlib.cli import app
from chatlib.events import Event

SEEDS = st.integers(0, 10_000)


# ---- the schedule ----------------------------------------------------------------------------------------------------------


@given(SEEDS, st.integers(0, 60), st.sampled_from(BROKERS))
def test_a_seed_has_one_schedule(seed: int, faults: int, broker: str) -> None:
    schedule = draw(seed, faults, broker=broker)
    assert schedule == draw(seed, faults, broker=broker)
    assert len(schedule.steps) == faults
    for number, step in enumerate(schedule.steps, 1):
        kind = KINDS[step.fault]
        assert step.number == number and step.lane == kind.lane and broker in kind.on
        calm = CALM if (step.fault, broker) == ("delete_queue", "cluster") else 0
        assert PEACE[step.lane][0] + calm <= step.after <= PEACE[step.lane][1] + calm
        assert step.lasts >= kind.lasts[0]
        assert (step.amount is None) == (kind.amount is None)


def test_other_seeds_other_schedules() -> None:
    assert len({draw(seed, 20).steps for seed in range(50)}) == 50


@given(SEEDS, st.integers(0, 40))
def test_a_longer_run_begins_as_the_shorter_one(seed: int, faults: int) -> None:
    assert draw(seed, 40).steps[:faults] == draw(seed, faults).steps


@given(SEEDS, st.sampled_from(BROKERS))
def test_a_round_has_every_kind_as_often_as_it_should(seed: int, broker: str) -> None:
    kinds = {name: kind.often for name, kind in KINDS.items() if broker in kind.on}
    steps = draw(seed, sum(kinds.values()), broker=broker).steps
    assert {name: sum(step.fault == name for step in steps) for name in kinds} == kinds


def test_a_schedule_is_played_again_from_its_file(tmp_path: Path) -> None:
    schedule = draw(5, 30, broker="docker", users=9, processes=3, rate=10, seconds=60)
    schedule.save(tmp_path / "schedule.json")
    assert Schedule.load(tmp_path / "schedule.json") == schedule
    assert sorted(step.number for lane in LANES for step in schedule.lane(lane)) == list(range(1, 31))


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.pop("steps"),
        lambda found: found.update(version=99),
        lambda found: found.update(broker="remote"),
        lambda found: found["steps"][0].update(fault="flood"),
        lambda found: found["steps"][0].update(lane="network", fault="kill"),
        lambda found: found.update(more=1),
    ],
)
def test_a_file_that_is_no_schedule_is_refused(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "schedule.json"
    draw(1, 3).save(path)
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    with pytest.raises(ScheduleError):
        Schedule.load(path)


def test_a_folder_without_a_schedule_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ScheduleError, match="give the folder of an earlier run"):
        Schedule.load(tmp_path / "schedule.json")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"faults": -1}, "faults"),
        ({"broker": "remote"}, "broker"),
        ({"rate": 0}, "rate"),
        ({"processes": 1}, "processes"),
        ({"users": 3}, "users"),
    ],
)
def test_numbers_that_make_no_sense_are_named(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        draw(1, **{"faults": 5, **options})


@given(st.integers(2, 12), st.integers(0, 30), SEEDS)
def test_everybody_is_in_one_process_and_somebody_sends_and_receives(processes: int, more: int, seed: int) -> None:
    cast = cast_for(processes + more, processes, seed)
    assert len(cast.roles) == processes and len(set(cast.users)) == len(cast.users) == processes + more
    assert len({role.name for role in cast.roles}) == processes
    assert cast.senders and cast.receivers
    assert all(role.users for role in cast.roles)
    for members in cast.members.values():
        assert members and set(members) <= set(cast.receivers)
    assert set(cast.members["#everybody"]) == set(cast.receivers)


# ---- joining and leaving, through deaths -------------------------------------------------------------------------------------


class Member:
    """A user who dies in the middle of the change with this number."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.name, self.dies_at, self.done = "bob", dies_at, []

    def join(self, group: str) -> None:
        self._change("join", group)

    def leave(self, group: str) -> None:
        self._change("leave", group)

    def _change(self, what: str, group: str) -> None:
        if len(self.done) == self.dies_at:
            raise KeyboardInterrupt
        self.done.append((what, group))


def test_a_change_of_membership_that_a_death_cut_off_is_made_again_and_told_as_one(tmp_path: Path) -> None:
    path, told = tmp_path / "moves", []
    first: Any = Member(dies_at=1)
    moves = Moves(path, ["bob"], {"#team": ["bob", "cid"]})
    moves.finish({"bob": first}, told.append)
    moves.change(first, "#team", told.append)
    assert first.done == [("leave", "#team")] and [event["hop"] for event in told] == ["group.left"]
    with pytest.raises(KeyboardInterrupt):
        moves.change(first, "#team", told.append)
    died = time.time()
    second: Any = Member()
    moves = Moves(path, ["bob"], {"#team": ["bob", "cid"]})
    moves.finish({"bob": second}, told.append)
    assert second.done == [("join", "#team")]
    assert told[-1]["hop"] == "group.joined" and told[-1]["began"] <= died <= told[-1]["at"]
    third: Any = Member()
    moves = Moves(path, ["bob"], {"#team": ["bob", "cid"]})
    moves.finish({"bob": third}, told.append)
    assert third.done == [] and moves.members == {("bob", "#team")}


# ---- the judgement ---------------------------------------------------------------------------------------------------------


def story(*, effects: int = 1, life: int = 0, confirmed: bool = True, receipt: bool = True) -> list[Event]:
    """One message from ann to bob, with everything as it should be."""
    events: list[Event] = [{"hop": "outbox.stored", "message_id": "m1", "user": "ann", "to": "@bob"}]
    if confirmed:
        events.append({"hop": "publish.confirmed", "message_id": "m1", "user": "ann", "to": "@bob"})
    events.append({"hop": "consume.delivered", "message_id": "m1", "user": "bob", "sender": "ann", "to": "@bob", "attempt": 1})
    events += [{"hop": EFFECT, "message_id": "m1", "user": "bob", "life": life + number} for number in range(effects)]
    events.append({"hop": "handled", "message_id": "m1", "user": "bob", "sender": "ann", "to": "@bob", "attempt": 1})
    if receipt:
        events.append({"hop": "receipt", "message_id": "m1", "user": "bob", "state": "delivered"})
    return [{"at": float(number), **event} for number, event in enumerate(events)]


def test_a_run_as_it_should_be_is_valid() -> None:
    judgement = judge(story())
    assert judgement.valid and judgement.defects == {} and judgement.examples == {}
    assert "nothing lost" in judgement.sentence
    assert json.loads(json.dumps(judgement.to_dict()))["valid"] is True


def test_what_was_accepted_and_has_no_outcome_is_forgotten() -> None:
    judgement = judge(story(confirmed=False))
    assert judgement.verdict.valid and not judgement.valid
    assert judgement.defects == {"forgotten": 1} and judgement.examples["forgotten"] == ("m1",)


def test_whose_sender_was_not_told_is_found_unless_his_queue_of_receipts_was_deleted() -> None:
    assert judge(story(receipt=False)).defects == {"untold": 1}
    assert judge(story(receipt=False), deleted=frozenset({"ann"})).valid
    assert not judge(story(receipt=False), deleted=frozenset({"bob"})).valid


def test_an_effect_again_in_the_same_life_is_a_defect() -> None:
    events = story()
    again = {**next(event for event in events if event["hop"] == EFFECT), "at": 100.0}
    assert judge([*events, again]).defects == {"repeated": 1}


def test_the_last_effect_of_a_life_may_happen_again_in_the_next() -> None:
    judgement = judge(story(effects=2))
    assert judgement.valid and judgement.excused == 1
    assert "done again" in judgement.sentence


def test_an_effect_that_was_not_the_last_of_its_life_may_not() -> None:
    events = story(effects=2)
    first = next(event for event in events if event["hop"] == EFFECT)
    later = {**first, "at": first["at"] + 0.5, "message_id": "m2"}
    judgement = judge([*events, later])
    assert judgement.defects == {"repeated": 1}
    assert "m1" in judgement.examples["repeated"][0]


def test_a_loss_is_the_checkers_affair() -> None:
    events = [event for event in story() if event["hop"] not in ("handled", "consume.delivered", "receipt", EFFECT)]
    assert judge(events).defects == {"lost": 1}


# ---- the picture -----------------------------------------------------------------------------------------------------------


def test_the_picture_shows_rates_depth_and_every_fault(tmp_path: Path) -> None:
    faults = [
        {"hop": "fault.began", "at": 101.0, "message_id": "", "name": "kill", "target": "broker", "number": 1},
        {"hop": "fault.ended", "at": 103.5, "message_id": "", "name": "kill", "target": "broker", "number": 1},
        {"hop": "fault.began", "at": 104.0, "message_id": "", "name": "cut", "target": "sender-1", "number": 2},
    ]
    events = [{**event, "at": 100.0 + event["at"]} for event in story()]
    depth = tmp_path / "depth.jsonl"
    depth.write_text("".join(json.dumps({"at": at, "inboxes": 3}) + "\n" for at in (100.5, 101.0, 104.0)))
    curves = Curves([*events, *faults], depth)
    assert curves.first == 100
    assert curves.rate("outbox.stored")[1][0] == 1
    assert None in curves.waiting("inboxes")[1]  # nobody could say while the broker was away
    figure = chart(curves, "a run")
    assert {"sent", "confirmed", "handled", "inboxes"} <= {trace.name for trace in figure.data}
    bars = {trace.name: trace for trace in figure.data if trace.type == "bar"}
    assert list(bars["broker"].y) == ["kill"] and bars["broker"].hovertext == ("1: kill broker, 2.5 s",)
    assert list(bars["network"].y) == ["cut"] and not bars["process"].y


# ---- the command -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--faults", "-1"], "Usage"),
        (["--minutes", "soon"], "Usage"),
        (["--processes", "1"], "Usage"),
        (["now"], "Usage"),
        (["--faults", "3", "--minutes", "1"], "either --faults or --minutes"),
        (["--broker", "remote"], "local, docker, cluster"),
        (["--users", "3"], "as many users as processes"),
        (["--replay", "/nowhere/at/all"], "give the folder of an earlier run"),
        (["--replay", "/nowhere/at/all", "--seed", "1"], "plays the schedule that it finds"),
    ],
)
def test_what_cannot_be_run_is_refused_with_status_2(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["chaos", *arguments])
    assert result.exit_code == 2, result.output
    assert words in result.stderr and not result.stdout


def test_help_has_examples() -> None:
    lines = [line.strip(" │") for line in CliRunner().invoke(app, ["chaos", "--help"]).stdout.splitlines()]
    assert any(line.startswith("chatlib chaos --faults 200") for line in lines)


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "history.txt").write_text("mine")
    result = CliRunner().invoke(app, ["chaos", "--faults", "1", "--output", str(tmp_path)])
    assert result.exit_code == 2 and "is not empty" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["history.txt"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", "x"),
        ("users", None),
        ("users", -1),
        ("users", 2),
        ("processes", "x"),
        ("processes", 1),
        ("rate", None),
        ("rate", -1),
        ("rate", 0),
    ]
    + [("seconds", "x"), ("seconds", float("nan")), ("after", None), ("lasts", "x"), ("lasts", -1), ("amount", "x")],
)
def test_a_schedule_with_a_damaged_number_is_not_begun(tmp_path: Path, name: str, value: Any) -> None:
    path = tmp_path / "schedule.json"
    draw(1, 3, broker="local", users=6, processes=3).save(path)
    found = json.loads(path.read_text())
    (found if name in found else found["steps"][1])[name] = value
    path.write_text(json.dumps(found))
    with pytest.raises(ScheduleError, match="rate|processes" if name == "rate" or value == 2 else name):
        Schedule.load(path)
