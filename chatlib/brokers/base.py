"""What every broker can do, whoever runs it: the protocol `Broker` and its states."""

from __future__ import annotations

import abc
import enum
from types import TracebackType
from typing import Protocol, Self

__all__ = ["Broker", "BrokerState", "Startable"]


class BrokerState(enum.Enum):
    """Where a broker is in its life."""

    STOPPED = "stopped"  #: no process; the data may be there
    STARTING = "starting"  #: the process runs, clients cannot use it yet
    RUNNING = "running"  #: a client can connect and declare
    FROZEN = "frozen"  #: the process is there and gets no time (SIGSTOP, docker pause): connections hang, none is refused


class Broker(Protocol):
    """A broker that a `Chat` can use and a lesson can break.

    Every method may be called in every state and any number of times: what is already so is left so.
    Used as a context manager it is started on entry and closed on exit.
    Not for isinstance: Python 3.11 would ask for every property, and some of them ask the network.
    """

    @property
    def name(self) -> str:
        """A short name for people: in logs, panels and tables."""

    @property
    def url(self) -> str:
        """The AMQP address with user and password, `amqp://user:password@host:port/vhost`; the same for the whole life."""

    @property
    def management_url(self) -> str:
        """The root of the management API and pages, `http://host:port`, without credentials (they are those of `url`)."""

    @property
    def state(self) -> BrokerState:
        """Where it is now; asks the system, so it sees what others did to it."""

    @property
    def is_running(self) -> bool:
        """Whether the broker's process is there: STARTING, RUNNING or FROZEN."""

    def start(self) -> None:
        """Bring it up; returns when a client can connect and declare.

        Raises `BrokerStartFailed` with the broker's own log lines, as soon as it is clear that it will not come up.
        """

    def stop(self) -> None:
        """Shut it down gracefully; the data stays."""

    def restart(self) -> None:
        """`stop()` and `start()`."""

    def kill(self) -> None:
        """End the broker's process at once, as a crash does (SIGKILL); returns when it is gone. The data stays."""

    def freeze(self) -> None:
        """Take its processor time away (SIGSTOP): it lives, holds its connections, and answers nothing."""

    def thaw(self) -> None:
        """Undo `freeze()`."""

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Return when a client can connect and declare; raise `BrokerUnavailable` after `timeout` seconds."""

    def close(self) -> None:
        """Give up what this object holds: stop the broker if it is ours, remove what is temporary."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class Startable(abc.ABC):
    """The context manager of brokers that are ours: started on entry, and closed on exit, also when the start fails."""

    @abc.abstractmethod
    def start(self) -> None:
        """As `Broker.start`."""

    @abc.abstractmethod
    def close(self) -> None:
        """As `Broker.close`."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
