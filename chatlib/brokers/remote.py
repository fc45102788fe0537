"""RemoteBroker: a broker that somebody else runs. chatlib uses it and leaves its life alone."""

from __future__ import annotations

from types import TracebackType
from typing import Never, Self
from urllib.parse import urlsplit

from chatlib.brokers.base import BrokerState
from chatlib.brokers.readiness import await_ready
from chatlib.errors import BrokerNotOurs, BrokerUnavailable, InvalidUrl
from chatlib.urls import MANAGEMENT, masked

__all__ = ["RemoteBroker"]

LOOK = 2.0  # seconds that `is_running` and `state` wait for an answer


class RemoteBroker:
    """A broker at `url`, run by somebody else.

    url: `amqp://user:password@host:5672/vhost` or `amqps://...`. Raises InvalidUrl for any other.
    management_url: by default port 15672 (15671 with TLS) of the same host.
    """

    def __init__(self, url: str, management_url: str | None = None) -> None:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise InvalidUrl(f"not a broker's address ({error}): amqp://user:password@host:5672/vhost is one") from None
        if parts.scheme not in MANAGEMENT or not host:
            raise InvalidUrl(f"not a broker's address: {masked(url)!r}; amqp://user:password@host:5672/vhost is one")
        scheme, port = MANAGEMENT[parts.scheme]
        self._host = f"[{host}]" if ":" in host else host
        self._url = url
        self._management_url = (management_url or f"{scheme}://{self._host}:{port}").rstrip("/")

    @property
    def name(self) -> str:
        """The host."""
        return self._host

    @property
    def url(self) -> str:
        """The address as it was given, with the password."""
        return self._url

    @property
    def management_url(self) -> str:
        """The root of the management API."""
        return self._management_url

    @property
    def state(self) -> BrokerState:
        """RUNNING if a client can connect and declare within 2 s, else STOPPED: from outside there is no telling more."""
        try:
            await_ready(self._url, LOOK)
        except BrokerUnavailable:
            return BrokerState.STOPPED
        return BrokerState.RUNNING

    @property
    def is_running(self) -> bool:
        """Whether a client can connect and declare within 2 s."""
        return self.state is BrokerState.RUNNING

    def start(self) -> None:
        """Check that a client can use it. Raises `BrokerUnavailable` or `AccessRefused` if not."""
        self.wait_ready(5.0)

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Return when a client can connect and declare; raise `BrokerUnavailable` after `timeout` seconds."""
        await_ready(self._url, timeout)

    def stop(self) -> None:
        """Raise `BrokerNotOurs`."""
        self._refuse("stopped")

    def restart(self) -> None:
        """Raise `BrokerNotOurs`."""
        self._refuse("restarted")

    def kill(self) -> None:
        """Raise `BrokerNotOurs`."""
        self._refuse("killed")

    def freeze(self) -> None:
        """Raise `BrokerNotOurs`."""
        self._refuse("frozen")

    def thaw(self) -> None:
        """Raise `BrokerNotOurs`."""
        self._refuse("thawed")

    def close(self) -> None:
        """Nothing to give up."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<RemoteBroker {masked(self._url)}>"

    def _refuse(self, what: str) -> Never:
        raise BrokerNotOurs(
            f"the broker at {masked(self._url)} is run by somebody else and cannot be {what} from here: "
            "use chatlib.LocalBroker() or chatlib.DockerBroker() for what breaks a broker"
        )
