"""When a broker is ready: a client can connect, open a channel and declare a queue. An open port is not enough."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from threading import Event
from urllib.parse import urlsplit

from chatlib.errors import AccessRefused, BrokerUnavailable
from chatlib.urls import masked
from chatlib.waiting import seconds

__all__ = ["await_ready", "port_open"]

FIRST_PAUSE = 0.02  # seconds; doubled after each try
LONGEST_PAUSE = 0.2  # seconds; a boot takes about 5 s, so this adds 2 % on average
REFUSED_FOR_GOOD = 3.0  # seconds of refusals until we believe them: a booting node may refuse before its users are loaded


def port_open(host: str, port: int, timeout: float = 1.0) -> bool:
    """Whether something accepts TCP connections at host:port within `timeout` seconds."""
    try:
        socket.create_connection((host, port), timeout).close()
    except OSError:
        return False
    return True


def await_ready(url: str, timeout: float, check: Callable[[], None] = lambda: None) -> None:
    """Return when a client can connect to `url` and declare.

    check: called before each try; raises what ends the waiting early (the process died, somebody froze it).
    Raises `AccessRefused` when the broker keeps saying no, `BrokerUnavailable` after `timeout` seconds; as `waiting.seconds`.
    """
    timeout = seconds(timeout, "the timeout")
    from chatlib.probe import probe  # late: it imports pika, which need not be there to start a broker

    parts = urlsplit(url)
    host, port = parts.hostname or "localhost", parts.port or (5671 if parts.scheme == "amqps" else 5672)
    deadline = time.monotonic() + timeout
    pause, waiting, refused_since = FIRST_PAUSE, Event(), None
    last = ""  # as text: an exception kept here would hold this frame, and so the caller's broker, until cycles are collected
    while True:
        check()
        left = deadline - time.monotonic()
        if left <= 0:
            seen = last or _why_closed(host, port)
            raise BrokerUnavailable(f"no client could use {masked(url)} within {timeout:g} s; last try: {seen}")
        if port_open(host, port, min(1.0, left)):
            try:
                probe(url, timeout=min(5.0, max(left, 0.1)))
                return
            except AccessRefused as refusal:
                refused_since = refused_since or time.monotonic()
                if time.monotonic() - refused_since > REFUSED_FOR_GOOD:
                    raise
                last = str(refusal)
            except BrokerUnavailable as error:
                refused_since, last = None, str(error)
        waiting.wait(min(pause, max(left, 0.0)))
        pause = min(pause * 2, LONGEST_PAUSE)


def _why_closed(host: str, port: int) -> str:
    try:
        socket.getaddrinfo(host, port)
    except OSError:
        return f"the host {host!r} is unknown: check the spelling"
    return "nothing listens there: start the broker, or check host and port"
