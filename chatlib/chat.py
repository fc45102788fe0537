"""A chat: one supervised link to the broker, shared by any number of users."""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Protocol

from chatlib import events
from chatlib.envelope import CONFIRMED, REJECTED, Delivery, Outgoing
from chatlib.errors import (
    ChatClosed,
    ChatError,
    DecodeError,
    InboxFull,
    ManagementError,
    ManagementUnreachable,
    OutboxFull,
    PublishRejected,
    Unroutable,
)
from chatlib.events import Event, Events
from chatlib.handled import Handled
from chatlib.link import Link, LinkState
from chatlib.messages import RECEIVE_MESSAGE, SEND_MESSAGE, ReceiveMessage, SendMessage, check_content, compose, decode, new_message_id
from chatlib.names import check_user_name, escape, parse_address
from chatlib.sent import SentMessage, SentState
from chatlib.settings import Settings
from chatlib.store import Store
from chatlib.topology import GROUPS, RECEIPTS, USERS, of_user
from chatlib.user import ChatUser
from chatlib.workers import Mailbox, Workers

__all__ = ["Chat", "connect"]

_log = logging.getLogger("chatlib.chat")
_numbers = itertools.count(1)
_open_chats: weakref.WeakSet[Chat] = weakref.WeakSet()
_address = lru_cache(maxsize=4096)(parse_address)
CONVERSATION_LIMIT = 10_000  # sent messages of a conversation that a cumulative "read" can still reach


class HasUrl(Protocol):
    """Anything with the AMQP URL of a broker, such as the brokers of `chatlib.brokers`."""

    @property
    def url(self) -> str: ...


