"""AMQP, one connection at a time: the only module that imports pika.

`BlockingConnection` cannot be shared by threads and dies between two notebook cells for want of heartbeats, so an
`IOThread` of ours runs pika's `SelectConnection`, and nothing of pika is seen outside. Everything here runs on that
thread, except `IOThread.call`. Errors leave as `chatlib.errors`.
"""

from __future__ import annotations

import logging
import struct
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final

import pika
from pika import exceptions as amqp
from pika.adapters.select_connection import IOLoop, SelectConnection
from pika.adapters.utils.selector_ioloop_adapter import SelectorIOServicesAdapter

from chatlib.batching import BatchingTransport
from chatlib.envelope import Delivery, Outgoing, delivery
from chatlib.errors import ChatError
from chatlib.explain import explain
from chatlib.frames import odd_publish_frames, publish_frames
from chatlib.topology import Binding, Declaration, Exchange

__all__ = ["Channel", "Connection", "IOThread"]

Done = Callable[[], None]  #: what is called when the broker has answered
OnDelivery = Callable[[Delivery], None]
_log = logging.getLogger("chatlib.connection")
CRASH_PAUSE: Final = 0.1  # seconds: an error that comes again at each turn of the loop must not fill the log and a core
if logging.getLogger("pika").level == logging.NOTSET:
    # pika logs tracebacks even where a connection closes normally; each loss is reported once, by the link.
    logging.getLogger("pika").setLevel(logging.CRITICAL)


