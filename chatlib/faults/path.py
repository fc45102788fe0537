"""The network between a chat and its broker, as a TCP forwarder on loopback that can be made to fail."""

from __future__ import annotations

from types import TracebackType

from chatlib.brokers.base import Broker
from chatlib.faults.fault import Fault

__all__ = ["Path", "black_hole", "cut", "delay", "throttle"]


class Path:
    """A way to the broker that goes through here: `chatlib.connect(path)`, or `path.url` for anybody else. A context manager.

    broker: a broker object, or an AMQP URL. Other clients of the broker are not affected. Close it after the chats that use it.
    """

    def __init__(self, broker: Broker | str) -> None:
        raise NotImplementedError

    @property
    def url(self) -> str:
        """The broker's address, by this path."""
        raise NotImplementedError

    @property
    def management_url(self) -> str:
        """The broker's management API, not by this path: what looks at the broker must not be hit by the fault."""
        raise NotImplementedError

    @property
    def connections(self) -> int:
        """How many connections are open through it now."""
        raise NotImplementedError

    def close(self) -> None:
        """End it, and every connection through it. Idempotent."""

    def __enter__(self) -> Path:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def cut(path: Path) -> Fault:
    """Cut the path: every connection through it is reset, and new ones are refused. Healed: new ones are accepted again."""
    raise NotImplementedError


def black_hole(path: Path) -> Fault:
    """Swallow everything, both ways: connections stay, new ones are accepted, and nobody hears anything.

    As behind a firewall that forgot the connection. Healed: those that lost something are reset, the others go on.
    """
    raise NotImplementedError


def delay(path: Path, seconds: float) -> Fault:
    """Hold everything back for `seconds`, each way (a round trip takes twice that), in order. Healed: without delay again."""
    raise NotImplementedError


def throttle(path: Path, bytes_per_second: float) -> Fault:
    """Let through so many bytes a second each way, all connections together. Healed: as fast as it can."""
    raise NotImplementedError
