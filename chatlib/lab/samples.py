"""Sampling a queue while a lesson runs: how many messages wait, twenty times a second."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chatlib.errors import ChatError
from chatlib.lab.waiting import wait_until
from chatlib.names import inbox_queue

if TYPE_CHECKING:
    from chatlib.lab.lesson import Lesson

__all__ = ["Depth", "watch"]

PERIOD = 0.05  # seconds
LEVEL = 6  # samples of the same number that are seen as a level


@dataclass(eq=False)
class Depth:
    """How many messages waited in the inbox of `user`: `points` of (Unix seconds, messages). `stop` ends the sampling; idempotent."""

    user: str
    points: list[tuple[float, int]] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @property
    def highest(self) -> int:
        """The most that ever waited."""
        return max((count for _, count in self.points), default=0)

    def shows(self, count: int) -> None:
        """Wait until the last few samples all say `count`, so that the line has a level there. Raises NotInTime."""
        wait_until(
            lambda: [waiting for _, waiting in self.points[-LEVEL:]] == [count] * LEVEL, 10, f"{count} messages wait for {self.user}"
        )

    def stop(self) -> None:
        """Take a few more samples, so that the line shows how it ended, and then no more."""
        if not self._ended.is_set():
            self._ended.wait(4 * PERIOD)
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def __repr__(self) -> str:
        return f"<Depth of the inbox of {self.user}>"


def watch(lesson: Lesson, user: str) -> Depth:
    """Sample the inbox of `user` in the background until `stop`, or until the lesson ends."""
    depth = Depth(user)

    def run() -> None:
        while not depth._ended.wait(PERIOD):
            try:
                waiting, _ = lesson.depth(inbox_queue(user))
            except ChatError:
                continue  # the broker is away, or the lesson is ending: a gap in the line
            depth.points.append((time.time(), waiting))

    depth._thread = threading.Thread(target=run, name=f"depth of {user}", daemon=True)
    depth._thread.start()
    lesson.closing(depth.stop)
    wait_until(lambda: len(depth.points) >= 4, 10, f"the first samples of the inbox of {user}")
    return depth
