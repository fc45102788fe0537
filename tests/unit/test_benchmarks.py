"""The statistics and the report of the benchmarks; nothing here is timed."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cases import CASES, Case, Contestant, Goal, chosen
from benchmarks.figures import Spread, latencies, percentile, ratios, spread
from benchmarks.processes import Failed, run
from benchmarks.report import markdown, show, verdicts
from benchmarks.run import in_turn
from benchmarks.work import Work, body

CASE = Case(
    "publish",
    "publish",
    "Publish",
    "What it is.",
    {"messages/s": ""},
    higher_is_better=True,
    contestants=(Contestant("chatlib", "chatlib_client"), Contestant("peer", "pika_blocking", note="slow")),
    count=10,
    quick_count=1,
    goals=(Goal("chatlib", "peer", "messages/s", at_least=10),),
)


def rates(*values: float | None) -> list[dict[str, float] | None]:
    return [None if value is None else {"messages/s": value} for value in values]


def document(**samples: list[Any]) -> dict[str, Any]:
    return {
        "when": "2026-01-01T00:00:00+00:00",
        "mode": "full",
        "rounds": 3,
        "machine": {"cores": 2, "processor": "a processor", "memory": 8 * 2**30, "system": "Linux", "load": 0.1},
        "versions": {"pika": "1.4"},
        "notes": [],
        "failures": [],
        "cases": {"publish": samples},
    }


# ---- statistics -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("percent", "value"),
    [(0.1, 1), (1, 10), (50, 500), (50.1, 501), (99, 990), (99.9, 999), (99.91, 1000), (100, 1000)],
)
def test_a_percentile_is_the_nearest_rank(percent: float, value: int) -> None:
    assert percentile(range(1000, 0, -1), percent) == value


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0.001, 100))
def test_a_percentile_was_measured_and_so_many_do_not_exceed_it(values: list[float], percent: float) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= round(len(values) * percent, 6) / 100


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], 0), ([1.0], 100.1), ([1.0], -1)])
def test_a_percentile_of_nothing_is_refused(values: list[float], percent: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, percent)


def test_ratios_are_taken_round_by_round() -> None:
    """The ratio of medians would be 20 / 2 = 10, and would hide that no round had it."""
    assert ratios([10, 20, 90], [1, 2, 3]) == [10, 10, 30]


def test_a_round_in_which_one_failed_has_no_ratio() -> None:
    assert ratios([10, None, 30, 40], [1, 2, None, 4]) == [10, 10]


def test_ratios_of_unequal_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratios([1, 2], [1])


def test_a_spread_is_median_smallest_and_largest() -> None:
    assert spread([5, 1, 3, 100]) == Spread(4, 1, 100, 4)
    assert spread([]) is None


def test_latency_counts_from_when_a_message_was_due() -> None:
    """Ten a second; the sender stood still, so that the second and third arrived together: the wait counts for both."""
    assert latencies(100.0, 10.0, [100.01, 100.5, 100.5, 100.31]) == pytest.approx([0.01, 0.4, 0.3, 0.01])


def test_warm_up_is_left_out() -> None:
    assert latencies(100.0, 10.0, [105.0, 100.11, 100.21], skip=1) == pytest.approx([0.01, 0.01])


def test_a_message_that_did_not_arrive_is_told() -> None:
    with pytest.raises(ValueError, match="2 of 4 messages did not arrive, the first of them number 1"):
        latencies(100.0, 10.0, [100.1, 0, 100.3, 0])


def test_each_round_begins_with_the_next_contestant() -> None:
    contestants = [Contestant(name, "m") for name in "abc"]
    orders = ["".join(contestant.name for contestant in in_turn(contestants, number)) for number in range(4)]
    assert orders == ["abc", "bca", "cab", "abc"]


# ---- what is handed to a process ------------------------------------------------------------------------------------


def test_work_comes_out_of_json_as_it_went_in() -> None:
    work = Work("amqp://x", to="#ubuntu", count=3, rate=0.5, users=("a", "b"), options={"gather": 1000})
    assert Work.load(work.dump()) == work


def test_bodies_have_the_size_and_begin_with_their_number() -> None:
    assert [data[:8] for data in Work("", count=3, size=40).bodies()] == [b"00000000", b"00000001", b"00000002"]
    assert {len(data) for data in Work("", count=3, size=40).bodies()} == {40}
    assert body(12, 8) == b"00000012"


def test_a_contestant_that_fails_is_told_with_its_last_words() -> None:
    """No broker is needed for this: there is none at that address."""
    with pytest.raises(Failed, match="nobody: publish: ended with status 1: ModuleNotFoundError"):
        run(Contestant("nobody", "no_such_module"), "publish", Work("amqp://127.0.0.1:1"), None, timeout=30)


# ---- the cases ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_goals_name_contestants_and_metrics_that_there_are(case: Case) -> None:
    names = [contestant.name for contestant in case.contestants]
    assert len(names) == len(set(names))
    for goal in case.goals:
        assert {goal.of, goal.to} <= set(names)
        assert goal.metric in case.metrics


def test_the_demands_of_the_project_are_all_there() -> None:
    demanded = {
        (case.name, goal.of, goal.to, goal.metric): goal.at_least or goal.at_most
        for case in CASES
        for goal in case.goals
        if (goal.at_least or goal.at_most) and not goal.source
    }
    assert demanded == {
        ("publish", "chatlib", "pika blocking", "messages/s"): 10,
        ("publish", "chatlib on disk", "pika blocking", "messages/s"): 8,
        ("publish", "chatlib", "aio-pika gather", "messages/s"): 2,
        ("publish", "chatlib", "C", "messages/s"): 0.6,
        ("receive", "chatlib", "pika blocking", "messages/s"): 1,
        ("latency", "chatlib", "pika select", "p99"): 2,
        ("fanout-1000", "chatlib", "C", "deliveries/s"): 0.95,
        ("signup", "chatlib", "pika blocking", "users/s"): 3,
    }
    assert {case.name: case.limit for case in CASES if case.limit is not None} == {"recovery": 1.0, "lab": 10.0}


@pytest.mark.parametrize(
    ("names", "cases"),
    [
        (["fanout-10"], ["fanout-10"]),
        (["sign", "fan"], ["fanout-10", "fanout-100", "fanout-1000", "signup"]),
        (["publish", "publish"], ["publish"]),
        ([], [case.name for case in CASES]),
    ],
)
def test_a_case_is_chosen_by_its_name_or_else_its_beginning(names: list[str], cases: list[str]) -> None:
    assert [case.name for case in chosen(names)] == cases


@pytest.mark.parametrize("names", [["nothing"], ["publish", "nothing"]])
def test_an_unknown_case_is_refused_with_the_names_there_are(names: list[str]) -> None:
    with pytest.raises(ValueError, match=r"no case 'nothing'; there are: publish, .*signup"):
        chosen(names)


@pytest.mark.parametrize(
    ("goal", "value", "met"),
    [
        (Goal("a", "b", "m", at_least=2), 2.0, True),
        (Goal("a", "b", "m", at_least=2), 1.99, False),
        (Goal("a", "b", "m", at_most=2), 2.0, True),
        (Goal("a", "b", "m", at_most=2), 2.01, False),
        (Goal("a", "b", "m"), 0.0, None),
    ],
)
def test_a_goal_is_met_or_not_or_not_demanded(goal: Goal, value: float, met: bool | None) -> None:
    assert goal.met(value) is met


# ---- the report -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12345.6, "12,346"),
        (1000, "1,000"),
        (999.7, "1,000"),
        (999.4, "999"),
        (123.4, "123"),
        (10, "10"),
        (0.6, "0.6"),
        (1.234, "1.23"),
        (0.01234, "0.0123"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert show(value) == text


def test_a_verdict_goes_by_the_median_of_the_ratios() -> None:
    (verdict,) = verdicts(CASE, {"chatlib": rates(90, 110, 120), "peer": rates(10, 10, 10)})
    assert verdict.figure == Spread(11, 9, 12, 3)
    assert verdict.met is True
    (verdict,) = verdicts(CASE, {"chatlib": rates(90, 99, 120), "peer": rates(10, 10, 10)})
    assert verdict.met is False


def test_there_is_no_verdict_without_a_round_in_which_both_were_there() -> None:
    assert list(verdicts(CASE, {"chatlib": rates(90, None), "peer": rates(None, 10)})) == []
    assert list(verdicts(CASE, {"chatlib": rates(90)})) == []


def test_a_limit_judges_chatlib_itself() -> None:
    recovery = next(case for case in CASES if case.name == "recovery")
    (slow, _) = verdicts(recovery, {"chatlib": [{"s": 1.2}, {"s": 0.2}, {"s": 1.1}], "pika polling": [{"s": 0.1}] * 3})
    assert slow.goal is None
    assert slow.met is False
    assert slow.demanded == "≤ 1 s"


def test_the_report_shows_values_ratios_and_verdicts() -> None:
    text = markdown(document(chatlib=rates(9000, 10000, 11000), peer=rates(1000, 1000, 1000)), [CASE])
    assert "| Publish: chatlib to peer | ≥ 10 | 10 (9 – 11) | yes |" in text
    assert "| chatlib | 10,000 (9,000 – 11,000) |  |" in text
    assert "| peer | 1,000 (1,000 – 1,000) | slow |" in text
    assert "What failed" not in text


def test_the_report_shows_what_failed_and_what_was_not_reached() -> None:
    failed = document(chatlib=rates(5000, 5000, None), peer=rates(1000, 1000, None))
    failed["failures"] = ["publish, round 3: chatlib: no"]
    text = markdown(failed, [CASE])
    assert "| ≥ 10 | 5 (5 – 5) | **no** |" in text
    assert "- publish, round 3: chatlib: no" in text
    nobody = markdown(document(chatlib=rates(None, None, None), peer=rates(1, 1, 1)), [CASE])
    assert "| chatlib | failed |  |" in nobody


def test_the_report_is_made_from_json() -> None:
    """`--show` reads what an earlier run has written."""
    made = document(chatlib=rates(9000, 10000, 11000), peer=rates(1000, 1000, 1000))
    before = copy.deepcopy(made)
    assert markdown(json.loads(json.dumps(made)), [CASE]) == markdown(made, [CASE])
    assert made == before


def test_every_table_has_as_many_cells_in_each_row() -> None:
    made = document(chatlib=rates(9000), peer=rates(1000))
    made["cases"] = {case.name: {contestant.name: [dict.fromkeys(case.metrics, 1.0)] for contestant in case.contestants} for case in CASES}
    text = markdown(made, CASES)
    for table in [block for block in text.split("\n\n") if block.startswith("|")]:
        assert len({row.count("|") for row in table.splitlines()}) == 1, table
