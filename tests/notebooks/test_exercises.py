"""The checks of the exercises: a wrong answer is told why, with what it did in this very run."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from chatlib.lab import Bank, check
from chatlib.lab.lesson import Lesson
from chatlib.received import ReceivedMessage
from chatlib.sent import SentMessage
from chatlib.user import ChatUser


@pytest.fixture(scope="module")
def bank(lesson: Lesson) -> Bank:
    opened = Bank(lesson)
    opened.start()
    return opened


def refused(exercise: str, *answer: Any, why: str, evidence: str) -> None:
    """The answer is wrong; the reason and the counter-example say these words."""
    result = check(exercise, *answer)
    assert result.state == "wrong", repr(result)
    assert why in result.why, repr(result)
    assert evidence in result.evidence, repr(result)
    assert why in repr(result) and evidence in repr(result)


def test_stubs_are_not_yet_right_and_not_wrong_either(lesson: Lesson, bank: Bank) -> None:
    def stub(*_: Any) -> Any:
        return ...

    answers: dict[str, tuple[Any, ...]] = {
        "0.1": (...,), "1.1": ((..., ..., ...),), "1.2": (..., ..., ...), "1.3": (stub,), "1.4": (stub, bank),
        "2.1": ((..., ..., ...),), "2.2": (...,), "2.3": (stub,), "2.4": (...,),
    }  # fmt: skip
    for exercise, answer in answers.items():
        result = check(exercise, *answer)
        assert result.state == "not yet", repr(result)
        assert not result


def test_an_exercise_that_does_not_exist_is_named(lesson: Lesson) -> None:
    with pytest.raises(ValueError, match=r"9\.9"):
        check("9.9", 1)


def test_the_wrong_word_or_number_meets_what_the_broker_did(lesson: Lesson) -> None:
    refused("0.1", "pending", why="not 'pending'", evidence="'confirmed'")
    refused("0.1", "done", why="no state of a message", evidence="")
    refused("1.1", (5, 5, 8), why="it is not 5", evidence="3 messages waiting when the bank had handled two")
    refused("1.1", 5, why="three numbers", evidence="")
    refused("1.2", "chat.users", "bank", "inbox.kitchen", why="'bank' is not the key", evidence="key kitchen, queue inbox.kitchen")
    refused("2.1", (5, 5, 5), why="there are not 5 bindings", evidence="7 bindings")
    refused("2.2", [1, 2], why="does not get [1, 2]", evidence="dana got [2]")


def send_all(shop: ChatUser, to: str, orders: list[tuple[str, int]]) -> list[SentMessage]:
    return [shop.send(to, json.dumps({"order": order, "amount": amount})) for order, amount in orders]


def without_the_last(shop: ChatUser, to: str, orders: list[tuple[str, int]]) -> list[SentMessage]:
    return [sent.wait() for sent in send_all(shop, to, orders[:-1])]


def backwards(shop: ChatUser, to: str, orders: list[tuple[str, int]]) -> list[SentMessage]:
    return [sent.wait() for sent in send_all(shop, to, orders[::-1])]


def in_words(shop: ChatUser, to: str, orders: list[tuple[str, int]]) -> list[SentMessage]:
    return [shop.send(to, f"{amount} for {order}").wait() for order, amount in orders]


def nothing(shop: ChatUser, to: str, orders: list[tuple[str, int]]) -> list[SentMessage]:
    return []


def raises(shop: ChatUser, to: str, orders: list[tuple[str, int]]) -> list[SentMessage]:
    return [shop.send(f"nobody {order}", "") for order, _ in orders]


@pytest.mark.parametrize(
    ("answer", "why", "evidence"),
    [
        (send_all, "before the broker had everything on disk", "20 of 20 messages were still pending"),
        (without_the_last, "each of the 20 orders", "19 messages wait"),
        (backwards, "in the order of the list", "number 1 came as ('B20', 25)"),
        (in_words, "reads JSON", "6 for B01"),
        (nothing, "each of the 20 orders", "0 messages wait"),
        (raises, "refused", "InvalidAddress"),
    ],
)
def test_a_shop_that_does_not_pay_everything_is_told_what_the_queue_holds(
    lesson: Lesson, answer: Callable[..., Any], why: str, evidence: str
) -> None:
    refused("1.3", answer, why=why, evidence=evidence)


def test_a_patient_shop_does_not_charge_twice(lesson: Lesson, bank: Bank) -> None:
    def patient(order: str, amount: int) -> Any:
        return httpx.post(f"{bank.url}/pay", json={"order": order, "amount": amount}, timeout=10)

    refused("1.4", patient, bank, why="not charged twice", evidence="was booked 1 time")


def machine(answers_groups: bool = False, remembers: bool = True, silent: bool = False) -> Callable[[ChatUser], None]:
    """An answering machine with the defects asked for."""

    def install(user: ChatUser) -> None:
        known = set()

        def answer(message: ReceivedMessage) -> None:
            if silent or (message.group_id is not None and not answers_groups) or (remembers and message.conversation in known):
                return
            known.add(message.conversation)
            user.send(message.conversation, "I am away")

        user.on_message(answer)

    return install


@pytest.mark.parametrize(
    ("answer", "why", "evidence"),
    [
        (machine(silent=True), "gets an answer", "heard nothing"),
        (machine(answers_groups=True), "none to what is said in a group", "I am away"),
        (machine(remembers=False), "one answer for each sender", "I am away"),
    ],
)
def test_a_machine_that_says_too_little_or_too_much_is_told_whom_it_annoyed(
    lesson: Lesson, answer: Callable[..., Any], why: str, evidence: str
) -> None:
    refused("2.3", answer, why=why, evidence=evidence)


def test_two_machines_that_write_to_each_other_for_ever_are_stopped(lesson: Lesson) -> None:
    """It remembers ann, whom the first half of the check uses, and answers everybody else each time."""

    def install(user: ChatUser) -> None:
        answered = []

        def answer(message: ReceivedMessage) -> None:
            first = message.sender_id not in answered
            if message.group_id is None and (first or not message.sender_id.startswith("ann")):
                answered.append(message.sender_id)
                user.send(message.conversation, "I am away")

        user.on_message(answer)

    refused("2.3", install, why="for ever", evidence="letters went between ben")


def test_a_letter_that_arrived_is_not_hopeless(lesson: Lesson) -> None:
    ann = lesson.chat.user("ann")
    refused("2.4", ann.send("@ann", "to myself"), why="the broker took it", evidence="@ann")
    refused("2.4", "a text", why="what send() returned", evidence="a text")
