"""A clerk of the bank: a process of its own, which takes payments out of an inbox, and which can be killed at an exact place."""

from __future__ import annotations

import contextlib
import inspect
import json
import multiprocessing
import tempfile
import textwrap
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chatlib import events
from chatlib.lab import clerk_process
from chatlib.lab.book import Book
from chatlib.lab.pictures import spans
from chatlib.lab.waiting import wait_until
from chatlib.names import inbox_queue

if TYPE_CHECKING:
    from chatlib.lab.lesson import Lesson

__all__ = ["KILLED", "PLACES", "STUCK", "Clerk", "open_book"]

KILLED: Final = "clerk killed"  #: the name of the fault
STUCK: Final = "clerk stuck"
PLACES: Final = ("before the work", "after the work", "before the ack")
"""Where a clerk can be stopped: before he writes into the book, right after that, or when all is done but the ack is not on its way."""


def open_book(lesson: Lesson) -> Book:
    """An empty book that goes when the lesson ends."""
    book = Book(Path(_folder(lesson)) / "book.sqlite3")
    lesson.closing(book.close)
    return book


def _folder(lesson: Lesson) -> str:
    folder = tempfile.TemporaryDirectory(prefix="chatlib-lesson-")
    lesson.closing(folder.cleanup)
    return folder.name


