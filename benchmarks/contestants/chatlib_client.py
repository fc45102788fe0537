"""chatlib, as a user of it would write it."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import psutil

import chatlib
from benchmarks.work import PREFETCH, WINDOW, Stopwatch, Work, say


def _connect(work: Work, **settings: Any) -> chatlib.Chat:
    settings = {"prefetch": PREFETCH, "window": WINDOW, "receipts": bool(work.options.get("receipts")), **settings}
    return chatlib.connect(work.url, data_dir=work.folder or None, settings=chatlib.Settings(**settings))


def _unconfirmed(sent: list[chatlib.SentMessage]) -> int:
    return sum(message.state is not chatlib.SentState.CONFIRMED for message in sent)


def publish(work: Work) -> dict[str, Any]:
    """Time from the first `send` to the last confirm."""
    content = "x" * work.content
    with _connect(work) as chat:
        alice = chat.user("sender")
        watch = Stopwatch()
        sent = [alice.send(work.to, content) for _ in range(work.count)]
        if not chat.flush(120):
            sys.exit("not all confirmed within 120 s")
        return {**watch.read(), "confirmed": work.count - _unconfirmed(sent)}


def receive(work: Work) -> dict[str, Any]:
    """Time from the subscription to the broker's answer after the last ack; each message decoded, checked for a duplicate, shown, acked."""
    with _connect(work) as chat:
        bob = chat.user(work.to[1:])
        bob.go_offline()  # what was handed out already goes back
        watch = Stopwatch()
        bob.go_online()
        seen = set()
        for message in bob.receive(limit=work.count, timeout=30):
            seen.add(message.message_id)
            message.ack()
        if not chat.flush(60):
            sys.exit("not all acks written within 60 s")
        bob.go_offline()  # answered on the channel of the acks, after them
        return {**watch.read(), "received": len(seen)}


def pace(work: Work) -> dict[str, Any]:
    """Send `rate` messages a second, each at its own time whatever became of those before."""
    padding = "x" * (work.content - 8)
    with _connect(work) as chat:
        alice = chat.user("sender")
        sent = []
        began = time.monotonic() + 0.1
        for number in range(work.count):
            left = began + number / work.rate - time.monotonic()
            if left > 0:
                time.sleep(left)
            sent.append(alice.send(work.to, f"{number:08d}{padding}"))
        chat.flush(60)
        return {"began": began, "confirmed": work.count - _unconfirmed(sent)}


def watch(work: Work) -> dict[str, Any]:
    """When each message came, on the thread of the one who receives it."""
    arrived = [0.0] * work.count
    with _connect(work) as chat:
        bob = chat.user(work.to[1:])
        say({"ready": True})
        for message in bob.receive(limit=work.count, timeout=30):
            at = time.monotonic()
            arrived[int(message.content[:8])] = at
            message.ack()
    return {"arrived": arrived}


def recover(work: Work) -> dict[str, Any]:
    """When the first message is shown after the broker was killed; one that was shown before is still unacked then."""
    lost = threading.Event()
    with _connect(work, prefetch=1) as chat:
        bob = chat.user(work.to[1:])
        chat.on_state(lambda state, _: None if state is chatlib.LinkState.CONNECTED else lost.set())
        messages = bob.receive(timeout=120)
        first = next(messages)
        say({"ready": True})
        lost.wait(120)
        first.ack()  # never reaches the broker; when it is handed out again it is dropped, and the second one is shown
        next(messages)
        return {"first": time.monotonic()}


def signup(work: Work) -> dict[str, Any]:
    """Time of `chat.users` for all."""
    with _connect(work, request_timeout=300.0) as chat:
        began = time.monotonic()
        chat.users(work.users)
        return {"seconds": time.monotonic() - began}


def online(work: Work) -> dict[str, Any]:
    """Bytes of this process for the users who are online on one link."""
    process = psutil.Process()
    with _connect(work) as chat:
        before = process.memory_info().rss
        users = chat.users(work.users)
        chat.user(work.users[-1]).waiting  # noqa: B018  asked after all subscriptions: they are done when it is answered
        after = process.memory_info().rss
        say({"ready": True, "bytes": after - before, "users": len(users)})
        sys.stdin.readline()  # until the broker was measured
        return {}
