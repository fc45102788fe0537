"""pika's BlockingConnection, as in most tutorials: each publish waits for its confirm, each message is acked by itself."""

from __future__ import annotations

import sys
import time
from typing import Any

import pika
import psutil

from benchmarks.contestants.pika_message import properties
from benchmarks.work import PREFETCH, Stopwatch, Work, body, say
from chatlib.topology import Binding, Queue, of_user


def _channel(work: Work) -> Any:
    return pika.BlockingConnection(pika.URLParameters(work.url)).channel()


def publish(work: Work) -> dict[str, Any]:
    """A round trip for each message: `basic_publish` returns when the confirm is there, and raises if it was returned or refused."""
    channel = _channel(work)
    channel.confirm_delivery()
    watch = Stopwatch()
    for number, data in enumerate(work.bodies()):
        channel.basic_publish(work.exchange, work.key, data, properties(number), mandatory=True)
    times = watch.read()
    channel.connection.close()
    return {**times, "confirmed": work.count}


def receive(work: Work) -> dict[str, Any]:
    """`consume` and `basic_ack` for each."""
    channel = _channel(work)
    channel.basic_qos(prefetch_count=PREFETCH)
    seen = set()
    watch = Stopwatch()
    for method, header, _ in channel.consume(work.queue):
        seen.add(header.message_id)
        channel.basic_ack(method.delivery_tag)
        if len(seen) == work.count:
            break
    channel.close()  # answered after the last ack
    times = watch.read()
    channel.connection.close()
    return {**times, "received": len(seen)}


def pace(work: Work) -> dict[str, Any]:
    """One message at a time: a late confirm makes the next ones late, and that counts."""
    channel = _channel(work)
    channel.confirm_delivery()
    began = time.monotonic() + 0.1
    for number in range(work.count):
        left = began + number / work.rate - time.monotonic()
        if left > 0:
            time.sleep(left)
        channel.basic_publish(work.exchange, work.key, body(number, work.size), properties(number), mandatory=True)
    channel.connection.close()
    return {"began": began, "confirmed": work.count}


def watch(work: Work) -> dict[str, Any]:
    """When each message came."""
    arrived = [0.0] * work.count
    missing = work.count
    channel = _channel(work)
    channel.basic_qos(prefetch_count=PREFETCH)
    consumer = channel.consume(work.queue, inactivity_timeout=30)
    say({"ready": True})
    for method, _, data in consumer:
        at = time.monotonic()
        if method is None:
            sys.exit(f"{missing} messages did not come")
        arrived[int(data[:8])] = at
        channel.basic_ack(method.delivery_tag)
        missing -= 1
        if not missing:
            break
    channel.connection.close()
    return {"arrived": arrived}


def signup(work: Work) -> dict[str, Any]:
    """The same queues and bindings as chatlib's, one after the other, each answered before the next."""
    channel = _channel(work)
    began = time.monotonic()
    for user in work.users:
        for what in of_user(user, inbox_limit=work.options["inbox_limit"]):
            if isinstance(what, Queue):
                channel.queue_declare(what.name, durable=True, arguments=dict(what.arguments))
            elif isinstance(what, Binding):
                channel.queue_bind(what.queue, what.source, routing_key=what.key)
    seconds = time.monotonic() - began
    channel.connection.close()
    return {"seconds": seconds}


def recover(work: Work) -> dict[str, Any]:
    """No recovery (pika has none): this tries to connect and consume every 20 ms: the earliest that any client could be served."""
    first = False
    while True:
        try:
            channel = _channel(work)
            channel.basic_qos(prefetch_count=1)
            for _ in channel.consume(work.queue):
                if first:
                    return {"first": time.monotonic()}
                first = True
                say({"ready": True})
        except pika.exceptions.AMQPError:
            time.sleep(0.02)


def online(work: Work) -> dict[str, Any]:
    """Bytes of this process for users who each have a connection of their own, as in the usual design."""
    process = psutil.Process()
    before = process.memory_info().rss
    channels = []
    for user in work.users:
        channel = _channel(work)
        for what in of_user(user, inbox_limit=work.options["inbox_limit"]):
            if isinstance(what, Queue):
                channel.queue_declare(what.name, durable=True, arguments=dict(what.arguments))
                channel.basic_consume(what.name, lambda *_: None)
            elif isinstance(what, Binding):
                channel.queue_bind(what.queue, what.source, routing_key=what.key)
        channels.append(channel)
    say({"ready": True, "bytes": process.memory_info().rss - before, "users": len(channels)})
    sys.stdin.readline()  # until the broker was measured
    for channel in channels:
        channel.connection.close()
    return {}
