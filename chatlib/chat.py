"""A chat: one supervised link to the broker, shared by any number of users."""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import unquote, urlsplit

from chatlib.bulk import declare_groups
from chatlib.callbacks import callback
from chatlib.dead_letters import DeadLetters
from chatlib.delays import Delays
from chatlib.errors import ChatClosed, ManagementError, ManagementUnreachable
from chatlib.events import Event, Events
from chatlib.group import ChatGroup
from chatlib.handled import Handled
from chatlib.link import Link, LinkState
from chatlib.names import check_chat_name, check_user_name, inbox_queue
from chatlib.outbox import Outbox
from chatlib.receipts import Receipts
from chatlib.sent import SentMessage
from chatlib.settings import Settings
from chatlib.store import Store
from chatlib.topology import check_history_name, of_history, of_user
from chatlib.urls import urls_of
from chatlib.user import ChatUser
from chatlib.waiting import seconds
from chatlib.workers import Workers

if TYPE_CHECKING:
    from chatlib.management import Management

__all__ = ["Chat", "connect"]

_log = logging.getLogger("chatlib.chat")
ASK_AGAIN: Final = 5.0  # seconds after the management API gave no answer; it may be gone for good, or come back with its broker
CLOSING: Final = 10.0  # seconds that closing may take beyond its `timeout`: until the broker has answered and the threads have ended
_numbers = itertools.count(1)
_open_chats: weakref.WeakSet[Chat] = weakref.WeakSet()


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
    on_event: Callable[[Event], None] | None = None,
) -> Chat:
    """A `Chat` on this broker, connected.

    broker_or_url: a broker object, "amqp://user:password@host:5672/", or a list of URLs that are tried in turn.
    data_dir: a folder in which the outbox and the handled ids survive the death of this process; messages that an earlier
    process left there are sent now. name: what the broker's management UI calls the connections, at most 255 bytes. on_event: as
    `Chat.on_event`, but from the first moment on, so that it sees what was left there, too.
    Raises InvalidName, InvalidUrl, AccessRefused or UnknownHost at once, BrokerUnavailable when nothing answered within
    `settings.connect_timeout`, OutboxLocked, OutboxDamaged or OutboxError for a `data_dir` that cannot be used.
    """
    return Chat(broker_or_url, data_dir=data_dir, settings=settings, name=name, on_event=on_event)


