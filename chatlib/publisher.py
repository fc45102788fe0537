"""Publishing with confirms, pipelined: a bounded window in flight, everything else in line, nothing forgotten over a loss.

`publish` and `unconfirmed` may be used from any thread, the rest runs on the I/O thread.
"""

from __future__ import annotations

import logging
from collections import deque

from chatlib import events
from chatlib.connection import Channel
from chatlib.envelope import CONFIRMED, REJECTED, RETURNED, Outgoing
from chatlib.events import Events
from chatlib.tags import Confirms

__all__ = ["Publisher"]

_log = logging.getLogger("chatlib.publisher")
_HOPS = {CONFIRMED: events.CONFIRMED, RETURNED: events.RETURNED, REJECTED: events.NACKED}


class Publisher:
    """window: publishes in flight without a confirm. Order is kept: what was in flight at a loss goes out again first."""

    def __init__(self, window: int, hops: Events) -> None:
        self._window = window
        self._hops = hops
        self._line: deque[Outgoing] = deque()  # any thread appends, the I/O thread takes
        self._in_flight: Confirms[Outgoing] = Confirms()
        self._returned: dict[tuple[str, str], str] = {}  # (message id, exchange) -> why; the confirm follows the return
        self._channel: Channel | None = None
        self.blocked = False

    @property
    def unconfirmed(self) -> int:
        """Publishes that wait for their turn or for a confirm."""
        return len(self._line) + len(self._in_flight)

    def publish(self, outgoing: Outgoing) -> None:
        """Put it in line; it is written again after every loss until its outcome is known. Call `pump` on the I/O thread."""
        self._line.append(outgoing)

    def attach(self, channel: Channel) -> None:
        """A new channel in confirm mode."""
        self._channel = channel
        self.blocked = False

    def detach(self, reason: str) -> None:
        """The channel is gone: what it did not confirm has an unknown outcome, and goes to the front of the line."""
        self._channel = None
        self._returned.clear()
        unconfirmed = self._in_flight.drain()
        self._line.extendleft(reversed(unconfirmed))
        for outgoing in unconfirmed:
            self._emit(events.UNKNOWN, outgoing, reason)

    def pump(self) -> None:
        """Write as much as the window allows."""
        channel, line, in_flight = self._channel, self._line, self._in_flight
        if channel is None or self.blocked:
            return
        wanted = self._hops.wanted
        while line and len(in_flight) < self._window and channel.is_open:
            outgoing = line.popleft()
            tag = in_flight.add(outgoing)
            try:
                channel.publish(outgoing)
            except ValueError as exc:  # it would fail at every attempt, and hold up all others
                in_flight.take_back(tag)
                self._tell(outgoing, REJECTED, str(exc))
                continue
            if wanted:
                self._emit(events.SENT, outgoing)

    def on_return(self, message_id: str, exchange: str, why: str) -> None:
        """No queue took it; its confirm comes next."""
        self._returned[message_id, exchange] = why

    def on_confirm(self, tag: int, multiple: bool, accepted: bool) -> None:
        """The broker has spoken about one publish or about many."""
        for outgoing in self._in_flight.settle(tag, multiple):
            why = self._returned.pop((outgoing.message_id, outgoing.exchange), "") if self._returned else ""
            if not accepted:
                outcome, why = REJECTED, "the broker refused it (nack)"
            else:
                outcome = RETURNED if why else CONFIRMED
            self._tell(outgoing, outcome, why)
        self.pump()

    def _tell(self, outgoing: Outgoing, outcome: str, why: str) -> None:
        if self._hops.wanted:
            self._emit(_HOPS[outcome], outgoing, why)
        try:
            outgoing.on_outcome(outgoing, outcome, why)
        except Exception:  # noqa: BLE001  a callback must not end the I/O thread
            _log.exception("the outcome of message_id=%s could not be told", outgoing.message_id)

    def _emit(self, hop: str, outgoing: Outgoing, reason: str = "") -> None:
        self._hops.emit(hop, outgoing.message_id, user=outgoing.user, to=outgoing.to, kind=outgoing.kind, reason=reason)
