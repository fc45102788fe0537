"""The node on which everything runs, and what has to be there before a contestant starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import pika
import psutil

import chatlib
from chatlib.messages import compose, new_message_id
from chatlib.names import parse_address
from chatlib.topology import BASE, Binding, Declaration, Exchange, Queue, membership, of_user

__all__ = ["INBOX_LIMIT", "Node", "wire_size"]

INBOX_LIMIT = chatlib.Settings().inbox_limit
HANDS = 8  # connections that prepare and clear away; more at once is faster, see README


def wire_size(to: str, content: int) -> int:
    """Return the bytes of chatlib's body for `content` characters (ASCII) to the address `to`."""
    now = time.time()
    return len(compose(new_message_id(now), "sender", parse_address(to), "x" * content, now).encode())


class Node:
    """A private broker and a few hands on it. A context manager."""

    def __init__(self) -> None:
        self.broker = chatlib.LocalBroker(name="benchmarks")

    def __enter__(self) -> Node:
        self.broker.start()
        self._each([BASE], _declare_all)
        return self

    def __exit__(self, *_: object) -> None:
        self.broker.close()

    @property
    def url(self) -> str:
        """Where contestants connect."""
        return self.broker.url

    def versions(self) -> dict[str, str]:
        """Return the versions of RabbitMQ and Erlang."""
        overview = self._management("overview")
        return {"RabbitMQ": overview["rabbitmq_version"], "Erlang": overview["erlang_version"]}

    def add_users(self, users: Iterable[str]) -> None:
        """Declare what chatlib declares for a user."""
        self._each([of_user(user, inbox_limit=INBOX_LIMIT) for user in users], _declare_all)

    def add_group(self, group: str, members: Iterable[str]) -> None:
        """Declare the inboxes of `members` (no receipts), bound to the group (bare names)."""
        self._each([(of_user(member, inbox_limit=INBOX_LIMIT)[0], membership(member, group)) for member in members], _declare_all)

    def purge(self, queues: Iterable[str]) -> int:
        """Empty these queues; return how many messages that were."""
        return sum(self._each(queues, lambda channel, queue: channel.queue_purge(queue).method.message_count))

    def delete(self, queues: Iterable[str]) -> None:
        """Delete these queues."""
        self._each(queues, lambda channel, queue: channel.queue_delete(queue))

    def depth(self, queue: str) -> int:
        """Return how many messages are ready in a queue."""
        return int(self._each([queue], lambda channel, name: channel.queue_declare(name, passive=True).method.message_count)[0])

    def fill(self, to: str, count: int, content: int) -> None:
        """Send `count` messages by chatlib, so that chatlib can read them too."""
        with chatlib.connect(self.url) as chat:
            filler = chat.user("filler")
            sent = [filler.send(to, "x" * content) for _ in range(count)]
            if not chat.flush(120) or any(message.state != "confirmed" for message in sent):
                raise RuntimeError(f"{to} could not be filled with {count} messages")

    def kill_and_start(self) -> None:
        """SIGKILL, and start anew; a client can connect when this returns."""
        self.broker.kill()
        self.broker.start()

    def cpu(self) -> float:
        """Return the seconds of processor time that the node's process has used."""
        times = psutil.Process(self.broker.pid).cpu_times()
        return float(times.user + times.system)

    def memory(self) -> int:
        """Return the bytes of resident memory of the node's process, once they have stayed within 1% for a second (or after 10 s)."""
        process = psutil.Process(self.broker.pid)
        last = process.memory_info().rss
        for _ in range(10):
            time.sleep(1)
            before, last = last, process.memory_info().rss
            if abs(last - before) < 0.01 * before:
                break
        return last

    def _management(self, path: str) -> Any:
        login = urlsplit(self.url)
        answer = httpx.get(
            f"{self.broker.management_url.rstrip('/')}/api/{path}", auth=(login.username or "", login.password or ""), timeout=30
        )
        answer.raise_for_status()
        return answer.json()

    def _each(self, items: Iterable[Any], act: Callable[[Any, Any], Any]) -> list[Any]:
        """Call `act(channel, item)` for all, over a few connections."""
        todo = list(items)
        hands = max(1, min(HANDS, len(todo)))

        def work(share: list[Any]) -> list[Any]:
            connection = pika.BlockingConnection(pika.URLParameters(self.url))
            try:
                channel = connection.channel()
                return [act(channel, item) for item in share]
            finally:
                if connection.is_open:
                    connection.close()

        with ThreadPoolExecutor(hands) as pool:
            return [result for share in pool.map(work, [todo[start::hands] for start in range(hands)]) for result in share]


def _declare_all(channel: Any, what: Iterable[Declaration]) -> None:
    for declaration in what:
        if isinstance(declaration, Exchange):
            channel.exchange_declare(declaration.name, declaration.kind, durable=True)
        elif isinstance(declaration, Queue):
            channel.queue_declare(declaration.name, durable=True, arguments=dict(declaration.arguments))
        elif isinstance(declaration, Binding):
            channel.queue_bind(declaration.queue, declaration.source, routing_key=declaration.key)