class Clerk:
    """Carries out `work(message, book)` for each message in the inbox of `name`, as its handler, in a process of his own.

    work: his process gets its text, so that it knows nothing of the notebook but what is written in it (and json and sqlite3).
    prefetch: how many messages the broker may hand him at a time. remembers: whether the ids of what he has handled are on disk
    (chatlib's data_dir) when he is started again. database: give `work` the bare sqlite3 connection instead of a Book.
    """

    def __init__(
        self,
        lesson: Lesson,
        work: Callable[..., object],
        book: Book,
        *,
        name: str = "bank",
        prefetch: int = 5,
        remembers: bool = False,
        database: bool = False,
    ) -> None:
        self.remembers = remembers
        self.halted_at = ""  #: the place where he was asked to stop, in this life or in the last
        self.errors: list[str] = []
        self._lesson = lesson
        self._work = work
        self._book = book
        self._name = name
        self._prefetch = prefetch
        self._database = database
        self._folder = _folder(lesson)
        self._process: BaseProcess | None = None
        self._line: Connection | None = None
        self._reader: threading.Thread | None = None
        self._heard: list[str] = []
        self._settled: set[str] = set()  # message ids that were acked in this life
        lesson.closing(self._close)

    @property
    def is_alive(self) -> bool:
        """Whether his process runs."""
        return self._process is not None and self._process.is_alive()

    def start(self, *, halt_at: int = 0, place: str = "before the ack", die_before: int = 0) -> None:
        """Start his process. He takes messages when this returns; nothing happens if he is there already.

        halt_at: with his payment of this number in hand he stands still, at `place`, and this returns when he does, and when the
        broker has every ack that he wrote before. die_before: with a database, he is killed before this number of statements.
        """
        if place not in PLACES:
            raise ValueError(f"a clerk stops at one of {', '.join(map(repr, PLACES))}, not at {place!r}")
        if self.is_alive:
            return
        self._after()
        waiting, _ = self._lesson.depth(inbox_queue(self._name))
        self._heard, self._settled = [], set()
        self.halted_at = place if halt_at else ""
        options = {
            "url": self._lesson.broker.url,
            "source": textwrap.dedent(inspect.getsource(self._work)),
            "function": self._work.__name__,
            "name": self._name,
            "prefetch": self._prefetch,
            "data_dir": self._folder if self.remembers else None,
            "book": str(self._book.path),
            "database": self._database,
            "halt_at": halt_at,
            "place": place,
            "die_before": die_before,
        }
        self._spawn(options)
        wait_until(lambda: "ready" in self._heard or not self.is_alive, 30, f"{self!r} is ready")
        if "ready" not in self._heard and self._reader is not None:
            self._reader.join()  # he has died, and said why
        if self._lesson_has(KILLED):
            self._lesson.fault_ended(KILLED)
        if halt_at:
            self._wait_halted(waiting)

    def _spawn(self, options: dict[str, Any]) -> None:
        # A server that has chatlib imported already forks them: a new interpreter takes a quarter of a second of work for each.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([clerk_process.__name__])
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=clerk_process.main, args=(options, theirs), name="clerk", daemon=True)
        self._process.start()
        theirs.close()
        self._reader = threading.Thread(target=self._listen, args=(self._line,), name=f"{self._name} clerk", daemon=True)
        self._reader.start()

    def _listen(self, line: Connection) -> None:
        with contextlib.suppress(EOFError, OSError):  # he is gone, perhaps in the middle of a word
            while True:
                told = json.loads(line.recv_bytes())
                if "hop" in told:
                    self._lesson.recorder(told)
                    if told["hop"] in (events.ACKED, events.DROPPED):
                        self._settled.add(told["message_id"])
                elif told["clerk"] == "error":
                    self.errors.append(told["why"])
                else:
                    self._heard.append(told["clerk"])

    def _wait_halted(self, waiting: int) -> None:
        wait_until(lambda: "halted" in self._heard or self.errors or not self.is_alive, 30, f"{self!r} stands still")
        if "halted" not in self._heard:
            return
        queue = inbox_queue(self._name)

        def all_acks_are_there() -> bool:  # each ack lets the broker hand out one more
            return self._lesson.depth(queue)[0] == max(0, waiting - len(self._settled) - self._prefetch)

        wait_until(all_acks_are_there, 10, "the broker has the acks of what he did before")
        self._lesson.fault_began(STUCK)

    def kill(self) -> None:
        """The fault of this lesson: SIGKILL, no warning and no goodbye. Returns when the broker has noticed, too."""
        if self._process is None or not self.is_alive:
            return
        queue = inbox_queue(self._name)
        _, consumers = self._lesson.depth(queue)
        if self._lesson_has(STUCK):
            self._lesson.fault_ended(STUCK)
        self._lesson.fault_began(KILLED)
        self._process.kill()
        self._process.join()
        wait_until(lambda: self._lesson.depth(queue)[1] < consumers, 10, "the broker has noticed")
        if consumers > 1:  # somebody else goes on with the work
            self._lesson.fault_ended(KILLED)
        self._after()

    def _lesson_has(self, fault: str) -> bool:
        return any(name == fault and ended is None for name, _, ended in spans(self._lesson.history))

    def finish(self, timeout: float = 20.0) -> None:
        """Wait until everything that was sent to `name` was handled by somebody; then he goes home, and the book is in the record."""
        wait_until(lambda: not self.open or self.errors, timeout, f"all payments to @{self._name} are handled")
        if self._process is not None and self._line is not None:
            with contextlib.suppress(OSError):  # he is gone already
                self._line.send_bytes(b"go home")
            self._process.join(20)
        self._close()

    def wait_dead(self, timeout: float = 20.0) -> bool:
        """Wait until he has died by himself, or handled everything; whether he is dead."""
        wait_until(lambda: not self.is_alive or not self.open, timeout, f"{self!r} is dead or done")
        if self.is_alive:
            return False
        wait_until(lambda: not self._lesson.depth(inbox_queue(self._name))[1], 10, "the broker has noticed")
        return True

    @property
    def open(self) -> set[str]:
        """The ids of what was sent to `name` and is neither acked, nor dropped as a duplicate, nor a dead letter."""
        sent, done = set(), set()
        for event in self._lesson.history:
            if event["hop"] == events.STORED and event["to"] == f"@{self._name}":
                sent.add(event["message_id"])
            elif event["hop"] in (events.ACKED, events.DROPPED, events.DEAD) and event["user"] == self._name:
                done.add(event["message_id"])
        return sent - done

    def _after(self) -> None:
        """His process is gone: take in its last words, and what stands in the book since the last time."""
        if self._process is None:
            return
        self._process.join()
        if self._reader is not None:
            self._reader.join()
        if self._line is not None:
            self._line.close()
        self._process = self._reader = self._line = None
        if not self._database:
            for line in self._book.news():  # a payment is handled when it stands in the book, whatever the clerk thought of it
                self._lesson.recorder(
                    {"hop": events.HANDLED, "at": line.at, "message_id": line.message_id, "user": line.user, "attempt": 1}
                )

    def _close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._after()

    def __repr__(self) -> str:
        return f"<Clerk {'at work' if self.is_alive else 'away'}, memory {'on disk' if self.remembers else 'in his head'}>"
