"""What a replicated queue refuses (nack), and why: it is full, or there is no leader where the broker looks for one.

RabbitMQ gives one answer to both. When the leader of a quorum queue has died, a channel that writes to that queue for the first time
asks the dead node, says nack to this and to all that follows, and goes on so until that node is back (3.10; a channel that is opened
after the others have agreed on a new leader asks that one). So what was refused is held, with all else for its address, until somebody
has looked whether an inbox is full. If none is, everything without a confirm goes out again in its order, over a new channel.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from chatlib.envelope import Outgoing

__all__ = ["Judge", "Refusals"]

_log = logging.getLogger("chatlib.refusals")

PAUSE: Final = 0.2  # seconds before it goes out again; the nodes agree on a new leader in a fraction of a second
PATIENCE: Final = 30.0  # seconds of refusals to one address until it is believed that an inbox is full, where nobody can tell

Judge = Callable[[Outgoing, Callable[[bool | None], None]], None]
"""judge(refused, decide): find out whether an inbox is full, elsewhere, and call `decide`: True, False, or None where nobody can tell."""


class Refusals:
    """On the I/O thread only. later(seconds, function): calls it then. again(): everything goes out again, over a new channel.

    reject(those): an inbox of theirs is full, this is their outcome. judge: None, and whatever is refused is not taken.
    """

    def __init__(
        self,
        later: Callable[[float, Callable[[], None]], object],
        again: Callable[[], None],
        reject: Callable[[list[Outgoing]], None],
    ) -> None:
        self.judge: Judge | None = None
        self._later = later
        self._again = again
        self._reject = reject
        self._held: dict[tuple[str, str], list[Outgoing]] = {}
        self._since: dict[tuple[str, str], float] = {}
        self._epoch = 0
        self._waiting = False  # to go out again

    def __len__(self) -> int:
        return sum(map(len, list(self._held.values()))) if self._held else 0

    def takes(self, outgoing: Outgoing) -> bool:
        """Whether what was refused is held now: no outcome is to be told yet."""
        if self.judge is None or (outgoing.once and not outgoing.silent):
            return False
        if outgoing.silent:  # nobody's message; a queue with a leader takes it
            self._go_again()
            return outgoing.once  # whoever would write it again hears of it
        address, epoch = (outgoing.exchange, outgoing.key), self._epoch
        held = self._held.setdefault(address, [])
        held.append(outgoing)
        if len(held) == 1:
            self._since.setdefault(address, time.monotonic())
            self.judge(outgoing, lambda full: self._decide(address, full, epoch))
        return True

    def holds(self, outgoing: Outgoing) -> bool:
        """Whether it has to wait, behind what was refused for the same address."""
        return bool(self._held) and (outgoing.exchange, outgoing.key) in self._held

    def accepted(self, outgoing: Outgoing) -> None:
        """Its queues take messages."""
        if self._since:
            self._since.pop((outgoing.exchange, outgoing.key), None)

    def drain(self) -> list[Outgoing]:
        """Take out everything, in order: the channel is gone."""
        self._epoch += 1
        self._waiting = False
        held = [outgoing for each in self._held.values() for outgoing in each]
        self._held.clear()
        return held

    def _decide(self, address: tuple[str, str], full: bool | None, epoch: int) -> None:
        if epoch != self._epoch:
            return
        if full or (full is None and time.monotonic() - self._since[address] > PATIENCE):
            del self._since[address]
            self._reject(self._held.pop(address))
        else:
            self._go_again()

    def _go_again(self) -> None:
        if not self._waiting:
            self._waiting = True
            epoch = self._epoch
            _log.info("a queue refuses messages and is not full, it may have lost its leader: sending again")
            self._later(PAUSE, lambda: self._again() if epoch == self._epoch else None)
