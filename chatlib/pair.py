"""The two AMQP connections of a link and their three channels, from the first packet until one of them is lost.

A pair is used once: it comes up or is lost, and then a new one is made. Everything here runs on the I/O thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, Protocol

from chatlib.connection import Channel, Connection, IOThread
from chatlib.errors import BrokerUnavailable, ChatError
from chatlib.explain import refused_exchange
from chatlib.settings import Settings
from chatlib.urls import masked

__all__ = ["Pair", "PairOwner"]

P = ParamSpec("P")


class PairOwner(Protocol):
    """Whom a pair tells what happens to it."""

    def on_ready(self, pair: Pair) -> None:
        """All channels are open, confirms are on, the prefetch is set."""

    def on_lost(self, pair: Pair, error: ChatError) -> None:
        """It did not come up, or is lost. Comes at most once."""

    def on_publisher(self, channel: Channel) -> None:
        """The new channel for publishing that was asked for."""

    def on_write_refused(self, exchange: str, why: str) -> None:
        """The broker closed the channel for publishing: this user may not write to `exchange`. Another channel comes by `on_publisher`."""

    def on_admin(self, channel: Channel) -> None:
        """A new channel for requests, because the last one was refused something."""

    def on_refused(self, error: ChatError) -> None:
        """The broker closed the channel for requests."""

    def on_confirm(self, tag: int, multiple: bool, accepted: bool) -> None:
        """The broker has spoken about a publish."""

    def on_return(self, message_id: str, exchange: str, why: str) -> None:
        """No queue took a message; its confirm comes next."""

    def on_cancelled(self, tag: str) -> None:
        """The broker ended a consumer."""

    def on_blocked(self, reason: str) -> None:
        """An alarm stops publishing."""

    def on_unblocked(self) -> None:
        """The alarm is over."""


class Pair:
    """`publisher`, `consumer` and `admin` are channels once it is ready; publishing has a connection of its own."""

    publisher: Channel
    consumer: Channel
    admin: Channel

    def __init__(self, io: IOThread, url: str, name: str, settings: Settings, owner: PairOwner) -> None:
        """Raises ValueError, TypeError or KeyError for a URL that pika cannot parse."""
        self.url = url
        self._owner = owner
        self._settings = settings
        self._over = False
        self._left = 2  # connections that are not closed
        self._on_closed: Callable[[], None] = lambda: None
        self._opening = {"publisher", "consumer", "admin"}
        self._publish = self._connect(io, f"{name} publish")
        self._consume = self._connect(io, f"{name} consume")
        # pika's own limit ends with the handshake; a broker that stops answering between there and the channels is caught here.
        patience = 2 * settings.attempt_timeout
        self._cancel_patience = io.later(
            patience, lambda: self._lost(BrokerUnavailable(f"no AMQP answer from {masked(url)} within {patience:g} s"))
        )

    def _connect(self, io: IOThread, name: str) -> Connection:
        settings, owner = self._settings, self._owner
        return Connection(
            io,
            self.url,
            name=name,
            heartbeat=settings.heartbeat,
            attempt_timeout=settings.attempt_timeout,
            blocked_timeout=settings.blocked_timeout,
            on_ready=self._open_channels,
            on_lost=self._lost,
            on_blocked=self._while_used(owner.on_blocked),
            on_unblocked=self._while_used(owner.on_unblocked),
        )

    def _while_used(self, callback: Callable[P, None], publisher: Channel | None = None) -> Callable[P, None]:
        """`callback` as long as this pair is in use, and `publisher` is its channel for publishing.

        A connection that is being closed in good order, because the other one was lost, still hands in what the broker had sent:
        confirms and blocks that would be taken for those of the next pair, whose delivery tags count from 1 again.
        """

        def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
            if not self._over and (publisher is None or publisher is self.publisher):
                callback(*args, **kwargs)

        return guarded

    def _open_channels(self) -> None:
        if self._publish.is_open and self._consume.is_open:
            self.reopen_publisher()
            self._consume.open_channel(self._on_consumer, self._lost)
            self._consume.open_channel(self._on_admin, self._on_refused)

    def reopen_publisher(self) -> None:
        """Open another channel for publishing; the owner hears of it by `on_publisher`, and no more of the old one."""
        mine: list[Channel] = []

        def opened(channel: Channel) -> None:
            mine.append(channel)
            used = self._while_used
            channel.confirm(
                used(self._owner.on_confirm, channel), used(self._owner.on_return, channel), lambda: self._on_publisher(channel)
            )

        def closed(error: ChatError) -> None:
            if mine and "publisher" not in self._opening and self.publisher not in mine:
                return  # it is the old one
            exchange = refused_exchange(error)
            if exchange is None or self._opening or self._over:
                self._lost(error)
            else:
                self._owner.on_write_refused(exchange, str(error))
                self.reopen_publisher()

        self._publish.open_channel(opened, closed)

    def _on_publisher(self, channel: Channel) -> None:
        if "publisher" in self._opening:
            self.publisher = channel
            self._opened("publisher")
        elif not self._over:
            old, self.publisher = self.publisher, channel
            old.close()
            self._owner.on_publisher(channel)

    def _on_consumer(self, channel: Channel) -> None:
        self.consumer = channel
        channel.on_cancelled(self._while_used(self._owner.on_cancelled))
        channel.prefetch(self._settings.prefetch, lambda: self._opened("consumer"))

    def _on_admin(self, channel: Channel) -> None:
        self.admin = channel
        if self._opening:
            self._opened("admin")
        elif not self._over:
            self._owner.on_admin(channel)

    def _opened(self, which: str) -> None:
        self._opening.discard(which)
        if not self._opening and not self._over:
            self._cancel_patience()
            self._owner.on_ready(self)

    def _on_refused(self, error: ChatError) -> None:
        if not self._over:
            self._owner.on_refused(error)

    def reopen_admin(self) -> None:
        """Open another channel for requests; the owner hears of it by `on_admin`."""
        self._consume.open_channel(self._on_admin, self._on_refused)

    def open_channel(self, on_open: Callable[[Channel], None], on_closed: Callable[[ChatError], None]) -> None:
        """One more channel on the connection that consumes."""
        self._consume.open_channel(on_open, on_closed)

    def _lost(self, error: ChatError) -> None:
        if not self._over:
            self.close()
            self._owner.on_lost(self, error)

    @property
    def is_closed(self) -> bool:
        """Whether the broker has answered the closing of both connections, or they are gone."""
        return self._left == 0

    def close(self, on_closed: Callable[[], None] = lambda: None) -> None:
        """Close both connections in good order; `on_closed()` when both are. Twice is once: the last `on_closed` counts."""
        self._on_closed = on_closed
        if self.is_closed:
            on_closed()
        if self._over:
            return
        self._over = True
        self._cancel_patience()
        self._publish.close(self._closed)
        self._consume.close(self._closed)

    def _closed(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._on_closed()
