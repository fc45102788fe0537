"""Which consumers are asked for on which channel: what the broker is asked is counted by a channel that does nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chatlib import subscriber as module
from chatlib.envelope import Delivery
from chatlib.subscriber import Subscriber, Subscription


class Channel:
    """Counts the consumers that are asked for; answers when told to."""

    def __init__(self) -> None:
        self.consumed: list[str] = []
        self.log: list[str] = []
        self.answers: list[Callable[[], None]] = []
        self.hand_out: Callable[[Delivery], None] = lambda _: None

    def consume(self, queue: str, tag: str, epoch: int, on_delivery: Any, on_ok: Callable[[], None]) -> None:
        assert tag not in self.consumed, "RabbitMQ and pika refuse a tag twice on a channel"
        self.consumed.append(tag)
        self.log.append(f"consume {queue}")
        self.answers.append(on_ok)
        self.hand_out = on_delivery

    def barrier(self, done: Any) -> None:
        done()

    def cancel(self, _: str, done: Any) -> None:
        done()

    def requeue(self, tag: int) -> None:
        self.log.append(f"requeue {tag}")


class Timers:
    """Functions that wait for their time, which is when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, Callable[[], None]]] = []

    def later(self, seconds: float, function: Callable[[], None]) -> None:
        self.waiting.append((seconds, function))


def a_subscription(tag: str = "tag") -> Subscription:
    return Subscription(f"inbox.{tag}", tag, lambda _: None, lambda _: None)


def attach(subscriber: Subscriber) -> Channel:
    channel: Any = Channel()
    subscriber.attach(channel)
    subscriber.resume()
    assert isinstance(channel, Channel)
    return channel


def test_a_queue_that_is_made_again_after_the_connection_was_is_consumed_once() -> None:
    """1 the broker ends the consumer; 2 the connection is lost, and the new one resumes all; 3 only then the queue is there again."""
    subscriber, subscription = Subscriber(Timers().later), a_subscription()
    first = attach(subscriber)
    subscriber.add(subscription, lambda: None)
    assert first.consumed == ["tag"]
    # 1
    assert subscriber.cancelled("tag") is subscription
    # 2
    subscriber.detach()
    second = attach(subscriber)
    assert second.consumed == ["tag"]
    # 3
    subscriber.again(subscription)
    assert second.consumed == ["tag"]


def test_a_queue_that_is_made_again_on_the_same_channel_is_consumed_again() -> None:
    subscriber, subscription = Subscriber(Timers().later), a_subscription()
    channel = attach(subscriber)
    subscriber.add(subscription, lambda: None)
    subscriber.cancelled("tag")
    channel.consumed.clear()  # the broker has ended it
    subscriber.again(subscription)
    assert channel.consumed == ["tag"]


def lose_over_bob(subscriber: Subscriber, channel: Channel) -> Channel:
    """Alice's consume is answered, bob's is not: the channel is lost; the next one."""
    channel.answers[channel.consumed.index("alice")]()
    subscriber.detach()
    return attach(subscriber)


def test_a_queue_over_which_the_channel_is_lost_is_left_alone_and_the_others_go_on() -> None:
    """1 twice may be chance; 2 the third time it is left alone; 3 its time comes, in vain: left alone for longer; 4 it is answered."""
    timers = Timers()
    subscriber = Subscriber(timers.later)
    channel = attach(subscriber)
    bob, alice = a_subscription("bob"), a_subscription("alice")
    for each in (alice, bob):
        subscriber.add(each, lambda: None)
    # 1
    for _ in range(2):
        channel = lose_over_bob(subscriber, channel)
        assert channel.consumed == ["alice", "bob"] and not timers.waiting
    # 2
    channel = lose_over_bob(subscriber, channel)
    assert channel.consumed == ["alice"]
    ((seconds, once_more),) = timers.waiting
    assert 0.9 * module.ALONE < seconds <= module.ALONE
    # 3
    once_more()
    assert channel.consumed == ["alice", "bob"]
    channel = lose_over_bob(subscriber, channel)
    assert channel.consumed == ["alice"] and timers.waiting[-1][0] > 1.9 * module.ALONE
    once_more()  # meant for a channel that is gone
    assert channel.consumed == ["alice"]
    # 4
    timers.waiting[-1][1]()
    for answer in channel.answers:
        answer()
    subscriber.detach()
    assert attach(subscriber).consumed == ["alice", "bob"] and bob.losses == 0


def test_a_late_answer_of_a_channel_that_is_gone_means_nothing() -> None:
    subscriber, subscription = Subscriber(Timers().later), a_subscription()
    first = attach(subscriber)
    subscriber.add(subscription, lambda: None)
    subscriber.detach()
    attach(subscriber)
    first.answers[0]()
    subscriber.detach()
    assert subscription.losses == 2


def test_what_goes_back_is_written_before_the_queue_is_consumed_again() -> None:
    """Offline and online at once: the request to consume may overtake the turn in which acks are written."""
    delivered: list[Delivery] = []
    subscriber = Subscriber(Timers().later)
    channel = attach(subscriber)
    first = Subscription("inbox.bob", "first", delivered.append, lambda _: None)
    subscriber.add(first, lambda: None)
    for tag in (1, 2):
        channel.hand_out(Delivery(subscriber.epoch, tag, "inbox.bob", b"", "", {}, False, None, None))
    subscriber.remove([first], lambda: None)
    for each in delivered:
        subscriber.requeue(each)
    subscriber.add(Subscription("inbox.bob", "second", delivered.append, lambda _: None), lambda: None)
    assert channel.log == ["consume inbox.bob", "requeue 1", "requeue 2", "consume inbox.bob"]
