"""The outbox: what was accepted by `send`, until the broker has spoken about it.

Accepting comes first (with a `Store` it is on disk before `send` returns), the network later. What has no outcome when the
process dies is sent by the next one that opens the same `data_dir`: the same ids, in the same order.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from chatlib import events
from chatlib.envelope import CONFIRMED, REFUSED, REJECTED, Outgoing
from chatlib.errors import AccessRefused, ChatClosed, ChatError, DecodeError, InvalidAddress, OutboxFull, Unroutable
from chatlib.events import Events
from chatlib.link import Link, LinkState
from chatlib.messages import SEND_MESSAGE, SendMessage, check_content, compose, decode, new_message_id
from chatlib.names import escape, parse_address
from chatlib.rejections import Rejections
from chatlib.sent import SentMessage, SentState
from chatlib.settings import Settings
from chatlib.settled import Settled
from chatlib.store import Store
from chatlib.topology import GROUPS, USERS
from chatlib.workers import Workers

__all__ = ["Outbox"]

_log = logging.getLogger("chatlib.outbox")
PACE: Final = 0.1  # seconds; see `Outbox._keep_pace`

_address = lru_cache(maxsize=4096)(parse_address)


def _pairs(messages: Any) -> Iterator[tuple[str, str]]:
    """`messages`, each seen to be a pair. Raises InvalidAddress, saying what was found instead."""
    for message in messages if isinstance(messages, Iterable) else [messages]:
        try:
            to, content = message
        except (TypeError, ValueError):
            raise InvalidAddress(f"messages are pairs (address, content), such as ('@bob', 'hello'), got {message!r:.60}") from None
        if not isinstance(to, str):
            parse_address(to)  # says why not; a list would not even be found in the cache
        yield to, content


@dataclass(slots=True, eq=False)
class _Batch:
    """What one call of `send` or `send_many` wants to have accepted; at: Unix seconds."""

    messages: list[SendMessage]
    bodies: list[bytes]
    at: float
    stored: bool = False
    error: ChatError | None = None
    sent: list[SentMessage] = field(default_factory=list)

    def rows(self) -> Iterator[tuple[str, bytes, float]]:
        """As `Store.add` wants them."""
        for message, body in zip(self.messages, self.bodies, strict=True):
            yield message.message_id, body, self.at


class Outbox:
    """Accepts messages, hands them to the link, keeps them until their outcome. Thread-safe.

    who_is_full(message): the names of those whose inbox is at its limit, asked when a message was refused.
    count_members(message): how many people it is for, or None. on_accepted(message): before it is handed to the link.
    """

    def __init__(
        self,
        link: Link,
        settings: Settings,
        store: Store | None,
        hops: Events,
        workers: Workers,
        who_is_full: Callable[[SentMessage], Sequence[str]],
        count_members: Callable[[SentMessage], int | None],
        on_accepted: Callable[[SentMessage], None],
    ) -> None:
        self._link = link
        self._settings = settings
        self._store = store
        self._hops = hops
        self._workers = workers
        self._who_is_full = who_is_full
        self._count_members = count_members
        self._on_accepted = on_accepted
        self._lock = threading.RLock()  # a listener that hears of a message may send one
        self._committing = threading.RLock()
        self._line: deque[_Batch] = deque()  # to be stored, then handed over
        self._handing_over = False
        self._closed = False
        self._keeps_pace = True
        self._settled = Settled(store.remove, workers, "messages") if store else None
        self.rejections = Rejections(workers, who_is_full, lambda sent, error: self._settle(sent, SentState.REJECTED, error))
        self._left: set[str] = set()  # ids that an earlier process left: nobody holds their SentMessage
        self.sent: weakref.WeakValueDictionary[str, SentMessage] = weakref.WeakValueDictionary()
        if link.queues.queue_type == "quorum":
            link.judge_refusals(lambda refused, decide: workers.submit(lambda: decide(self._is_full(refused))))

    def accept(self, sender: str, pairs: Iterable[tuple[str, str]]) -> list[SentMessage]:
        """Accept (address, content) pairs from `sender`, all or none, in order; with a store in one transaction.

        Raises InvalidAddress, InvalidName, InvalidContent, OutboxFull, OutboxError, ChatClosed.
        """
        checked = [(_address(to), check_content(content, self._settings.max_content_bytes)) for to, content in _pairs(pairs)]
        self._wait_for_room(len(checked))
        with self._lock:  # ids, the store and the link agree on the order
            if self._closed:
                raise ChatClosed("this chat is closed: make a new one with chatlib.connect")
            now = time.time()
            messages = [compose(new_message_id(now), sender, address, content, now) for address, content in checked]
            bodies = [message.encode() for message in messages]
            if self._store is None:
                return [self._hand_over(message, body, now) for message, body in zip(messages, bodies, strict=True)]
            batch = _Batch(messages, bodies, now)
            self._line.append(batch)
        self._commit(self._store, batch)
        if batch.error is not None:
            raise batch.error
        return batch.sent

    def _commit(self, store: Store, own: _Batch | None = None) -> None:
        """Store what is in line as one transaction, and hand it over in order.

        Whoever comes while another one waits for the disk finds, after that, all who came meanwhile in line, and pays for them, too.
        own: of the caller, who may be a listener that sends something while it hears of a message: then it is his alone.
        """
        with self._committing:
            if self._handing_over:
                fresh = [own] if own else []
            else:
                fresh = [batch for batch in self._line.copy() if not batch.stored]
            try:
                if fresh:
                    store.add([row for batch in fresh for row in batch.rows()])
            except ChatError as error:
                for batch in fresh:
                    batch.error = error
                    self._line.remove(batch)
                return
            for batch in fresh:
                batch.stored = True
            if self._handing_over:
                for batch in fresh:
                    self._hand_over_all(batch)
                    self._line.remove(batch)
                return
            self._handing_over = True
            try:
                while self._line and self._line[0].stored:
                    self._hand_over_all(self._line[0])
                    self._line.popleft()
            finally:
                self._handing_over = False

    def _hand_over_all(self, batch: _Batch) -> None:
        """Go on with it: Ctrl-C may have come to the thread that was at it for all."""
        while (number := len(batch.sent)) < len(batch.messages):
            batch.sent.append(self._hand_over(batch.messages[number], batch.bodies[number], batch.at))

    def send_what_was_left(self) -> int:
        """Hand over what an earlier process accepted and did not see confirmed; how many that were."""
        waiting = self._store.waiting() if self._store else []
        for body, at in waiting:
            try:
                message = decode(body)
            except DecodeError as exc:
                _log.error("left in the outbox, unreadable: %s", exc)
                continue
            if isinstance(message, SendMessage):
                self._left.add(message.message_id)
                self._hand_over(message, body, at)
        return len(waiting)

    def _hand_over(self, message: SendMessage, body: bytes, at: float) -> SentMessage:
        to = message.to
        if self._hops.wanted:
            self._hops.emit(events.STORED, message.message_id, user=message.sender_id, to=to)
        sent = SentMessage(message, self._count_members)
        self.sent[message.message_id] = sent
        self._on_accepted(sent)
        exchange, name = (GROUPS, message.group_id) if message.group_id is not None else (USERS, message.recipient_id)
        key, told = escape(name or ""), self._on_outcome
        self._link.publish(
            Outgoing(exchange.name, key, body, message.message_id, SEND_MESSAGE, int(at), told, user=message.sender_id, to=to, owner=sent)
        )
        return sent

    def _wait_for_room(self, count: int) -> None:
        """Back-pressure: with a full outbox `send` waits, and then refuses."""
        unconfirmed, limit = self._link.unconfirmed, self._settings.outbox_limit
        if count > limit:
            raise OutboxFull(f"{count:,} messages at once do not fit in an outbox of {limit:,}: nothing was accepted; send fewer at a time")
        self._keep_pace(unconfirmed)
        if unconfirmed + count <= limit or self._link.wait_for_room(limit - count + 1, self._settings.send_timeout):
            return
        raise OutboxFull(
            f"{self._link.unconfirmed:,} messages wait for the broker (the link is {self._link.state.value}) and Settings.outbox_limit is "
            f"{limit:,}: nothing was accepted; send again when the broker is back"
        )

    def _keep_pace(self, unconfirmed: int) -> None:
        """Let the link work while somebody sends without a pause.

        A thread that never rests keeps Python's interpreter to itself, the link's thread gets its turn every 5 ms, and nothing is on
        the wire until the last `send` (measured: 20,000 sends at 12,500/s, and at 16,000/s with this). So when two windows have no confirm,
        `send` waits until one and a half have none, for at most `PACE`; not again while the broker is silent, nor while there is none.
        """
        window = self._settings.window
        if unconfirmed < 2 * window:
            self._keeps_pace = True
        elif self._keeps_pace and self._link.state is LinkState.CONNECTED:
            self._keeps_pace = self._link.wait_for_room(window + window // 2, PACE)

    def _on_outcome(self, outgoing: Outgoing, result: str, why: str) -> None:
        """On the I/O thread: the broker has spoken."""
        sent: SentMessage = outgoing.owner
        if result == CONFIRMED:
            self._settle(sent, SentState.CONFIRMED, None)
        elif result == REJECTED:
            self.rejections.add(sent)  # to say whose inbox is full, the broker has to be asked
        elif result == REFUSED:
            error = AccessRefused(f"{sent.message_id} to {sent.to} was not taken: {why}; send it again when that is granted")
            self._settle(sent, SentState.REJECTED, error)
        else:
            what = f"the group {sent.to} has no members" if sent.to.startswith("#") else f"there is no user {sent.to}"
            advice = "sign up or join first, then send again"
            self._settle(sent, SentState.RETURNED, Unroutable(f"{what}: {sent.message_id} was returned ({why}); {advice}"))
        if self._settled:
            self._settled.add(sent.message_id)

    def _settle(self, sent: SentMessage, state: SentState, error: ChatError | None) -> None:
        sent._settle(state, error)
        if sent.message_id in self._left:
            self._left.discard(sent.message_id)
            if error is not None:
                _log.warning("sent by an earlier process from this data_dir: %s", error)

    def _is_full(self, refused: Outgoing) -> bool | None:
        """On a worker: whether an inbox that it is for is full; None: nobody can tell."""
        sent = self.sent.get(refused.message_id)
        if sent is None or refused.exchange not in (USERS.name, GROUPS.name):
            return False  # nothing else has a limit at which it refuses
        try:
            return bool(self._who_is_full(sent))
        except ChatError:
            return None

    def refuse(self) -> None:
        """Accept nothing more: the chat is closing."""
        with self._lock:
            self._closed = True
        if self._store:
            self._commit(self._store)  # of another thread, whose send() has not returned

    def close(self) -> int:
        """Tell those who wait; how many messages have no outcome. Call it when the link is closed."""
        self.rejections.close()
        pending = [sent for sent in list(self.sent.values()) if sent.state is SentState.PENDING]
        for sent in pending:
            sent._close()
        if self._settled:
            self._settled.finish()
        return len(pending)
