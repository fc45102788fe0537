"""Acks and duplicates. What the answers are held against is done on the learner's own broker, by clerks that are really killed."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import uuid
from collections.abc import Callable
from typing import Any

from chatlib.events import DELIVERED
from chatlib.lab.clerk import Clerk, open_book
from chatlib.lab.exercises import NotYet, Wrong, require_answer
from chatlib.lab.lesson import Lesson
from chatlib.names import inbox_queue

__all__ = ["CHECKS"]

LIVES = (4, 5, 6)  # statements that a clerk's database executes before he is killed, one life after the other
AFTER = "after the work"
PAYMENTS, AMOUNT, BALANCE = 12, 10, 1000
EFFECTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a": lambda world: world.update(balance=990),
    "b": lambda world: world.update(balance=world["balance"] - 10),
    "c": lambda world: world["printed"].append("receipt for P01"),
    "d": lambda world: world["files"].update({"P01.txt": "paid 10"}),
    "e": lambda world: world["paid"].add("P01"),
}


def carry_out(message: Any, book: Any) -> None:
    """What clerks of the checks do: the work, then the ack."""
    book.add(message)
    message.ack()


def _bank(lesson: Lesson, payments: int) -> str:
    """A bank of a name that nobody had before, away, with so many payments in its inbox."""
    mark = uuid.uuid4().hex[:6]
    (bank,) = lesson.chat.users([f"bank-{mark}"], online=False)
    shop = lesson.chat.user(f"shop-{mark}")
    orders = (json.dumps({"order": f"X{number:02}", "amount": AMOUNT}) for number in range(1, payments + 1))
    for sent in shop.send_many((bank.address, order) for order in orders):
        sent.wait()
    return bank.name


def hands_full(lesson: Lesson, answers: Any) -> str:
    """Ten wait, prefetch 4, three are acked, killed with the fourth in hand: waiting before, waiting after, flagged."""
    answers = require_answer(answers, "the ... in answers")
    if not isinstance(answers, (tuple, list)) or len(answers) != 3:
        raise Wrong("give three numbers, such as (1, 2, 3)")
    if any(answer is ... for answer in answers):
        raise NotYet("put your three numbers in the place of the ..., run that cell, then this one")
    name = _bank(lesson, 10)
    clerk = Clerk(lesson, carry_out, open_book(lesson), name=name, prefetch=4)
    clerk.start(halt_at=4, place="before the ack")
    seen = [lesson.depth(inbox_queue(name))[0]]
    clerk.kill()
    seen.append(lesson.depth(inbox_queue(name))[0])
    clerk.start()
    clerk.finish()
    came = [event for event in lesson.history if event["hop"] == DELIVERED and event["user"] == name]
    seen.append(len({event["message_id"] for event in came if event["redelivered"]}))
    facts = ("wait in the queue just before the kill", "wait right after it", "come with the flag redelivered")
    for what, said, saw in zip(facts, answers, seen, strict=True):
        if said != saw:
            raise Wrong(f"not {said} {what}", f"I killed such a clerk on your broker, and {saw} {what}")
    return f"I killed such a clerk on your broker: {seen[0]} waited before, {seen[1]} after, and {seen[2]} came with the flag"


def harmless_twice(lesson: Lesson, answer: Any) -> str:
    """Which of five effects leaves the world as it was when it happens again?"""
    answer = require_answer(answer)
    said = {str(each).strip().lower() for each in answer} if isinstance(answer, (set, list, tuple, str)) else None
    if said is None or not said <= EFFECTS.keys():
        raise Wrong('give a set of letters, such as {"a", "b"}', f"you gave {answer!r:.60}")
    harmless, worlds = set(), {}
    for letter, effect in EFFECTS.items():
        once = _world()
        effect(once)
        twice = _world()
        effect(twice)
        effect(twice)
        worlds[letter] = next(((once[key], twice[key]) for key in once if once[key] != twice[key]), None)
        if once == twice:
            harmless.add(letter)
    for letter in sorted(said - harmless):
        once_, twice_ = worlds[letter] or ("", "")
        raise Wrong(f"{letter}) does harm when it happens twice", f"I did it: once gives {once_!r}, twice gives {twice_!r}")
    for letter in sorted(harmless - said):
        raise Wrong(f"{letter}) does no harm when it happens twice", "I did it once, and I did it twice: the same came out")
    return f"I did each once and twice: {', '.join(sorted(harmless))} came out the same"


def _world() -> dict[str, Any]:
    return {"balance": 1000, "printed": [], "files": {}, "paid": set()}


def withdraw(lesson: Lesson, function: Any) -> str:
    """Idempotent work on a database, by a clerk who is killed before one of its statements, life after life."""
    _written(function)
    name = _bank(lesson, PAYMENTS)
    book = open_book(lesson)
    with contextlib.closing(sqlite3.connect(book.path)) as database, database:
        database.execute("CREATE TABLE account (balance INTEGER)")
        database.execute("INSERT INTO account VALUES (?)", (BALANCE,))
        database.execute("CREATE TABLE seen (message_id TEXT PRIMARY KEY)")
    clerk = Clerk(lesson, function, book, name=name, prefetch=1, database=True)
    clerk.start(halt_at=1, place="after the work")
    clerk.kill()
    for statements in LIVES:
        clerk.start(die_before=statements)
        clerk.wait_dead()
    clerk.start()
    clerk.finish()
    if clerk.errors:
        raise Wrong("your function raised an exception in the clerk's process", clerk.errors[0])
    with contextlib.closing(sqlite3.connect(book.path)) as database:
        (balance,) = database.execute("SELECT balance FROM account").fetchone()
    right = BALANCE - PAYMENTS * AMOUNT
    if balance != right:
        times = (BALANCE - balance) / AMOUNT
        what = "more than once: a message came again after a kill" if balance < right else "not at all, or it was not committed"
        raise Wrong(
            f"some payment was taken off {what}; the mark in seen and the new balance belong into one transaction",
            f"{PAYMENTS} payments of {AMOUNT}, {len(LIVES) + 1} kills: {balance} are left of {BALANCE}, which is {times:g} payments",
        )
    return (
        f"{PAYMENTS} payments of {AMOUNT}, and your clerk was killed {len(LIVES) + 1} times: {balance} are left of {BALANCE}, to the cent"
    )


def break_memory(lesson: Lesson, function: Any) -> str:
    """Two clerks who both remember on disk, each in a folder of his own, and yet a payment is in the book twice."""
    _written(function)
    name, book = _bank(lesson, 5), open_book(lesson)
    one, two = (Clerk(lesson, carry_out, book, name=name, remembers=True) for _ in range(2))
    function(one, two)
    if not book.lines and not one.is_alive and not two.is_alive:
        raise Wrong("nobody has done anything: start both clerks", "the book is empty, and 5 payments wait")
    if "after the work" in (one.halted_at, two.halted_at):
        raise Wrong("stopped there, one clerk alone would do it twice as well: let him finish his work", f"stopped {AFTER!r}")
    if one.open and not one.is_alive and not two.is_alive:
        raise Wrong("somebody has to be there to go on: start the other one", f"{len(one.open)} payments wait, and no clerk is at work")
    for clerk in (one, two):
        clerk.finish()
    if not book.twice:
        raise Wrong("each payment is in the book once: make one of them die between his memory and his ack", f"{len(book)} lines, 5 orders")
    return (
        f"{', '.join(book.twice)} is in the book twice, although both remember: each only what he did himself. "
        "Consumers that share an inbox have to share their memory, or their work has to be idempotent"
    )


def _written(function: Any) -> None:
    if not callable(require_answer(function)):
        raise Wrong("give me the function itself, without calling it")
    with contextlib.suppress(Exception):  # with nothing to work on, only the stub gets to its end
        if function(None, None) is ...:
            function = None
    require_answer(function, "the stub: write the function first")


CHECKS: dict[str, Callable[..., str]] = {"1": hands_full, "2": harmless_twice, "3": withdraw, "4": break_memory}
