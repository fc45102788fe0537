"""Holds back what is said to a group until the group's history, if it keeps one, can take it.

After a start of the broker its streams come up last, up to a second after it takes connections. Until then RabbitMQ does not see
them at all: what is published to a group goes to the inboxes of its members, is confirmed, and never gets into the history
(measured: 300 to 900 confirmed messages lost to it in 4 of 12 kills, RabbitMQ 3.10.8). Without members it is returned.

So the first message to each group on each connection waits for an answer: is the group registered as one with a history? This takes
no time worth mentioning. If it is, a mark is written to the stream, again and again until it is taken: the stream is up.
Nothing that the broker would note as an error is asked. On the I/O thread only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Final

from chatlib.envelope import CONFIRMED, RETURNED, Outgoing
from chatlib.messages import MARK, new_message_id
from chatlib.names import history_queue, unescape
from chatlib.topology import GROUPS, HISTORIES

__all__ = ["Gate"]

_log = logging.getLogger("chatlib.gate")

PAUSE: Final = 0.1  # seconds between two marks
PATIENCE: Final = 20.0  # seconds for a stream to come up; then its messages go on without it, and the log says so

SILENCE: Final = 2.0
"""Seconds for the answer to a mark. RabbitMQ 3.10 starts the writer of a stream twice after some kills; what the first had taken gets no
answer, ever, on that channel (1 of some 10 runs with two kills in a row), and on another one within 0.2 s (measured)."""


class Gate:
    """write(outgoing): puts it on the wire now. later(seconds, function): calls it then. on_silent(): this channel gets no answer."""

    def __init__(
        self,
        write: Callable[[Outgoing], None],
        later: Callable[[float, Callable[[], None]], object],
        on_silent: Callable[[], None] = lambda: None,
    ) -> None:
        self._write = write
        self._later = later
        self._on_silent = on_silent
        self._open: set[str] = set()
        self._asked: set[str] = set()
        self._silent: set[str] = set()  # ids of marks without an answer
        self._epoch = 0

    def lets(self, outgoing: Outgoing) -> bool:
        """Whether it may go now. If not, `ask`; a confirm comes when that has changed."""
        return outgoing.exchange != GROUPS.name or outgoing.key in self._open

    def has_asked(self, outgoing: Outgoing) -> bool:
        """Whether the answer for its group is on its way."""
        return outgoing.key in self._asked

    def ask(self, waiting: Iterable[Outgoing]) -> None:
        """Find out about the groups of all these."""
        for key in {outgoing.key for outgoing in waiting if not self.lets(outgoing)} - self._asked:
            self._asked.add(key)
            self._is_registered(key)

    def reset(self) -> None:
        """The connection is gone, and with it all that was known."""
        self._epoch += 1
        self._open.clear()
        self._asked.clear()
        self._silent.clear()

    def _is_registered(self, key: str) -> None:
        epoch, deadline = self._epoch, time.monotonic() + PATIENCE

        def answered(_: Outgoing, result: str, __: str) -> None:
            if epoch != self._epoch:
                return
            if result == CONFIRMED:
                self._mark(key, epoch, deadline)
            else:
                self._open.add(key)

        self._write(self._probe(HISTORIES.name, key, answered))

    def _mark(self, key: str, epoch: int, deadline: float) -> None:
        if epoch != self._epoch:
            return

        mark: Outgoing

        def answered(_: Outgoing, result: str, __: str) -> None:
            if epoch != self._epoch:
                return
            self._silent.discard(mark.message_id)
            if result == RETURNED and time.monotonic() < deadline:
                self._later(PAUSE, lambda: self._mark(key, epoch, deadline))
                return
            if result != CONFIRMED:
                _log.error("the history of the group %r does not come up: what is said there is not kept", unescape(key))
            self._open.add(key)

        def look() -> None:
            if mark.message_id in self._silent:
                _log.warning("the history of the group %r does not answer: going on over another channel", unescape(key))
                self._on_silent()

        mark = self._probe("", history_queue(unescape(key)), answered)
        self._silent.add(mark.message_id)
        self._later(SILENCE, look)
        self._write(mark)

    def _probe(self, exchange: str, key: str, on_outcome: Callable[[Outgoing, str, str], None]) -> Outgoing:
        mark = "mark-" + new_message_id()
        return Outgoing(exchange, key, b"", mark, MARK, int(time.time()), on_outcome, once=True, silent=True)
