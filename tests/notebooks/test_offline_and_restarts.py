"""The checks of lessons 03, 04 and 07: a wrong answer is told why, with what it did in this very run; and what these lessons draw."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from chatlib import BrokerUnavailable, Chat, ChatUser, OutcomeUnknown, Unroutable, faults
from chatlib.events import CONFIRMED
from chatlib.lab import Ways, Wire, check, flow_chart, outages, sample, wait_until
from chatlib.lab.lesson import Lesson
from chatlib.lab.outages import silence
from chatlib.sent import SentMessage


def refused(exercise: str, *answer: Any, why: str, evidence: str) -> None:
    """The answer is wrong; the reason and the counter-example say these words."""
    result = check(exercise, *answer)
    assert result.state == "wrong", repr(result)
    assert why in result.why, repr(result)
    assert evidence in result.evidence, repr(result)


def stub(*_: Any) -> Any:
    return ...


@pytest.fixture(scope="module")
def ways(lesson: Lesson) -> Ways:
    """Eight ways after an experiment without a fault, under the name that the check looks for."""
    made = Ways(lesson)
    made.begin("SIGKILL")
    made.send(3)
    made.collect()
    return made


def test_stubs_are_not_yet_right_and_not_wrong_either(lesson: Lesson, ways: Ways) -> None:
    answers: dict[str, tuple[Any, ...]] = {
        "3.1": ((..., ..., ...),), "3.2": (..., [...]), "3.3": (stub,), "3.4": (stub,),
        "4.1": ((..., ..., ...), ways), "4.2": (..., ...), "4.3": (stub,), "4.4": (stub,),
        "7.1": ((..., ..., ..., ...),), "7.2": (...,), "7.3": (stub,), "7.4": (stub,),
    }  # fmt: skip
    for exercise, answer in answers.items():
        result = check(exercise, *answer)
        assert result.state == "not yet", repr(result)
    assert check("4.1", (0, 0, 100), Ways(lesson)).state == "not yet", "without the experiment there is nothing to hold it against"
    assert check("7.2", 60.0).state == "not yet", "nothing was killed here"


def test_the_wrong_word_or_number_meets_what_the_broker_did(lesson: Lesson, ways: Ways) -> None:
    refused("3.1", ("delivered", "read", "nothing"), why="of message 1 Ann does not know 'delivered'", evidence="she knew 'read'")
    refused("3.1", "read", why="three words", evidence="")
    refused("3.2", "confirmed", ["ben"], why="not 'confirmed'", evidence="'rejected'")
    refused("3.2", "rejected", [], why="not [] who has it", evidence="ben got it")
    refused("4.1", (0, 0, 0), ways, why="the first program does not find 0", evidence="the way D-C")
    refused("4.1", (0, 0, 100), None, why="pass the eight ways", evidence="")
    refused("4.2", 0, 120, why="at least it is not 0", evidence="85 letters were in the queue")
    refused("4.2", 85, 85, why="at most it is not 85", evidence="120 letters were in the queue")
    refused("7.1", ("definite",) * 4, why="A is not 'definite'", evidence="OutcomeUnknown")
    refused("7.1", "definite", why="four words", evidence="")


# ---- 3.3 and 3.4 -----------------------------------------------------------------------------------------------------------


def all_at_once(sender: ChatUser, to: str, texts: list[str]) -> None:
    for text in texts:
        sender.send(to, text)


def gives_up(sender: ChatUser, to: str, texts: list[str]) -> None:
    for text in texts:
        sender.send(to, text).wait()


def out_of_turn(sender: ChatUser, to: str, texts: list[str]) -> None:
    """Sends all, and what was refused once more in the end."""
    left = list(texts)
    while left:
        sent = [sender.send(to, text) for text in left]
        wait_until(lambda sent=sent: all(each.state != "pending" for each in sent), 10)  # type: ignore[misc]
        left = [each.content for each in sent if each.state == "rejected"][::-1]


def says_it_twice(sender: ChatUser, to: str, texts: list[str]) -> None:
    for text in [text for text in texts for _ in range(2)]:
        while True:
            sent = sender.send(to, text)
            wait_until(lambda sent=sent: sent.state != "pending", 10)  # type: ignore[misc]
            if sent.state == "confirmed":
                break


@pytest.mark.parametrize(
    ("answer", "why", "evidence"),
    [
        (all_at_once, "must be sent again", "never arrived"),
        (gives_up, "gave up at the first refusal", "full"),
        (out_of_turn, "the order is lost", "that arrived was"),
        (says_it_twice, "only what was refused", "'text 1' arrived 2 times"),
    ],
)
def test_a_hasty_sender_is_told_what_arrived(lesson: Lesson, answer: Callable[..., Any], why: str, evidence: str) -> None:
    refused("3.3", answer, why=why, evidence=evidence)


def test_a_reader_who_keeps_the_order_or_forgets_a_message_did_not_break_it(lesson: Lesson) -> None:
    def reads(count: int) -> Callable[[ChatUser], None]:
        def read(user: ChatUser) -> None:
            for message in user.receive(limit=count, timeout=5):
                message.ack()

        return read

    refused("3.4", reads(3), why="all in order", evidence="1, 2, 3")
    refused("3.4", reads(2), why="handle all three", evidence="2 of 3")


# ---- 4.3 and 4.4 -----------------------------------------------------------------------------------------------------------

Connect = Callable[[], Wire]


def sends_once(connect: Connect, exchange: str, key: str, messages: dict[str, str]) -> None:
    with connect() as wire:
        for message_id, body in messages.items():
            wire.publish(exchange, key, message_id, body)


def no_second_connection(connect: Connect, exchange: str, key: str, messages: dict[str, str]) -> None:
    if messages:
        with connect() as wire:
            for message_id, body in messages.items():
                wire.publish(exchange, key, message_id, body)
            while not wire.listen(0.1):
                pass


def other_ids(connect: Connect, exchange: str, key: str, messages: dict[str, str]) -> None:
    left, attempt = dict(messages), 0
    while left:
        attempt += 1
        try:
            with connect() as wire:
                for message_id, body in left.items():
                    wire.publish(exchange, key, f"{message_id}/{attempt}", body)
                if wire.listen(0.3):
                    return
        except BrokerUnavailable:
            continue


@pytest.mark.parametrize(
    ("answer", "why", "evidence"),
    [
        (sends_once, "returned before every message was confirmed", "20 of 20 messages never arrived"),
        (no_second_connection, "gave up while the network was broken", "the broker hung up|broke"),
        (other_ids, "under the same id", "is in the queue"),
    ],
)
def test_a_sender_that_is_not_safe_is_told_what_the_network_did(
    lesson: Lesson, answer: Callable[..., Any], why: str, evidence: str
) -> None:
    result = check("4.3", answer)
    assert result.state == "wrong" and why in result.why, repr(result)
    assert any(part in result.evidence for part in evidence.split("|")), repr(result)


def test_a_message_that_is_refused_or_waits_is_not_lost(lesson: Lesson) -> None:
    def to(exchange: str, key: str) -> Callable[[Wire], str]:
        def publish(wire: Wire) -> str:
            wire.queue("kept")
            wire.publish(exchange, key, "mine")
            return "mine"

        return publish

    refused("4.4", to("", "kept"), why="is not lost", evidence="'kept'")
    refused("4.4", to("no-such-exchange", ""), why="refused aloud", evidence="404 NOT_FOUND")
    refused("4.4", lambda wire: "mine", why="publish one message", evidence="published nothing")


# ---- 7.3 and 7.4 -----------------------------------------------------------------------------------------------------------

Letters = list[tuple[str, str]]


def reports_too_early(sender: ChatUser, letters: Letters) -> dict[str, str]:
    return {text: sender.send(to, text).state.value for to, text in letters}


def sends_what_is_unknown_again(sender: ChatUser, letters: Letters) -> dict[str, str]:
    report = {}
    for to, text in letters:
        sent = sender.send(to, text)
        with contextlib.suppress(Unroutable):
            try:
                sent.wait(0.3)
            except OutcomeUnknown:
                sent = sender.send(to, text)
        wait_until(lambda sent=sent: sent.state != "pending", 10)  # type: ignore[misc]
        report[text] = sent.state.value
    return report


def stops_at_the_first_error(sender: ChatUser, letters: Letters) -> dict[str, str]:
    return {text: sender.send(to, text).wait(10).state.value for to, text in letters}


@pytest.mark.parametrize(
    ("answer", "why", "evidence"),
    [
        (reports_too_early, "wait until the outcome is known", "as pending"),
        (sends_what_is_unknown_again, "do not send again yourself", "'text 1' arrived 2 times"),
        (stops_at_the_first_error, "one message must not keep the others", "Unroutable"),
    ],
)
def test_a_report_that_does_not_fit_is_held_against_what_arrived(
    lesson: Lesson, answer: Callable[..., Any], why: str, evidence: str
) -> None:
    refused("7.3", answer, why=why, evidence=evidence)


def test_a_message_that_arrives_after_all_is_not_lost(lesson: Lesson) -> None:
    def patient(chat: Chat, to: str) -> SentMessage:
        return chat.user("careless").send(to, "later")

    refused("7.4", patient, why="lived long enough", evidence="it arrived: 'later'")
    refused("7.4", lambda chat, to: None, why="what send() returned", evidence="None")


# ---- what these lessons draw and count --------------------------------------------------------------------------------------


def test_of_eight_ways_none_loses_anything_without_a_fault(ways: Ways) -> None:
    assert ways.names == ["---", "--C", "-P-", "-PC", "D--", "D-C", "DP-", "DPC"]
    verdicts = ways.verdicts()
    assert {(each.attempted, each.confirmed, each.delivered, each.lost) for each in verdicts.values()} == {(3, 3, 3, 0)}
    assert ways.lost["SIGKILL"].tolist() == [0] * 8


def test_the_flow_shows_depth_rates_and_faults_and_a_gap_is_no_line(lesson: Lesson) -> None:
    frida = lesson.chat.user("frida")
    frida.go_offline()
    sampler = sample(lesson, "inbox.frida", hz=10)
    for number in range(7):
        frida.send("@frida", str(number)).wait()
    wait_until(lambda: sampler.latest("ready") == {"inbox.frida": 7.0}, 15, "seven are seen waiting")
    with faults.freeze(lesson.broker):
        wait_until(lambda: not all(sampler.frame()["up"]), 15, "a sample without an answer")
    wait_until(lambda: sampler.latest("ready") == {"inbox.frida": 7.0}, 15, "the broker answers again")
    sampler.stop()
    for stacked in (False, True):
        figure = flow_chart(lesson, sampler, "t", stacked=stacked)
        depth = [trace for trace in figure.data if trace.name == "inbox.frida"]
        assert max(value for trace in depth for value in trace.y if value is not None) == 7
        assert "freeze" in [note.text for note in figure.layout.annotations]
        assert len(depth) == 1 if stacked else len(depth) >= 2, "before the gap and after it"
        assert sum(trace.showlegend is not False for trace in depth) == 1, "and one entry of the legend"
    assert {trace.name for trace in flow_chart(lesson, sampler, "t").data} == {"inbox.frida", "in (per second)", "out (per second)"}


def test_an_outage_is_the_first_silence_after_the_fault_and_not_what_was_still_on_its_way(lesson: Lesson) -> None:
    moments = [1.0, 9.9, 10.01, 10.02, 16.0, 16.1, 60.0]
    history = [{"hop": CONFIRMED, "at": at} for at in moments]
    assert silence(history, CONFIRMED, 10.0) == pytest.approx(16.0 - 10.02)
    assert silence(history, CONFIRMED, 59.5) != silence(history, CONFIRMED, 59.5), "nothing to tell: NaN"
    assert len(outages(lesson)) == 0
