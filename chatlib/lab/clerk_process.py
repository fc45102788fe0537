"""The process of a `Clerk`: ``python -m chatlib.lab.clerk_process``. Ends when its standard input does, or by SIGKILL.

The first line of standard input says what to do, in JSON. On standard output it tells each hop of each message, a line of JSON and
one `write` each, so that SIGKILL leaves nothing behind in a buffer. What it prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import chatlib
from chatlib import ReceivedMessage, RetryPolicy, Settings, events
from chatlib.lab.book import Book


class Place:
    """Where the clerk stops dead, if he is asked to: at `place` of his payment number `number`, counted from 1 in this life."""

    def __init__(self, number: int, place: str, tell: Callable[[dict[str, Any]], None]) -> None:
        self._number, self._place, self._tell = number, place, tell
        self._now = 0

    def next(self) -> None:
        """He has taken the next payment into his hands."""
        self._now += 1

    def reached(self, place: str) -> None:
        """He is at `place`: for ever, if that is where he stops."""
        if self._now == self._number and place == self._place:
            self._tell({"clerk": "halted"})
            threading.Event().wait()


class StoppingBook(Book):
    """A book in which the clerk may stop before or after he writes a line."""

    place: Place

    def _write(self, statement: str, message: ReceivedMessage) -> None:
        self.place.reached("before the work")
        super()._write(statement, message)
        self.place.reached("after the work")


def mortal(path: str, statements: int) -> sqlite3.Connection:
    """A database in which this process is killed before it executes statement number `statements`; 0: never."""
    database = sqlite3.connect(path, timeout=10, check_same_thread=False)
    count = 0

    def die(_: str) -> None:
        nonlocal count
        count += 1
        if count == statements:
            os.kill(os.getpid(), signal.SIGKILL)

    if statements:
        database.set_trace_callback(die)
    return database


def main() -> None:
    """Do as the first line of standard input says, until there are no more."""
    options = json.loads(sys.stdin.readline())
    out = os.dup(1)
    os.dup2(2, 1)
    writing = threading.Lock()

    def tell(what: dict[str, Any]) -> None:
        with writing:
            os.write(out, json.dumps(what, default=str).encode() + b"\n")

    place = Place(options["halt_at"], options["place"], tell)
    names: dict[str, Any] = {"json": json, "sqlite3": sqlite3}
    exec(compile(options["source"], "<your function>", "exec"), names)  # noqa: S102  the learner's own code, on the learner's machine
    work = names[options["function"]]
    means: Any
    if options["database"]:
        means = mortal(options["book"], options["die_before"])
    else:
        means = StoppingBook(options["book"], options["name"])
        means.place = place

    def handler(message: ReceivedMessage) -> None:
        place.next()
        try:
            work(message, means)
        except BaseException as exc:
            tell({"clerk": "error", "why": f"{type(exc).__name__}: {exc}"})
            raise
        place.reached("after the work")

    def on_event(event: dict[str, Any]) -> None:
        # What is handled stands in the book, and is told from there. Here the library says: the id is remembered, the ack comes next.
        if event["hop"] == events.HANDLED:
            place.reached("before the ack")
        else:
            tell(event)

    settings = Settings(prefetch=options["prefetch"], retry=RetryPolicy(attempts=1))  # what fails is told, not tried again
    with chatlib.connect(options["url"], data_dir=options["data_dir"], settings=settings, name="clerk", on_event=on_event) as chat:
        chat.user(options["name"]).on_message(handler)
        tell({"clerk": "ready"})
        sys.stdin.read()


def run() -> NoReturn:
    """`main`, and then no waiting for a thread that stands still for ever."""
    main()
    os._exit(0)


if __name__ == "__main__":
    run()
