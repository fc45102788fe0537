"""AMQP 0-9-1 by hand, for lessons that need what chatlib never does: a queue that is not durable, a message that is not persistent,
a sender that asks for no confirm.

One connection, one channel, one thread, no heartbeats, no recovery: what goes wrong is raised, and the wire is of no use afterwards.
The layout of frames, methods and properties is that of the AMQP 0-9-1 specification, sections 2.3.5, 4.2 and its XML.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from chatlib.errors import BrokerUnavailable, ChatError

__all__ = ["Wire"]

METHOD, HEADER, BODY, END = 1, 2, 3, b"\xce"  # kinds of frames, and what each ends with
CONTENT_TYPE, DELIVERY_MODE, MESSAGE_ID = 1 << 15, 1 << 12, 1 << 7  # flags of the properties that we set, in the order of the wire
BASIC, QUIT = 60, (20, 40)  # class of publish and get; channel.close
CLOSED: Final = {(10, 50): "connection", (20, 40): "channel"}

Method = tuple[int, int]


class Wire:
    """A connection to the broker at `url`, with one channel. A context manager.

    timeout: seconds for each answer. Every method raises BrokerUnavailable when the connection breaks or no answer comes in time, and
    ChatError when the broker refuses; a refusal ends the channel.
    """

    def __init__(self, url: str, *, timeout: float = 5.0, name: str = "lab") -> None:
        parts = urlsplit(url)
        self.url = url
        self.timeout = timeout
        self.published: list[str] = []  #: ids of the messages, in the order of their delivery tags
        self.confirmed: set[str] = set()  #: ids of those that the broker has confirmed, as far as `listen` has heard
        self._buffer = b""
        try:
            self._socket = socket.create_connection((parts.hostname or "localhost", parts.port or 5672), timeout)
        except OSError as exc:
            raise BrokerUnavailable(f"no connection to the broker: {exc}") from exc
        self._send_raw(b"AMQP\x00\x00\x09\x01")
        self._expect((10, 10))
        login = f"\0{unquote(parts.username or 'guest')}\0{unquote(parts.password or 'guest')}".encode()
        properties = _table({"connection_name": name, "product": "chatlib lab"})
        self._call(0, (10, 11), properties + _short("PLAIN") + _long(login) + _short("en_US"), (10, 30))
        self._send(0, (10, 31), struct.pack(">HIH", 1, 131_072, 0))  # one channel, frames of 128 KiB, no heartbeat
        self._call(0, (10, 40), _short(unquote(parts.path[1:]) or "/") + b"\0\0", (10, 41))
        self._call(1, (20, 10), b"\0", (20, 11))

    # ---- what there is -------------------------------------------------------------------------------------------------------

    def exchange(self, name: str, *, durable: bool = True) -> None:
        """Declare a direct exchange."""
        self._call(1, (40, 10), b"\0\0" + _short(name) + _short("direct") + bytes([durable << 1]) + _table({}), (40, 11))

    def queue(self, name: str, *, durable: bool = True, exclusive: bool = False) -> None:
        """Declare a queue. exclusive: it is for this connection only, and goes with it."""
        self._declare(name, durable << 1 | exclusive << 2)

    def bind(self, queue: str, exchange: str, key: str) -> None:
        """Bind a queue to an exchange."""
        self._call(1, (50, 20), b"\0\0" + _short(queue) + _short(exchange) + _short(key) + b"\0" + _table({}), (50, 21))

    def delete(self, queue: str) -> None:
        """Delete a queue; no error if there is none."""
        self._call(1, (50, 40), b"\0\0" + _short(queue) + b"\0", (50, 41))

    def depth(self, queue: str) -> int:
        """How many messages are ready. Raises ChatError if there is no such queue."""
        answer = self._declare(queue, 1)
        return int(struct.unpack_from(">I", answer, 1 + answer[0])[0])

    def _declare(self, name: str, bits: int) -> bytes:
        return self._call(1, (50, 10), b"\0\0" + _short(name) + bytes([bits]) + _table({}), (50, 11))

    # ---- messages ------------------------------------------------------------------------------------------------------------

    def confirms(self) -> None:
        """From now on the broker confirms each message, and `published` counts from here."""
        self.published.clear()
        self._call(1, (85, 10), b"\0", (85, 11))

    def publish(self, exchange: str, key: str, message_id: str, body: str = "", *, persistent: bool = True) -> None:
        """Hand a message (of less than 128 KiB) to the operating system, which hands it to the broker: to return means no more."""
        encoded = (body or message_id).encode()
        flags = CONTENT_TYPE | DELIVERY_MODE | MESSAGE_ID
        properties = _short("text/plain") + bytes([2 if persistent else 1]) + _short(message_id)
        self._send_raw(
            _frame(METHOD, 1, struct.pack(">HHH", BASIC, 40, 0) + _short(exchange) + _short(key) + b"\0")
            + _frame(HEADER, 1, struct.pack(">HHQH", BASIC, 0, len(encoded), flags) + properties)
            + _frame(BODY, 1, encoded)
        )
        self.published.append(message_id)

    def listen(self, timeout: float) -> bool:
        """Hear confirms until everything published is confirmed (True), or until `timeout` seconds have passed (False)."""
        deadline = time.monotonic() + timeout
        while len(self.confirmed) < len(self.published):
            try:
                method, arguments = self._method(max(0.001, deadline - time.monotonic()))
            except TimeoutError:
                return False
            if method == (BASIC, 80):
                self._heard(*struct.unpack_from(">QB", arguments))
        return True

    def _heard(self, tag: int, multiple: int) -> None:
        """A confirm, perhaps of all up to `tag`."""
        self.confirmed.update(self.published[0 if multiple else tag - 1 : tag])

    def get(self, queue: str) -> tuple[str, str] | None:
        """Take the next message out of a queue: (id, body); None if it is empty."""
        self._send(1, (BASIC, 70), b"\0\0" + _short(queue) + b"\1")  # no ack: taken is gone
        method, _ = self._await(((BASIC, 71), (BASIC, 72)))
        if method == (BASIC, 72):
            return None
        _, header = self._frame(self.timeout)
        size, flags = struct.unpack_from(">QH", header, 4)
        message_id = _message_id(header[14:], flags)
        body = b""
        while len(body) < size:
            body += self._frame(self.timeout)[1]
        return message_id, body.decode(errors="replace")

    def drain(self, queue: str) -> list[str]:
        """Take everything out of a queue: the ids, in order."""
        return [message_id for message_id, _ in self._all(queue)]

    def texts(self, queue: str) -> list[str]:
        """Take everything out of a queue: the bodies, in order."""
        return [body for _, body in self._all(queue)]

    def _all(self, queue: str) -> Iterator[tuple[str, str]]:
        while (message := self.get(queue)) is not None:
            yield message

    # ---- the wire ------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Hang up without a word: the broker reads what is still on its way, then sees the end. Idempotent."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def bye(self) -> None:
        """Close in good order: when this returns the broker has let go of all that was this connection's, such as exclusive queues."""
        self._call(0, (10, 50), struct.pack(">H", 200) + _short("bye") + b"\0\0\0\0", (10, 51))
        self.close()

    def _send(self, channel: int, method: Method, arguments: bytes) -> None:
        self._send_raw(_frame(METHOD, channel, struct.pack(">HH", *method) + arguments))

    def _send_raw(self, data: bytes) -> None:
        try:
            self._socket.settimeout(self.timeout)
            self._socket.sendall(data)
        except OSError as exc:
            raise BrokerUnavailable(f"the connection to the broker broke: {type(exc).__name__}") from exc

    def _call(self, channel: int, method: Method, arguments: bytes, answer: Method) -> bytes:
        self._send(channel, method, arguments)
        return self._expect(answer)

    def _expect(self, answer: Method) -> bytes:
        return self._await((answer,))[1]

    def _await(self, answers: tuple[Method, ...]) -> tuple[Method, bytes]:
        """The next method that is one of these; confirms that come in between are heard."""
        while True:
            try:
                method, arguments = self._method(self.timeout)
            except TimeoutError as exc:
                raise BrokerUnavailable(f"the broker did not answer within {self.timeout:g} s") from exc
            if method in answers:
                return method, arguments
            if method == (BASIC, 80):
                self._heard(*struct.unpack_from(">QB", arguments))

    def _method(self, timeout: float) -> tuple[Method, bytes]:
        """The next method. Raises TimeoutError, ChatError if it closes the channel, BrokerUnavailable if it closes the connection."""
        kind, payload = self._frame(timeout)
        while kind != METHOD:
            kind, payload = self._frame(timeout)
        method = struct.unpack_from(">HH", payload)
        if method in CLOSED:
            why = f"{struct.unpack_from('>H', payload, 4)[0]} {payload[7 : 7 + payload[6]].decode(errors='replace')}"
            kind_of_error = ChatError if method == QUIT else BrokerUnavailable
            raise kind_of_error(f"the broker closed the {CLOSED[method]}: {why}")
        return method, payload[4:]

    def _frame(self, timeout: float) -> tuple[int, bytes]:
        deadline = time.monotonic() + timeout
        self._fill(7, deadline)
        kind, _, size = struct.unpack_from(">BHI", self._buffer)
        self._fill(7 + size + 1, deadline)
        payload, self._buffer = self._buffer[7 : 7 + size], self._buffer[7 + size + 1 :]
        return kind, payload

    def _fill(self, count: int, deadline: float) -> None:
        """Read until `count` bytes are there. Raises TimeoutError, with what was read kept."""
        while len(self._buffer) < count:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self._socket.recv(65_536)
            except TimeoutError:
                raise
            except OSError as exc:
                raise BrokerUnavailable(f"the connection to the broker broke: {type(exc).__name__}") from exc
            if not data:
                raise BrokerUnavailable("the broker hung up")
            self._buffer += data

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Wire: {len(self.published)} published, {len(self.confirmed)} confirmed>"


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + END


def _short(text: str) -> bytes:
    encoded = text.encode()
    return bytes([len(encoded)]) + encoded


def _long(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _table(fields: dict[str, Any]) -> bytes:
    """A field table of strings."""
    return _long(b"".join(_short(name) + b"S" + _long(value.encode()) for name, value in fields.items()))


def _message_id(properties: bytes, flags: int) -> str:
    """The message id among the properties of a header: those before it, in the order of the wire, are stepped over."""
    at = 0
    for bit in range(15, 7, -1):
        if not flags & 1 << bit:
            continue
        if bit in (12, 11):  # delivery mode, priority: one byte
            at += 1
        elif bit == 13:  # headers: a table
            at += 4 + struct.unpack_from(">I", properties, at)[0]
        else:
            at += 1 + properties[at]
    if not flags & MESSAGE_ID:
        return ""
    return properties[at + 1 : at + 1 + properties[at]].decode(errors="replace")
