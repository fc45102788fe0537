"""The dead letters: what failed for good, with its reason; to be listed, inspected, replayed or purged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from chatlib import events
from chatlib.envelope import CONFIRMED, Delivery, Outgoing
from chatlib.errors import ChatError, DecodeError, OutcomeUnknown
from chatlib.events import Events
from chatlib.link import Link
from chatlib.messages import SEND_MESSAGE, SendMessage, decode
from chatlib.names import DEAD_LETTERS, escape, user_of_queue
from chatlib.session import Session
from chatlib.topology import USERS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ATTEMPT", "FAILURES", "FIRST_ATTEMPT", "DeadLetter", "DeadLetters", "headers_of_death"]

ATTEMPT: Final = "x-chat-attempt"  #: header: the number of the delivery to come, or of the last one
FIRST_ATTEMPT: Final = "x-chat-first-attempt"  #: header: the attempt at which the retry policy begins to count (after a replay)
FAILURES: Final = "x-chat-failures"  #: header: why each earlier attempt failed, oldest first
FIRST_FAILURE: Final = "x-chat-first-failure"  #: header: when the first attempt failed, Unix milliseconds (pika has no floats)
REASON: Final = "x-chat-reason"  #: header: why it is dead
QUEUE: Final = "x-chat-queue"  #: header: the queue that it came from
DEAD_AT: Final = "x-chat-dead-at"  #: header: when it was given up, Unix milliseconds


def headers_of_death(*, queue: str, attempt: int, failures: list[str], first_failure: float, now: float) -> dict[str, Any]:
    """The headers with which a message goes to the dead letters. first_failure, now: Unix seconds."""
    reason, first, last = failures[-1] if failures else "rejected", int(first_failure * 1000), int(now * 1000)
    return {ATTEMPT: attempt, FAILURES: failures, REASON: reason, QUEUE: queue, FIRST_FAILURE: first, DEAD_AT: last}


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
        failures = headers.get(FAILURES)
        return cls(
            message_id=delivery.message_id,
            user=user_of_queue(queue) or "",
            reason=str(headers.get(REASON) or headers.get("x-first-death-reason") or "unknown"),
            attempts=attempts if isinstance(attempts := headers.get(ATTEMPT), int) else 1,
            failures=tuple(map(str, failures)) if isinstance(failures, list) else (),
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

    There is no time limit on what lies here: look after it, or the disk fills.
    """

    def __init__(self, link: Link, hops: Events) -> None:
        self._link = link
        self._hops = hops

    def __len__(self) -> int:
        return self._link.depth(DEAD_LETTERS)[0]

    def __iter__(self) -> Iterator[DeadLetter]:
        return iter(self.list())

    def list(self, limit: int = 10_000) -> list[DeadLetter]:
        """The oldest `limit` dead letters; they stay where they are, in their order."""
        with self._link.session() as session:
            return [DeadLetter.of(delivery) for delivery in _take(session, limit)]

    def __getitem__(self, message_id: str) -> DeadLetter:
        """The dead letter with that message id. Raises KeyError."""
        for letter in self:
            if letter.message_id == message_id:
                return letter
        raise KeyError(f"no dead letter with message id {message_id!r}")

    def table(self, limit: int = 10_000) -> pd.DataFrame:
        """A DataFrame, one row for each dead letter, columns as `DeadLetter.to_dict`. Needs pandas (`pip install chatlib[lab]`)."""
        import pandas as pd

        columns = list(DeadLetter.to_dict(_EXAMPLE))
        return pd.DataFrame([letter.to_dict() for letter in self.list(limit)], columns=columns)

    def replay(self, *message_ids: str, timeout: float = 30.0) -> int:
        """Send these (without ids: all) to their inboxes again, under the same id, with a full set of attempts; how many.

        Each is taken out when the broker has confirmed its copy: a death in between repeats and never loses.
        Raises KeyError for an id that is not here, ChatError for one whose inbox nobody knows, OutcomeUnknown after `timeout` seconds.
        """
        wanted = set(message_ids)
        with self._link.session() as session:
            chosen = [d for d in _take(session) if not wanted or d.message_id in wanted]
            missing = wanted - {delivery.message_id for delivery in chosen}
            if missing:
                raise KeyError(f"no dead letter with message id {', '.join(sorted(missing))}")
            self._send_again(session, chosen, timeout)
        return len(chosen)

    def _send_again(self, session: Session, chosen: Iterable[Delivery], timeout: float) -> None:
        letters = [(delivery, DeadLetter.of(delivery)) for delivery in chosen]
        for _, letter in letters:
            if not letter.user:
                raise ChatError(f"the dead letter {letter.message_id!r} does not say whose inbox it came from: nothing was replayed")
        left = threading.Semaphore(0)
        failed: list[str] = []

        def outcome_of(delivery: Delivery) -> Callable[[Outgoing, str, str], None]:
            def outcome(outgoing: Outgoing, result: str, why: str) -> None:
                if result == CONFIRMED:
                    session.ack(delivery)
                    self._hops.emit(events.REPLAYED, delivery.message_id, user=outgoing.user)
                else:
                    failed.append(f"{delivery.message_id}: {result} {why}")
                left.release()

            return outcome

        for delivery, letter in letters:
            attempt = letter.attempts + 1
            failures = [*letter.failures, "replayed from the dead letters"]
            headers = {ATTEMPT: attempt, FIRST_ATTEMPT: attempt, FAILURES: failures}
            self._link.publish(
                Outgoing(
                    USERS.name,
                    escape(letter.user),
                    delivery.body,
                    delivery.message_id,
                    SEND_MESSAGE,
                    delivery.timestamp or 0,
                    outcome_of(delivery),
                    headers,
                    delivery.content_type,
                    user=letter.user,
                )
            )
        for _ in letters:
            if not left.acquire(timeout=timeout):
                raise OutcomeUnknown(f"no confirm within {timeout:g} s: what was not confirmed is still among the dead letters")
        if failed:
            raise ChatError(f"{len(failed)} could not be replayed and stay among the dead letters: {'; '.join(failed[:3])}")

    def purge(self, *message_ids: str) -> int:
        """Throw these away (without ids: all), for good; how many. Raises KeyError for an id that is not here."""
        if not message_ids:
            return self._link.purge(DEAD_LETTERS)
        with self._link.session() as session:
            chosen = [delivery for delivery in _take(session) if delivery.message_id in message_ids]
            missing = set(message_ids) - {delivery.message_id for delivery in chosen}
            if missing:
                raise KeyError(f"no dead letter with message id {', '.join(sorted(missing))}")
            for delivery in chosen:
                session.ack(delivery)
            session.get(DEAD_LETTERS)  # an answer to this means that the acks before it were taken
        return len(chosen)

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
