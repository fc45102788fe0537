"""The link of a chat to its broker: two AMQP connections on one I/O thread, supervised.

Two connections, because an alarm on the broker blocks those that publish, and receiving must go on.
When either is lost, both are made anew by one background recovery, in this order:
connection, channels, confirms and prefetch, exchanges, queues, bindings, consumers, then what waits for a confirm.

Threads: whatever starts with an underscore runs on the I/O thread; the rest may be called from any thread.
User code never runs here: deliveries and outcomes go to callbacks that only put things into queues.
"""

from __future__ import annotations

import enum
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Any

from chatlib import events
from chatlib.connection import Channel, Connection, IOThread
from chatlib.envelope import CONFIRMED, REJECTED, RETURNED, Delivery, Outgoing
from chatlib.errors import AccessRefused, BrokerUnavailable, ChatClosed, ChatError, UnknownHost
from chatlib.events import Events
from chatlib.retry import backoff
from chatlib.settings import Settings
from chatlib.tags import Acks, Confirms
from chatlib.topology import BASE, Binding, Declaration
from chatlib.urls import masked

__all__ = ["Link", "LinkState", "Subscription"]

_log = logging.getLogger("chatlib.link")
_QUIET_FAILURES = 10  # failed attempts logged as warnings before they become critical (zulip's number)


class LinkState(enum.Enum):
    """What the link is doing now."""

    CONNECTING = "connecting"  #: the first connection is being made
    CONNECTED = "connected"  #: up
    BLOCKED = "blocked"  #: up, but an alarm on the broker stops publishing; receiving goes on
    RECOVERING = "recovering"  #: lost; a background task is making it anew
    CLOSED = "closed"  #: closed by the user


@dataclass(eq=False, slots=True)
class Subscription:
    """A consumer that outlives connections: `on_delivery(delivery)` on the I/O thread; `on_reset()` when the connection was
    lost and the broker will hand out again what was not acked."""

    queue: str
    tag: str
    on_delivery: Callable[[Delivery], None]
    on_reset: Callable[[], None]


@dataclass(eq=False, slots=True)
class _Request:
    """Something asked of the broker that has an answer; retried after a loss, because all of them are idempotent."""

    run: Callable[[Channel, Callable[[Any], None]], None]
    declares: Sequence[Declaration] = ()
    future: Future[Any] = field(default_factory=Future)


