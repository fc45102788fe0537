"""Consuming: consumers that outlive connections, and the acks of what they handed out.

`ack` and `requeue` may be called from any thread, the rest runs on the I/O thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from chatlib.connection import Channel
from chatlib.envelope import Delivery
from chatlib.tags import Acks

__all__ = ["Subscriber", "Subscription"]


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


class Subscriber:
    """The consumers of a link, on one channel. `epoch` counts channels: an ack only means something within its own."""

    def __init__(self) -> None:
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
        """Start all consumers."""
        for subscription in self._subscriptions.values():
            if not subscription.ended:
                self._consume(subscription)

    def detach(self) -> None:
        """The channel is gone: the broker hands out again what was open on it."""
        self._channel = None
        self.epoch += 1
        self._acks.clear()
        for subscription in self._subscriptions.values():
            subscription.on_reset(subscription.queue)

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
            subscription.on_reset(subscription.queue)
        return subscription

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
        acks = self._acks

        def on_delivery(delivery: Delivery) -> None:
            if delivery.epoch == self.epoch:  # else from a channel that is being closed: the broker hands it out again
                acks.delivered(delivery.tag)
                subscription.on_delivery(delivery)

        self._channel.consume(subscription.queue, subscription.tag, self.epoch, on_delivery)

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
