"""Looking at the wire from beside chatlib: a direct AMQP connection, the management API, and a cable that can be cut."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import httpx
import pika

from tests.support import wait_until

__all__ = ["Cable", "Raw", "close_connections", "connections_of", "management", "raw"]


class Raw:
    """A channel of our own, with what an observer needs."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel

    def depth(self, queue: str) -> int:
        """Ready messages, exact at this moment (unacked ones are not counted)."""
        return int(self.channel.queue_declare(queue, passive=True).method.message_count)

    def take(self, queue: str, count: int, timeout: float = 10.0) -> list[tuple[Any, bytes]]:
        """Take exactly `count` messages out of a queue: (properties, body)."""
        taken: list[tuple[Any, bytes]] = []

        def more() -> bool:
            _, properties, body = self.channel.basic_get(queue, auto_ack=True)
            if body is not None:
                taken.append((properties, body))
            return len(taken) >= count

        wait_until(more, timeout, f"{count} messages come out of {queue}", poll=0.001)
        return taken

    def put(self, queue: str, body: bytes, **properties: Any) -> None:
        """Publish straight into a queue, as a stranger would."""
        self.channel.basic_publish("", queue, body, pika.BasicProperties(**properties))


@contextlib.contextmanager
def raw(url: str) -> Iterator[Raw]:
    """A direct connection, in confirm mode."""
    parameters = pika.URLParameters(url)
    parameters.heartbeat = 0
    connection = pika.BlockingConnection(parameters)
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        yield Raw(channel)
    finally:
        if connection.is_open:
            connection.close()


def management(broker: Any) -> httpx.Client:
    """A client of the broker's management API, logged in."""
    parts = urlsplit(broker.url)
    return httpx.Client(
        base_url=f"{broker.management_url}/api/", auth=(parts.username or "", parts.password or ""), timeout=10, trust_env=False
    )


def connections_of(client: httpx.Client, name: str) -> dict[str, str]:
    """The open connections whose name, as given by the client, begins with `name`: their key in the API -> that name."""
    found = {}
    for connection in client.get("connections").raise_for_status().json():
        given = connection.get("client_properties", {}).get("connection_name", "")
        if given.startswith(name):
            found[connection["name"]] = given
    return found


def close_connections(broker: Any, name: str, expected: int = 2, ending: str = "") -> int:
    """Close all connections that the client named `name...` (and `...ending`) by the management API, as an operator would; how many
    the broker closed: at least one, since the link lets go of the others itself."""
    with management(broker) as client:
        keys = wait_until(
            lambda: (
                keys
                if len(keys := {key for key, given in connections_of(client, name).items() if given.endswith(ending)}) >= expected
                else None
            ),
            15,
            f"{expected} connections of {name} are listed",
        )
        assert keys
        answers = [client.delete(f"connections/{quote(key, safe='')}", headers={"X-Reason": "closed by a test"}) for key in keys]
        closed = sum(answer.status_code == 204 for answer in answers)
        assert closed, answers  # the link lets go of the other one when one is lost, so that may be gone already (404)
        return closed


class Cable:
    """A TCP forwarder in front of a broker: `url` goes through it. Each connection can be held or cut, and new ones refused.

    Runs in one thread. Connections are numbered from 0 in the order in which they came. port: to listen on; 0: a free one.
    """

    def __init__(self, url: str, port: int = 0) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "localhost", parts.port or 5672)
        self._listener = socket.create_server(("127.0.0.1", port))
        port = self._listener.getsockname()[1]
        self.url = urlunsplit(parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}"))
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []  # client side, broker side
        self._held: set[int] = set()
        self._open: set[int] = set()
        self._first: dict[int, bytes] = {}
        self.sent = 0  #: bytes from clients to the broker
        self.cut_after: int | None = None  #: cut everything when so many bytes went from clients to the broker
        self.cuts = 0
        self.refusing = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="cable", daemon=True)
        self._thread.start()

    def __enter__(self) -> Cable:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join(5)
        self.cut()
        self._listener.close()

    @property
    def alive(self) -> list[int]:
        """The connections that are there now."""
        with self._lock:
            return sorted(self._open)

    def role(self, number: int, word: bytes) -> bool:
        """Whether `word` occurred in the first bytes that this client sent (its properties name it)."""
        return word in self._first.get(number, b"")

    def hold(self, *numbers: int) -> None:
        """What the broker says on these no longer reaches the client; the other way goes on."""
        with self._lock:
            self._held.update(numbers)

    def release(self, *numbers: int) -> None:
        """What was held on these (by default on all) goes on its way."""
        with self._lock:
            self._held.difference_update(numbers or tuple(self._held))

    def cut(self, *numbers: int) -> None:
        """Cut these (by default all), without a word of farewell."""
        with self._lock:
            chosen = numbers or tuple(self._open)
            for number in chosen:
                if number in self._open:
                    self._open.discard(number)
                    for side in self._pairs[number]:
                        with contextlib.suppress(OSError):
                            side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # RST instead of FIN
                        side.close()
            self.cuts += bool(chosen)

    def _run(self) -> None:
        while not self._stopping:
            with self._lock:
                sides = {}
                for number in self._open:
                    client, server = self._pairs[number]
                    sides[client] = (number, client, server)
                    if number not in self._held:
                        sides[server] = (number, server, client)
            try:
                ready, _, _ = select.select([self._listener, *sides], [], [], 0.02)
            except (OSError, ValueError):  # one of them was cut meanwhile
                continue
            for side in ready:
                if side is self._listener:
                    self._accept()
                else:
                    self._forward(*sides[side])

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        if self.refusing:
            client.close()
            return
        try:
            server = socket.create_connection(self._target, timeout=5)
        except OSError:
            client.close()
            return
        with self._lock:
            self._pairs.append((client, server))
            self._open.add(len(self._pairs) - 1)

    def _forward(self, number: int, source: socket.socket, target: socket.socket) -> None:
        try:
            data = source.recv(65536)
            if source is self._pairs[number][0]:
                if len(self._first.get(number, b"")) < 4096:
                    self._first[number] = self._first.get(number, b"") + data
                if self.cut_after is not None and self.sent + len(data) >= self.cut_after:
                    target.sendall(data[: max(0, self.cut_after - self.sent)])  # in the middle of whatever it is
                    self.cut_after = None
                    self.cut()
                    return
                self.sent += len(data)
            if data:
                target.sendall(data)
                return
        except OSError:
            pass
        self.cut(number)