class Link:
    """See the module. `urls` are tried in turn; `name` is what the management UI shows, with "publish" and "consume" added."""

    def __init__(self, urls: Sequence[str], name: str, settings: Settings, hops: Events, rng: random.Random | None = None) -> None:
        self._urls = list(urls)
        self._name = name
        self._settings = settings
        self._hops = hops
        self._rng = rng or random.Random()
        self._state = LinkState.CONNECTING
        self._changed = threading.Condition()
        self._watchers: list[Callable[[LinkState, str], None]] = []
        self.reconnects = 0
        self.epoch = 0

        self._outbound: deque[Outgoing] = deque()  # any thread appends, the I/O thread takes
        self._settled: deque[tuple[Delivery, bool]] = deque()  # (delivery, ack or give back)
        self._requests: deque[_Request] = deque()
        self._woken = False
        self._waiters = 0  # threads in flush or wait_for_room: nobody else is told of progress

        self._confirms: Confirms[Outgoing] = Confirms()
        self._returned: dict[tuple[str, str], str] = {}  # (message id, exchange) -> why
        self._acks = Acks()
        self._declared: dict[Declaration, None] = dict.fromkeys(BASE)
        self._subscriptions: dict[str, Subscription] = {}
        self._consumers = 0
        self._attempts = 0
        self._busy: _Request | None = None
        self._connections: list[Connection] = []
        self._publisher: Channel | None = None
        self._consumer: Channel | None = None
        self._admin: Channel | None = None
        self._guard: Callable[[], None] | None = None
        self._first_error: ChatError | None = None
        self._deadline = time.monotonic() + settings.connect_timeout
        self._io = IOThread(f"chatlib-io-{name}", lambda exc: self._lost(BrokerUnavailable(f"the I/O thread failed: {exc!r}")))

    # ---- from any thread -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> LinkState:
        """What the link is doing now."""
        return self._state

    @property
    def unconfirmed(self) -> int:
        """Publishes that wait for their turn or for a confirm."""
        return len(self._outbound) + len(self._confirms)

    def watch(self, watcher: Callable[[LinkState, str], None]) -> Callable[[], None]:
        """Call `watcher(state, reason)` at every change, on the I/O thread; returns what stops it."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None

    def open(self) -> None:
        """Connect for the first time.

        Raises AccessRefused or UnknownHost at once, BrokerUnavailable when nothing answered within `connect_timeout`.
        """
        self._io.call(self._attempt)
        with self._changed:
            self._changed.wait_for(lambda: self._state is not LinkState.CONNECTING, self._settings.connect_timeout + 2 * self._settings.attempt_timeout)
        if self._state in (LinkState.CONNECTING, LinkState.CLOSED):
            self.close(0)
            raise self._first_error or BrokerUnavailable(f"no answer from {masked(self._urls[0])}: is the broker running?")

    def publish(self, outgoing: Outgoing) -> None:
        """Write it when the window has room; it is written again after every loss until its outcome is known."""
        self._outbound.append(outgoing)
        self._wake()

    def ack(self, delivery: Delivery) -> None:
        """Done with it. Nothing happens if its connection is gone: the broker will hand it out again."""
        self._settled.append((delivery, True))
        self._wake()

    def requeue(self, delivery: Delivery) -> None:
        """Give it back to its queue."""
        self._settled.append((delivery, False))
        self._wake()

    def declare(self, declarations: Iterable[Declaration]) -> None:
        """Make sure that these exist, now and after every recovery.

        Raises TopologyMismatch for what exists with other arguments, BrokerUnavailable after `request_timeout` seconds.
        """
        wanted = tuple(declaration for declaration in declarations if declaration not in self._declared)
        if wanted:

            def run(channel: Channel, done: Callable[[Any], None]) -> None:
                for declaration in wanted:
                    channel.declare(declaration)
                channel.prefetch(self._settings.prefetch, lambda: done(None))

            self._request(_Request(run, wanted))

    def unbind(self, binding: Binding) -> None:
        """Remove a binding, also from what recovery restores. Raises as `declare`."""
        self._declared.pop(binding, None)
        self._request(_Request(lambda channel, done: channel.unbind(binding, lambda: done(None))))

    def depth(self, queue: str) -> tuple[int, int]:
        """(ready messages, consumers) of a queue, exact at this moment; unacked messages are not counted.

        Raises ChatError if there is no such queue, BrokerUnavailable after `request_timeout` seconds.
        """
        result: tuple[int, int] = self._request(_Request(lambda channel, done: channel.depth(queue, lambda *counts: done(counts))))
        return result

    def purge(self, queue: str) -> int:
        """Throw away what is ready in a queue; how many messages that were. Raises as `depth`."""
        result: int = self._request(_Request(lambda channel, done: channel.purge(queue, done)))
        return result

    def delete_queue(self, queue: str) -> None:
        """Delete a queue with all that is in it, and forget it. Raises BrokerUnavailable after `request_timeout` seconds."""
        for declaration in [d for d in self._declared if getattr(d, "queue", getattr(d, "name", None)) == queue]:
            self._declared.pop(declaration, None)
        self._request(_Request(lambda channel, done: channel.delete(queue, lambda: done(None))))

    def subscribe(self, queue: str, on_delivery: Callable[[Delivery], None], on_reset: Callable[[], None], wait: bool = True) -> Subscription:
        """Consume `queue` from now on, through every recovery. With `wait`, returns when the broker has the consumer, if the link is up."""
        self._consumers += 1
        subscription = Subscription(queue, f"{self._name}.{self._consumers}", on_delivery, on_reset)

        def run(channel: Channel, done: Callable[[Any], None]) -> None:
            # Registered on the I/O thread, at the moment of consuming, so that recovery never consumes twice.
            if subscription.tag not in self._subscriptions:
                self._subscriptions[subscription.tag] = subscription
                self._consume(subscription)
            assert self._consumer
            self._consumer.prefetch(self._settings.prefetch, lambda: done(None))

        self._request(_Request(run), wait=wait and self._up)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop consuming; returns when the broker has stopped handing out, if the link is up."""

        def run(channel: Channel, done: Callable[[Any], None]) -> None:
            if self._subscriptions.pop(subscription.tag, None) and self._consumer:
                self._consumer.cancel(subscription.tag, lambda: done(None))
            else:
                done(None)

        self._request(_Request(run), wait=self._up)

    def wait_for_room(self, limit: int, timeout: float) -> bool:
        """Wait until fewer than `limit` publishes have no outcome; False if that took longer than `timeout` seconds."""
        return self._wait_until(lambda: self.unconfirmed < limit, timeout)

    def flush(self, timeout: float) -> bool:
        """Wait until every publish has its outcome and every ack is written; False if that took longer than `timeout` seconds."""
        return self._wait_until(lambda: not self.unconfirmed and not (self._settled and self._up), timeout)

    def _wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        with self._changed:
            self._waiters += 1
            try:
                return self._changed.wait_for(lambda: condition() or self._state is LinkState.CLOSED, timeout) and condition()
            finally:
                self._waiters -= 1

    def close(self, timeout: float = 5.0) -> None:
        """Flush for at most `timeout` seconds, then close both connections and end the thread. Wins over recovery. Idempotent."""
        if self._state is not LinkState.CLOSED and timeout > 0:
            self.flush(timeout)
        done = threading.Event()
        self._io.call(lambda: self._close(done))
        done.wait(1.0)
        self._io.stop()

    # ---- on the I/O thread -----------------------------------------------------------------------------------------------

    @property
    def _up(self) -> bool:
        return self._state in (LinkState.CONNECTED, LinkState.BLOCKED)

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._io.call(self._work)

    def _request(self, request: _Request, wait: bool = True) -> Any:
        if self._state is LinkState.CLOSED:
            raise ChatClosed("this chat is closed: make a new one with chatlib.connect")
        self._requests.append(request)
        self._wake()
        if not wait:
            return None
        try:
            return request.future.result(self._settings.request_timeout)
        except FutureTimeout:
            request.future.cancel()
            raise BrokerUnavailable(
                f"no answer from {masked(self._urls[0])} within {self._settings.request_timeout:g} s (the link is {self._state.value}): "
                "start the broker, or raise Settings.request_timeout"
            ) from None

    def _become(self, state: LinkState, reason: str = "") -> None:
        with self._changed:
            if self._state in (state, LinkState.CLOSED):
                return
            self._state = state
            self._changed.notify_all()
        self._hops.emit(events.LINK, state=state.value, reason=reason)
        for watcher in tuple(self._watchers):
            try:
                watcher(state, reason)
            except Exception:
                _log.exception("a watcher of the link state failed")

    def _attempt(self) -> None:
        """One try at a connection pair, at the next URL in turn."""
        if self._state is LinkState.CLOSED:
            return
        self._guard = None
        self._drop_connections()
        url = self._urls[self._attempts % len(self._urls)]
        self._attempts += 1
        settings = self._settings
        ready: list[Connection] = []

        def connect(role: str, on_blocked: Callable[[str], None] | None = None, on_unblocked: Callable[[], None] | None = None) -> Connection:
            def on_ready() -> None:
                ready.append(connection)
                if len(ready) == 2:
                    self._open_channels(*connections)

            def on_lost(error: ChatError) -> None:
                if connections is self._connections:
                    self._lost(error)

            connection = Connection(
                self._io, url, name=f"{self._name} {role}", heartbeat=settings.heartbeat, attempt_timeout=settings.attempt_timeout,
                blocked_timeout=settings.blocked_timeout, on_ready=on_ready, on_lost=on_lost, on_blocked=on_blocked, on_unblocked=on_unblocked,
            )  # fmt: skip
            return connection

        connections: list[Connection] = []
        self._connections = connections
        try:
            connections.append(connect("publish", lambda why: self._become(LinkState.BLOCKED, why), self._unblocked))
            connections.append(connect("consume"))
        except Exception as exc:  # pika refuses a malformed URL by ValueError and the like
            self._lost(UnknownHost(f"cannot use the URL {masked(url)}: {exc}"))
            return
        # pika's own limit ends with the handshake; a broker that stops answering between there and the channels is caught here.
        self._guard = self._io.later(2 * settings.attempt_timeout, lambda: self._lost(BrokerUnavailable(f"no AMQP answer from {masked(url)} in time")))

    def _open_channels(self, publish: Connection, consume: Connection) -> None:
        waiting = {"publish", "consume", "admin"}

        def ready(which: str) -> None:
            waiting.discard(which)
            if not waiting:
                self._restore()

        def on_publisher(channel: Channel) -> None:
            self._publisher = channel
            channel.confirm(self._on_confirm, self._on_return, lambda: ready("publish"))

        def on_consumer(channel: Channel) -> None:
            self._consumer = channel
            channel.on_cancelled(self._on_consumer_cancelled)
            channel.prefetch(self._settings.prefetch, lambda: ready("consume"))

        def on_admin(channel: Channel) -> None:
            self._admin = channel
            ready("admin")

        publish.open_channel(on_publisher, self._lost)
        consume.open_channel(on_consumer, self._lost)
        consume.open_channel(on_admin, self._on_admin_closed)

    def _restore(self) -> None:
        """Topology, then consumers, then everything else goes on."""
        if self._guard:
            self._guard()
            self._guard = None
        assert self._admin
        for declaration in tuple(self._declared):
            self._admin.declare(declaration)

        def declared() -> None:
            for subscription in self._subscriptions.values():
                self._consume(subscription)
            self._attempts = 0
            first = self._state is LinkState.CONNECTING
            if not first:
                self.reconnects += 1
                _log.info("connected again to %s", masked(self._connections[0].url))
            self._become(LinkState.CONNECTED)
            self._work()

        self._admin.prefetch(self._settings.prefetch, declared)

    def _consume(self, subscription: Subscription) -> None:
        assert self._consumer

        def on_delivery(delivery: Delivery) -> None:
            self._acks.delivered(delivery.tag)
            subscription.on_delivery(delivery)

        self._consumer.consume(subscription.queue, subscription.tag, self.epoch, on_delivery)

    def _on_consumer_cancelled(self, tag: str) -> None:
        """The broker ended a consumer: its queue was deleted or moved. Declare that queue again, with its bindings, and consume."""
        subscription = self._subscriptions.get(tag)
        if subscription is None:
            return
        queue = subscription.queue
        _log.warning("the queue %s was deleted behind our back: declaring it again; what was in it is gone", queue)
        subscription.on_reset()
        lost = [d for d in self._declared if queue == (d.queue if isinstance(d, Binding) else d.name)]

        def run(channel: Channel, done: Callable[[Any], None]) -> None:
            for declaration in lost:
                channel.declare(declaration)

            def declared() -> None:
                if self._subscriptions.get(tag) is subscription:
                    self._consume(subscription)
                done(None)

            channel.prefetch(self._settings.prefetch, declared)

        self._requests.appendleft(_Request(run))
        self._work()

    def _on_admin_closed(self, error: ChatError) -> None:
        """A request was refused: that closes its channel only. Tell who asked, and open another channel."""
        self._admin = None
        busy, self._busy = self._busy, None
        if busy is None:
            if self._up:  # nobody's request: what recovery declared again was refused; the consumers would fail too
                self._lost(error)
            else:
                _log.critical("the broker refuses what this chat declared before: %s", error)
                self._lost(error)
            return
        if not busy.future.done():
            busy.future.set_exception(error)

        def opened(channel: Channel) -> None:
            self._admin = channel
            self._work()

        self._connections[1].open_channel(opened, self._on_admin_closed)

    def _lost(self, error: ChatError) -> None:
        """A connection is gone, or did not come to be: keep everything, try again."""
        if self._guard:
            self._guard()
            self._guard = None
        self._drop_connections()
        if self._state is LinkState.CLOSED:
            return
        if self._state is LinkState.CONNECTING:
            self._first_error = error
            if isinstance(error, AccessRefused | UnknownHost) or time.monotonic() >= self._deadline:
                self._become(LinkState.CLOSED, str(error))
                return
        elif self._up:
            _log.warning("lost the broker, reconnecting: %s", error)
            self._become(LinkState.RECOVERING, str(error))
        elif self._attempts % _QUIET_FAILURES == 0:
            _log.critical("still no broker after %d attempts: %s", self._attempts, error)
        unconfirmed = self._confirms.drain()
        self._returned.clear()
        self._outbound.extendleft(reversed(unconfirmed))
        for outgoing in unconfirmed:
            self._hops.emit(events.UNKNOWN, outgoing.message_id, user=outgoing.user, to=outgoing.to, kind=outgoing.kind, reason=str(error))
        if self._busy:
            self._requests.appendleft(self._busy)
            self._busy = None
        wait = backoff(
            max(1, self._attempts), base=self._settings.recovery_base, factor=2.0, cap=self._settings.recovery_cap, rng=self._rng
        )
        self._guard = self._io.later(wait, self._attempt)

    def _drop_connections(self) -> None:
        connections, self._connections = self._connections, []
        self._publisher = self._consumer = self._admin = None
        for connection in connections:
            connection.close()
        if connections:
            self.epoch += 1
            self._acks.clear()
            for subscription in self._subscriptions.values():
                subscription.on_reset()

    def _unblocked(self) -> None:
        self._become(LinkState.CONNECTED, "the alarm is over")
        self._work()

    def _work(self) -> None:
        """Everything that waits to be written: acks, requests, publishes."""
        self._woken = False
        if not self._up:
            return
        if self._settled and self._consumer:
            self._write_acks(self._consumer)
        while self._requests and self._admin and self._busy is None:
            self._start(self._requests.popleft(), self._admin)
        self._pump()
        self._tell_waiters()

    def _write_acks(self, channel: Channel) -> None:
        acked = []
        while self._settled:
            delivery, done = self._settled.popleft()
            if delivery.epoch != self.epoch:
                continue
            if done:
                acked.append(delivery.tag)
            elif self._acks.requeued(delivery.tag):
                channel.requeue(delivery.tag)
        for tag, multiple in self._acks.settle(acked):
            channel.ack(tag, multiple)

    def _start(self, request: _Request, channel: Channel) -> None:
        if request.future.cancelled():
            return
        self._busy = request

        def done(result: Any) -> None:
            if self._busy is request:
                self._busy = None
                self._declared.update(dict.fromkeys(request.declares))
                if not request.future.done():
                    request.future.set_result(result)
                self._work()

        request.run(channel, done)

    def _pump(self) -> None:
        channel, window, confirms = self._publisher, self._settings.window, self._confirms
        if channel is None or self._state is not LinkState.CONNECTED:
            return
        wanted = self._hops.wanted
        while self._outbound and len(confirms) < window and channel.is_open:
            outgoing = self._outbound.popleft()
            confirms.add(outgoing)
            channel.publish(outgoing)
            if wanted:
                self._hops.emit(events.SENT, outgoing.message_id, user=outgoing.user, to=outgoing.to, kind=outgoing.kind)

    def _on_return(self, message_id: str, exchange: str, why: str) -> None:
        self._returned[message_id, exchange] = why  # its confirm comes next

    def _on_confirm(self, tag: int, multiple: bool, accepted: bool) -> None:
        wanted = self._hops.wanted
        for outgoing in self._confirms.settle(tag, multiple):
            why = self._returned.pop((outgoing.message_id, outgoing.exchange), None) if self._returned else None
            if not accepted:
                outcome, hop, reason = REJECTED, events.NACKED, "the broker refused it (nack)"
            elif why is not None:
                outcome, hop, reason = RETURNED, events.RETURNED, why
            else:
                outcome, hop, reason = CONFIRMED, events.CONFIRMED, ""
            if wanted:
                self._hops.emit(hop, outgoing.message_id, user=outgoing.user, to=outgoing.to, kind=outgoing.kind, reason=reason)
            try:
                outgoing.on_outcome(outgoing, outcome, reason)
            except Exception:
                _log.exception("the outcome of message_id=%s could not be told", outgoing.message_id)
        self._pump()
        self._tell_waiters()

    def _tell_waiters(self) -> None:
        if self._waiters:
            with self._changed:
                self._changed.notify_all()

    def _close(self, done: threading.Event) -> None:
        self._become(LinkState.CLOSED, "closed by the user")
        if self._guard:
            self._guard()
            self._guard = None
        while self._requests:
            request = self._requests.popleft()
            if not request.future.done():
                request.future.set_exception(ChatClosed("the chat was closed"))
        connections, self._connections = self._connections, []
        left = len(connections)

        def closed() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                done.set()

        if not connections:
            done.set()
        for connection in connections:
            connection.close(closed)
