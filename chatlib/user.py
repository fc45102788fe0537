"""A user of a chat: sends, receives, joins and leaves, goes online and offline."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from chatlib import events
from chatlib.errors import ChatError, InvalidAddress
from chatlib.inbox import Inbox
from chatlib.link import Subscription
from chatlib.names import inbox_queue, parse_address, receipts_queue
from chatlib.received import ReceivedMessage
from chatlib.sent import SentMessage
from chatlib.topology import membership
from chatlib.workers import Serial

if TYPE_CHECKING:
    from chatlib.chat import Chat

__all__ = ["ChatUser", "Handler"]

_log = logging.getLogger("chatlib.user")

Handler = Callable[[ReceivedMessage], object]


class Groups(frozenset[str]):
    """The addresses of the groups of a user, as a set. `user.groups` and `user.groups()` are the same."""

    def __call__(self) -> Groups:
        return self


class ChatUser:
    """Made by `Chat.user`, which signs the user up: his inbox and his receipts exist from then on, also while he is away.

    He begins online. One object for each name in a Chat; thread-safe.
    """

    def __init__(self, chat: Chat, name: str) -> None:
        self.name = name
        self._chat = chat
        self._lock = threading.RLock()
        self._handler: Handler | None = None
        self._handling: Serial = chat._workers.serial(self._handle_next)
        self._inbox = Inbox(name, chat._link, chat.settings, chat._handled, chat._hops, self._arrived, chat._send_receipt)
        self._subscriptions: list[Subscription] = []
        self._online = False
        self._joined: set[str] = set()
        self._left: set[str] = set()

    @property
    def address(self) -> str:
        """Where others write to him: "@name"."""
        return f"@{self.name}"

    @property
    def is_online(self) -> bool:
        """Whether his inbox is being emptied by this Chat."""
        return self._online

    def send(self, to: str, content: str) -> SentMessage:
        """Accept `content` for "@user" or "#group" and return at once; sending goes on in the background, through any failure.

        A user need not be a member to write to a group, nor online. Raises InvalidAddress, InvalidName, InvalidContent,
        OutboxFull (after `send_timeout` seconds without room) or another OutboxError, ChatClosed: then nothing was accepted.
        """
        return self._chat._send(self.name, to, content)

    def receive(self, limit: int | None = None, timeout: float = 2.0) -> Iterator[ReceivedMessage]:
        """The messages for him, oldest first; ends after `limit` of them, or when nothing came for `timeout` seconds.

        Settle each one (`ack`, `retry`): the broker hands out at most `Settings.prefetch` unsettled ones.
        While he is offline nothing comes. Raises ChatError if a handler takes the messages (`on_message`).
        """
        if self._handler is not None:
            raise ChatError(f"{self.name!r} has a handler that takes his messages: remove it with on_message(None) to use receive()")
        return self._receive(limit, timeout)

    def _receive(self, limit: int | None, timeout: float) -> Iterator[ReceivedMessage]:
        count = 0
        while limit is None or count < limit:
            received = self._inbox.next(timeout)
            if received is None:
                return
            count += 1
            yield received

    def on_message(self, handler: Handler | None) -> None:
        """Call `handler(message)` for each message, in order, on a thread of chatlib: ack when it returns, retry when it raises.

        A handler may settle the message itself. None removes the handler.
        """
        with self._lock:
            self._handler = handler
        if handler is not None:
            self._handling.wake()

    def join(self, group: str) -> None:
        """Become a member of "#group": from now on everything said there is kept for him. Durable; joining twice is one membership.

        Raises InvalidAddress, InvalidName, BrokerUnavailable.
        """
        name = self._group(group)
        self._chat._link.declare([membership(self.name, name)])
        self._joined.add(f"#{name}")
        self._left.discard(f"#{name}")
        self._chat._hops.emit(events.JOINED, user=self.name, to=f"#{name}")

    def leave(self, group: str) -> None:
        """Stop being a member. What is in his inbox already stays there. Raises as `join`; no error for a stranger."""
        name = self._group(group)
        self._chat._link.unbind(membership(self.name, name))
        self._joined.discard(f"#{name}")
        self._left.add(f"#{name}")
        self._chat._hops.emit(events.LEFT, user=self.name, to=f"#{name}")

    @property
    def groups(self) -> Groups:
        """The addresses of his groups, {"#team"}: what the broker has (asked through its management API where there is one),
        with what was joined and left here since."""
        known = self._chat._memberships(self.name)
        return Groups((known | self._joined) - self._left)

    @staticmethod
    def _group(address: str) -> str:
        parsed = parse_address(address)
        if not parsed.is_group:
            raise InvalidAddress(f"only groups can be joined and left: write '#{parsed.name}', got {address!r}")
        return parsed.name

    def go_online(self) -> None:
        """Take messages and receipts from now on. Works while the broker is down, too: then from the moment it is back."""
        self._go_online(wait=True)

    def _go_online(self, wait: bool) -> None:
        with self._lock:
            if self._online:
                return
            self._online = True
            link = self._chat._link
            self._subscriptions = [
                link.subscribe(receipts_queue(self.name), self._chat._receipts.put, lambda: None, wait=False),
                link.subscribe(inbox_queue(self.name), self._inbox.deliver, self._inbox.reset, wait=wait),
            ]

    def go_offline(self) -> None:
        """Take nothing more: the inbox keeps collecting. What was not shown yet goes back there, in its place; sending goes on."""
        with self._lock:
            if not self._online:
                return
            self._online = False
            for subscription in self._subscriptions:
                self._chat._link.unsubscribe(subscription)
            self._subscriptions = []
            self._inbox.give_back()

    @property
    def waiting(self) -> int:
        """Messages that wait in his inbox on the broker now, exactly; those handed out and not acked are not counted.

        Raises BrokerUnavailable.
        """
        return self._chat._link.depth(inbox_queue(self.name))[0]

    def _arrived(self) -> None:
        if self._handler is not None:
            self._handling.wake()

    def _handle_next(self) -> bool:
        """One step of the handler's thread: whether there may be more to do."""
        handler = self._handler
        if handler is None:
            return False
        received = self._inbox.next(0)
        if received is None:
            return False
        try:
            handler(received)
        except Exception as exc:  # noqa: BLE001  whatever the handler raised: that is what retry is for
            _log.warning("the handler of %s failed at message_id=%s attempt=%d: %r", self.name, received.message_id, received.attempt, exc)
            _log.debug("traceback", exc_info=True)
            received.retry(f"{type(exc).__name__}: {exc}")
        else:
            received.ack()
        return True

    def __repr__(self) -> str:
        return f"<ChatUser {self.name} {'online' if self._online else 'offline'}>"
