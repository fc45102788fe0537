"""The sequence diagram of a message: every hop is a row, in its order; what lasted is a band; what cannot be drawn is told clearly."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatlib import events as hops
from chatlib.errors import HistoryError
from chatlib.events import Event
from chatlib.lab.widgets.message_trace import MessageTrace
from chatlib.lab.widgets.trace_model import BROKER, PEOPLE, ROWS, Band, Trace, message_ids, trace_of, trace_run
from chatlib.recorder import Recorder

SVG = "{http://www.w3.org/2000/svg}"
RECEIPT = {"kind": "RECEIVE_MESSAGE"}


def at(second: float, hop: str, message_id: str = "m1", **fields: Any) -> Event:
    return {"hop": hop, "at": 1000 + second, "message_id": message_id, **fields}


def sent(second: float = 0.0, message_id: str = "m1", sender: str = "ann", to: str = "@bob") -> list[Event]:
    about = {"message_id": message_id, "user": sender, "to": to}
    return [
        at(second, hops.STORED, **about),
        at(second + 0.001, hops.SENT, **about, kind="SEND_MESSAGE"),
        at(second + 0.003, hops.CONFIRMED, **about, kind="SEND_MESSAGE"),
    ]


def received(second: float = 0.01, message_id: str = "m1", user: str = "bob", attempt: int = 1) -> list[Event]:
    about: dict[str, Any] = {"message_id": message_id, "user": user, "attempt": attempt}
    return [
        at(second, hops.DELIVERED, sender="ann", to="@bob", queue=f"inbox.{user}", redelivered=False, **about),
        at(second + 0.001, hops.HANDLED, **about),
        at(second + 0.002, hops.ACKED, **about),
    ]


def told(trace: Trace) -> list[tuple[str, str, str]]:
    return [(row.start, row.end, row.words) for row in trace.rows]


# one message


def test_each_hop_is_a_row_and_each_who_took_part_a_lifeline() -> None:
    receipts = [
        at(0.013, hops.SENT, "m1:delivered:bob", user="bob", to="@ann", **RECEIPT),
        at(0.014, hops.CONFIRMED, "m1:delivered:bob", user="bob", to="@ann", **RECEIPT),
        at(0.015, hops.RECEIPT, user="bob", state="delivered"),
    ]
    trace = trace_of([*sent(), *received(), *receipts], "m1")
    assert trace.lifelines == ("ann", BROKER, "bob")
    assert told(trace) == [
        ("ann", "", "kept in the outbox"),
        ("ann", BROKER, "publish"),
        (BROKER, "ann", "confirm"),
        (BROKER, "bob", "deliver"),
        ("bob", "", "handled"),
        ("bob", BROKER, "ack"),
        ("bob", BROKER, "RECEIVE_MESSAGE delivered"),
        (BROKER, "ann", "receipt: bob delivered"),
    ]
    assert trace.title == "ann to @bob: message m1"
    assert trace.rows[0].at == 0
    assert trace.bands == ()


def test_rows_stand_in_the_order_of_time_whatever_the_order_of_the_records() -> None:
    history = [*sent(), *received()]
    assert trace_of(history[::-1], "m1") == trace_of(history, "m1")


def test_other_messages_and_their_receipts_are_left_out() -> None:
    other = at(0.5, hops.SENT, "m2:read:ann", user="ann", to="@bob", **RECEIPT)
    assert trace_of([*sent(), *sent(1, "m2"), other], "m1") == trace_of(sent(), "m1")


def test_a_receipt_belongs_to_its_message_whatever_characters_the_reader_is_called() -> None:
    receipt = at(0.1, hops.SENT, "m1:read:b:o:b", user="b:o:b", to="@ann", **RECEIPT)
    assert told(trace_of([*sent(), receipt], "m1"))[-1] == ("b:o:b", BROKER, "RECEIVE_MESSAGE read")


def test_what_was_sent_again_after_a_loss_says_so_and_the_first_sending_is_unsure() -> None:
    stored, first, confirmed = sent()
    confirmed["at"] += 2
    lost = at(0.5, hops.UNKNOWN, user="ann", to="@bob")
    again = {**first, "at": 1001.5}
    trace = trace_of([stored, first, lost, again, confirmed], "m1")
    assert [(row.kind, row.words) for row in trace.rows[1:4]] == [
        ("unsure", "publish"),
        ("drop", "no confirm came: it will be sent again"),
        ("sent", "publish again"),
    ]


def test_a_retry_waits_at_the_broker_until_it_is_delivered_again() -> None:
    copy = [at(0.02, hops.SENT, user="bob", to="", kind="SEND_MESSAGE"), at(0.03, hops.CONFIRMED, user="bob", to="", kind="SEND_MESSAGE")]
    retried = at(0.031, hops.RETRIED, user="bob", attempt=1, reason="no room", delay=0.5)
    trace = trace_of([*sent(), received()[0], *copy, retried, *received(0.6, attempt=2)], "m1")
    assert told(trace)[4:8] == [
        ("bob", BROKER, "publish a copy"),
        (BROKER, "bob", "confirm"),
        ("bob", "", "retry in 0.5 s: no room"),
        (BROKER, "bob", "deliver, attempt 2"),
    ]
    assert trace.bands == (Band("wait", "waits", 6, 7),)


def test_redelivery_duplicates_dead_letters_replays_and_refusals_are_told() -> None:
    odd = [
        at(1, hops.DELIVERED, user="bob", sender="ann", to="@bob", attempt=1, redelivered=True),
        at(2, hops.DROPPED, user="bob", attempt=1),
        at(3, hops.DEAD, user="bob", attempt=5, reason="poison"),
        at(4, hops.REPLAYED, user="bob"),
        at(5, hops.RETURNED, user="ann", to="@bob", kind="SEND_MESSAGE"),
        at(6, hops.NACKED, user="ann", to="@bob", kind="SEND_MESSAGE", reason="full"),
    ]
    assert told(trace_of([*sent(), *odd], "m1"))[3:] == [
        (BROKER, "bob", "deliver, redelivered"),
        ("bob", "", "duplicate, dropped"),
        ("bob", "", "dead letter: poison"),
        (BROKER, "", "replayed from the dead letters to bob"),
        (BROKER, "ann", "returned: no queue took it"),
        (BROKER, "ann", "refused: full"),
    ]


def test_a_recipient_whom_nothing_reached_has_a_lifeline_all_the_same() -> None:
    assert trace_of(sent(), "m1").lifelines == ("ann", BROKER, "bob")


def test_where_seconds_passed_there_is_a_gap_and_only_there() -> None:
    trace = trace_of([*sent(), *received(3.0)], "m1")
    assert [round(row.gap, 1) for row in trace.rows] == [0, 0, 0, 3.0, 0, 0]
    assert "⋮ 3.0 s later" in MessageTrace([*sent(), *received(3.0)], "m1").svg()


def test_too_many_recipients_are_counted_and_those_to_whom_most_happened_are_drawn() -> None:
    history = sent(to="#team")
    for number in range(30):
        history += received(1 + number / 100, user=f"user{number}")
    history.append(at(2, hops.DROPPED, user="user29", attempt=1))
    trace = trace_of(history, "m1")
    assert len(trace.lifelines) == PEOPLE + 1
    assert "user29" in trace.lifelines
    assert trace.left_out.startswith("23 more users: ")
    assert {row.start for row in trace.rows} | {row.end for row in trace.rows} <= {"", *trace.lifelines}


def test_what_has_too_many_rows_says_how_many_are_missing() -> None:
    history = sent() + [at(1 + number, hops.DROPPED, user="bob", attempt=1) for number in range(ROWS)]
    trace = trace_of(history, "m1")
    assert len(trace.rows) == ROWS
    assert trace.left_out == "3 more events"


# faults and losses of the link


def fault(began: float, ended: float | None, name: str = "kill") -> list[Event]:
    found = [at(began, hops.FAULT_BEGAN, "", name=name, target="broker")]
    return found if ended is None else [*found, at(ended, hops.FAULT_ENDED, "", name=name, target="broker")]


def link(lost: float, back: float) -> list[Event]:
    return [at(lost, hops.LINK, "", state="recovering", reason="x"), at(back, hops.LINK, "", state="connected", reason="")]


def test_a_chat_that_was_closed_is_no_loss_of_the_link() -> None:
    """One that ended before says nothing of this message; one that ends meanwhile is told, and nobody waits for its link."""
    closed, up = at(-1, hops.LINK, "", state="closed"), at(0.005, hops.LINK, "", state="connected")
    trace = trace_of([closed, up, *sent(), *received(1)], "m1")
    assert not trace.bands and "the chat is closed" not in [row.words for row in trace.rows]
    trace = trace_of([*sent(), at(0.5, hops.LINK, "", state="closed"), *received(1)], "m1")
    assert not trace.bands and "the chat is closed" in [row.words for row in trace.rows]


def test_a_fault_in_the_time_of_the_message_is_a_band_with_its_beginning_and_its_end() -> None:
    trace = trace_of([*sent(), *fault(1, 4), *link(1.5, 4.5), *received(5)], "m1")
    assert trace.bands == (Band("fault", "kill broker", 3, 5), Band("link", "no link", 4, 6))
    assert [row.words for row in trace.rows[3:7]] == [
        "kill broker",
        "the link is lost: chatlib reconnects",
        "end of kill broker",
        "the link is up",
    ]


def test_a_fault_that_began_before_the_message_is_shown_whole() -> None:
    trace = trace_of([*fault(-2, 0.5), *sent(), *received(1)], "m1")
    assert trace.bands == (Band("fault", "kill broker", 0, 4),)
    assert trace.rows[0].at == pytest.approx(-2)


def test_a_fault_that_goes_on_reaches_to_the_last_row() -> None:
    trace = trace_of([*sent(), *fault(0.005, None), *received()], "m1")
    assert trace.bands == (Band("fault", "kill broker", 3, 6),)


@pytest.mark.parametrize("when", [(-9, -8), (8, 9), (8, None)])
def test_a_fault_of_another_time_is_left_out(when: tuple[float, float | None]) -> None:
    assert trace_of([*sent(), *fault(*when), *received()], "m1").bands == ()


def test_two_faults_of_one_name_are_two_bands() -> None:
    trace = trace_of([*sent(), *fault(1, 2), *fault(3, 4), *received(5)], "m1")
    assert [(band.first, band.last) for band in trace.bands] == [(3, 4), (5, 6)]


def test_the_first_connecting_is_no_loss() -> None:
    assert trace_of([at(-1, hops.LINK, "", state="connected"), *sent()], "m1").bands == ()


# a slice of a run


def test_a_run_shows_what_became_of_some_messages_by_their_numbers() -> None:
    history = [event for number in range(5) for event in [*sent(number, f"m{number}"), *received(number + 0.5, f"m{number}")]]
    trace = trace_run(history, first=1, limit=2)
    assert trace.title == "messages #1 to #2, of 5 from #0 on"
    assert {row.message_id for row in trace.rows} == {"m1", "m2"}
    assert [row.words for row in trace.rows][:3] == ["#1 kept in the outbox", "#1 publish", "#1 confirm"]


def test_in_a_run_who_sends_stands_left_of_the_broker_and_where_all_do_half_of_them() -> None:
    history = [*sent(0, "m1", "ann", "#team"), *sent(1, "m2", "bob", "#team"), *received(2, "m1", "cat")]
    assert trace_run(history).lifelines == ("ann", "bob", BROKER, "cat")
    assert trace_run(history[:6]).lifelines == ("ann", BROKER, "bob")


def test_a_slice_that_is_not_there_is_refused_with_what_is() -> None:
    with pytest.raises(HistoryError, match=r"no message number 7: this history has 1, the last is number 0"):
        trace_run(sent(), first=7)
    for wrong in ({"first": -1}, {"limit": 0}):
        with pytest.raises(ValueError, match="first is a message's number"):
            trace_run(sent(), **wrong)


# what cannot be drawn


def test_an_unknown_id_is_refused_and_those_near_it_are_named() -> None:
    history = [event for number in range(20) for event in sent(number, f"01M81BAWK{number:02}")]
    with pytest.raises(HistoryError, match=r"no message '01M81BAWK1' among the 20 of this history; near it are: .*01M81BAWK1"):
        trace_of(history, "01M81BAWK1")


@pytest.mark.parametrize("history", [[], [at(0, hops.LINK, "", state="connected")], fault(0, 1)])
def test_a_history_without_messages_is_refused_with_what_to_do(history: list[Event]) -> None:
    for draw in (lambda: trace_of(history, "m1"), lambda: trace_run(history)):
        with pytest.raises(HistoryError, match=r"record one with chat\.on_event"):
            draw()


@pytest.mark.parametrize("record", [{}, {"hop": "publish.sent"}, {"at": 1.0}, {"hop": "x", "at": "noon"}, "text", None])
def test_what_is_no_record_is_refused(record: Any) -> None:
    with pytest.raises(HistoryError, match="a record of a history has a hop and a time"):
        trace_of([*sent(), record], "m1")


def test_ids_are_those_of_messages_in_the_order_of_their_first_record() -> None:
    receipt = at(0, hops.SENT, "m1:read:bob", user="bob", to="@ann", **RECEIPT)
    assert message_ids([*sent(message_id="m2"), receipt, *sent(message_id="m1"), *fault(0, 1)]) == ["m2", "m1"]


# where a history comes from, and the picture


def test_a_history_may_be_records_a_recorder_a_file_or_a_lesson(tmp_path: Path) -> None:
    records, path = [*sent(), *received()], tmp_path / "run.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    recorder = Recorder()
    for each in records:
        recorder(each)

    class Lesson:
        history = records

    class Message:
        message_id = "m1"

    expected = MessageTrace(records, "m1").svg()
    for source in (iter(records), recorder, path, str(path), Lesson()):
        assert MessageTrace(source, "m1").svg() == expected
    assert MessageTrace(records, Message()).svg() == expected
    with pytest.raises(HistoryError, match="cannot be read"):
        MessageTrace(tmp_path / "nothing.jsonl", "m1")


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314  it is ours


def words(svg: str) -> list[str]:
    return [each.text or "" for each in parsed(svg).iter(f"{SVG}text")]


def test_every_row_stands_in_the_picture_and_nothing_in_it_stands_outside() -> None:
    trace = MessageTrace([*sent(), *fault(1, 2), *received(3)], "m1")
    svg = trace.svg()
    root = parsed(svg)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert {re.sub("^[■◇] ", "", each) for each in words(svg)} >= {row.words for row in trace.trace.rows}
    for each in root.iter(f"{SVG}text"):
        assert 0 <= float(each.attrib["x"]) <= width
        assert 0 <= float(each.attrib["y"]) <= height


def test_the_result_of_a_cell_is_a_picture_with_a_constant_text_beside_it() -> None:
    bundle = MessageTrace(sent(), "m1")._repr_mimebundle_()
    assert bundle["text/plain"] == "<MessageTrace>" == repr(MessageTrace.run(sent()))
    assert "chatlib-still" in bundle["text/html"]
    assert "<svg" in bundle["text/html"]
    assert "image/svg+xml" not in bundle
    assert not re.search(r"(?:href|src)=|url\(|<script", bundle["text/html"])


@given(st.text(min_size=1), st.text(), st.text())
def test_whatever_people_and_reasons_are_called_the_picture_is_well_formed(name: str, to: str, reason: str) -> None:
    history = [*sent(sender=name, to="@" + to), *received(user=to), at(1, hops.DEAD, user=to, attempt=1, reason=reason)]
    assert parsed(MessageTrace(history, "m1").svg()) is not None


# ---- foreign and broken histories ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [{"hop": ["sent"], "at": 1}, {"hop": "sent", "at": float("nan")}, {"hop": "sent", "at": float("inf")}])
def test_a_record_without_a_hop_or_a_time_is_refused(broken: Event) -> None:
    with pytest.raises(HistoryError, match="has a hop and a time"):
        MessageTrace([*sent(), broken], "m1")


@pytest.mark.parametrize("delay", ["soon", [1], None])
def test_a_retry_without_a_number_of_seconds_is_a_retry(delay: object) -> None:
    trace = trace_of([*sent(), *received(), at(0.02, hops.RETRIED, user="bob", delay=delay)], "m1")
    assert "retry" in [row.words for row in trace.rows]


def test_a_foreign_user_may_be_called_as_the_broker_is_here() -> None:
    picture = MessageTrace([{**event, "user": BROKER} for event in (*sent(), *received())], "m1").svg()
    assert picture.endswith("</svg>") and "nan" not in picture


def test_what_is_no_history_and_no_message_is_refused_with_what_it_can_be() -> None:
    with pytest.raises(TypeError, match="history is records, a Recorder"):
        MessageTrace(None, "m1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="message is an id"):
        MessageTrace(sent(), 5)  # type: ignore[arg-type]


def test_a_whole_run_looks_at_each_record_a_few_times() -> None:
    class Counted(dict[str, Any]):
        looks = 0

        def get(self, key: str, default: Any = None) -> Any:
            Counted.looks += 1
            return super().get(key, default)

    history = [Counted(event) for number in range(2_000) for event in sent(number, f"m{number}")]
    assert trace_run(history, limit=10**6).left_out
    assert Counted.looks < 60 * len(history)  # it was more than 2,000 times for each
