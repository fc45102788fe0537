"""A queue that vanished under its consumer: declared again, with its bindings, and consumed again."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from typing import Any, Final

from chatlib.admin import Admin, Request
from chatlib.connection import Channel
from chatlib.errors import ChatClosed, TopologyMismatch
from chatlib.queues import declaring
from chatlib.subscriber import Subscriber, Subscription

__all__ = ["remaking"]

_log = logging.getLogger("chatlib.link")
PAUSE: Final = 1.0  # seconds between two tries


def remaking(subscription: Subscription, admin: Admin, subscriber: Subscriber) -> Request:
    """What to ask the broker, on the I/O thread, after it has ended this consumer: its queue was deleted, moved, or is down."""
    _log.warning(
        "the broker ended the consumer of %s: declaring the queue again; if it was deleted, what was in it is gone", subscription.queue
    )
    declare = declaring(admin.of_queue(subscription.queue))

    def run(channel: Channel, done: Any) -> None:
        def declared(_: Any) -> None:
            subscriber.again(subscription)
            done(None)

        declare(channel, declared)

    def ask_again() -> None:
        if subscriber.misses(subscription):
            admin.ask(remaking(subscription, admin, subscriber), first=True)
            admin.work()

    def settled(future: Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, TopologyMismatch):  # somebody else made it anew, in his own way: use that
            _log.critical("the queue %s was made anew with other settings: %s", subscription.queue, error)
            subscriber.again(subscription)
        elif error is not None and not isinstance(error, ChatClosed):  # its node is down, or no answer
            _log.warning("the queue %s cannot be had now, trying again: %s", subscription.queue, error)
            subscriber.later(PAUSE, ask_again)

    request = Request(run)
    request.future.add_done_callback(settled)
    return request
