"""A user of a chat: sends, receives, joins and leaves, goes online and offline."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from chatlib import events
from chatlib.callbacks import callback
from chatlib.errors import ChatClosed, ChatError, InvalidAddress, OutboxError
from chatlib.inbox import Inbox
from chatlib.link import Subscription
from chatlib.names import inbox_queue, parse_address, receipts_queue, retries_queue
from chatlib.received import ReceivedMessage
from chatlib.sent import SentMessage
from chatlib.topology import membership, of_retries
from chatlib.waiting import seconds
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
        self._pause_after: int | None = None
        self._pause_for = 0.0
        self._failed = 0  # in a row
        self._paused_until = 0.0
        self._pause_end: threading.Timer | None = None
        self._handling: Serial = chat._workers.serial(self._handle_next)
        self._inbox = Inbox(name, chat._link, chat.settings, chat._handled, chat._delays, chat._hops, self._arrived, chat._receipts.publish)
        self._subscriptions: list[Subscription] = []
        self._online = False
        self._listening = False
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

    @property
    def private(self) -> bool:
        """Whether he keeps to himself what he received and read (no RECEIVE_MESSAGE). Can be set; begins as `not Settings.receipts`."""
        return self._inbox.private

    @private.setter
    def private(self, value: bool) -> None:
        self._inbox.private = value

    def send(self, to: str, content: str) -> SentMessage:
        """Accept `content` for "@user" or "#group" and return at once; sending goes on in the background, through any failure.

        A user need not be a member to write to a group, nor online. Raises InvalidAddress, InvalidName, InvalidContent,
        OutboxFull (after `send_timeout` seconds without room) or another OutboxError, ChatClosed: then nothing was accepted.
        """
        return self.send_many([(to, content)])[0]

    def send_many(self, messages: Iterable[tuple[str, str]]) -> list[SentMessage]:
        """Accept many (address, content) pairs at once, all or none, in their order; with a `data_dir` in one disk transaction.

        Raises as `send`.
        """
        return self._chat._send(self.name, messages)

    def receive(self, limit: int | None = None, timeout: float = 2.0) -> Iterator[ReceivedMessage]:
        """The messages for him, oldest first; ends after `limit` of them, or when nothing came for `timeout` seconds.

        Settle each one (`ack`, `retry`): the broker hands out at most `Settings.prefetch` unsettled ones.
        While he is offline nothing comes. Raises ChatError if a handler takes the messages (`on_message`), TypeError or ValueError
        for a limit or a timeout that is no number.
        """
        self._chat._check_open()
        if limit is not None and not isinstance(limit, int | float):
            raise TypeError(f"receive() takes a limit that is a number, or None, got {limit!r}")
        timeout = seconds(timeout, "the timeout of receive()")
        if self._handler is not None:
            raise ChatError(f"{self.name!r} has a handler that takes his messages: remove it with on_message(None) to use receive()")
        self._listen()
        return self._receive(limit, timeout)

    def _receive(self, limit: int | None, timeout: float) -> Iterator[ReceivedMessage]:
        count = 0
        while limit is None or count < limit:
            received = self._inbox.next(timeout)
            if received is None:
                return
            count += 1
            yield received

    def on_message(self, handler: Handler | None, *, pause_after: int | None = None, pause_for: float = 5.0) -> None:
        """Call `handler(message)` for each message, in order, on a thread of chatlib: ack when it returns, retry when it raises.

        A handler may settle the message itself. None removes the handler. One that never returns keeps Python from ending.
        pause_after: after that many failures in a row, of whatever messages, leave the inbox alone for `pause_for` seconds,
        instead of using up the attempts of every message while something that all of them need is down; then one message is
        tried, and another failure pauses again (a circuit breaker at the consumer). None: never. A pause_for of `math.inf` lasts until
        on_message is called again.
        Raises TypeError for what cannot be called or is no number, ValueError for pause_after below 1 and NaN seconds, ChatClosed.
        """
        if handler is not None and not callable(handler):
            raise TypeError(f"on_message takes a function that is called with each message, or None to remove it, got {handler!r}")
        if pause_after is not None and pause_after < 1:
            raise ValueError(f"pause_after counts failures in a row, so it is at least 1, got {pause_after}")
        pause_for = seconds(pause_for, "pause_for")
        if handler is not None:
            self._chat._check_open()
        with self._lock:
            self._handler, self._pause_after, self._pause_for = handler, pause_after, pause_for
            self._failed, self._paused_until = 0, 0.0
            self._forget_pause()
        if handler is not None:
            self._listen()
            self._handling.wake()

    def join(self, group: str) -> None:
        """Become a member of "#group": from now on everything said there is kept for him. Durable; joining twice is one membership.

        Raises InvalidAddress, InvalidName, BrokerUnavailable.
        """
        name, began = self._group(group), time.time()
        self._chat._link.queues.declare([membership(self.name, name)], anew=True)
        self._joined.add(f"#{name}")
        self._left.discard(f"#{name}")
        self._chat._hops.emit(events.JOINED, user=self.name, to=f"#{name}", began=began)

    def leave(self, group: str) -> None:
        """Stop being a member. What is in his inbox already stays there. Raises as `join`; no error for a stranger.

        Another Chat in which he joined makes him a member again when it has to reconnect: leave there, too.
        """
        name, began = self._group(group), time.time()
        self._chat._link.queues.unbind(membership(self.name, name))
        self._joined.discard(f"#{name}")
        self._left.add(f"#{name}")
        self._chat._hops.emit(events.LEFT, user=self.name, to=f"#{name}", began=began)

    @property
    def groups(self) -> Groups:
        """The addresses of his groups, {"#team"}: what the broker had when this was first asked here (through its management API, where
        there is one), with what was joined and left here since."""
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
        self._chat._check_open()
        with self._lock:
            if self._online:
                return
            link = self._chat._link
            self._inbox.open()
            self._subscriptions = [link.subscribe(receipts_queue(self.name), self._chat._receipts.deliver, wait=False)]
            try:
                self._subscriptions.append(link.subscribe(inbox_queue(self.name), self._inbox.deliver, self._inbox.reset, wait=wait))
            except ChatError:
                link.unsubscribe(self._subscriptions, wait=False)
                self._inbox.give_back()
                raise
            self._online = True
            if self._listening:
                self._subscribe_to_retries()

    def _listen(self) -> None:
        """Somebody begins to handle his messages: from now on some may be retried, and come back on a queue of their own."""
        with self._lock:
            if not self._listening:
                self._listening = True
                if self._online:
                    self._subscribe_to_retries()

    def _subscribe_to_retries(self) -> None:
        queue, declarations = retries_queue(self.name), of_retries(self.name, self._chat._link.queues.queue_type)
        link, inbox = self._chat._link, self._inbox
        self._subscriptions.append(link.subscribe(queue, inbox.deliver, inbox.reset, declarations=declarations, wait=False))

    def go_offline(self) -> None:
        """Take nothing more: the inbox keeps collecting. What was not shown yet goes back there, in its place; sending goes on."""
        with self._lock:
            if not self._online:
                return
            self._online = False
            subscriptions, self._subscriptions = self._subscriptions, []
            try:
                self._chat._link.unsubscribe(subscriptions)
            finally:
                self._inbox.give_back()

    @property
    def waiting(self) -> int:
        """Messages that wait in his inbox on the broker now, exactly; those handed out and not acked are not counted.

        Raises BrokerUnavailable.
        """
        return self._chat._link.queues.depth(inbox_queue(self.name))[0]

    def _arrived(self) -> None:
        if self._handler is not None:
            self._handling.wake()

    def _handle_next(self) -> bool:
        """One step of the handler's thread: whether there may be more to do."""
        handler = self._handler
        if handler is None or self.is_paused:
            return False
        received = self._inbox.next(0)
        if received is None:
            return False
        try:
            self._handle(handler, received)
        except ChatClosed:  # while the handler was at it: the message comes again
            return False
        return True

    def _handle(self, handler: Handler, received: ReceivedMessage) -> None:
        try:
            with callback:
                handler(received)
        except BaseException as exc:  # noqa: BLE001  whatever the handler raised, SystemExit too: that is what retry is for
            reason = _describe(exc)
            _log.info("the handler of %s failed at message_id=%s attempt=%d: %s", self.name, received.message_id, received.attempt, reason)
            _log.debug("traceback", exc_info=True)
            self._failed += 1
            received.retry(reason)
            if self._pause_after is not None and self._failed >= self._pause_after:
                self._pause(reason)
        else:
            self._failed = 0
            self._ack(received)

    def _ack(self, received: ReceivedMessage) -> None:
        try:
            received.ack()
        except OutboxError as exc:
            self._inbox.keep_in_mind(received)
            _log.error("message_id=%s was handled by %s, but its id is not on disk: %s", received.message_id, self.name, exc)
            self._inbox.again(received, str(exc))

    @property
    def is_paused(self) -> bool:
        """Whether his handler failed too often in a row and his inbox is left alone for now."""
        return time.monotonic() < self._paused_until

    def _pause(self, reason: str) -> None:
        _log.warning("the handler of %s failed %d times in a row: paused for %g s", self.name, self._failed, self._pause_for)
        self._paused_until = time.monotonic() + self._pause_for
        self._chat._hops.emit(events.PAUSED, user=self.name, reason=reason, seconds=self._pause_for)
        self._pause_end = timer = threading.Timer(self._pause_for, self._handling.wake)
        timer.daemon = True
        timer.start()
        if self._chat._closed:  # meanwhile, and perhaps before there was a timer to be seen
            self._forget_pause()

    def _forget_pause(self) -> None:
        """Nobody waits for its end any more."""
        if self._pause_end:
            self._pause_end.cancel()

    def _close(self) -> None:
        """The chat is closing."""
        self._online = False
        self._forget_pause()
        self._inbox.close()

    def _finish(self, timeout: float) -> None:
        """Let the handler finish the message that it is at, so that its ack is written."""
        self._handling.wait_idle(max(0.0, timeout))

    def __repr__(self) -> str:
        return f"<ChatUser {self.name} {'online' if self._online else 'offline'}>"


def _describe(exc: BaseException) -> str:
    """What to say of `exc`; its own text may be made by code that fails, too."""
    try:
        return f"{type(exc).__name__}: {exc}"
    except BaseException:  # noqa: BLE001  an exception whose __str__ raises, SystemExit, too: the message must be retried all the same
        return type(exc).__name__
