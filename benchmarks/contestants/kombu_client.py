"""kombu over py-amqp, with its `confirm_publish`: a round trip for each message."""

from __future__ import annotations

import time
from typing import Any

import kombu
from kombu.mixins import ConsumerMixin

from benchmarks.work import PREFETCH, Stopwatch, Work, say


def _connection(work: Work) -> Any:
    return kombu.Connection(work.url.replace("amqp://", "pyamqp://", 1), transport_options={"confirm_publish": True})


def publish(work: Work) -> dict[str, Any]:
    """`Producer.publish` returns when the confirm is there; mandatory is set, though nobody looks at what is returned."""
    with _connection(work) as connection:
        producer = kombu.Producer(connection.channel(), kombu.Exchange(work.exchange, no_declare=True), auto_declare=False)
        watch = Stopwatch()
        for number, data in enumerate(work.bodies()):
            producer.publish(
                data,
                work.key,
                delivery_mode=2,
                mandatory=True,
                content_type="application/json",
                content_encoding="utf-8",
                message_id=f"{number:026d}",
                timestamp=int(time.time()),
                type="SEND_MESSAGE",
            )
        return {**watch.read(), "confirmed": work.count}


def receive(work: Work) -> dict[str, Any]:
    """A `Consumer`, `drain_events`, `message.ack()` for each; without decoding the body."""
    seen = set()
    with _connection(work) as connection:
        channel = connection.channel()

        def on_message(message: Any) -> None:
            seen.add(message.properties["message_id"])
            message.ack()

        queue = kombu.Queue(work.queue, no_declare=True)
        consumer = kombu.Consumer(channel, [queue], on_message=on_message, prefetch_count=PREFETCH, auto_declare=False)
        watch = Stopwatch()
        consumer.consume()
        while len(seen) < work.count:
            connection.drain_events(timeout=30)
        channel.close()  # answered after the last ack
        return {**watch.read(), "received": len(seen)}


class _Watcher(ConsumerMixin):
    """kombu's own recovery, with its defaults."""

    def __init__(self, work: Work) -> None:
        self.connection = _connection(work)
        self.queue = kombu.Queue(work.queue, no_declare=True)
        self.times: list[float] = []

    def get_consumers(self, consumer: Any, _: Any) -> list[Any]:
        return [consumer([self.queue], on_message=self.on_message, prefetch_count=1, auto_declare=False)]

    def on_message(self, _: Any) -> None:
        self.times.append(time.monotonic())
        if len(self.times) == 1:
            say({"ready": True})
        else:
            self.should_stop = True


def recover(work: Work) -> dict[str, Any]:
    """When the message that was never acked comes again through `ConsumerMixin`."""
    watcher = _Watcher(work)
    watcher.run()
    return {"first": watcher.times[1]}
