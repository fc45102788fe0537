"""The network between a chat and its broker, as a TCP forwarder on loopback that can be made to fail."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from types import TracebackType
from urllib.parse import urlsplit, urlunsplit

from chatlib.brokers.base import Broker
from chatlib.brokers.ports import LOOPBACK
from chatlib.brokers.readiness import port_open
from chatlib.faults.fault import Fault, impossible, inflict, require_kind
from chatlib.faults.forwarder import Forwarder
from chatlib.faults.weather import Condition
from chatlib.urls import masked

__all__ = ["Path", "black_hole", "cut", "delay", "half_open", "throttle"]

TARGET = "path"
DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}


class Path:
    """A way to the broker that goes through here: `chatlib.connect(path)`, or `path.url` for anybody else. A context manager.

    broker: a broker object, or an AMQP URL. Other clients of the broker notice nothing. Several faults at once add up: delays are
    summed, the lowest throttle counts, and each may be healed in any order. With "amqps://" the certificate must fit 127.0.0.1.
    Raises ValueError for what is no AMQP URL.
    """

    def __init__(self, broker: Broker | str) -> None:
        if not isinstance(broker, str) and not hasattr(type(broker), "url"):
            raise ValueError(f"a path leads to a broker or its URL, amqp://user:password@host:5672/vhost, not to {broker!r}")
        url = broker if isinstance(broker, str) else broker.url
        parts = urlsplit(url)
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
            raise ValueError(f"a path leads to a broker or its URL, amqp://user:password@host:5672/vhost, not to {masked(url)!r}")
        self._broker = broker  # kept: a LocalBroker that nobody holds is stopped
        self._forwarder = Forwarder((parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme]))
        login, at, _ = parts.netloc.rpartition("@")
        self._url = urlunsplit(parts._replace(netloc=f"{login}{at}{LOOPBACK}:{self._forwarder.port}"))
        self._finalizer = weakref.finalize(self, self._forwarder.close)  # when this object is collected, and at exit

    @property
    def url(self) -> str:
        """The broker's address by this path, with user and password."""
        return self._url

    @property
    def management_url(self) -> str | None:
        """The broker's management API, not by this path; None where a plain URL was given, which names none."""
        return None if isinstance(self._broker, str) else self._broker.management_url

    @property
    def port(self) -> int:
        """Where it listens, on loopback; stays the same."""
        return self._forwarder.port

    @property
    def connections(self) -> int:
        """How many connections go through it now."""
        return self._forwarder.connections

    @property
    def sent(self) -> int:
        """Bytes that went through to the broker so far."""
        return self._forwarder.up.passed

    @property
    def received(self) -> int:
        """Bytes that came back through from the broker so far."""
        return self._forwarder.down.passed

    @property
    def swallowed(self) -> int:
        """Bytes that were lost in black holes so far, both ways."""
        return self._forwarder.up.swallowed + self._forwarder.down.swallowed

    def close(self) -> None:
        """Cut every connection through it and end it. Idempotent."""
        self._finalizer()

    def __enter__(self) -> Path:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Path {masked(self._url)}{' closed' if self._forwarder.is_closed else ''}>"


def cut(path: Path) -> Fault:
    """Cut the path: every connection through it is reset, and new ones are refused. Healed: new ones are accepted again.

    Raises FaultError for a path that is closed, and so do the others.
    """
    return _inflict(path, "cut", Condition(refusing=True), lambda: path.connections == 0 and not port_open(LOOPBACK, path.port))


def black_hole(path: Path) -> Fault:
    """Swallow everything, both ways: connections stay, new ones are accepted, and nobody hears anything.

    As behind a firewall that forgot the connection. Healed: those that lost something are reset, the others go on.
    """
    return _inflict(path, "black_hole", Condition(swallowing=True))


def half_open(path: Path) -> Fault:
    """Cut the connections for the client only: the broker hears nothing of it and holds them open, until its heartbeat finds them dead.

    So it is for a laptop that changes its network, or a router that forgets: the client comes back at once, by this path, too, while
    its old consumers are still there and are handed messages. Healed: the broker's side is reset.
    Raises FaultError if no connection goes through the path.
    """
    _require_path("half_open", path)
    if not path.connections:
        raise impossible("half_open", TARGET, "no connection goes through it: connect by path.url first")
    return _inflict(path, "half_open", Condition(stranding=True))


def delay(path: Path, seconds: float) -> Fault:
    """Hold everything back for `seconds`, each way (a round trip takes twice that), in order. Healed: without delay again.

    Raises ValueError for what is no time.
    """
    _require_positive(seconds, "a delay has some seconds")
    return _inflict(path, "delay", Condition(delay=seconds), detail=f"{seconds:g} s each way")


def throttle(path: Path, bytes_per_second: float) -> Fault:
    """Let through so many bytes a second each way, all connections together. Healed: as fast as it can.

    Raises ValueError for what is no rate.
    """
    _require_positive(bytes_per_second, "a throttle lets some bytes a second through")
    return _inflict(path, "throttle", Condition(rate=bytes_per_second), detail=f"{bytes_per_second:g} bytes/s each way")


def _inflict(path: Path, name: str, condition: Condition, seen: Callable[[], bool] = lambda: True, detail: str = "") -> Fault:
    """seen: what is to be seen from outside; the forwarder says itself when a condition holds."""
    _require_path(name, path)
    way = path._forwarder
    return inflict(name, TARGET, lambda: way.apply(condition), seen=seen, heal=lambda: way.lift(condition), detail=detail)


def _require_path(name: str, path: Path) -> None:
    require_kind(name, TARGET, path, "swallowed", "a path: with faults.Path(broker) as path, chatlib.connect(path) as chat")


def _require_positive(value: float, what: str) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{what}, more than 0, not {value!r}")
