"""Which consumers are asked for on which channel: what the broker is asked is counted by a channel that does nothing."""

from __future__ import annotations

from typing import Any

from chatlib.subscriber import Subscriber, Subscription


class Channel:
    """Counts the consumers that are asked for."""

    def __init__(self) -> None:
        self.consumed: list[str] = []

    def consume(self, queue: str, tag: str, *_: Any) -> None:
        assert tag not in self.consumed, "RabbitMQ and pika refuse a tag twice on a channel"
        self.consumed.append(tag)

    def barrier(self, done: Any) -> None:
        done()


def a_subscription() -> Subscription:
    return Subscription("inbox.bob", "tag", lambda _: None, lambda _: None)


def attach(subscriber: Subscriber) -> Channel:
    channel: Any = Channel()
    subscriber.attach(channel)
    subscriber.resume()
    assert isinstance(channel, Channel)
    return channel


def test_a_queue_that_is_made_again_after_the_connection_was_is_consumed_once() -> None:
    """1 the broker ends the consumer; 2 the connection is lost, and the new one resumes all; 3 only then the queue is there again."""
    subscriber, subscription = Subscriber(), a_subscription()
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
    subscriber, subscription = Subscriber(), a_subscription()
    channel = attach(subscriber)
    subscriber.add(subscription, lambda: None)
    subscriber.cancelled("tag")
    channel.consumed.clear()  # the broker has ended it
    subscriber.again(subscription)
    assert channel.consumed == ["tag"]
