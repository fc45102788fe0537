"""What a `Clerk` does in his process: handle messages with the learner's function, and die where he is told to.

He ends when the other end of his connection is closed, or by SIGKILL. Over it he tells each hop of each message, one `send` each, so
that SIGKILL leaves nothing behind in a buffer. What he prints goes nowhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import chatlib
from chatlib import ReceivedMessage, RetryPolicy, Settings, events
from chatlib.lab.book import Book

__all__ = ["main"]


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


def main(options: dict[str, Any], line: Connection) -> None:
    """Do as `options` say (see `Clerk.start`), until `line` is closed at the other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # interrupting the kernel is no reason to leave
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    writing = threading.Lock()

    def tell(what: dict[str, Any]) -> None:
        with writing, contextlib.suppress(OSError):
            line.send_bytes(json.dumps(what, default=str).encode())

    try:
        work(options, line, tell)
    except BaseException as exc:  # noqa: BLE001  whatever it is, there is nobody else to hear of it
        tell({"clerk": "error", "why": f"{type(exc).__name__}: {exc}"})
    os._exit(0)  # without waiting for a thread that stands still for ever


def work(options: dict[str, Any], line: Connection, tell: Callable[[dict[str, Any]], None]) -> None:
    """Handle messages until the other end of `line` is closed."""
    place = Place(options["halt_at"], options["place"], tell)
    names: dict[str, Any] = {"json": json, "sqlite3": sqlite3}
    exec(compile(options["source"], "<your function>", "exec"), names)  # noqa: S102  the learner's own code, on the learner's machine
    function = names[options["function"]]
    means: Any
    if options["database"]:
        means = mortal(options["book"], options["die_before"])
    else:
        means = StoppingBook(options["book"], options["name"])
        means.place = place

    def handler(message: ReceivedMessage) -> None:
        place.next()
        try:
            function(message, means)
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
        with contextlib.suppress(EOFError, OSError):
            line.recv_bytes()