class IOThread:
    """A daemon thread that runs pika's loop; `call` is the only way in from outside."""

    def __init__(self, name: str, on_crash: Callable[[BaseException], None]) -> None:
        self._loop = IOLoop()
        self.services = _BatchingServices(self._loop)
        self._on_crash = on_crash
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._loop.start()
            except BaseException as exc:  # noqa: BLE001  raised where no callback of ours could see it: recover, never die silently
                _log.exception("the I/O thread caught an error")
                self._on_crash(exc)
                time.sleep(CRASH_PAUSE)
        self.services.cut()
        self._loop.close()

    def call(self, function: Callable[[], None]) -> None:
        """Run `function` soon on this thread. Thread-safe."""
        self._loop.add_callback_threadsafe(function)

    def later(self, seconds: float, function: Callable[[], None]) -> Callable[[], None]:
        """Run `function` in `seconds`; returns what cancels it. On this thread only."""
        handle = self._loop.call_later(seconds, function)
        return lambda: self._loop.remove_timeout(handle)

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread and join it (unless it is the caller). Thread-safe, idempotent."""
        if not self._stopping:
            self._stopping = True
            self._loop.add_callback_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)


class _BatchingServices(SelectorIOServicesAdapter):  # type: ignore[misc]
    """pika's I/O services with a `BatchingTransport` between connection and socket."""

    def __init__(self, loop: IOLoop) -> None:
        super().__init__(loop)
        self._transports: weakref.WeakSet[BatchingTransport] = weakref.WeakSet()

    def cut(self) -> None:
        """Close every socket: a broker that gave no answer to "close" must not go on handing out messages to nobody."""
        for transport in self._transports:
            transport.cut()

    def create_streaming_connection(self, protocol_factory: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        def factory() -> Any:
            protocol = protocol_factory()
            made = protocol.connection_made

            def connected(inner: Any) -> None:
                transport = BatchingTransport(inner, self.add_callback_threadsafe)
                self._transports.add(transport)
                made(transport)

            protocol.connection_made = connected
            return protocol

        return super().create_streaming_connection(factory, *args, **kwargs)


class _Connection(SelectConnection):  # type: ignore[misc]
    """pika's connection without two of its traps."""

    def _on_connection_workflow_done(self, conn_or_exc: Any) -> None:
        """Closed while it opens, pika hands in a class where it means an instance, and raises at it: give it one."""
        is_class = isinstance(conn_or_exc, type) and issubclass(conn_or_exc, Exception)
        super()._on_connection_workflow_done(conn_or_exc() if is_class else conn_or_exc)

    def _read_frame(self) -> tuple[int, Any]:
        """Headers that pika cannot decode, though they are legal AMQP (a date beyond the year 9999), come without the properties.

        pika raises, the broker hands the message out again, pika raises again: one foreign message would keep every user away.
        """
        try:
            return super()._read_frame()  # type: ignore[no-any-return]
        except (ValueError, OverflowError, ArithmeticError, OSError, RecursionError, struct.error, amqp.InvalidFieldTypeException):
            kind, channel, size = struct.unpack_from(">BHL", self._frame_buffer)
            if kind != pika.spec.FRAME_HEADER:
                raise
            body_size = struct.unpack_from(">Q", self._frame_buffer, 7 + 4)[0]
            return 7 + size + 1, pika.frame.Header(channel, body_size, pika.BasicProperties())


class Connection:
    """One AMQP connection. Exactly one of `on_ready()` and `on_lost(error)` comes first; `on_lost` comes at most once.

    name: what the management UI shows. attempt_timeout: seconds for TCP and handshake together.
    on_blocked(reason) / on_unblocked(): a memory or disk alarm stops this connection from publishing.
    """

    def __init__(
        self,
        io: IOThread,
        url: str,
        *,
        name: str,
        heartbeat: int,
        attempt_timeout: float,
        blocked_timeout: float,
        on_ready: Callable[[], None],
        on_lost: Callable[[ChatError], None],
        on_blocked: Callable[[str], None],
        on_unblocked: Callable[[], None],
    ) -> None:
        self.url = url
        self._on_lost: Callable[[ChatError], object] | None = on_lost
        self._closing = False
        parameters = pika.URLParameters(url)
        parameters.heartbeat = heartbeat
        parameters.blocked_connection_timeout = blocked_timeout
        parameters.socket_timeout = parameters.stack_timeout = attempt_timeout
        parameters.connection_attempts = 1
        parameters.client_properties = {"connection_name": name, "product": "chatlib"}
        self._amqp = _Connection(
            parameters,
            on_open_callback=lambda _: None if self._closing else on_ready(),
            on_open_error_callback=lambda _, exc: self._lost(exc),
            on_close_callback=lambda _, exc: self._lost(exc),
            custom_ioloop=io.services,
        )
        self._amqp.add_on_connection_blocked_callback(lambda _, frame: on_blocked(str(frame.method.reason)))
        self._amqp.add_on_connection_unblocked_callback(lambda _, __: on_unblocked())

    @property
    def is_open(self) -> bool:
        """Whether the handshake is done and nothing was lost since."""
        return bool(self._amqp.is_open)

    def _lost(self, exc: BaseException) -> None:
        on_lost, self._on_lost = self._on_lost, None
        if on_lost:
            on_lost(explain(exc, self.url))

    def open_channel(self, on_open: Callable[[Channel], None], on_closed: Callable[[ChatError], None]) -> None:
        """A new channel; `on_closed(error)` if there is none to be had, or it closes for any reason but our asking."""

        def opened(channel: Any) -> None:
            channel.add_on_close_callback(lambda _, exc: None if self._closing else on_closed(explain(exc, self.url)))
            if not self._closing:
                on_open(Channel(channel))

        try:
            self._amqp.channel(on_open_callback=opened)
        except amqp.NoFreeChannels as exc:
            on_closed(explain(exc, self.url))

    def close(self, on_closed: Done) -> None:
        """Close in good order, without `on_lost`; `on_closed()` when it is done."""
        self._closing = True
        self._on_lost = lambda _: on_closed()
        try:
            self._amqp.close()
        except amqp.ConnectionWrongStateError:  # still opening, closing already, or gone: nothing to close in order
            self._on_lost = None
            on_closed()


class Channel:
    """One AMQP channel: the few calls that chatlib makes, by their AMQP names."""

    def __init__(self, channel: Any) -> None:
        self._amqp = channel
        self._body_limit: int = channel.connection._body_max_length
        self._write: Callable[[list[bytes]], None] = channel.connection._output_marshaled_frames
        self._getting = False
        self._on_get: Callable[[Delivery | None], None] = lambda _: None

    def _answer(self, callback: Callable[..., None]) -> Callable[..., None]:
        """`callback` while the channel is open. While it closes, pika raises at what is asked for next; out of an answer, that makes pika
        cut the connection, and acks on their way are lost (a chat closed right after a sign-up: up to 9 of 10 times)."""
        return lambda *answer: callback(*answer) if self._amqp.is_open else None

    @property
    def is_open(self) -> bool:
        """Whether calls make sense."""
        return bool(self._amqp.is_open)

    def confirm(
        self,
        on_confirm: Callable[[int, bool, bool], None],
        on_return: Callable[[str, str, str], None],
        on_ready: Callable[[], None],
    ) -> None:
        """Publisher confirms on: `on_confirm(tag, multiple, accepted)`, `on_return(message_id, exchange, why)`."""

        def confirmed(frame: Any) -> None:
            on_confirm(frame.method.delivery_tag, frame.method.multiple, isinstance(frame.method, pika.spec.Basic.Ack))

        def returned(_: Any, method: Any, properties: Any, __: bytes) -> None:
            on_return(properties.message_id or "", method.exchange, f"{method.reply_code} {method.reply_text}")

        self._amqp.add_on_return_callback(returned)
        self._amqp.confirm_delivery(confirmed, callback=self._answer(lambda _: on_ready()))

    def publish(self, outgoing: Outgoing) -> None:
        """Persistent and mandatory, always. Raises ValueError for what cannot be encoded; nothing was written then."""
        if outgoing.headers is None and outgoing.content_type is not None and len(outgoing.body) <= self._body_limit:
            self._write([publish_frames(self._amqp.channel_number, outgoing)])
            return
        properties = pika.BasicProperties(
            outgoing.content_type, delivery_mode=2, headers=outgoing.headers,
            message_id=outgoing.message_id, timestamp=outgoing.timestamp, type=outgoing.kind,
        )  # fmt: skip
        try:
            encoded = b"".join(properties.encode())
        except (amqp.ShortStringTooLong, amqp.UnsupportedAMQPFieldException, UnicodeError, TypeError, struct.error) as exc:
            raise ValueError(f"it cannot be written as AMQP: {exc!r:.200}") from exc
        self._write(odd_publish_frames(self._amqp.channel_number, outgoing, encoded, self._body_limit))

    def prefetch(self, count: int, on_ok: Callable[[], None]) -> None:
        """At most `count` unacked messages for each consumer made from now on."""
        self._amqp.basic_qos(prefetch_count=count, callback=self._answer(lambda _: on_ok()))

    def look(self, exchange: str, on_ok: Callable[[], None]) -> None:
        """`on_ok()` if there is such an exchange; else the channel closes."""
        self._amqp.exchange_declare(exchange, passive=True, callback=self._answer(lambda _: on_ok()))

    def barrier(self, on_ok: Callable[[], None]) -> None:
        """When `on_ok` comes, the broker has done all that was asked on this channel before (a channel is served in order)."""
        self.look("amq.direct", on_ok)

    def consume(
        self, queue: str, tag: str, epoch: int, on_delivery: OnDelivery, on_ok: Done, arguments: dict[str, Any] | None = None
    ) -> None:
        """Start the consumer `tag`; `on_ok()` when the broker has it; deliveries carry `epoch`."""

        def delivered(_: Any, method: Any, properties: Any, body: bytes) -> None:
            on_delivery(delivery(epoch, queue, method, properties, body))

        self._amqp.basic_consume(queue, delivered, consumer_tag=tag, arguments=arguments, callback=self._answer(lambda _: on_ok()))

    def get(self, queue: str, on_answer: Callable[[Delivery | None], None]) -> None:
        """Ask for one message; `on_answer(delivery)`, or None if the queue is empty. One at a time."""
        self._on_get = on_answer
        if not self._getting:
            self._getting = True
            self._amqp.add_callback(self._answer(lambda _: self._on_get(None)), [pika.spec.Basic.GetEmpty], one_shot=False)
        self._amqp.basic_get(queue, self._answer(lambda _, *message: self._on_get(delivery(0, queue, *message))))

    def on_cancelled(self, callback: Callable[[str], None]) -> None:
        """`callback(consumer tag)` when the broker cancels a consumer, for example because its queue was deleted."""
        self._amqp.add_on_cancel_callback(self._answer(lambda frame: callback(frame.method.consumer_tag)))

    def cancel(self, tag: str, on_ok: Callable[[], None]) -> None:
        """Stop the consumer `tag`; until `on_ok` it may still be handed something."""
        self._amqp.basic_cancel(tag, callback=lambda _: None)  # pika does not call back for a consumer that the broker ended
        self._amqp._cancelled.discard(tag)  # else pika rejects what still comes, and it is back before what came before it
        self.barrier(on_ok)

    def ack(self, tag: int, multiple: bool) -> None:
        """Acknowledge `tag`, with `multiple` all before it too."""
        self._amqp.basic_ack(tag, multiple=multiple)

    def requeue(self, tag: int) -> None:
        """Give it back to the queue, for others or for later."""
        self._amqp.basic_nack(tag, requeue=True)

    def requeue_all(self, queue: str, on_ok: Callable[[], None]) -> None:
        """Give back all that is unacked; when `on_ok` comes it is in `queue` again: the queue answers after it took the messages back.
        Closing the channel does not do: the broker says "closed" before the queue has it (3.10 and 4.0: in 2 to 9 of 100 tries)."""
        self._amqp.basic_nack(0, multiple=True, requeue=True)
        self.depth(queue, lambda _, __: on_ok())

    def declare(self, what: Declaration) -> None:
        """Without waiting: an error closes the channel, a following `prefetch` barrier tells success."""
        if isinstance(what, Exchange):
            self._amqp.exchange_declare(what.name, what.kind, durable=True)
        elif isinstance(what, Binding):
            self._amqp.queue_bind(what.queue, what.source, routing_key=what.key)
        else:
            self._amqp.queue_declare(what.name, durable=True, arguments=dict(what.arguments))

    def declare_temporary(self, on_ok: Callable[[], None]) -> None:
        """A queue that goes with the connection, to see that the broker does real work."""
        self._amqp.queue_declare("", exclusive=True, auto_delete=True, callback=self._answer(lambda _: on_ok()))

    def unbind(self, what: Binding, on_ok: Callable[[], None]) -> None:
        """Remove a binding; no error if it is not there."""
        self._amqp.queue_unbind(what.queue, what.source, routing_key=what.key, callback=self._answer(lambda _: on_ok()))

    def depth(self, queue: str, on_ok: Callable[[int, int], None]) -> None:
        """`on_ok(ready messages, consumers)`; a missing queue closes the channel."""
        found = self._answer(lambda frame: on_ok(frame.method.message_count, frame.method.consumer_count))
        self._amqp.queue_declare(queue, passive=True, callback=found)

    def purge(self, queue: str, on_ok: Callable[[int], None]) -> None:
        """Throw away the ready messages; `on_ok(how many)`."""
        self._amqp.queue_purge(queue, callback=self._answer(lambda frame: on_ok(frame.method.message_count)))

    def delete(self, queue: str, on_ok: Callable[[], None]) -> None:
        """Delete a queue with what is in it."""
        self._amqp.queue_delete(queue, callback=self._answer(lambda _: on_ok()))

    def delete_exchange(self, exchange: str, on_ok: Callable[[], None]) -> None:
        """Delete an exchange; no error if it is not there."""
        self._amqp.exchange_delete(exchange, callback=self._answer(lambda _: on_ok()))

    def close(self) -> None:
        """Close it; what is unacked goes back to its queue."""
        if self._amqp.is_open:
            self._amqp.close()
