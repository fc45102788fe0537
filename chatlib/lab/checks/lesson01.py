"""Why asynchronous? What the answers are held against is done on the learner's own broker, with fresh names each time."""

from __future__ import annotations

import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from chatlib.lab.bank import Bank
from chatlib.lab.exercises import NotYet, Wrong, require_answer
from chatlib.lab.lesson import Lesson
from chatlib.lab.waiting import wait_until
from chatlib.management import Management
from chatlib.names import inbox_queue
from chatlib.sent import SentMessage, SentState
from chatlib.user import ChatUser

__all__ = ["CHECKS"]

ORDERS = [(f"B{number:02}", 5 + number) for number in range(1, 21)]


def _pair(lesson: Lesson) -> tuple[ChatUser, ChatUser]:
    """A shop that is online and a bank that is away, with names that nobody had before."""
    mark = uuid.uuid4().hex[:6]
    shop, bank = lesson.chat.users([f"shop-{mark}", f"bank-{mark}"])
    bank.go_offline()
    return shop, bank


def waiting_while_down(lesson: Lesson, answers: Any) -> str:
    """Five are sent while the bank is away; it comes back and takes two; three more are sent."""
    answers = require_answer(answers, "the ... in answers")
    if not isinstance(answers, (tuple, list)) or len(answers) != 3:
        raise Wrong("give three numbers, such as (1, 2, 3)")
    if any(answer is ... for answer in answers):
        raise NotYet("put your three numbers in the place of the ..., run that cell, then this one")
    shop, bank = _pair(lesson)
    seen = []
    for number in range(5):
        shop.send(bank.address, f"payment {number}").wait()
    seen.append(bank.waiting)
    bank.go_online()
    for message in bank.receive(limit=2, timeout=10):
        message.ack()
    bank.go_offline()
    wait_until(lambda: bank.waiting == 3, 10, "the bank has given back what it had not handled")
    seen.append(bank.waiting)
    for number in range(5, 8):
        shop.send(bank.address, f"payment {number}").wait()
    seen.append(bank.waiting)
    moments = ("after the first five", "when the bank had handled two and left again", "after three more")
    for moment, said, saw in zip(moments, answers, seen, strict=True):
        if said != saw:
            raise Wrong(f"{moment} it is not {said}", f"{bank.name} had {saw} messages waiting {moment}")
    return f"I did it on your broker, and {', '.join(map(str, seen))} messages waited"


def way_to_the_kitchen(lesson: Lesson, exchange: Any, key: Any, queue: Any) -> str:
    """Through which exchange, under which key, into which queue does a message to @kitchen go?"""
    said = tuple(require_answer(each, "each ...") for each in (exchange, key, queue))
    kitchen = lesson.chat.user("kitchen")
    kitchen.go_offline()
    with Management(lesson.broker.management_url, login=lesson.broker.url) as management:
        bindings = management.get(management.in_vhost("queues", inbox_queue("kitchen")) + "/bindings")
    found = [(each["source"], each["routing_key"], each["destination"]) for each in bindings if each["source"]]
    for position, what in enumerate(("exchange", "key", "queue")):
        if said[position] not in {binding[position] for binding in found}:
            shown = "; ".join(f"exchange {a}, key {b}, queue {c}" for a, b, c in found)
            raise Wrong(f"{said[position]!r} is not the {what}", f"I signed up a user called kitchen, and the broker says: {shown}")
    return f"I signed up a user called kitchen and asked the broker: {' → '.join(said)}"


def pay_all(lesson: Lesson, function: Any) -> str:
    """All payments sent with the bank away, and the function returns only when the broker has them all on disk."""
    function = _function(function)
    shop, bank = _pair(lesson)
    _unstubbed(function(shop, bank.address, []), "return a list also when there is nothing to pay")
    # While the node is frozen nothing can be confirmed: who returns now has not waited.
    thaw = threading.Timer(0.6, lesson.broker.thaw)
    lesson.broker.freeze()
    thaw.start()
    try:
        sent = function(shop, bank.address, list(ORDERS))
        early = [each for each in sent if isinstance(each, SentMessage) and each.state is SentState.PENDING] if sent else []
    finally:
        thaw.join()
        lesson.broker.thaw()
    if not isinstance(sent, list) or not all(isinstance(each, SentMessage) for each in sent):
        raise Wrong("return the list of what send() returned", f"your function returned {sent!r:.80}")
    if early:
        raise Wrong(
            "your function returned before the broker had everything on disk: wait() for each message, after sending them all",
            f"I froze the broker for 0.6 s, and {len(early)} of {len(sent)} messages were still pending when your function returned",
        )
    wait_until(lambda: lesson.chat.unconfirmed == 0, 10, "everything sent has its outcome")
    if bank.waiting != len(ORDERS):
        raise Wrong(f"each of the {len(ORDERS)} orders is to be sent once", f"{bank.waiting} messages wait in the bank's inbox")
    bank.go_online()
    got = []
    for message in bank.receive(limit=len(ORDERS), timeout=10):
        got.append(_payment(message.content))
        message.ack()
    bank.go_offline()
    if got != ORDERS:
        wrong = next(number for number, (a, b) in enumerate(zip(got, ORDERS, strict=False)) if a != b)
        raise Wrong(
            "the bank reads JSON with order and amount, in the order of the list",
            f"number {wrong + 1} came as {got[wrong]}, not {ORDERS[wrong]}",
        )
    return (
        "the bank was away and the broker frozen for 0.6 s; your function waited, and afterwards all 20 payments lay in the queue, in order"
    )


def charge_twice(lesson: Lesson, function: Any, bank: Any) -> str:
    """A synchronous call that gives up and asks again: the customer pays twice."""
    function = _function(function)
    if not isinstance(bank, Bank):
        raise Wrong("pass the bank of this lesson: check('1.4', impatient_pay, bank)")
    bank.start()
    order = f"X{uuid.uuid4().hex[:4]}"
    bank.slow(0.6)
    try:
        answer = function(order, 50)
    finally:
        bank.slow(0)
    if answer is ...:
        raise NotYet("write the function first")

    def booked() -> int:
        return Counter(name for name, _ in list(bank.booked))[order]

    try:
        wait_until(lambda: booked() > 1, 1.5)
    except AssertionError:
        raise Wrong(
            "the customer was not charged twice: give up before the bank has answered (it takes 0.6 s now), and ask again",
            f"order {order} was booked {booked()} time{'' if booked() == 1 else 's'}",
        ) from None
    return f"order {order} was booked {booked()} times: the customer paid {50 * booked()} for something that costs 50"


def _function(function: Any) -> Callable[..., Any]:
    require_answer(function)
    if not callable(function):
        raise Wrong("give me the function itself, without calling it")
    return cast(Callable[..., Any], function)


def _unstubbed(answer: Any, hint: str) -> None:
    if answer is ...:
        raise NotYet("write the function first")
    if not isinstance(answer, list):
        raise Wrong(hint, f"for no orders at all it returned {answer!r:.80}")


def _payment(content: str) -> Any:
    try:
        found = json.loads(content)
        return (found["order"], found["amount"])
    except (ValueError, KeyError, TypeError):
        return content[:60]


CHECKS: dict[str, Callable[..., str]] = {"1": waiting_while_down, "2": way_to_the_kitchen, "3": pay_all, "4": charge_twice}
