"""The dead letters: what failed for good, with its reason; to be listed, inspected, replayed or purged."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from chatlib import events
from chatlib.attempts import (
    ATTEMPT,
    DEAD_AT,
    FAILURES,
    FIRST_ATTEMPT,
    FIRST_FAILURE,
    MAX_FAILURES,
    QUEUE,
    REASON,
    count_in,
    failures_of,
)
from chatlib.envelope import CONFIRMED, Delivery, Outgoing
from chatlib.errors import BrokerUnavailable, ChatClosed, ChatError, DecodeError, OutcomeUnknown, QueueDown
from chatlib.events import Events
from chatlib.handled import DONE
from chatlib.link import Link, LinkState
from chatlib.messages import SEND_MESSAGE, SendMessage, decode
from chatlib.names import DEAD_LETTERS, escape, user_of_queue
from chatlib.session import Session
from chatlib.topology import USERS
from chatlib.waiting import seconds

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger("chatlib.dead_letters")

__all__ = ["DeadLetter", "DeadLetters"]


class _Key(NamedTuple):
    """What tells one dead letter from another."""

    message_id: str
    user: str
    attempts: int
    body: bytes
    number: int  # among those without an id, of which no two are the same


_Letters = dict[_Key, list[Delivery]]
"""The deliveries of each dead letter, in their order: more than one where a death came between a copy and its ack."""
_Outcomes = SimpleQueue[tuple[_Key, str] | None]
"""Which has its outcome, and why it failed or ""; None: the link was closed, and gives no outcome any more."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter. `message` is None where the bytes are no chat message; `body` are the original bytes in any case.

    first_failure, last_failure: aware datetimes in UTC, or None where the broker itself gave it up. attempts: deliveries in all.
    """

    message_id: str
    user: str
    reason: str
    attempts: int
    failures: tuple[str, ...]
    first_failure: datetime | None
    last_failure: datetime | None
    queue: str
    body: bytes
    message: SendMessage | None

    @classmethod
    def of(cls, delivery: Delivery) -> DeadLetter:
        """What `delivery`, from the queue of dead letters, says."""
        headers = delivery.headers
        try:
            message = decode(delivery.body)
        except DecodeError:
            message = None
        queue = str(headers.get(QUEUE) or headers.get("x-first-death-queue") or "")
        return cls(
            message_id=delivery.message_id,
            user=user_of_queue(queue) or "",
            reason=str(headers.get(REASON) or headers.get("x-first-death-reason") or "unknown"),
            attempts=count_in(delivery, ATTEMPT),
            failures=failures_of(delivery),
            first_failure=_moment(headers.get(FIRST_FAILURE)),
            last_failure=_moment(headers.get(DEAD_AT)),
            queue=queue,
            body=delivery.body,
            message=message if isinstance(message, SendMessage) else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """One row for a table: message_id, user, sender, to, content, reason, attempts, first_failure, last_failure, queue, bytes."""
        message = self.message
        return {
            "message_id": self.message_id,
            "user": self.user,
            "sender": message.sender_id if message else "",
            "to": message.to if message else "",
            "content": message.content if message else repr(self.body[:60]),
            "reason": self.reason,
            "attempts": self.attempts,
            "first_failure": self.first_failure,
            "last_failure": self.last_failure,
            "queue": self.queue,
            "bytes": len(self.body),
        }


def _moment(milliseconds: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC) if isinstance(milliseconds, int) else None
    except (ValueError, OverflowError, OSError):  # anybody may have written it
        return None


class DeadLetters:
    """Iterable, oldest first; `chat.dead_letters`. Looking does not take anything away. Methods raise BrokerUnavailable.

    There is no time limit on what lies here: look after it, or the disk fills. Who looks has them in hand for that time, so two who
    look at the same moment each see a part.
    """

    def __init__(self, link: Link, hops: Events) -> None:
        self._link = link
        self._hops = hops

    def __len__(self) -> int:
        return self._link.queues.depth(DEAD_LETTERS)[0]

    def __iter__(self) -> Iterator[DeadLetter]:
        return iter(self.list(sys.maxsize))

    def list(self, limit: int = 10_000) -> list[DeadLetter]:
        """The oldest `limit` dead letters; they stay where they are, in their order.

        One that lies here twice, because a death came between its copy and its ack, is shown once.
        """
        with self._link.session() as session:
            return [DeadLetter.of(copies[0]) for copies in _distinct(_take(session, limit)).values()]

    def __getitem__(self, message_id: str) -> DeadLetter:
        """The dead letter with that message id. Raises KeyError."""
        for letter in self:
            if letter.message_id == message_id:
                return letter
        raise KeyError(f"no dead letter has the id {message_id!r}")

    def table(self, limit: int = 10_000) -> pd.DataFrame:
        """A DataFrame, one row for each dead letter, columns as `DeadLetter.to_dict`. Needs pandas (`pip install chatlib[lab]`)."""
        import pandas as pd

        columns = list(DeadLetter.to_dict(_EXAMPLE))
        return pd.DataFrame([letter.to_dict() for letter in self.list(limit)], columns=columns)

    def replay(self, *message_ids: str, timeout: float = 30.0) -> int:
        """Send these (without ids: all) to their inboxes again, under the same id, with a full set of attempts; how many.

        Each is taken out when the broker has confirmed its copy: a death in between repeats and never loses, and who has handled
        the first drops the second. Of all, those that do not say whose inbox they came from stay where they are.
        Raises KeyError for an id that is not here, ChatError where nothing says whose inbox it was, or an inbox refused,
        OutcomeUnknown after `timeout` seconds; before anything else TypeError or ValueError for a `timeout` that is none.
        """
        deadline, wanted = time.monotonic() + seconds(timeout, "the timeout of replay()"), set(message_ids)
        with self._link.session() as session:
            letters = _chosen(session, wanted)
            known = {key: copies for key, copies in letters.items() if key.user}
            if letters and (not known or (wanted and len(known) < len(letters))):
                stranger = next(key for key in letters if not key.user)
                raise ChatError(f"the dead letter {stranger.message_id!r} does not say whose inbox it came from: nothing was replayed")
            outcomes: _Outcomes = SimpleQueue()
            stop_watching = self._link.watch(lambda state, _: outcomes.put(None) if state is LinkState.CLOSED else None)
            try:
                failed = self._send_again(session, known, outcomes, deadline)
            finally:
                stop_watching()
            taken_out = _barrier(session)
        if not taken_out:
            self._take_out(known.keys() - failed.keys(), deadline)
        if failed:
            why = "; ".join(f"{key.message_id}: {reason}" for key, reason in [*failed.items()][:3])
            raise ChatError(f"{len(failed)} could not be replayed and stay among the dead letters: {why}")
        return len(known)

    def _send_again(self, session: Session, letters: _Letters, outcomes: _Outcomes, deadline: float) -> dict[_Key, str]:
        """Publish one copy of each, and take out what was confirmed; the others, with the reason."""

        def outcome_of(key: _Key) -> Callable[[Outgoing, str, str], None]:
            def outcome(_: Outgoing, result: str, why: str) -> None:
                outcomes.put((key, "" if result == CONFIRMED else f"{result} {why}"))

            return outcome

        for key, copies in letters.items():
            letter = DeadLetter.of(copies[0])
            attempt = letter.attempts + 1
            if attempt == DONE:
                outcomes.put((key, "its attempts, a number that somebody else wrote, cannot be counted further"))
                continue
            failures = [*letter.failures, "replayed from the dead letters"][-MAX_FAILURES:]
            headers = {ATTEMPT: attempt, FIRST_ATTEMPT: attempt, FAILURES: failures}
            self._link.publish(
                Outgoing(
                    USERS.name,
                    escape(letter.user),
                    letter.body,
                    letter.message_id,
                    SEND_MESSAGE,
                    copies[0].timestamp or 0,
                    outcome_of(key),
                    headers,
                    copies[0].content_type,
                    user=letter.user,
                )
            )
        failed: dict[_Key, str] = {}
        for _ in letters:
            try:
                answer = outcomes.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                raise OutcomeUnknown(
                    "no confirm in time: some may be delivered and still be listed; to replay them again does no harm"
                ) from None
            if answer is None:
                raise ChatClosed("the chat was closed meanwhile: some may be replayed and still be listed; again does no harm")
            key, why = answer
            if why:
                failed[key] = why
                continue
            self._hops.emit(events.REPLAYED, key.message_id, user=key.user)
            for delivery in letters[key]:
                session.ack(delivery)
        return failed

    def _take_out(self, keys: Set[_Key], deadline: float) -> None:
        """The connection was lost before the acks were taken: these are listed again, and were confirmed elsewhere."""
        while True:
            try:
                with self._link.session() as session:
                    for key, copies in _distinct(_take(session)).items():
                        for delivery in copies if key in keys else ():
                            session.ack(delivery)
                    if _barrier(session):
                        return
            except (BrokerUnavailable, QueueDown) as exc:
                _log.info("what was replayed is not taken out yet: %s", exc)
            if time.monotonic() > deadline:
                raise OutcomeUnknown("the broker was lost: what was replayed may still be listed; to replay it again does no harm")
            self._link.stays_up(0.2, self._link.reconnects)

    def purge(self, *message_ids: str) -> int:
        """Throw these away (without ids: all), for good; how many. Raises KeyError for an id that is not here."""
        if not message_ids:
            return self._link.queues.purge(DEAD_LETTERS)
        with self._link.session() as session:
            letters = _chosen(session, set(message_ids))
            for copies in letters.values():
                for delivery in copies:
                    session.ack(delivery)
            session.get(DEAD_LETTERS)  # an answer to this means that the acks before it were taken
        return len(letters)

    def __repr__(self) -> str:
        return "<DeadLetters: list(), table(), replay(), purge()>"


_EXAMPLE = DeadLetter("", "", "", 0, (), None, None, "", b"", None)


def _take(session: Session, limit: int = 1_000_000) -> list[Delivery]:
    """Hold the oldest `limit` dead letters; they go back when the session closes."""
    held: list[Delivery] = []
    while len(held) < limit:
        delivery = session.get(DEAD_LETTERS)
        if delivery is None:
            break
        held.append(delivery)
    return held


def _distinct(deliveries: Iterable[Delivery]) -> _Letters:
    """Put together what is the same dead letter."""
    letters: _Letters = {}
    for number, delivery in enumerate(deliveries):
        letter = DeadLetter.of(delivery)
        key = _Key(letter.message_id, letter.user, letter.attempts, letter.body, 0 if letter.message_id else number)
        letters.setdefault(key, []).append(delivery)
    return letters


def _chosen(session: Session, message_ids: Set[str]) -> _Letters:
    """Those with these ids, or all. Raises KeyError for an id that is not there."""
    letters = _distinct(delivery for delivery in _take(session) if not message_ids or delivery.message_id in message_ids)
    missing = message_ids - {key.message_id for key in letters}
    if missing:
        raise KeyError(f"no dead letter has the id {', '.join(map(repr, sorted(missing)))}")
    return letters


def _barrier(session: Session) -> bool:
    """Whether the broker has taken the acks before this."""
    try:
        session.get(DEAD_LETTERS)
    except BrokerUnavailable:
        return False
    return True
