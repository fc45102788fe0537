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
from benchmarks.work import PREFETCH, WINDOW, Work, body, say


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
    times = []

    def ready() -> None:
        times.append(time.monotonic())
        publisher.pump()

    def done() -> None:
        times.append(time.monotonic())
        publisher.channel.connection.close()

    publisher = _Publisher(work, range(work.count), ready, done)
    _run(work, publisher.start)
    return {"seconds": times[1] - times[0], "confirmed": publisher.confirmed - publisher.returned}


def receive(work: Work) -> dict[str, Any]:
    """Each message acked by itself, or (option `every`) the last of so many with "multiple"."""
    every = work.options.get("every", 1)
    seen = set()
    times = []

    def started(channel: Any) -> None:
        channel.basic_qos(prefetch_count=PREFETCH, callback=lambda _: ready(channel))

    def ready(channel: Any) -> None:
        times.append(time.monotonic())
        channel.basic_consume(work.queue, delivered)

    def delivered(channel: Any, method: Any, properties: Any, _: bytes) -> None:
        seen.add(properties.message_id)
        if len(seen) % every == 0 or len(seen) == work.count:
            channel.basic_ack(method.delivery_tag, multiple=every > 1)
        if len(seen) == work.count:
            channel.basic_qos(prefetch_count=PREFETCH, callback=lambda _: finished(channel))  # answered after the last ack

    def finished(channel: Any) -> None:
        times.append(time.monotonic())
        channel.connection.close()

    _run(work, started)
    return {"seconds": times[1] - times[0], "received": len(seen)}


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
