"""A channel of one's own for a while, used like a blocking one from the thread that asked for it.

For reading what is not an inbox: dead letters and streams. What was not acked when it closes goes back to its queue.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from types import TracebackType
from typing import Any

from chatlib.connection import Channel, IOThread
from chatlib.envelope import Delivery
from chatlib.errors import ChatClosed, ChatError, NoAnswer

__all__ = ["Session"]

Opener = Callable[[Callable[[Channel], None], Callable[[ChatError], None]], None]  # see `Connection.open_channel`
_numbers = itertools.count(1)
_PATIENCE = 2.0  # seconds for the broker to say that the channel is closed; without a connection it cannot


class Session:
    """Made by `Link.session`; a context manager. Every method raises ChatError when the broker refuses or the connection is lost,
    and NoAnswer after `timeout` seconds without an answer.
    """

    def __init__(self, io: IOThread, timeout: float) -> None:
        self._io = io
        self._timeout = timeout
        self._channel: Channel | None = None
        self._deliveries: queue.SimpleQueue[Delivery | ChatError] = queue.SimpleQueue()
        self._answer: Future[Any] = Future()
        self._closed = threading.Event()
        self._why: ChatError = NoAnswer("the connection to the broker was lost meanwhile: try again")
        self._source = ""  # the queue that was read by `get`

    def open(self, open_channel: Opener, keep: Callable[[Session], object], done: Callable[[ChatError | None], None]) -> None:
        """On the I/O thread: take a channel. `keep(self)` and `done(None)` when it is there, `done(error)` if there is none to be had."""

        def opened(channel: Channel) -> None:
            self._channel = channel
            keep(self)
            done(None)

        def closed(error: ChatError) -> None:
            self.lost(error)
            done(error)  # nobody listens any more if it was open

        open_channel(opened, closed)

    def lost(self, error: ChatError) -> None:
        """On the I/O thread: the channel is gone."""
        self._channel = None
        if isinstance(error, ChatClosed):
            self._why = error
        self._closed.set()
        self._deliveries.put(error)
        if not self._answer.done():
            self._answer.set_exception(error)

    def get(self, queue_name: str) -> Delivery | None:
        """The next message of a queue, or None if it is empty; unacked until `ack`. One queue for each session."""
        self._source = queue_name
        delivery: Delivery | None = self._ask(lambda channel, done: channel.get(queue_name, done))
        return delivery

    def consume(self, queue_name: str, prefetch: int, **arguments: Any) -> None:
        """Begin to consume; take the deliveries with `next`. arguments: of the consumer, "_" for "-" in their names."""
        named = {"x-" + key.replace("_", "-"): value for key, value in arguments.items()}

        def start(channel: Channel, done: Callable[[Any], None]) -> None:
            def ready() -> None:
                channel.consume(queue_name, f"session.{next(_numbers)}", 0, self._deliveries.put, lambda: None, named)
                channel.barrier(lambda: done(None))

            channel.prefetch(prefetch, ready)

        self._ask(start)

    def next(self, timeout: float) -> Delivery | None:
        """The next delivery, or None when there was none for `timeout` seconds."""
        try:
            delivery = self._deliveries.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(delivery, ChatError):
            raise delivery
        return delivery

    def ack(self, delivery: Delivery) -> None:
        """Done with it."""

        def write() -> None:
            if self._channel and self._channel.is_open:
                self._channel.ack(delivery.tag, multiple=False)

        self._io.call(write)

    def _ask(self, run: Callable[[Channel, Callable[[Any], None]], None]) -> Any:
        return self.wait_for(self.ask(run))

    def ask(self, run: Callable[[Channel, Callable[[Any], None]], None]) -> Future[Any]:
        """Call `run(channel, done)` on the I/O thread; the result is what it passes to `done`. One at a time."""
        answer: Future[Any] = Future()
        self._answer = answer
        if self._closed.is_set():  # not by the I/O thread, which has ended when the chat is closed
            self.lost(self._why)
            return answer

        def done(result: Any) -> None:
            if not answer.done():
                answer.set_result(result)

        def start() -> None:
            if self._channel is None:
                self.lost(self._why)
            else:
                run(self._channel, done)

        self._io.call(start)
        return answer

    def wait_for(self, answer: Future[Any]) -> Any:
        """The result of `ask`. Raises as everything here."""
        try:
            return answer.result(self._timeout)
        except FutureTimeout:
            raise NoAnswer(f"the broker did not answer within {self._timeout:g} s") from None

    def close(self) -> None:
        """Close the channel; what `get` took and nobody acked is back in its queue when this returns. Idempotent."""

        def close() -> None:
            channel, self._channel = self._channel, None
            if channel and self._source and channel.is_open:
                channel.requeue_all(self._source, channel.close)
            elif channel:
                channel.close()
            else:
                self._closed.set()

        self._io.call(close)
        self._closed.wait(_PATIENCE)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()
