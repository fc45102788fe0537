"""The link of a chat to its broker: two AMQP connections on one I/O thread, supervised.

Two connections, because an alarm on the broker blocks those that publish, and receiving must go on.
When either is lost, both are made anew by one background recovery, in this order:
connection, channels, confirms and prefetch, exchanges, queues, bindings, consumers, then what waits for a confirm.

Threads: the methods from "on the I/O thread" on run there; the others may be called from any thread.
User code never runs there: deliveries and outcomes go to callbacks that only put things into queues.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from chatlib.admin import Admin, Request
from chatlib.connection import Channel, IOThread
from chatlib.envelope import Delivery, Outgoing
from chatlib.errors import AccessRefused, BrokerUnavailable, ChatClosed, ChatError, NoAnswer, TopologyMismatch, UnknownHost
from chatlib.events import Events
from chatlib.pair import Pair
from chatlib.publisher import Publisher
from chatlib.queues import Queues, declaring
from chatlib.recovery import CLOSING, Recovery
from chatlib.refusals import Judge
from chatlib.remake import remaking
from chatlib.session import Session
from chatlib.settings import Settings
from chatlib.state import LinkState, StateBoard
from chatlib.subscriber import Subscriber, Subscription
from chatlib.topology import IN_ORDER, Declaration, QueueType
from chatlib.urls import masked

__all__ = ["Link", "LinkState", "Subscription"]

_log = logging.getLogger("chatlib.link")
_QUIET_ATTEMPTS = 30  # about half a minute of failures before the log says CRITICAL: a restart takes 5 to 10 s


class Link:
    """See the module. `urls` are tried in turn; `name` is what the management UI shows, with "publish" and "consume" added."""

    def __init__(self, urls: Sequence[str], name: str, settings: Settings, hops: Events, rng: random.Random | None = None) -> None:
        self._urls = deque(urls)  # the one in use is the last
        self._name = name
        self.request_timeout = settings.request_timeout  #: seconds that whoever asks the broker waits for an answer
        self._settings = settings
        self._hops = hops
        self._state = StateBoard(hops)
        self.reconnects = 0  #: how often the link was made anew
        self._io = IOThread(f"{name} I/O", lambda exc: self._lost(BrokerUnavailable(f"the I/O thread failed: {exc!r}")))
        self._recovery = Recovery(self._io, settings, rng or random.Random())
        self._publisher = Publisher(settings.window, hops, self._io.later, lambda: self._pair.reopen_publisher() if self._pair else None)
        self.on_return, self.on_write_refused = self._publisher.on_return, self._publisher.refuse  # of `PairOwner`: all its business
        guess: QueueType = "quorum" if len(urls) > 1 else "classic"
        self._admin = Admin(guess if settings.queue_type == "auto" else settings.queue_type, guessed=settings.queue_type == "auto")
        self._subscriber = Subscriber(self._io.later)
        self.queues = Queues(self._admin, self._request, self._state.rest)  #: declare, count, purge, delete: what a chat asks about queues
        self._woken = False
        self._consumers = 0
        self._pair: Pair | None = None
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._first_error: ChatError | None = None
        self._deadline = time.monotonic() + settings.connect_timeout
        self._done = threading.Event()  # closed in good order

    @property
    def state(self) -> LinkState:
        """What the link is doing now."""
        return self._state.now

    @property
    def url(self) -> str:
        """The address that is in use, or was tried last."""
        return self._urls[-1]

    @property
    def is_up(self) -> bool:
        """Whether the broker is reachable now."""
        return self._state.is_up

    @property
    def unconfirmed(self) -> int:
        """Publishes that wait for their turn or for a confirm."""
        return self._publisher.unconfirmed

    def watch(self, watcher: Callable[[LinkState, str], None]) -> Callable[[], None]:
        """Call `watcher(state, reason)` at every change, on the I/O thread; returns what stops it."""
        return self._state.watch(watcher)

    def open(self) -> None:
        """Connect. Raises AccessRefused and UnknownHost at once, BrokerUnavailable when nothing answered within `connect_timeout`."""
        self._io.call(self._attempt)
        patience = self._settings.connect_timeout + 2 * self._settings.attempt_timeout
        self._state.wait_until(lambda: self.state is not LinkState.CONNECTING, patience)
        if not self.is_up and self.state is not LinkState.RECOVERING:
            self.close(0)
            raise self._first_error or BrokerUnavailable(f"no answer from {masked(self.url)}: is the broker running?")

    def publish(self, outgoing: Outgoing) -> None:
        """Write it when the window has room; it is written again after every loss until its outcome is known."""
        if self._publisher.publish(outgoing):
            self._wake()

    def judge_refusals(self, judge: Judge) -> None:
        """From now on what the broker refuses has its outcome only when `judge` says that an inbox is full; see `chatlib.refusals`."""
        self._publisher.refusals.judge = lambda outgoing, decide: judge(outgoing, lambda full: self._io.call(lambda: decide(full)))

    def ack(self, delivery: Delivery) -> None:
        """Done with it. Nothing happens if its connection is gone: the broker will hand it out again."""
        self._subscriber.ack(delivery)
        self._wake()

    def requeue(self, delivery: Delivery) -> None:
        """Give it back to its queue."""
        self._subscriber.requeue(delivery)
        self._wake()

    def stays_up(self, seconds: float, reconnects: int) -> bool:
        """Whether the link is up for `seconds` more seconds, and was not made anew since `reconnects` was read."""
        return not self._state.wait_until(lambda: not self.is_up or self.reconnects != reconnects, seconds)

    def session(self) -> Session:
        """A channel of one's own, to be used from one thread and closed. Raises ChatError: none is free, unavailable, closed."""
        session = Session(self._io, self._settings.request_timeout)

        def run(_: Channel, done: Callable[[Any], None]) -> None:
            assert self._pair
            session.open(self._pair.open_channel, self._sessions.add, done)

        error: ChatError | None = self._request(Request(run))
        if error:
            raise error
        return session

    def subscribe(
        self,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        on_reset: Callable[[str], None] = lambda _: None,
        *,
        declarations: Sequence[Declaration] = (),
        wait: bool = True,
    ) -> Subscription:
        """Consume `queue` from now on, through every recovery.

        declarations: made first. With `wait`, and the link up, returns when the broker has the consumer.
        """
        self._consumers += 1  # makes each tag one of its own; AMQP allows a tag 255 bytes, so of a long name only the beginning is in it
        subscription = Subscription(queue, f"{self._name[:50]}.{self._consumers}", on_delivery, on_reset)
        wait = wait and self.is_up

        def run(channel: Channel, done: Callable[[Any], None]) -> None:  # only now, so that recovery and this never both consume
            declaring(declarations)(channel, lambda _: self._subscriber.add(subscription, lambda: done(None), confirm=wait))

        try:
            self._request(Request(run, declarations), wait=wait)
        except ChatError:
            self.unsubscribe([subscription], wait=False)
            raise
        return subscription

    def unsubscribe(self, subscriptions: Sequence[Subscription], *, wait: bool = True) -> None:
        """Stop consuming, for good; with `wait`, and the link up, returns when the broker has stopped handing out."""
        for each in subscriptions:
            each.ended = True
        self._request(Request(lambda _, done: self._subscriber.remove(subscriptions, lambda: done(None))), wait=False)
        if wait and self.is_up:
            self._request(Request(lambda _, done: done(None)))  # comes after it, and may be given up: what was asked for stays

    def wait_for_room(self, limit: int, timeout: float) -> bool:
        """Wait until fewer than `limit` publishes have no outcome; False if that took longer than `timeout` seconds."""
        return self._state.wait_until(lambda: self.unconfirmed < limit, timeout)

    def flush(self, timeout: float) -> bool:
        """Wait until every publish has its outcome and every ack is written; False if that took longer than `timeout` seconds."""
        return self._state.wait_until(lambda: not self.unconfirmed and not (self._subscriber.has_unwritten and self.is_up), timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Flush for at most `timeout` seconds, then close both connections and end the thread. Wins over recovery. Idempotent."""
        try:
            self.flush(timeout)
        finally:
            patience = CLOSING if self.is_up else 1.0
            self._io.call(lambda: self._close(self._done))
            self._done.wait(patience)
            self._io.stop()

    def _request(self, request: Request, *, wait: bool = True) -> Any:
        if self._state.is_closed:
            raise ChatClosed("this chat is closed: make a new one with chatlib.connect")
        self._admin.ask(request)
        self._wake()
        if not wait:
            return None
        try:
            return request.future.result(self._settings.request_timeout)
        except FutureTimeout:
            request.future.cancel()
            raise NoAnswer(
                f"no answer from {masked(self.url)} within {self._settings.request_timeout:g} s (the link is {self.state.value}): "
                "start the broker, or raise Settings.request_timeout"
            ) from None

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._io.call(self._work)

    # ---- on the I/O thread: work -----------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Everything that waits to be written: acks, requests, publishes."""
        self._woken = False
        if self.is_up:
            self._subscriber.write_acks()
            self._admin.work()
            self._publisher.pump()
        self._state.tell_waiters()

    def on_confirm(self, tag: int, multiple: bool, accepted: bool) -> None:
        """The broker has spoken about a publish."""
        self._publisher.on_confirm(tag, multiple, accepted)
        self._state.tell_waiters()

    def on_cancelled(self, tag: str) -> None:
        """The broker ended a consumer: its queue was deleted or moved. Declare that queue again, with its bindings, and consume."""
        subscription = self._subscriber.cancelled(tag)
        if subscription is not None:
            self._admin.ask(remaking(subscription, self._admin, self._subscriber), first=True)
            self._work()

    # ---- on the I/O thread: connecting and recovering --------------------------------------------------------------------

    def _attempt(self) -> None:
        """One try at a pair of connections, at the next URL in turn."""
        if self._state.is_closed:
            return
        self._urls.rotate(-1)  # after a loss begin with the next: the last one is likely to be down
        self._recovery.attempts += 1
        try:
            self._pair = Pair(self._io, self.url, self._name, self._settings, self)
        except (ValueError, TypeError, KeyError, SyntaxError) as exc:
            self._lost(UnknownHost(f"cannot use the URL {masked(self.url)}: {exc}"))

    def on_ready(self, pair: Pair) -> None:
        """The pair is up: the topology, then the consumers, then everything else goes on."""
        self._publisher.attach(pair.publisher)
        self._subscriber.attach(pair.consumer)
        self._admin.attach(pair.admin)

        def restored() -> None:
            if self._admin.queue_type == "quorum" and self._settings.prefetch > IN_ORDER:
                pair.consumer.prefetch(IN_ORDER, lambda: None)  # counts for the consumers made after it
            self._subscriber.resume()
            self._recovery.attempts = 0
            if self.state is not LinkState.CONNECTING:
                self.reconnects += 1
                _log.info("connected again to %s", masked(pair.url))
            self._state.become(LinkState.CONNECTED)
            self._work()

        self._admin.restore(restored)

    def on_publisher(self, channel: Channel) -> None:
        """What has no confirm goes out again, over a new channel."""
        self._publisher.move(channel)
        self._work()

    def on_admin(self, channel: Channel) -> None:
        """Requests go on over a new channel."""
        self._admin.attach(channel)
        self._work()

    def on_refused(self, error: ChatError) -> None:
        """The broker closed the channel of requests: tell who asked, go on over another; unless what every chat needs was refused."""
        if self._admin.refused(error) and self._pair:
            self._pair.reopen_admin()
        else:
            self._lost(error)

    def on_lost(self, pair: Pair, error: ChatError) -> None:
        """The pair did not come up, or is lost."""
        if pair is self._pair or self._pair is None:
            self._lost(error)

    def _lost(self, error: ChatError) -> None:
        """A connection is gone, or did not come to be: keep everything, try again."""
        old = self._drop(str(error))
        if self._state.is_closed:
            return
        if self.state is LinkState.CONNECTING:
            self._first_error = error
            if isinstance(error, AccessRefused | UnknownHost | TopologyMismatch) or time.monotonic() >= self._deadline:
                self._state.become(LinkState.CLOSED, str(error))
                return
        elif self.is_up:
            _log.warning("lost the broker, reconnecting: %s", error)
            self._state.become(LinkState.RECOVERING, str(error))
        elif self._recovery.attempts % _QUIET_ATTEMPTS == 0:
            _log.critical("still no broker after %d attempts: %s", self._recovery.attempts, error)
        self._recovery.schedule(self._attempt, old)

    def _drop(self, reason: str) -> Pair | None:
        """Let go of the pair and of all that only meant something on it; returns it, while it closes."""
        pair, self._pair = self._pair, None
        if pair:
            pair.close()
        self._end_sessions(NoAnswer(f"the connection was lost meanwhile, and what was asked may be done: {reason}"))
        self._subscriber.detach()
        self._publisher.detach(reason)
        self._admin.detach()
        return pair

    def _end_sessions(self, error: ChatError) -> None:
        while self._sessions:
            self._sessions.pop().lost(error)

    def on_blocked(self, reason: str) -> None:
        """An alarm on the broker stops publishing."""
        self._publisher.blocked = True
        self._state.become(LinkState.BLOCKED, reason)

    def on_unblocked(self) -> None:
        """The alarm is over."""
        self._publisher.blocked = False
        self._state.become(LinkState.CONNECTED, "the alarm is over")
        self._work()

    def _close(self, done: threading.Event) -> None:
        self._state.become(LinkState.CLOSED, "closed by the user")
        self._recovery.cancel()
        self._admin.close()
        self._end_sessions(ChatClosed("the chat was closed meanwhile"))
        pair, self._pair = self._pair, None
        pair.close(done.set) if pair else done.set()
