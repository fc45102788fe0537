"""Tables out of answers that lack things, ages out of a clock that is read now and then, rates out of a counter that is."""

from __future__ import annotations

import math
import sys

import pytest

from chatlib.errors import ExtraMissing
from chatlib.monitor import CONNECTIONS, NODES, QUEUES, Freshness
from chatlib.sampler import Meter
from chatlib.tables import flag, moment, number, row, table, text

# What 3.10.8 answers about a queue in its first second, and later; and what 4.x answers with its metrics switched off
YOUNG = {"name": "inbox.bob", "type": "classic", "durable": True, "node": "n@h", "vhost": "/", "arguments": {}}
GROWN = YOUNG | {
    "state": "running", "consumers": 1, "ready": 3, "unacked": 2, "memory": 10_000, "exclusive": False,
    "message_stats": {"publish": 5, "publish_details": {"rate": 1.5}, "deliver_get": 2},
}  # fmt: skip
WITHOUT_METRICS = YOUNG | {"state": "running", "exclusive": False, "message_stats": {}}


def test_a_table_has_all_its_columns_and_types_whatever_the_answer_lacks() -> None:
    for answers in ([], [YOUNG], [GROWN], [WITHOUT_METRICS], [YOUNG, GROWN, WITHOUT_METRICS]):
        found = table([row(each, QUEUES) for each in answers], QUEUES)
        assert list(found.columns) == list(QUEUES) and len(found) == len(answers)
        assert [str(found[name].dtype) for name in ("ready", "publish_rate")] == ["float64", "float64"]
        assert str(found["durable"].dtype) == "boolean"
    young, grown, without = (row(each, QUEUES) for each in (YOUNG, GROWN, WITHOUT_METRICS))
    assert math.isnan(young["ready"]) and young["state"] == "" and young["exclusive"] is None
    assert (grown["ready"], grown["unacked"], grown["publish_rate"]) == (3.0, 2.0, 1.5)
    assert math.isnan(grown["ack_rate"]) and math.isnan(grown["deliver_rate"])
    assert math.isnan(without["publish_rate"]) and without["state"] == "running"


@pytest.mark.parametrize("strange", [None, [], "text", 3, {"rate": "many"}, {"rate": True}])
def test_what_is_of_another_type_than_expected_is_unknown(strange: object) -> None:
    found = row({"message_stats": {"publish_details": strange}, "ready": strange, "name": strange, "durable": strange}, QUEUES)
    assert math.isnan(found["publish_rate"])
    assert found["durable"] is None
    assert found["queue"] == (strange if isinstance(strange, str) else "")
    assert found["ready"] == 3.0 if strange == 3 else math.isnan(found["ready"])


def test_units_are_those_of_the_columns() -> None:
    assert row({"uptime": 1500}, NODES)["uptime"] == 1.5
    connected = table([row({"connected_at": 1_700_000_000_500}, CONNECTIONS), row({}, CONNECTIONS)], CONNECTIONS)["connected"]
    assert str(connected.dtype) == "datetime64[ns, UTC]"
    assert connected[0].isoformat() == "2023-11-14T22:13:20.500000+00:00"
    assert connected.isna().tolist() == [False, True]


def test_every_kind_of_column_can_be_empty() -> None:
    columns = {"a": text("a"), "b": number("b"), "c": flag("c"), "d": moment("d")}
    assert table([], columns).dtypes.astype(str).tolist() == ["object", "float64", "boolean", "datetime64[ns, UTC]"]


def test_without_pandas_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ExtraMissing, match=r"pip install 'chatlib\[lab\]'") as caught:
        table([], {})
    assert isinstance(caught.value, ImportError)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_age_of_figures_is_found_by_looking_more_than_once() -> None:
    """The node renews its figures every 2 s, the last time 0.5 s before the first look."""
    clock = Clock()
    freshness = Freshness(clock)

    def look(uptime: float) -> float:
        return freshness.look([{"name": "n", "uptime": uptime * 1000}, {"name": "down", "running": False}])["n"]

    assert math.isnan(look(70.0)), "one look tells nothing"
    clock.now += 1.0
    assert look(70.0) == pytest.approx(1.0), "1.5 s old: 1 s older than when it was seen first"
    clock.now += 0.6
    assert look(72.0) == pytest.approx(0.0), "0.1 s old: the youngest so far"
    assert freshness.interval == pytest.approx(2.0)
    clock.now += 1.0
    assert look(72.0) == pytest.approx(1.0)
    clock.now += 5.0
    assert math.isnan(look(3.0)), "started anew: another clock"
    assert math.isnan(freshness.look([{"name": "n", "uptime": 9_000, "os_pid": "2"}])["n"]), "started anew, and up for longer than before"
    assert freshness.look([{"name": "n"}, "strange", {"uptime": 3}]) == {}


def rates(totals: list[float], *, interval: float = 1.0, period: float = 0.25) -> list[float]:
    meter = Meter()
    return [meter.look(number * period, total, interval, period) for number, total in enumerate(totals)]


def test_a_rate_is_what_was_added_over_the_time_in_which_it_was_added() -> None:
    """100 a second, looked at four times a second while the broker renews its counters once a second."""
    found = rates([0, 0, 0, 0, 100, 100, 100, 100, 200, 200, 200, 200, 300])
    assert found[:4] == [0.0] * 4
    assert found[4:] == [100.0] * 9


def test_a_burst_after_silence_counts_for_one_interval_and_silence_after_it_is_seen() -> None:
    found = rates([50] + [50] * 40 + [150] + [150] * 8)
    assert math.isnan(found[0]), "what was there before is no rate"
    assert found[40] == 0.0
    assert found[41] == pytest.approx(100 / 1.25)
    assert found[-1] == 0.0


def test_a_counter_that_begins_anew_or_is_not_there_yet_begins_at_nothing() -> None:
    found = rates([0, 100, 100, 7, 7, math.nan, 6, 18])
    assert found[1] == pytest.approx(100 / 0.75), "it came within one interval of the broker, give or take a look"
    assert math.isnan(found[3]) and math.isnan(found[5])
    assert found[6] == pytest.approx(6 / 0.75), "counted for the first time"
    assert found[7] == pytest.approx(12 / 0.75)
