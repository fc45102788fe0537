"""AMQPStorm with `confirm_deliveries`: a round trip for each message, and it looks for the answer every 10 ms."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import amqpstorm

from benchmarks.work import PREFETCH, Stopwatch, Work


def _connection(work: Work) -> amqpstorm.UriConnection:
    return amqpstorm.UriConnection(work.url)


def publish(work: Work) -> dict[str, Any]:
    """`basic.publish` returns when the confirm is there, and raises if the message was returned or refused."""
    with _connection(work) as connection, connection.channel() as channel:
        channel.confirm_deliveries()
        watch = Stopwatch()
        for number, data in enumerate(work.bodies()):
            properties = {
                "content_type": "application/json",
                "delivery_mode": 2,
                "message_id": f"{number:026d}",
                "timestamp": datetime.now(UTC),
                "message_type": "SEND_MESSAGE",
            }
            if not channel.basic.publish(data, work.key, work.exchange, properties, mandatory=True):
                raise SystemExit("a message was not confirmed")
        return {**watch.read(), "confirmed": work.count}


def receive(work: Work) -> dict[str, Any]:
    """A consumer callback with `message.ack()`."""
    seen = set()
    with _connection(work) as connection, connection.channel() as channel:
        channel.basic.qos(PREFETCH)

        def on_message(message: amqpstorm.Message) -> None:
            seen.add(message.message_id)
            message.ack()
            if len(seen) == work.count:
                channel.stop_consuming()  # answered after the last ack

        watch = Stopwatch()
        channel.basic.consume(on_message, work.queue)
        channel.start_consuming()
        return {**watch.read(), "received": len(seen)}
