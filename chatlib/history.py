"""What was said in a group, kept in a stream: read again from any time, or the last n, also after everybody has acked.

A stream has no end to wait for. So that reading ends, a reader writes a mark first and reads up to it:
exactly what was there when he began. Marks are small and never shown.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import Final

from chatlib.envelope import CONFIRMED, Delivery, Outgoing
from chatlib.errors import BrokerUnavailable, ChatClosed, ChatError, DecodeError, OutcomeUnknown, QueueDown
from chatlib.link import Link, LinkState
from chatlib.messages import MARK, SendMessage, decode, new_message_id
from chatlib.names import history_queue
from chatlib.session import Session

__all__ = ["History"]

CLOSED: Final = "closed"  # in place of an outcome
PREFETCH: Final = 200  # a stream's consumer must have one; acks are its credit
PATIENCE: Final = 10.0  # seconds for the stream to come up after a restart of its broker (about 1 s, measured)
RESENT: Final = 20_000  # ids among which a copy that was sent again is looked for; a sender has 1,000 in flight
PAUSE: Final = 5.0  # seconds without a message before reading is given up: the mark is known to be there


@dataclass(frozen=True, slots=True)
class History:
    """The history of `group` (bare name), as kept by `Chat.group(..., history=True)`."""

    link: Link
    group: str

    @property
    def queue(self) -> str:
        """The stream on the broker."""
        return history_queue(self.group)

    def read(self, *, last: int | None = None, since: datetime | float | None = None) -> Iterator[SendMessage]:
        """The messages, oldest first; ends with what was there at the call.

        last: only that many. since: only those sent at or after this moment (aware datetime or Unix seconds).
        Raises ChatError if no history is kept, BrokerUnavailable, ValueError for what is no moment, a naive datetime or no such `last`.
        """
        wanted: object = last  # whatever was given
        if wanted is not None and (not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 0):
            raise ValueError(f"last counts messages: a whole number, at least 0, got {last!r}")
        moment = _moment(since)
        if last is None:
            begins = moment is None or moment.timestamp() < 0  # AMQP knows no time before 1970, and there was no chat
            return self._between("first" if moment is None or begins else moment, self._mark(), moment)
        return iter(self._last(last, moment))

    def _last(self, count: int, since: datetime | None) -> list[SendMessage]:
        mark, end = self._end()
        back = count + 10  # a few more, for the marks among them
        while True:
            start = max(0, end - back)
            found = deque(self._between(start, mark, since), maxlen=min(count, sys.maxsize))
            if len(found) == count or start == 0:
                return list(found)
            back *= 4

    def _mark(self) -> str:
        """Write a mark; its id, once the stream has it."""
        deadline = time.monotonic() + PATIENCE
        while not self._write(mark := "mark-" + new_message_id()):
            if not self.link.queues.exists(self.queue):
                raise ChatError(f"no history is kept of #{self.group}: begin with chat.group('#{self.group}', history=True)")
            if time.monotonic() > deadline:
                raise QueueDown(f"the history of #{self.group} is not up {PATIENCE:g} s after its broker: try again, or delete it")
            threading.Event().wait(0.2)  # it comes back about a second after its broker
        return mark

    def _write(self, mark: str) -> bool:
        outcome = SimpleQueue[str]()
        # a link that is closed gives no outcome
        stop_watching = self.link.watch(lambda state, _: outcome.put(CLOSED) if state is LinkState.CLOSED else None)
        try:
            if self.link.state is LinkState.CLOSED:
                raise ChatClosed("this chat is closed: make a new one with chatlib.connect")
            self.link.publish(
                Outgoing("", self.queue, b"", mark, MARK, int(time.time()), lambda _, result, __: outcome.put(result), silent=True)
            )
            result = outcome.get(timeout=self.link.request_timeout)
            if result == CLOSED:
                raise ChatClosed(f"the chat was closed while the history of #{self.group} was asked for")
            return result == CONFIRMED
        except Empty:
            raise OutcomeUnknown(f"no answer from the history of #{self.group} (the link is {self.link.state.value})") from None
        finally:
            stop_watching()

    def _end(self) -> tuple[str, int]:
        """A mark, written now, with its offset. Written while reading: looked for afterwards, others might have buried it."""
        self._mark()  # waits until the stream is up
        with self.link.session() as session:
            session.consume(self.queue, PREFETCH, stream_offset="last")
            mark = self._mark()
            for delivery in self._deliveries(session):
                if delivery.message_id == mark:
                    return mark, int(delivery.headers["x-stream-offset"])
        raise AssertionError  # deliveries end by an error only

    def _between(self, start: str | int | datetime, mark: str, since: datetime | None) -> Iterator[SendMessage]:
        with self.link.session() as session:
            session.consume(self.queue, PREFETCH, stream_offset=start)
            # From a moment that the broker has not seen yet, only what is written from now on would come: not the mark.
            marks = {mark, self._mark()} if isinstance(start, datetime) else {mark}
            for delivery in _distinct(self._deliveries(session)):
                if delivery.message_id in marks:
                    return
                if not delivery.body:
                    continue  # somebody's mark
                try:
                    message = decode(delivery.body)
                except DecodeError:
                    continue  # somebody else's bytes: shown to nobody, kept by the stream
                if isinstance(message, SendMessage) and (since is None or message.timestamp >= since):
                    yield message

    def _deliveries(self, session: Session) -> Iterator[Delivery]:
        while True:
            delivery = session.next(PAUSE)
            if delivery is None:
                raise BrokerUnavailable(f"the history of #{self.group} stopped answering for {PAUSE:g} s: read it again")
            session.ack(delivery)
            yield delivery


def _distinct(deliveries: Iterator[Delivery]) -> Iterator[Delivery]:
    """Without the copies that were sent again after a loss, under the same id."""
    recent: deque[str] = deque()
    seen: set[str] = set()
    for delivery in deliveries:
        if delivery.message_id in seen:
            continue
        if delivery.message_id:
            recent.append(delivery.message_id)
            seen.add(delivery.message_id)
            if len(recent) > RESENT:
                seen.discard(recent.popleft())
        yield delivery


def _moment(since: datetime | float | None) -> datetime | None:
    if since is None:
        return None
    if isinstance(since, int | float):
        try:
            since = datetime.fromtimestamp(since, UTC)
        except (OverflowError, OSError, ValueError) as exc:
            raise ValueError(f"since must be Unix seconds of a year from 1 to 9999, got {since!r}") from exc
    if not isinstance(since, datetime):
        raise ValueError(f"since must be an aware datetime or Unix seconds, got {since!r:.60}")  # noqa: TRY004
    if since.tzinfo is None:
        raise ValueError("since must be an aware datetime: datetime(..., tzinfo=UTC), or Unix seconds")
    try:
        since = since.astimezone(UTC)
    except OverflowError as exc:
        raise ValueError(f"since must be of a year from 1 to 9999 in UTC, too, got {since}") from exc
    return since.replace(microsecond=since.microsecond // 1000 * 1000)  # messages carry milliseconds, rounded down
