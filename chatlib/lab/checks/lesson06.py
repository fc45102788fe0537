"""Retry, backoff, jitter. What the answers are held against goes through the real retry queues of the learner's own broker."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from chatlib import Settings
from chatlib.events import DEAD, HANDLED, RETRIED, Event
from chatlib.lab.exercises import NotYet, Wrong, require_answer
from chatlib.lab.lesson import Lesson
from chatlib.lab.network import Network
from chatlib.lab.waiting import NotInTime, wait_until
from chatlib.retry import RetryPolicy, on_grid
from chatlib.sent import SentMessage
from chatlib.user import ChatUser

__all__ = ["CHECKS"]

LONGEST = 0.8  # seconds: the longest wait of all policies here, so that the retry queues are made once
QUICK = RetryPolicy(attempts=3, base=0.1, factor=LONGEST / 0.1, cap=LONGEST, jitter=False)
STORM_SECONDS, STORM_MESSAGES, STORM_CALLS = 6.0, 20, 200


def _bank(lesson: Lesson, policy: RetryPolicy) -> tuple[ChatUser, Callable[[Iterable[Any]], list[SentMessage]]]:
    """A bank with this policy and a name that nobody had before; and what leaves payments of these amounts with it."""
    mark = uuid.uuid4().hex[:6]
    bank = lesson.connect(f"bank-{mark}", settings=Settings(retry=policy)).user(f"bank-{mark}")
    shop = lesson.chat.user(f"shop-{mark}")

    def leave(amounts: Iterable[Any]) -> list[SentMessage]:
        orders = (json.dumps({"order": f"X{number:02}", "amount": amount}) for number, amount in enumerate(amounts, 1))
        return [sent.wait() for sent in shop.send_many((bank.address, order) for order in orders)]

    return bank, leave


def _records(lesson: Lesson, sent: Iterable[SentMessage], *hops: str) -> list[Event]:
    wanted = {each.message_id for each in sent}
    return [event for event in lesson.history if event["hop"] in hops and event["message_id"] in wanted]


def _numbers(answers: Any, count: int) -> tuple[Any, ...]:
    answers = require_answer(answers, "the ... in answers")
    if not isinstance(answers, (tuple, list)) or len(answers) != count:
        raise Wrong(f"give {count} numbers")
    if any(answer is ... for answer in answers):
        raise NotYet(f"put your {count} numbers in the place of the ..., run that cell, then this one")
    return tuple(answers)


def waits(lesson: Lesson, answers: Any) -> str:
    """A message that always fails, base 0.1, factor 2, cap 0.3, five attempts, no jitter: the waits."""
    said = _numbers(answers, 4)
    policy = RetryPolicy(attempts=5, base=0.1, factor=2, cap=0.3, jitter=False)
    bank, leave = _bank(lesson, policy)
    network = Network(lesson)
    network.fail(1_000)
    bank.on_message(network.pay)
    sent = leave([10])
    wait_until(lambda: _records(lesson, sent, DEAD), 20, "the message is dead")
    seen = [event["delay"] for event in _records(lesson, sent, RETRIED)]
    lesson.chat.dead_letters.purge(sent[0].message_id)
    for number, (mine, yours) in enumerate(zip(seen, said, strict=True), 1):
        if abs(mine - float(yours)) > 0.001:
            raise Wrong(f"the wait after attempt {number} is not {yours} s", f"I let one fail on your broker, and its waits were {seen}")
    return f"I let one fail on your broker: its waits were {', '.join(f'{wait:g}' for wait in seen)} s, and then it was dead"


def one_of_ten(lesson: Lesson, answers: Any) -> str:
    """Ten payments, one of them poison, three attempts: calls, handled, dead."""
    said = _numbers(answers, 3)
    bank, leave = _bank(lesson, QUICK)
    network = Network(lesson)
    bank.on_message(network.pay)
    sent = leave([10, 10, 10, "ten", 10, 10, 10, 10, 10, 10])
    wait_until(lambda: len(_records(lesson, sent, HANDLED, DEAD)) == 10, 20, "all are handled or dead")
    dead = _records(lesson, sent, DEAD)
    seen = (len(network.calls), len(_records(lesson, sent, HANDLED)), len(dead))
    lesson.chat.dead_letters.purge(*{event["message_id"] for event in dead})
    for what, yours, mine in zip(("calls", "handled payments", "dead letters"), said, seen, strict=True):
        if yours != mine:
            raise Wrong(f"there are not {yours} {what}", f"I did it on your broker: {seen[0]} calls, {seen[1]} handled, {seen[2]} dead")
    return f"I did it on your broker: {seen[0]} calls, {seen[1]} handled, {seen[2]} in the dead letters"


def careful(lesson: Lesson, function: Any) -> str:
    """A handler that lets pass what may pass, and rejects at once what never will."""
    _written(function)
    bank, leave = _bank(lesson, QUICK)
    network = Network(lesson)
    bank.on_message(lambda message: function(message, network))
    network.fail(2)
    (later,) = leave([10])
    wait_until(lambda: _records(lesson, [later], HANDLED, DEAD), 20, "the first payment is handled or dead")
    good, bad = leave([20, "twenty"])
    wait_until(lambda: len({event["message_id"] for event in _records(lesson, [good, bad], HANDLED, DEAD)}) == 2, 20, "the others, too")
    ends = {event["message_id"]: event for event in _records(lesson, [later, good, bad], HANDLED, DEAD)}
    dead = {message_id for message_id, event in ends.items() if event["hop"] == DEAD}
    if dead:
        lesson.chat.dead_letters.purge(*dead)
    first, second, third = (ends[each.message_id] for each in (later, good, bad))
    if later.message_id in dead:
        raise Wrong("a network that is down may come back: let NetworkDown out, and chatlib tries again", f"it died: {first['reason']}")
    if len(network.paid) != 2:
        raise Wrong("what your function returns from counts as handled: do not swallow the error", f"acked, and paid: {network.paid}")
    if second["hop"] == DEAD:
        raise Wrong("a good payment has to be paid", f"it died: {second['reason']}")
    if third["hop"] != DEAD:
        raise Wrong("a bad payment belongs in the dead letters: message.reject(reason)", "it was acked, and nobody will ever hear of it")
    if third["attempt"] > 1:
        raise Wrong("a bad payment stays bad: reject it at the first attempt", f"it was tried {third['attempt']} times")
    return f"the first was paid at attempt {first['attempt']}, the bad one was dead at attempt 1: {third['reason']}"


def storm(lesson: Lesson, policy: Any) -> str:
    """The policy that hurts a dependency most: 20 messages, 6 seconds."""
    require_answer(policy)
    if not isinstance(policy, RetryPolicy):
        raise Wrong("give me a RetryPolicy", f"you gave me {policy!r:.80}")
    if policy.steps()[-1] > on_grid(LONGEST):
        raise Wrong(
            f"no wait longer than {LONGEST:g} s, so that this check ends", f"yours has waits of up to {policy.steps()[-1] / 1000:g} s"
        )
    bank, leave = _bank(lesson, policy)
    network = Network(lesson)
    network.fail(1_000_000)
    bank.on_message(network.pay)
    sent = leave([10] * STORM_MESSAGES)

    def ended() -> bool:
        return len({event["message_id"] for event in _records(lesson, sent, HANDLED, DEAD)}) == len(sent)

    with contextlib.suppress(NotInTime):
        wait_until(lambda: len(network.calls) >= STORM_CALLS or ended(), STORM_SECONDS)
    calls = len(network.calls)
    network.fail(0)
    wait_until(ended, 20, "the storm is over")
    dead = {event["message_id"] for event in _records(lesson, sent, DEAD)}
    if dead:
        lesson.chat.dead_letters.purge(*dead)
    if calls < STORM_CALLS:
        raise Wrong(
            f"a network that is down gets fewer than {STORM_CALLS} calls from your {STORM_MESSAGES} messages: shorter waits, more attempts",
            f"{calls} calls, and {len(dead)} of the messages have given up",
        )
    return f"{STORM_MESSAGES} messages made {STORM_CALLS} calls to a network that had no answer for any of them"


def _written(function: Any) -> None:
    if not callable(require_answer(function)):
        raise Wrong("give me the function itself, without calling it")
    answer = None
    try:
        answer = function(None, None)
    except Exception:  # noqa: BLE001  with nothing to work on, only the stub gets to its end
        return
    require_answer(... if answer is ... else function, "the stub: write the function first")


CHECKS: dict[str, Callable[..., str]] = {"1": waits, "2": one_of_ten, "3": careful, "4": storm}
