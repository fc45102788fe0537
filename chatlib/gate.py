"""Holds back what is said to a group until the group's history, if it keeps one, can take it.

After a start of the broker its streams come up last, up to a second after it takes connections. Until then RabbitMQ does not see
them at all: what is published to a group goes to the inboxes of its members, is confirmed, and never gets into the history
(measured: 300 to 900 confirmed messages lost to it in 4 of 12 kills, RabbitMQ 3.10.8). Without members it is returned.

So the first messages to each group on each connection are held until there is an answer: is the group registered as one with a
history? This takes no time worth mentioning. If it is, a mark is written to the stream, again and again until it is taken: the stream
is up. What is for others goes on meanwhile.
Nothing that the broker would note as an error is asked. On the I/O thread only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
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
"""Seconds for the answer to a mark, doubled each time up to `LONGEST`. RabbitMQ starts the writer of a stream twice after some kills;
what the first had taken gets no answer, ever, on that channel (15 of 408 kills on 3.10, two in a row each time; seen in the log of 4.0,
too), and on another one within 0.2 s. Behind a mark that was answered nothing was silent in those 408 (measured)."""

LONGEST: Final = 64.0  # seconds; a stream may be broken for good, and another channel costs everybody a moment


class Gate:
    """write(outgoing): puts it on the wire now. later(seconds, function): calls it then. release(held): these may go now, in this order.

    on_silent(): this channel gets no answer. Its length, also asked from other threads: how many are held.
    """

    def __init__(
        self,
        write: Callable[[Outgoing], None],
        later: Callable[[float, Callable[[], None]], object],
        release: Callable[[list[Outgoing]], None],
        on_silent: Callable[[], None] = lambda: None,
    ) -> None:
        self._write = write
        self._later = later
        self._release = release
        self._on_silent = on_silent
        self._open: set[str] = set()
        self._held: dict[str, list[Outgoing]] = {}  # by group; each was asked about
        self._patience: dict[str, float] = {}  # of groups that were silent
        self._silent: set[str] = set()  # ids of marks without an answer
        self._epoch = 0

    def __len__(self) -> int:
        return sum(map(len, list(self._held.values()))) if self._held else 0

    def lets(self, outgoing: Outgoing) -> bool:
        """Whether it may go now; if not, `hold` it."""
        return outgoing.exchange != GROUPS.name or outgoing.key in self._open

    def hold(self, outgoing: Outgoing) -> None:
        """Keep it until its group may be written to, and `release` it then; a confirm comes when that is so."""
        held = self._held.setdefault(outgoing.key, [])
        held.append(outgoing)
        if len(held) == 1:
            self._is_registered(outgoing.key)

    def drain(self) -> list[Outgoing]:
        """The connection is gone, and with it all that was known: take out everything, each group in its order."""
        self._epoch += 1
        held = [outgoing for each in self._held.values() for outgoing in each]
        self._open.clear()
        self._held.clear()
        self._silent.clear()
        return held

    def _opens(self, key: str) -> None:
        self._open.add(key)
        self._release(self._held.pop(key, []))

    def _is_registered(self, key: str) -> None:
        epoch, deadline = self._epoch, time.monotonic() + PATIENCE

        def answered(_: Outgoing, result: str, __: str) -> None:
            if epoch != self._epoch:
                return
            if result == CONFIRMED:
                self._mark(key, epoch, deadline)
            else:
                self._opens(key)

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
            self._patience.pop(key, None)
            self._opens(key)

        def look() -> None:
            if mark.message_id in self._silent:
                _log.warning("the history of the group %r does not answer: going on over another channel", unescape(key))
                self._patience[key] = min(2 * patience, LONGEST)
                self._on_silent()

        mark = self._probe("", history_queue(unescape(key)), answered)
        self._silent.add(mark.message_id)
        patience = self._patience.get(key, SILENCE)
        self._later(patience, look)
        self._write(mark)

    def _probe(self, exchange: str, key: str, on_outcome: Callable[[Outgoing, str, str], None]) -> Outgoing:
        mark = "mark-" + new_message_id()
        return Outgoing(exchange, key, b"", mark, MARK, int(time.time()), on_outcome, once=True, silent=True)
