"""An actor of a chaos run with one guarantee switched off: ``python -m tests.faults.mutants GUARANTEE OPTIONS``.

Each is one small change to the library in this process, such as a careless author might have made. `test_mutations` shows that the
judgement over a run finds every one of them out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pika

from chatlib.chaos import actor
from chatlib.connection import Channel
from chatlib.envelope import CONFIRMED, Delivery, Outgoing
from chatlib.handled import Handled
from chatlib.inbox import Inbox
from chatlib.publisher import Publisher
from chatlib.store import Store


def confirms() -> None:
    """What was written counts as confirmed."""
    write = Publisher._write

    def write_and_believe(self: Publisher, outgoing: Outgoing) -> None:
        write(self, outgoing)
        for written in self._in_flight.settle(sys.maxsize, multiple=True):
            self._lanes.leave(written)
            self._tell(written, CONFIRMED, "")

    Publisher._write = write_and_believe  # type: ignore[method-assign]
    Publisher.on_confirm = lambda self, *_: self.pump()  # type: ignore[method-assign]


def acks() -> None:
    """What arrives is acked before its handler has seen it."""
    deliver = Inbox.deliver

    def ack_and_deliver(self: Inbox, delivery: Delivery) -> None:
        self._link.ack(delivery)
        deliver(self, delivery)

    Inbox.deliver = ack_and_deliver  # type: ignore[method-assign]


def dedupe() -> None:
    """Nobody remembers what was handled."""
    Handled.seen = lambda *_: False  # type: ignore[method-assign, assignment]


def persistence() -> None:
    """Messages are published to be kept in memory only."""

    def publish(self: Channel, outgoing: Outgoing) -> None:
        properties = pika.BasicProperties(
            content_type=outgoing.content_type,
            delivery_mode=1,
            message_id=outgoing.message_id,
            timestamp=outgoing.timestamp,
            type=outgoing.kind,
            headers=outgoing.headers,
        )
        self._amqp.basic_publish(outgoing.exchange, outgoing.key, outgoing.body, properties, mandatory=True)

    Channel.publish = publish  # type: ignore[method-assign]


def outbox() -> None:
    """What `send` accepts is in memory only."""
    Store.add = lambda *_: None  # type: ignore[method-assign]


def nothing() -> None:
    """The library as it is."""


GUARANTEES: dict[str, Callable[[], Any]] = {each.__name__: each for each in (nothing, confirms, acks, dedupe, persistence, outbox)}


if __name__ == "__main__":
    GUARANTEES[sys.argv[1]]()
    actor.main(sys.argv[2:])