def connect(
    broker_or_url: HasUrl | str | Sequence[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    settings: Settings | None = None,
    name: str | None = None,
) -> Chat:
    """A `Chat` on this broker, connected.

    broker_or_url: a broker object, "amqp://user:password@host:5672/", or a list of URLs that are tried in turn.
    data_dir: a folder in which the outbox and the handled ids survive the death of this process; messages that an earlier
    process left there are sent now. name: what the broker's management UI calls the connections.
    Raises AccessRefused or UnknownHost at once, BrokerUnavailable when nothing answered within `settings.connect_timeout`,
    OutboxLocked, OutboxDamaged or OutboxError for a `data_dir` that cannot be used.
    """
    return Chat(broker_or_url, data_dir=data_dir, settings=settings, name=name)


class Chat:
    """Made by `connect`. A context manager; thread-safe. Not usable after a fork: connect again in the child."""

    def __init__(
        self,
        broker_or_url: HasUrl | str | Sequence[str],
        *,
        data_dir: str | os.PathLike[str] | None = None,
        settings: Settings | None = None,
        name: str | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.name = name or f"chatlib {os.getpid()}.{next(_numbers)}"
        self._urls = _urls(broker_or_url)
        self._management_url: str | None = getattr(broker_or_url, "management_url", None)
        self._closed = False
        self._hops = Events()
        self._users: dict[str, ChatUser] = {}
        self._users_lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._sent: weakref.WeakValueDictionary[str, SentMessage] = weakref.WeakValueDictionary()
        self._conversations: dict[tuple[str, str], deque[str]] = {}
        self._known: dict[str, frozenset[str]] | None = None
        self._settled: deque[str] = deque()
        self._store = Store(Path(data_dir)) if data_dir is not None else None
        try:
            self._handled = Handled(self.settings.handled_limit, self._store)
            self._workers = Workers(self.settings.handler_threads, f"{self.name} handler")
            self._receipts = Mailbox(self._workers, self._on_receipt)
            self._tidy = self._workers.serial(self._forget_settled)
            self._link = Link(self._urls, self.name, self.settings, self._hops)
            self._link.open()
        except BaseException:
            if self._store:
                self._store.close()
            raise
        _open_chats.add(self)
        self._send_what_was_left()

    # ---- users -----------------------------------------------------------------------------------------------------------

    def user(self, name: str) -> ChatUser:
        """Sign `name` up (idempotent, durable) and bring him online. The same object for the same name.

        Raises InvalidName, TopologyMismatch (his inbox exists with other settings), BrokerUnavailable, ChatClosed.
        """
        return self.users([name])[0]

    def users(self, names: Iterable[str], *, online: bool = True) -> list[ChatUser]:
        """Sign up many at once, faster than one by one. In the order of `names`; raises as `user`.

        online: False leaves those that are new here offline, until `go_online`.
        """
        wanted = [check_user_name(name) for name in names]
        self._check_open()
        with self._users_lock:
            new = dict.fromkeys(name for name in wanted if name not in self._users)
            self._link.declare(itertools.chain.from_iterable(of_user(name, inbox_limit=self.settings.inbox_limit) for name in new))
            for name in new:
                self._users[name] = ChatUser(self, name)
            users = [self._users[name] for name in wanted]
        for user in users:
            if online and user.name in new:
                user._go_online(wait=False)
        return users

    def _memberships(self, user: str) -> frozenset[str]:
        """The groups that the broker knows for `user` at the first asking; empty where there is no management API."""
        if self._known is None:
            from chatlib.management import Management

            try:
                with Management(self._management_url or self._urls[0], login=self._urls[0]) as management:
                    self._known = management.memberships()
            except (ManagementUnreachable, ManagementError) as exc:
                _log.info("memberships made elsewhere are unknown, no management API: %s", exc)
                self._known = {}
        return self._known.get(user, frozenset())

    # ---- sending ---------------------------------------------------------------------------------------------------------

    def _send(self, sender: str, to: str, content: str) -> SentMessage:
        address = _address(to)
        check_content(content, self.settings.max_content_bytes)
        self._wait_for_room()
        with self._send_lock:  # ids, the store and the link agree on the order
            self._check_open()
            now = time.time()
            message = compose(new_message_id(now), sender, address, content, now)
            body = message.encode()
            if self._store:
                self._store.add(message.message_id, sender, str(address), body, now)
            if self._hops.wanted:
                self._hops.emit(events.STORED, message.message_id, user=sender, to=message.to)
            return self._hand_over(message, body, now)

    def _hand_over(self, message: SendMessage, body: bytes, at: float) -> SentMessage:
        """Give an accepted message to the link."""
        sent = SentMessage(message)
        self._sent[message.message_id] = sent
        conversation = self._conversations.get((message.sender_id, message.to))
        if conversation is None:
            conversation = self._conversations.setdefault((message.sender_id, message.to), deque(maxlen=CONVERSATION_LIMIT))
        conversation.append(message.message_id)
        exchange, key = (GROUPS, message.group_id) if message.group_id is not None else (USERS, message.recipient_id)

        def outcome(_: Outgoing, result: str, why: str) -> None:
            self._on_outcome(sent, result, why)

        self._link.publish(
            Outgoing(
                exchange.name,
                escape(key or ""),
                body,
                message.message_id,
                SEND_MESSAGE,
                int(at),
                outcome,
                user=message.sender_id,
                to=message.to,
            )
        )
        return sent

    def _wait_for_room(self) -> None:
        """Back-pressure: with a full outbox `send` waits, and then refuses."""
        if self._link.unconfirmed < self.settings.outbox_limit:
            return
        if not self._link.wait_for_room(self.settings.outbox_limit, self.settings.send_timeout):
            raise OutboxFull(
                f"{self.settings.outbox_limit:,} messages wait for the broker (the link is {self._link.state.value}), the limit of "
                "Settings.outbox_limit: nothing was accepted; send again when the broker is back"
            )

    def _on_outcome(self, sent: SentMessage, result: str, why: str) -> None:
        """On the I/O thread: the broker has spoken."""
        if result == CONFIRMED:
            sent._settle(SentState.CONFIRMED, None)
        elif result == REJECTED:
            sent._settle(SentState.REJECTED, self._rejection(sent))
        else:
            what = f"group {sent.to!r} has no members" if sent.to.startswith("#") else f"there is no user {sent.to!r}"
            sent._settle(
                SentState.RETURNED, Unroutable(f"{what}: {sent.message_id} was returned ({why}); sign up or join first, then send again")
            )
        if self._store:
            self._settled.append(sent.message_id)
            self._tidy.wake()

    def _rejection(self, sent: SentMessage) -> PublishRejected:
        if sent.to.startswith("@"):
            return InboxFull(
                f"the inbox of {sent.to} is full ({self.settings.inbox_limit:,} messages): {sent.message_id} was not taken", [sent.to[1:]]
            )
        return InboxFull(f"an inbox in {sent.to} is full: {sent.message_id} was not taken there; the other members have it")

    def _forget_settled(self) -> bool:
        """Take out of the store what has its outcome, many at a time."""
        if not self._settled or not self._store:
            return False
        ids: list[str] = []
        while self._settled and len(ids) < 1000:
            ids.append(self._settled.popleft())
        self._store.remove(ids)
        return bool(self._settled)

    def _send_what_was_left(self) -> None:
        """What an earlier process accepted and did not see confirmed: the same ids, in the same order."""
        for _, _, _, body, at in self._store.waiting() if self._store else ():
            message = decode(body)
            assert isinstance(message, SendMessage)
            self._hops.emit(events.STORED, message.message_id, user=message.sender_id, to=message.to)
            self._hand_over(message, body, at)

    # ---- receipts --------------------------------------------------------------------------------------------------------

    def _send_receipt(self, sender: str, receipt: ReceiveMessage) -> None:
        self._link.publish(
            Outgoing(
                RECEIPTS.name,
                escape(sender),
                receipt.encode(),
                receipt.receipt_id,
                RECEIVE_MESSAGE,
                int(time.time()),
                _no_matter,
                user=receipt.recipient_id,
                to=f"@{sender}",
            )
        )

    def _on_receipt(self, delivery: object) -> None:
        """On a worker: a RECEIVE_MESSAGE for one of our users."""
        assert isinstance(delivery, Delivery)
        try:
            receipt = decode(delivery.body)
            if not isinstance(receipt, ReceiveMessage):
                raise DecodeError("a SEND_MESSAGE does not belong in a queue of receipts", delivery.body)
        except DecodeError as exc:
            _log.warning("dropped from %s what is no receipt: %s", delivery.queue, exc)
        else:
            self._apply_receipt(receipt)
        self._link.ack(delivery)

    def _apply_receipt(self, receipt: ReceiveMessage) -> None:
        sent = self._sent.get(receipt.message_id)
        news = sent is not None and sent._receipt(receipt.recipient_id, receipt.read_status)
        if news or sent is None:
            self._hops.emit(events.RECEIPT, receipt.message_id, user=receipt.recipient_id, state=receipt.read_status)
        if sent is None or not news or receipt.read_status != "read":
            return
        for message_id in reversed(self._conversations.get((sent.sender_id, sent.to), ())):
            earlier = self._sent.get(message_id)
            if earlier is None or message_id >= receipt.message_id:
                continue
            if not earlier._receipt(receipt.recipient_id, "read"):
                break  # read up to here before
            self._hops.emit(events.RECEIPT, message_id, user=receipt.recipient_id, state="read")

    # ---- the link, and the end -------------------------------------------------------------------------------------------

    @property
    def state(self) -> LinkState:
        """What the link to the broker is doing: connecting, connected, blocked, recovering, closed."""
        return self._link.state

    @property
    def reconnects(self) -> int:
        """How often the link was made anew since `connect`."""
        return self._link.reconnects

    @property
    def unconfirmed(self) -> int:
        """Publishes (messages, receipts, retries) that have no outcome yet."""
        return self._link.unconfirmed

    def on_state(self, watcher: Callable[[LinkState, str], None]) -> Callable[[], None]:
        """Call `watcher(state, reason)` at every change of the link, on its I/O thread: quick, never blocking. Returns what stops it."""
        return self._link.watch(watcher)

    def on_event(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call `listener(event)` for every hop of every message (see `chatlib.events`). Returns what stops it."""
        return self._hops.listen(listener)

    def flush(self, timeout: float = 30.0) -> bool:
        """Wait until everything sent has its outcome; False if that took longer than `timeout` seconds."""
        return self._link.flush(timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Stop receiving, flush for at most `timeout` seconds, close. Idempotent; wins over a running recovery.

        What has no outcome by then is kept in the `data_dir` for the next connect; without one it is lost, and a warning says so.
        """
        with self._users_lock:
            if self._closed:
                return
            self._closed = True
        _open_chats.discard(self)
        for user in self._users.values():
            user._online = False
        self._workers.close()
        self._link.close(timeout)
        pending = [sent for sent in list(self._sent.values()) if sent.state is SentState.PENDING]
        for sent in pending:
            sent._close()
        if self._store:
            while self._forget_settled():
                pass
            self._store.close()
        elif pending:
            _log.warning("closed with %d messages unconfirmed, which are lost: connect with a data_dir to keep them", len(pending))

    def _check_open(self) -> None:
        if self._closed:
            raise ChatClosed("this chat is closed: make a new one with chatlib.connect")

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Chat {self.state.value}, {len(self._users)} users>"


def _no_matter(outgoing: Outgoing, result: str, why: str) -> None:
    """A receipt for somebody who is gone, or whose queue of receipts is full, is no loss."""


def _urls(broker_or_url: HasUrl | str | Sequence[str]) -> list[str]:
    if isinstance(broker_or_url, str):
        urls = [broker_or_url]
    elif isinstance(broker_or_url, Sequence):
        urls = list(broker_or_url)
    else:
        urls = list(getattr(broker_or_url, "urls", None) or [broker_or_url.url])
    for url in urls:
        if not str(url).startswith(("amqp://", "amqps://")):
            raise ChatError(f"a broker's URL begins with amqp:// or amqps://, got {url!r}: pass a broker, a URL or a list of URLs")
    if not urls:
        raise ChatError("no broker: pass a broker, a URL or a list of URLs")
    return urls


def _close_all() -> None:
    for chat in list(_open_chats):
        chat.close(timeout=2.0)


atexit.register(_close_all)
