"""Consuming: consumers that outlive connections, and the acks of what they handed out.

`ack` and `requeue` may be called from any thread, the rest runs on the I/O thread.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from chatlib.connection import Channel
from chatlib.envelope import Delivery
from chatlib.tags import Acks

__all__ = ["Subscriber", "Subscription"]

_log = logging.getLogger("chatlib.link")
SUSPECT = 3  # losses in a row at which it is the queue: three kills that hit the same answer by chance are not to be expected
ALONE, ALONE_MOST = 5.0, 60.0  # seconds that such a queue is left alone, doubled each time, up to


Later = Callable[[float, Callable[[], None]], object]
"""Runs a function in some seconds, on the I/O thread."""


@dataclass(eq=False, slots=True)
class Subscription:
    """A consumer of `queue`. Both callbacks run on the I/O thread.

    on_reset(queue): the connection was lost, and the broker will hand out again what was not acked.
    """

    queue: str
    tag: str
    on_delivery: Callable[[Delivery], None]
    on_reset: Callable[[str], None]
    ended: bool = False  #: nobody wants it any more, even if the broker could not be told yet
    epoch: int = -1  #: of the channel on which it consumes; -1: on none
    losses: int = 0  #: how often in a row a channel was lost when the answer to this consume was the next to come
    not_before: float = 0.0  #: monotonic seconds: left alone until then


class Subscriber:
    """The consumers of a link, on one channel. `epoch` counts channels: an ack only means something within its own.

    A quorum queue without a leader ends the whole connection of who consumes it (541), again and again. So a queue over which
    the channel was lost `SUSPECT` times is left alone for a while, and all others go on.
    """

    def __init__(self, later: Later) -> None:
        self.later = later
        self._asked: deque[Subscription] = deque()  # consumes without an answer; the broker answers in this order
        self.epoch = 0
        self._channel: Channel | None = None
        self._subscriptions: dict[str, Subscription] = {}
        self._acks = Acks()
        self._settled: deque[tuple[Delivery, bool]] = deque()  # (delivery, ack or give back)

    @property
    def has_unwritten(self) -> bool:
        """Whether there are acks that were not written yet."""
        return bool(self._settled)

    def ack(self, delivery: Delivery) -> None:
        """Done with it. Call `write_acks` on the I/O thread."""
        self._settled.append((delivery, True))

    def requeue(self, delivery: Delivery) -> None:
        """Give it back to its queue. Call `write_acks` on the I/O thread."""
        self._settled.append((delivery, False))

    def attach(self, channel: Channel) -> None:
        """A new channel; `resume` starts the consumers on it."""
        self._channel = channel

    def resume(self) -> None:
        """Start all consumers, those of suspect queues when their time has come."""
        now = time.monotonic()
        for subscription in self._subscriptions.values():
            if subscription.ended:
                continue
            if subscription.not_before > now:
                self.later(subscription.not_before - now, lambda each=subscription, epoch=self.epoch: self._once_more(each, epoch))  # type: ignore[misc]
            else:
                self._consume(subscription)

    def _once_more(self, subscription: Subscription, epoch: int) -> None:
        if epoch == self.epoch and self._channel:
            self.again(subscription)

    def detach(self) -> None:
        """The channel is gone: the broker hands out again what was open on it."""
        self._channel = None
        self.epoch += 1
        self._acks.clear()
        if self._asked:
            self._suspect(self._asked[0])
            self._asked = deque()
        for subscription in self._subscriptions.values():
            subscription.on_reset(subscription.queue)

    def _suspect(self, subscription: Subscription) -> None:
        subscription.losses += 1
        if subscription.losses >= SUSPECT:
            seconds = min(ALONE * 2 ** (subscription.losses - SUSPECT), ALONE_MOST)
            subscription.not_before = time.monotonic() + seconds
            _log.warning(
                "%d times the connection was lost when the queue %s was to be consumed, it may have no leader: left alone for %g s, "
                "the others go on",
                subscription.losses, subscription.queue, seconds,
            )  # fmt: skip

    def add(self, subscription: Subscription, on_ok: Callable[[], None], *, confirm: bool = True) -> None:
        """Consume, now and after every `attach`; `on_ok()` when it was asked for, with `confirm` when the broker has the consumer.

        Twice is once.
        """
        assert self._channel
        if subscription.tag not in self._subscriptions and not subscription.ended:
            self._subscriptions[subscription.tag] = subscription
            self._consume(subscription)
        if confirm:
            self._channel.barrier(on_ok)
        else:
            on_ok()

    def remove(self, subscriptions: Iterable[Subscription], on_ok: Callable[[], None]) -> None:
        """Stop consuming; `on_ok()` when the broker hands out nothing more."""
        tags = [each.tag for each in subscriptions if self._subscriptions.pop(each.tag, None)]
        if not tags or self._channel is None:
            on_ok()
            return
        for tag in tags[:-1]:
            self._channel.cancel(tag, lambda: None)
        self._channel.cancel(tags[-1], on_ok)

    def cancelled(self, tag: str) -> Subscription | None:
        """The broker ended a consumer (its queue was deleted): whose it was, or None if it had been removed."""
        subscription = self._subscriptions.get(tag)
        if subscription:
            subscription.epoch = -1
            self._answered(subscription)
            subscription.on_reset(subscription.queue)
        return subscription

    def misses(self, subscription: Subscription) -> bool:
        """Whether it is wanted, and the broker has no consumer for it on this connection."""
        wanted = self._subscriptions.get(subscription.tag) is subscription and not subscription.ended
        return wanted and self._channel is not None and subscription.epoch != self.epoch

    def again(self, subscription: Subscription) -> None:
        """Consume again after `cancelled`, unless it was removed meanwhile."""
        if self._subscriptions.get(subscription.tag) is subscription and not subscription.ended:
            self._consume(subscription)

    def _consume(self, subscription: Subscription) -> None:
        """Once for each channel: a queue that is made again may be so after the connection was, which resumed all consumers."""
        assert self._channel
        if subscription.epoch == self.epoch:
            return
        subscription.epoch = self.epoch
        self.write_acks()  # what goes back to the queue must be there first, or the new consumer gets later messages before it
        acks, asked = self._acks, self._asked

        def on_ok() -> None:
            if asked is self._asked:
                self._answered(subscription)

        def on_delivery(delivery: Delivery) -> None:
            if delivery.epoch == self.epoch:  # else from a channel that is being closed: the broker hands it out again
                acks.delivered(delivery.tag)
                subscription.on_delivery(delivery)

        self._asked.append(subscription)
        self._channel.consume(subscription.queue, subscription.tag, self.epoch, on_delivery, on_ok)

    def _answered(self, subscription: Subscription) -> None:
        if subscription in self._asked:
            self._asked.remove(subscription)
            subscription.losses, subscription.not_before = 0, 0.0

    def write_acks(self) -> None:
        """Write what was settled since the last time, in as few acks as possible."""
        channel = self._channel
        if channel is None or not self._settled:
            return
        acked = []
        while self._settled:
            delivery, done = self._settled.popleft()
            if delivery.epoch != self.epoch:
                continue  # handed out by a channel that is gone
            if done:
                acked.append(delivery.tag)
            elif self._acks.requeued(delivery.tag):
                channel.requeue(delivery.tag)
        for tag, multiple in self._acks.settle(acked):
            channel.ack(tag, multiple)
