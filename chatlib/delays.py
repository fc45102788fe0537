"""Where retried messages wait: queues on the broker, one for each delay, made when something is retried for the first time.

They are quorum queues that dead-letter at least once. A classic queue forgets an expired message before the next queue has it
on disk, so SIGKILL of the broker in that moment loses it: 165 to 892 of 1,000 in 7 of 9 tries (measured, RabbitMQ 3.10.8).
A young quorum queue is no safe place either (`topology.SETTLING`). So the original of what is put into one stays with the
broker, unacked, until the queue has settled; if the link is lost before that, everything is put into another set of queues,
and after the last set into the first one again. Nothing is ever deleted, since others may use the first set. That a set has
settled is said by an exchange, its mark: whoever comes later relies on it at once.

What no set takes is refused, and its original becomes a dead letter; but never while a copy may still be in one of them, since
it would come back from there: then the original stays with the broker until some set is reliable.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from chatlib.envelope import CONFIRMED, LOST, Outgoing
from chatlib.errors import AccessRefused, BrokerUnavailable, ChatClosed, ChatError
from chatlib.link import Link, LinkState
from chatlib.names import retry_queue
from chatlib.topology import SETTLING, Exchange, mark_of_retries, of_retry

__all__ = ["Delays"]

_log = logging.getLogger("chatlib.delays")

SETS: Final = 4  #: sets of queues; more than one is used only after SIGKILL of a broker in its first seconds
PATIENCE: Final = 5.0
"""Seconds for new queues to confirm what was put into them; one that a SIGKILL has damaged refuses it after 65 s only (measured)."""


@dataclass(eq=False, slots=True)
class _Copy:
    milliseconds: int
    outgoing: Outgoing
    on_kept: Callable[[], None]
    on_refused: Callable[[str], None]
    first: int  # the turn when it came
    loose: int = 0  # times it was published and not definitely refused: from there it may come back
    confirmed: bool = False  # in the set in use
    told: bool = False  # its own on_outcome was called

    def hopeless(self, turn: int) -> bool:
        """Whether every set has refused it, before `turn`."""
        return turn - self.first >= SETS and not self.loose


class Delays:
    """Puts copies into the queues of `steps` (milliseconds, ascending), and says when each is safe there. Thread-safe."""

    def __init__(self, link: Link, steps: Sequence[int]) -> None:
        self._link = link
        self._steps = tuple(steps)
        self._changed = threading.Condition()
        self._copies: dict[_Copy, None] = {}  # not told yet, in order
        self._turn = 0  # grows with every change to another set
        self._usable = False  # its queues are there
        self._settled = False  # and may be relied on
        self._making = False  # a thread is at it

    @property
    def pending(self) -> int:
        """Copies of which nobody knows yet that they are safe."""
        return len(self._copies)

    def put(self, milliseconds: int, outgoing: Outgoing, on_kept: Callable[[], None], on_refused: Callable[[str], None]) -> None:
        """Let `outgoing` wait so long and then go to the queue that its key names. Returns at once.

        Its exchange does not count; its on_outcome is called when the broker first has it. Later, on a thread of chatlib, one of:
        `on_kept()`, it is safe now; `on_refused(why)`, there is no place to wait.
        """
        with self._changed:
            copy = _Copy(milliseconds, outgoing, on_kept, on_refused, self._turn)
            self._copies[copy] = None
            if self._usable:
                self._publish(copy)
            else:
                self._begin()

    @property
    def number(self) -> int:
        """Of the set in use."""
        return self._turn % SETS

    def flush(self, timeout: float) -> bool:
        """Wait until every copy is safe; False if that took longer than `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._copies, min(max(0.0, timeout), threading.TIMEOUT_MAX))

    # ---- with the lock held ----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if not self._making:
            self._making = True
            threading.Thread(target=self._make, name="chatlib delays", daemon=True).start()

    def _publish(self, copy: _Copy) -> None:
        turn = self._turn

        def outcome(_: Outgoing, result: str, why: str) -> None:
            self._on_outcome(copy, turn, result, why)

        copy.loose += 1
        # once: sent again to a queue that the loss has damaged, it would hold up everything behind it for a minute (seen)
        self._link.publish(replace(copy.outgoing, exchange=retry_queue(copy.milliseconds, self.number), on_outcome=outcome, once=True))

    def _move_on(self, why: str) -> None:
        """To the next set of queues, with all that is not safe yet."""
        _log.warning("the retry queues of set %d cannot be relied on (%s): going on with the next set", self.number, why)
        self._turn += 1
        self._usable = self._settled = False
        for copy in self._copies:
            copy.confirmed = False
        self._begin()

    # ---- on the I/O thread -----------------------------------------------------------------------------------------------

    def _on_outcome(self, copy: _Copy, turn: int, result: str, why: str) -> None:
        if result == CONFIRMED and not copy.told:
            copy.told = True
            copy.outgoing.on_outcome(copy.outgoing, result, why)
        with self._changed:
            if result not in (CONFIRMED, LOST):
                copy.loose -= 1
            if turn != self._turn or copy not in self._copies:
                return  # it was put into another set meanwhile
            if result == LOST:  # `_make` publishes all again, here if the set has settled, else in the next; its queues may be gone
                copy.confirmed = self._usable = self._settled = False
                self._begin()
                return
            if result != CONFIRMED:  # they have no limit: who refuses is damaged, or deleted
                self._move_on(why)
                return
            copy.confirmed = True
            if not self._settled:
                self._changed.notify_all()
                return
            self._take([copy])
        copy.on_kept()

    def _take(self, copies: Sequence[_Copy]) -> None:
        for copy in copies:
            del self._copies[copy]
        self._changed.notify_all()

    # ---- on a thread of its own ------------------------------------------------------------------------------------------

    def _make(self) -> None:
        """Make the queues, and wait until they may be relied on."""
        while True:
            self._refuse_hopeless()
            reconnects = self._link.reconnects
            turn = self._turn
            try:
                settled = self._find_settled()
                turn, number = self._turn, self.number
                self._link.queues.make([declaration for step in self._steps for declaration in of_retry(step, number)])  # twice is once
            except BrokerUnavailable:
                continue  # it has waited for the broker already
            except (ChatClosed, AccessRefused) as exc:
                self._end(str(exc))
                return
            except ChatError as exc:  # somebody has one of that name that is different, or deletes it meanwhile
                self._leave(turn, str(exc))
                continue
            with self._changed:
                if not self._copies:  # all were refused
                    self._making = False
                    return
                if turn != self._turn:  # what was put into the last set was refused meanwhile
                    continue
                self._usable, self._settled = True, settled
                first = list(self._copies)
                for copy in first:
                    self._publish(copy)
                if settled:
                    self._making = False
                    return
            if self._settles(reconnects, first):
                self._rely_on(self._mark(number))
                return
            if self._link.state is LinkState.CLOSED:
                self._end("this chat is closed")
                return
            self._leave(turn, "it did not take all, or the connection was lost")

    def _leave(self, turn: int, why: str) -> None:
        """The set of this turn cannot be relied on."""
        with self._changed:
            if turn == self._turn:
                self._move_on(why)
        self._refuse_hopeless()
        if self.number == 0:  # once around: not at once again
            self._link.stays_up(PATIENCE, self._link.reconnects)

    def _mark(self, number: int) -> Exchange:
        return mark_of_retries(number, self._steps[-1])

    def _find_settled(self) -> bool:
        """Whether there is a set, this one or a later one, that may be relied on; it is the one in use then.

        After the last one no mark counts any more: it speaks of queues that were deleted or damaged since.
        """
        for turn in range(self._turn, SETS):
            if self._link.queues.has_exchange(self._mark(turn).name):
                with self._changed:
                    self._turn = max(turn, self._turn)
                    return self._turn == turn
        return False

    def _settles(self, reconnects: int, first: Sequence[_Copy]) -> bool:
        """Whether the link holds long enough, and the queues have taken what was put there first."""
        if not self._link.stays_up(SETTLING, reconnects):
            return False
        deadline = time.monotonic() + PATIENCE - SETTLING
        while not all(copy.confirmed for copy in first):
            if not self._usable or not self._link.stays_up(0.1, reconnects):
                return False
            if self._link.state is LinkState.CONNECTED and time.monotonic() > deadline:
                return False
        return self._usable

    def _rely_on(self, mark: Exchange) -> None:
        try:
            self._link.queues.make([mark])
        except ChatError as exc:
            _log.info("the mark %s was not made, the next one to retry will do it: %s", mark.name, exc)
        with self._changed:
            self._making = False
            if not self._usable:  # damaged after all
                self._begin()
                return
            self._settled = True
            safe = [copy for copy in self._copies if copy.confirmed]
            self._take(safe)
        for copy in safe:
            copy.on_kept()

    def _end(self, why: str) -> None:
        """The broker does not let us make them, or the chat is closed."""
        with self._changed:
            self._making = self._usable = False
        self._refuse(why, lambda _: True)

    def _refuse_hopeless(self) -> None:
        self._refuse("the broker keeps no new retry queues", lambda copy: copy.hopeless(self._turn))

    def _refuse(self, why: str, which: Callable[[_Copy], bool]) -> None:
        with self._changed:
            refused = [copy for copy in self._copies if which(copy)]
            self._take(refused)
        for copy in refused:
            copy.on_refused(why)
