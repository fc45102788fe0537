"""pika's SelectConnection, raw: publishes pipelined with a window of confirms, everything on one thread (pacing apart)."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import Any

import pika

from benchmarks.contestants.pika_message import properties
from benchmarks.work import PREFETCH, WINDOW, Stopwatch, Work, body, say
from chatlib.topology import Binding, Queue, of_user


def _run(work: Work, on_channel: Callable[[Any], None]) -> None:
    """Open a connection and a channel, hand it over, run until the connection is closed."""

    def failed(_: Any, error: BaseException) -> None:
        sys.exit(f"no connection: {error!r}")

    connection = pika.SelectConnection(
        pika.URLParameters(work.url),
        on_open_callback=lambda opened: opened.channel(on_open_callback=on_channel),
        on_open_error_callback=failed,
        on_close_callback=lambda closed, _: closed.ioloop.stop(),
    )
    connection.ioloop.start()


class _Publisher:
    """Publishes `numbers` as the window allows, and what `put` is called with; `on_done()` when `work.count` are confirmed."""

    def __init__(self, work: Work, numbers: Iterable[int], on_ready: Callable[[], None], on_done: Callable[[], None]) -> None:
        self.work = work
        self.numbers = iter(numbers)
        self.on_ready = on_ready
        self.on_done = on_done
        self.in_flight: dict[int, None] = {}
        self.tag = self.confirmed = self.returned = 0

    def start(self, channel: Any) -> None:
        self.channel = channel
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=lambda _: self.on_ready())

    def put(self, number: int) -> None:
        self.tag += 1
        self.in_flight[self.tag] = None
        self.channel.basic_publish(self.work.exchange, self.work.key, body(number, self.work.size), properties(number), mandatory=True)

    def pump(self) -> None:
        while len(self.in_flight) < WINDOW:
            number = next(self.numbers, None)
            if number is None:
                return
            self.put(number)

    def _on_return(self, *_: Any) -> None:
        self.returned += 1

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        if not isinstance(method, pika.spec.Basic.Ack):
            sys.exit("the broker refused a message")
        if method.multiple:
            for tag in list(takewhile(lambda tag: tag <= method.delivery_tag, self.in_flight)):
                del self.in_flight[tag]
                self.confirmed += 1
        else:
            del self.in_flight[method.delivery_tag]
            self.confirmed += 1
        if self.confirmed == self.work.count:
            self.on_done()
        self.pump()


def publish(work: Work) -> dict[str, Any]:
    """Time from the first publish to the last confirm, with `WINDOW` in flight."""
    watches = []
    times = {}

    def ready() -> None:
        watches.append(Stopwatch())
        publisher.pump()

    def done() -> None:
        times.update(watches[0].read())
        publisher.channel.connection.close()

    publisher = _Publisher(work, range(work.count), ready, done)
    _run(work, publisher.start)
    return {**times, "confirmed": publisher.confirmed - publisher.returned}


def receive(work: Work) -> dict[str, Any]:
    """Each message acked by itself, or (option `every`) the last of so many with "multiple"."""
    every = work.options.get("every", 1)
    seen = set()
    watches = []
    times = {}

    def started(channel: Any) -> None:
        channel.basic_qos(prefetch_count=PREFETCH, callback=lambda _: ready(channel))

    def ready(channel: Any) -> None:
        watches.append(Stopwatch())
        channel.basic_consume(work.queue, delivered)

    def delivered(channel: Any, method: Any, properties: Any, _: bytes) -> None:
        seen.add(properties.message_id)
        if len(seen) % every == 0 or len(seen) == work.count:
            channel.basic_ack(method.delivery_tag, multiple=every > 1)
        if len(seen) == work.count:
            channel.basic_qos(prefetch_count=PREFETCH, callback=lambda _: finished(channel))  # answered after the last ack

    def finished(channel: Any) -> None:
        times.update(watches[0].read())
        channel.connection.close()

    _run(work, started)
    return {**times, "received": len(seen)}


def pace(work: Work) -> dict[str, Any]:
    """A thread keeps the time and hands each message to the loop when it is due: the loop's own timers are good to a millisecond only."""
    began = []

    def keep_time() -> None:
        began.append(time.monotonic() + 0.1)
        loop = publisher.channel.connection.ioloop
        for number in range(work.count):
            left = began[0] + number / work.rate - time.monotonic()
            if left > 0:
                time.sleep(left)
            loop.add_callback_threadsafe(lambda number=number: publisher.put(number))

    def done() -> None:
        publisher.channel.connection.close()

    publisher = _Publisher(work, (), threading.Thread(target=keep_time, daemon=True).start, done)
    _run(work, publisher.start)
    return {"began": began[0], "confirmed": publisher.confirmed - publisher.returned}


def watch(work: Work) -> dict[str, Any]:
    """When each message came, in the callback."""
    arrived = [0.0] * work.count
    missing = [work.count]

    def started(channel: Any) -> None:
        channel.basic_qos(prefetch_count=PREFETCH)
        channel.basic_consume(work.queue, delivered, callback=lambda _: say({"ready": True}))

    def delivered(channel: Any, method: Any, _: Any, data: bytes) -> None:
        arrived[int(data[:8])] = time.monotonic()
        channel.basic_ack(method.delivery_tag)
        missing[0] -= 1
        if not missing[0]:
            channel.connection.close()

    _run(work, started)
    return {"arrived": arrived}


def signup(work: Work) -> dict[str, Any]:
    """The same queues and bindings as chatlib's, pipelined over (option `channels`) so many channels; a user stays on one channel."""
    count = work.options["channels"]
    began: list[float] = []
    ended: list[float] = []

    def started(first: Any) -> None:
        began.append(time.monotonic())
        declare(first, 0)
        for number in range(1, count):
            first.connection.channel(on_open_callback=lambda channel, number=number: declare(channel, number))

    def declare(channel: Any, number: int) -> None:
        for user in work.users[number::count]:
            for what in of_user(user, inbox_limit=work.options["inbox_limit"]):
                if isinstance(what, Queue):
                    channel.queue_declare(what.name, durable=True, arguments=dict(what.arguments))
                elif isinstance(what, Binding):
                    channel.queue_bind(what.queue, what.source, routing_key=what.key)
        channel.basic_qos(prefetch_count=1, callback=lambda _: answered(channel))  # answered after all that was asked before

    def answered(channel: Any) -> None:
        ended.append(time.monotonic())
        if len(ended) == count:
            channel.connection.close()

    _run(work, started)
    return {"seconds": ended[-1] - began[0]}