class Chat:
    """Made by `connect`. A context manager; thread-safe. Not usable after a fork: connect again in the child."""

    def __init__(
        self,
        broker_or_url: HasUrl | str | Sequence[str],
        *,
        data_dir: str | os.PathLike[str] | None = None,
        settings: Settings | None = None,
        name: str | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.name = (check_chat_name(name) if name is not None else "") or f"chatlib {os.getpid()}.{next(_numbers)}"
        self._broker = broker_or_url  # kept: a LocalBroker that nobody holds is stopped
        self._urls = urls_of(broker_or_url)
        self._vhost = unquote(urlsplit(self._urls[0]).path[1:]) or "/"
        self._closed = False
        self._closer = 0  # the thread that closes it
        self._ended = threading.Event()  # closed, and the data_dir is free
        self._pid = os.getpid()
        self._hops = Events()
        if on_event is not None:
            self._hops.listen(on_event)
        self._users: dict[str, ChatUser] = {}
        self._users_lock = threading.Lock()
        self._known: dict[str, frozenset[str]] | None = None
        self._ask_again = 0.0
        self._store = Store(data_dir, sync=self.settings.sync) if data_dir is not None else None
        try:
            self._link = Link(self._urls, self.name, self.settings, self._hops)
            self._link.open()
            self._workers = Workers(self.settings.handler_threads, f"{self.name} handler")
            self._chores = Workers(2, f"{self.name} chores")  # what a handler may wait for must not wait for a handler
            self._handled = Handled(self.settings.handled_limit, self._store, age=self.settings.handled_age)
            self._delays = Delays(self._link, self.settings.retry.steps())
            self._outbox = Outbox(
                self._link,
                self.settings,
                self._store,
                self._hops,
                self._chores,
                who_is_full=self._who_is_full,
                count_members=self._count_members,
                on_accepted=lambda sent: self._receipts.expect(sent),
            )
            self._receipts = Receipts(self._link, self._outbox.sent, self._store, self._hops, self._chores)
            self.dead_letters = DeadLetters(self._link, self._hops)
            self._outbox.send_what_was_left()
            self._receipts.send_what_was_left()
        except BaseException:
            self._abandon()
            raise
        _open_chats.add(self)

    def _abandon(self) -> None:
        """The constructor failed: leave nothing open."""
        self._closed = True
        for part in ("_link", "_workers", "_chores", "_store"):
            found = getattr(self, part, None)
            if found is not None:
                found.close(0) if part == "_link" else found.close()

    # ---- users -----------------------------------------------------------------------------------------------------------

    def user(self, name: str) -> ChatUser:
        """Sign `name` up (idempotent, durable) and bring him online. The same object for the same name.

        Raises InvalidName, TopologyMismatch (his inbox exists with other settings), BrokerUnavailable, ChatClosed.
        """
        return self.users([name])[0]

    def users(self, names: Iterable[str], *, online: bool = True) -> list[ChatUser]:
        """Sign up many at once, faster than one by one. In the order of `names`; raises as `user`, TypeError for a bare str.

        online: False leaves those that are new here offline, until `go_online`.
        """
        if isinstance(names, str):  # each of its letters would be somebody
            raise TypeError(f"users() takes a list of names, got the text {names!r:.60}: write user({names!r:.60}) for one")
        wanted = [check_user_name(name) for name in names]
        self._check_open()
        missing = dict.fromkeys(name for name in wanted if name not in self._users)
        limit, queue_type = self.settings.inbox_limit, self._link.queues.queue_type
        declare_groups(self._link, [of_user(name, inbox_limit=limit, queue_type=queue_type) for name in missing])  # twice is once
        with self._users_lock:
            self._check_open()
            new = [name for name in missing if name not in self._users]
            for name in new:
                self._users[name] = ChatUser(self, name)
            users = [self._users[name] for name in wanted]
        for user in users:
            if online and user.name in new:
                user._go_online(wait=False)
        return users

    def group(self, address: str, *, history: bool = False, max_age: str = "7D", max_bytes: int = 500_000_000) -> ChatGroup:
        """The group "#team": its members and its history.

        history: from now on keep what is said there, for newcomers and for reading again (a stream; idempotent, durable).
        max_age: how long, in RabbitMQ's notation ("7D", "12h"). max_bytes: how much, about; the oldest go first.
        With a history a message to an empty group is kept there instead of being returned.
        Raises InvalidAddress, InvalidName, ValueError (no such limit), TopologyMismatch (it is kept with other limits), BrokerUnavailable.
        """
        name = ChatUser._group(address)
        if history:
            check_history_name(name, self._vhost)
            self._link.queues.declare(of_history(name, max_age=max_age, max_bytes=max_bytes), anew=True)
        return ChatGroup(self, name)

    def members(self, group: str) -> frozenset[str]:
        """The names of the members of "#group", as the broker has them now. Raises ManagementUnreachable, ManagementError."""
        name = ChatUser._group(group)
        with self._management() as management:
            return management.members(name)

    def _management(self) -> Management:
        from chatlib.management import Management  # here, because httpx takes a while to import

        # asked each time: of a cluster it is that of a node that runs
        url = getattr(self._broker, "management_url", None) or self._link.url
        return Management(url, login=self._urls[0], vhost=self._vhost)

    def _memberships(self, user: str) -> frozenset[str]:
        """The groups that the broker knew for `user` at the first asking; empty where there is no management API."""
        if self._known is None and time.monotonic() >= self._ask_again:
            try:
                with self._management() as management:
                    self._known = management.memberships()
            except (ManagementUnreachable, ManagementError) as exc:
                _log.info("memberships made elsewhere are unknown, no management API: %s", exc)
                self._ask_again = time.monotonic() + ASK_AGAIN
        return (self._known or {}).get(user, frozenset())

    def _recipients(self, sent: SentMessage) -> frozenset[str] | None:
        """Whom a message is for, or None where nobody can say."""
        if sent.to.startswith("@"):
            return frozenset([sent.to[1:]])
        try:
            return self.members(sent.to) - {sent.sender_id}
        except (ManagementUnreachable, ManagementError):
            return None

    def _count_members(self, sent: SentMessage) -> int | None:
        recipients = self._recipients(sent)
        return None if recipients is None else len(recipients | sent.receipts.keys())

    def _who_is_full(self, sent: SentMessage) -> list[str]:
        recipients, queues = self._recipients(sent), self._link.queues
        if recipients is None:
            raise ManagementUnreachable(f"nobody can tell who is in {sent.to}: there is no management API")
        # a quorum queue that was full takes nothing until it has come down to four fifths of its limit
        limit = self.settings.inbox_limit * (0.8 if queues.queue_type == "quorum" else 1)
        return [name for name in sorted(recipients) if queues.depth(inbox_queue(name))[0] >= limit]

    def _send(self, sender: str, messages: Iterable[tuple[str, str]]) -> list[SentMessage]:
        self._check_open()
        return self._outbox.accept(sender, messages)

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
        return self._link.unconfirmed + self._delays.pending

    def on_state(self, watcher: Callable[[LinkState, str], None]) -> Callable[[], None]:
        """Call `watcher(state, reason)` at every change of the link, on its I/O thread: quick, never blocking. Returns what stops it."""
        return self._link.watch(watcher)

    def on_event(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call `listener(event)` for every hop of every message (see `chatlib.events`). Returns what stops it."""
        return self._hops.listen(listener)

    def sent(self, message_id: str) -> SentMessage | None:
        """What `send` returned for this id, as long as somebody holds it or it has no outcome; None for any other id."""
        return self._outbox.sent.get(message_id)

    def flush(self, timeout: float = 30.0) -> bool:
        """Wait until everything sent has its outcome; False if that took longer than `timeout` seconds.

        Raises TypeError or ValueError for what is no number of seconds.
        """
        timeout = seconds(timeout, "the timeout of flush()")
        deadline = time.monotonic() + timeout
        rejections = self._outbox.rejections  # of the link's outcomes, so after it
        parts = (self._delays.flush, self._link.flush, rejections.flush)
        return all(flush(max(0.0, deadline - time.monotonic())) for flush in parts)

    def close(self, timeout: float = 5.0) -> None:
        """Stop receiving, let handlers finish and flush, for at most `timeout` seconds, close. Idempotent; wins over a recovery.

        What has no outcome by then is kept in the `data_dir` for the next connect; without one it is lost, and a warning says so.
        A handler that is still at work by then comes too late to ack: its message comes again.
        While another thread closes it, this waits for that one, for `timeout` and the seconds that closing itself takes; but not in a
        handler, a listener or a watcher, since that one may be waiting for it.
        Raises TypeError or ValueError for a `timeout` that is none, and then nothing is closed.
        """
        timeout = seconds(timeout, "the timeout of close()")
        if os.getpid() != self._pid:
            return  # a forked child: nothing of this is its own
        with self._users_lock:
            first, self._closed = not self._closed, True
            if first:
                self._closer = threading.get_ident()
        if not first:
            if not callback.depth and self._closer != threading.get_ident():
                self._ended.wait(timeout + CLOSING)
            return
        _open_chats.discard(self)
        deadline = time.monotonic() + timeout
        users = list(self._users.values())
        with ExitStack() as last:  # from the bottom up, also when Ctrl-C ends the waiting
            last.callback(self._ended.set)
            if self._store:
                last.callback(self._store.close)
            last.callback(self._receipts.close)
            last.callback(self._close_outbox)
            last.callback(self._chores.close)
            last.callback(self._workers.close)
            last.callback(lambda: self._link.close(max(min(timeout, 0.5), deadline - time.monotonic())))
            for user in users:
                user._close()
            self._outbox.refuse()
            for user in users:
                user._finish(deadline - time.monotonic())
            self._delays.flush(deadline - time.monotonic())

    def _close_outbox(self) -> None:
        pending = self._outbox.close()
        if pending and not self._store:
            _log.warning("closed with %d messages unconfirmed, which are lost: connect with a data_dir to keep them", pending)

    def _check_open(self) -> None:
        if os.getpid() != self._pid:
            raise ChatClosed("this chat was opened before a fork, its threads are not here: connect again in the child")
        if self._closed:
            raise ChatClosed("this chat is closed: make a new one with chatlib.connect")

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Chat {self.state.value}, {len(self._users)} users>"


def _close_all() -> None:
    for chat in list(_open_chats):
        if chat._pid == os.getpid():
            chat.close(timeout=2.0)


atexit.register(_close_all)
