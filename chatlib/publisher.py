"""Publishing with confirms, pipelined: a bounded window in flight, everything else in line, nothing forgotten over a loss.

`publish` and `unconfirmed` may be used from any thread, the rest runs on the I/O thread.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from chatlib import events
from chatlib.connection import Channel
from chatlib.envelope import CONFIRMED, LOST, REFUSED, REJECTED, RETURNED, Outgoing
from chatlib.events import Events
from chatlib.gate import Gate
from chatlib.refusals import Refusals
from chatlib.tags import Confirms

__all__ = ["Lanes", "Publisher"]

_log = logging.getLogger("chatlib.publisher")
NACK: Final = "the broker refused it (nack)"
_HOPS = {CONFIRMED: events.CONFIRMED, RETURNED: events.RETURNED, REJECTED: events.NACKED, REFUSED: events.NACKED}


SMALL: Final = 3_500
LARGE: Final = 4_096
"""Bytes of body. RabbitMQ keeps messages below 4,096 bytes, properties included, in the queue's index and others in a store apart
(`queue_index_embed_msgs_below`). Below SMALL it is the one for sure, from LARGE on the other."""


class Lanes:
    """Lets only such messages for one address be in flight together that the broker keeps in the same place.

    Of what it has not confirmed, SIGKILL leaves the beginning of each place. With both in flight that may be a later small message
    without an earlier large one, which is sent again behind it: out of order (seen in 1 of 10 kills of a broker, half of the
    messages being large). So a change of size waits for one confirm; in chats it is rare.
    """

    def __init__(self) -> None:
        self._in_flight: dict[tuple[str, str], list[int]] = {}  # (exchange, key) -> [kind, how many]

    def enter(self, outgoing: Outgoing) -> bool:
        """Whether it may go now; it is counted then."""
        address, size = (outgoing.exchange, outgoing.key), len(outgoing.body)
        kind = 0 if size < SMALL else 2 if size >= LARGE else 1
        lane = self._in_flight.get(address)
        if lane is None:
            self._in_flight[address] = [kind, 1]
            return True
        if lane[0] != kind or kind == 1:  # of the sizes in between nobody knows: each goes alone
            return False
        lane[1] += 1
        return True

    def leave(self, outgoing: Outgoing) -> None:
        """It has its outcome."""
        address = outgoing.exchange, outgoing.key
        lane = self._in_flight[address]
        lane[1] -= 1
        if not lane[1]:
            del self._in_flight[address]

    def clear(self) -> None:
        """Nothing is in flight any more."""
        self._in_flight.clear()


class Publisher:
    """window: publishes in flight without a confirm. Order is kept: what was in flight at a loss goes out again first.

    later(seconds, function): calls it then, on the I/O thread. on_stuck(): this channel will not do, `move` to another.
    """

    def __init__(
        self, window: int, hops: Events, later: Callable[[float, Callable[[], None]], object], on_stuck: Callable[[], None] = lambda: None
    ) -> None:
        self._window = window
        self._hops = hops
        self._line: deque[Outgoing] = deque()  # any thread appends, the I/O thread takes
        self._in_flight: Confirms[Outgoing] = Confirms()
        self._lanes = Lanes()
        self._gate = Gate(
            lambda probe: self._write(probe) if self._lanes.enter(probe) else None,
            later,
            lambda held: self._line.extendleft(reversed(held)),
            on_stuck,
        )
        self.refusals = Refusals(later, on_stuck, self._on_full)
        self._returned: dict[tuple[str, str], str] = {}  # (message id, exchange) -> why; the confirm follows the return
        self._channel: Channel | None = None
        self.blocked = False

    @property
    def unconfirmed(self) -> int:
        """Publishes that wait for their turn or for a confirm."""
        return len(self._line) + len(self._in_flight) + len(self._gate) + len(self.refusals)

    def publish(self, outgoing: Outgoing) -> bool:
        """Put it in line; it is written again after every loss until its outcome is known.

        Returns whether `pump` is to be called, on the I/O thread: with a full window the next confirm does that.
        """
        self._line.append(outgoing)
        return len(self._in_flight) < self._window

    def attach(self, channel: Channel) -> None:
        """A new channel in confirm mode."""
        self._channel = channel
        self.blocked = False

    def move(self, channel: Channel) -> None:
        """Go on over another channel of the same connection, with all that has no confirm."""
        blocked = self.blocked
        self.detach("refused by a queue that is not full")
        self.attach(channel)
        self.blocked = blocked

    def detach(self, reason: str) -> None:
        """The channel is gone: what it did not confirm has an unknown outcome, and goes to the front of the line."""
        self._channel = None
        self._returned.clear()
        self._lanes.clear()
        unconfirmed = [*self.refusals.drain(), *self._in_flight.drain()]
        self._line.extendleft(reversed([*unconfirmed, *self._gate.drain()]))
        for outgoing in unconfirmed:
            self._emit(events.UNKNOWN, outgoing, reason)
        lost = [outgoing for outgoing in self._line.copy() if outgoing.once and not outgoing.settled]
        for outgoing in lost:
            outgoing.settled = True
            self._tell(outgoing, LOST, reason)

    def refuse(self, exchange: str, why: str) -> None:
        """The broker closed the channel over the first publish to `exchange` on it, and would again: all for it have their outcome."""
        self.detach(why)
        refused = [outgoing for outgoing in self._line.copy() if outgoing.exchange == exchange and not outgoing.settled]
        for outgoing in refused:
            outgoing.settled = True
            self._tell(outgoing, REFUSED, why)

    def pump(self) -> None:
        """Write as much as the window allows."""
        channel, line, in_flight = self._channel, self._line, self._in_flight
        if channel is None or self.blocked:
            return
        enter, lets, holds = self._lanes.enter, self._gate.lets, self.refusals.holds
        while line and len(in_flight) < self._window and channel.is_open:
            outgoing = line[0]
            if outgoing.settled:
                line.popleft()
                continue
            if not lets(outgoing):
                self._gate.hold(line.popleft())
                continue
            if holds(outgoing) or not enter(outgoing):
                break  # a confirm that must come calls this again
            line.popleft()
            self._write(outgoing)

    def _write(self, outgoing: Outgoing) -> None:
        channel = self._channel
        if channel is None or not channel.is_open:
            return
        tag = self._in_flight.add(outgoing)
        try:
            channel.publish(outgoing)
        except ValueError as exc:  # it would fail at every attempt, and hold up all others
            self._in_flight.take_back(tag)
            self._lanes.leave(outgoing)
            self._tell(outgoing, REJECTED, str(exc))
            return
        if self._hops.wanted:
            self._emit(events.SENT, outgoing)

    def on_return(self, message_id: str, exchange: str, why: str) -> None:
        """No queue took it; its confirm comes next."""
        self._returned[message_id, exchange] = why

    def on_confirm(self, tag: int, multiple: bool, accepted: bool) -> None:
        """The broker has spoken about one publish or about many."""
        settled = self._in_flight.settle(tag, multiple)
        for outgoing in settled:
            self._lanes.leave(outgoing)
        if accepted:
            for outgoing in settled:
                self.refusals.accepted(outgoing)
            self.pump()  # first of all: the broker has nothing to do until then
        for outgoing in settled:
            why = self._returned.pop((outgoing.message_id, outgoing.exchange), "") if self._returned else ""
            if accepted:
                self._tell(outgoing, RETURNED if why else CONFIRMED, why)
            elif not self.refusals.takes(outgoing):
                self._tell(outgoing, REJECTED, NACK)
        self.pump()

    def _on_full(self, refused: list[Outgoing]) -> None:
        for outgoing in refused:
            self._tell(outgoing, REJECTED, NACK)
        self.pump()

    def _tell(self, outgoing: Outgoing, outcome: str, why: str) -> None:
        if self._hops.wanted and outcome in _HOPS:
            self._emit(_HOPS[outcome], outgoing, why)
        try:
            outgoing.on_outcome(outgoing, outcome, why)
        except (Exception, SystemExit):  # noqa: BLE001  a callback must not end the I/O thread
            _log.exception("the outcome of message_id=%s could not be told", outgoing.message_id)

    def _emit(self, hop: str, outgoing: Outgoing, reason: str = "") -> None:
        if outgoing.silent:
            return
        self._hops.emit(hop, outgoing.message_id, user=outgoing.user, to=outgoing.to, kind=outgoing.kind, reason=reason)
