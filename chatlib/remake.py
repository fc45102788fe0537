"""A queue that vanished under its consumer: declared again, with its bindings, and consumed again."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from typing import Any

from chatlib.admin import Admin, Request
from chatlib.connection import Channel
from chatlib.errors import TopologyMismatch
from chatlib.queues import declaring
from chatlib.subscriber import Subscriber, Subscription

__all__ = ["remaking"]

_log = logging.getLogger("chatlib.link")


def remaking(subscription: Subscription, admin: Admin, subscriber: Subscriber) -> Request:
    """What to ask the broker, on the I/O thread, after it has ended this consumer: its queue was deleted or moved."""
    _log.warning("the queue %s was deleted behind our back: declaring it again; what was in it is gone", subscription.queue)
    declare = declaring(admin.of_queue(subscription.queue))

    def run(channel: Channel, done: Any) -> None:
        def declared(_: Any) -> None:
            subscriber.again(subscription)
            done(None)

        declare(channel, declared)

    def settled(future: Future[Any]) -> None:
        if isinstance(error := future.exception(), TopologyMismatch):  # somebody else made it anew, in his own way: use that
            _log.critical("the queue %s was made anew with other settings: %s", subscription.queue, error)
            subscriber.again(subscription)

    request = Request(run)
    request.future.add_done_callback(settled)
    return request
