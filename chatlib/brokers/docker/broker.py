"""DockerBroker: a RabbitMQ in a container as an object, of our own, adopted, or from a docker-compose.yml.

Ready means that a client can connect and declare, as for every broker here. No Docker health check is set for that: its command
starts a virtual machine each time, 7-9 s for what a handshake tells in milliseconds (measured with RabbitMQ 4.0 on 2 cores).
"""

from __future__ import annotations

import os
import re
import secrets
import time
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from chatlib.brokers.base import BrokerState, Startable
from chatlib.brokers.docker.compose import ComposeService
from chatlib.brokers.docker.container import command_in, failure, log_of
from chatlib.brokers.docker.engine import trouble
from chatlib.brokers.docker.vessel import LIVING, Plan, Vessel, networks_of, started
from chatlib.brokers.ports import Ports
from chatlib.brokers.readiness import await_ready
from chatlib.errors import AccessRefused, BrokerStartFailed, BrokerUnavailable, InvalidName
from chatlib.urls import masked
from chatlib.waiting import seconds

if TYPE_CHECKING:
    from docker.models.containers import Container

__all__ = ["IMAGE", "DockerBroker"]

IMAGE = "rabbitmq:4-management"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
LOOK = 1.0  # seconds that `state` waits for an answer of a broker that has not served us yet


class DockerBroker(Startable):
    """A RabbitMQ in a Docker container; its data lie in a volume, its ports are on loopback and stay for as long as the volume.

    image: any RabbitMQ image with the management plugin; pulled if it is not here.
    name: of the container; by default a fresh one. A container of that name that is there, running or not, is adopted: used
        and broken as any other, and left alone by `close()`.
    volume: a named volume that is kept, and with it ports and password. None: a temporary one that goes with the container.
    ports: fixed ports instead of free ones, `Ports(amqp=5673)`; what is 0 is chosen below 32768.
    config: more lines of rabbitmq.conf, such as "vm_memory_high_watermark.relative = 0.1".
    detached: the container (and its volume) outlives this process; needs a name, by which any process adopts it later.
    start_timeout: seconds that `start()` waits for a broker that neither serves nor ends.

    Container and temporary volume go with `close()`, when the object is collected and when the process ends, in whatever way;
    what is left even so is removed when the next DockerBroker is made.
    Raises `BrokerNotInstalled` or `BrokerStartFailed` at once where no engine can be used, `InvalidName` for a bad name.
    """

    def __init__(
        self,
        image: str = IMAGE,
        *,
        name: str | None = None,
        volume: str | None = None,
        ports: Ports | None = None,
        config: Iterable[str] = (),
        detached: bool = False,
        start_timeout: float = 90.0,
    ) -> None:
        start_timeout = seconds(start_timeout, "start_timeout")  # wrong arguments first: with them nothing is looked for
        for given in (name, volume):
            if given is not None and not NAME.fullmatch(given):
                raise InvalidName(f"a container's or volume's name has 1 to 63 of a-z, A-Z, 0-9, '_', '.', '-', not {given!r}")
        if detached and name is None:
            raise ValueError("a detached broker needs a name, by which it is found again")
        name = name or f"chatlib-{secrets.token_hex(6)}"
        temporary = volume is None and not detached
        self._own(Vessel(Plan(name, image, volume or f"{name}-data", temporary, detached, ports, tuple(config))), start_timeout)

    def _own(self, vessel: Vessel, start_timeout: float) -> None:
        self._vessel = vessel
        self._start_timeout = start_timeout
        self._served = ""  # the start of the container that has served a client
        self._finalizer = weakref.finalize(self, vessel.release)  # when this object is collected, and at exit

    @classmethod
    def from_compose(
        cls,
        file: str | os.PathLike[str] | None = None,
        *,
        service: str = "broker",
        project: str | None = None,
        start_timeout: float = 90.0,
    ) -> Self:
        """Return the broker that is a service of a Compose file: adopted if its container is there, else brought up at first use.

        file: by default the docker-compose.yml of this folder or above, else chatlib's own. project: by default any of that folder.
        `close()` leaves an adopted one alone and takes down what it brought up; its named volume stays either way.
        """
        start_timeout = seconds(start_timeout, "start_timeout")
        found = ComposeService(None if file is None else Path(file), service, project)
        return cls.of(Vessel(Plan(f"{found.file.parent.name}/{service}", "", "", False, True, None, ()), found), start_timeout)

    @classmethod
    def of(cls, vessel: Vessel, start_timeout: float = 90.0) -> Self:
        """Return the broker in this vessel: for clusters, which make their own."""
        broker = cls.__new__(cls)
        broker._own(vessel, start_timeout)
        return broker

    # What it is

    @property
    def name(self) -> str:
        """The container's name."""
        return self._vessel.known.name if self._vessel.known is not None else self._vessel.plan.name

    @property
    def url(self) -> str:
        """The AMQP address with user and password; stays the same through restarts, and for a kept volume for good."""
        return self._vessel.access.url

    @property
    def management_url(self) -> str:
        """The root of the management API and pages; log in as in `url`."""
        return self._vessel.access.management_url

    @property
    def ports(self) -> Ports:
        """Those published on this machine: `amqp` and `management`; the others are 0."""
        return self._vessel.access.ports

    @property
    def volume(self) -> str:
        """The named volume with the data, or "" where an adopted container has none."""
        return self._vessel.access.volume

    @property
    def node_name(self) -> str:
        """Erlang's name of the node, for rabbitmqctl."""
        return f"rabbit@{self._vessel.access.hostname}"

    @property
    def adopted(self) -> bool:
        """Whether the container was there before, so that `close()` leaves it alone."""
        return bool(self._vessel.access) and self._vessel.adopted

    @property
    def detached(self) -> bool:
        """Whether a container that we made outlives this process."""
        return self._vessel.plan.detached

    @property
    def state(self) -> BrokerState:
        """Where it is now. Where the engine itself does not answer: RUNNING if the broker does, else STOPPED."""
        try:
            container = self._vessel.look()
        except BrokerStartFailed:
            return BrokerState.RUNNING if self._vessel.known is not None and self._answers() else BrokerState.STOPPED
        if container is None or container.status not in LIVING:
            return BrokerState.STOPPED
        if container.status == "paused":
            return BrokerState.FROZEN
        if container.status == "running" and (self._served == started(container) or self._answers()):
            self._served = started(container)
            return BrokerState.RUNNING
        return BrokerState.STARTING

    @property
    def is_running(self) -> bool:
        """Whether the container's process is there, frozen or cut off included."""
        return self.state is not BrokerState.STOPPED

    @property
    def is_connected(self) -> bool:
        """Whether the container is on a network; see `disconnect`."""
        container = self._vessel.look()
        return container is not None and bool(networks_of(container))

    @property
    def pid(self) -> int | None:
        """The container's first process, as the engine's machine counts them, or None."""
        container = self._vessel.look()
        return None if container is None else int(container.attrs["State"]["Pid"]) or None

    def status(self) -> Mapping[str, Any]:
        """Return what a program would want to know, ready for JSON. `url` holds the password."""
        return {
            "name": self.name,
            "state": self.state.value,
            "pid": self.pid,
            "url": self.url,
            "management_url": self.management_url,
            "node": self.node_name,
            "volume": self.volume,
            "adopted": self.adopted,
            "detached": self.detached,
        }

    def logs(self, count: int | None = None) -> str:
        """Return what the container has said, all of it or the last `count` lines; "" where there is no container."""
        container = self._vessel.look()
        return "" if container is None else log_of(container, tail="all" if count is None else count)

    def log_lines(self, count: int = 50) -> list[str]:
        """Return the last `count` lines of the broker's log, oldest first."""
        return self.logs(count).splitlines() if count > 0 else []

    # What can be done with it

    def start(self) -> None:
        """Start it, or thaw and reconnect it if that is what it lacks; returns when a client can connect and declare.

        Raises `BrokerNotInstalled` (no engine, no image) or `BrokerStartFailed` (port taken, engine stopped, RabbitMQ ended ...)
        with RabbitMQ's own log lines, as soon as it has ended.
        """
        with self._vessel.mutex:
            container = self._vessel.living()
            begun = container is None
            try:
                container = container or self._vessel.begin()
                self._vessel.thaw()
                self._vessel.reconnect()
                self._await_start(container)
            except BaseException:
                if begun:  # also on Ctrl-C: nothing half-started stays behind
                    self._vessel.undo_begin()
                raise

    def stop(self) -> None:
        """Stop it gracefully: SIGTERM, and SIGKILL after 30 s. The data stays."""
        with self._vessel.mutex:
            self._vessel.stop()

    def kill(self) -> None:
        """SIGKILL to the container, as in a crash; returns when it is gone. Docker does not bring it back: `start()` does."""
        with self._vessel.mutex:
            self._vessel.kill()

    def crash(self) -> None:
        """SIGKILL to RabbitMQ inside the container; returns when it is gone.

        Docker brings it back by its restart policy ("on-failure"; "unless-stopped" in the Compose file), as it would after a real
        crash: wait for it with `wait_ready()` or `start()`. An adopted container without such a policy stays down until `start()`.
        Raises `BrokerUnavailable` if it does not run or is frozen.
        """
        with self._vessel.mutex:
            if self.state is BrokerState.FROZEN:
                raise BrokerUnavailable(f"{self!r} is frozen, and nothing inside can act: thaw() it, or kill() it")
            self._vessel.crash()

    def restart(self) -> None:
        """`stop()` and `start()`."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """`docker pause`: connections hang, and even new ones are accepted (by the proxy) and never answered.

        Raises `BrokerUnavailable` if it does not run.
        """
        with self._vessel.mutex:
            self._vessel.freeze()

    def thaw(self) -> None:
        """`docker unpause`: undo `freeze()`; nothing happens in any other state."""
        with self._vessel.mutex:
            self._vessel.thaw()

    def disconnect(self) -> None:
        """Take the container off its networks: it runs, and no client reaches it; open connections break.

        Raises `BrokerUnavailable` if there is no container.
        """
        with self._vessel.mutex:
            self._vessel.disconnect()

    def reconnect(self) -> None:
        """Undo `disconnect()`, whichever process did it: the published ports return. Nothing happens in any other state."""
        with self._vessel.mutex:
            self._vessel.reconnect()

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Return when a client can connect and declare.

        Raises `BrokerUnavailable` at once if it does not run, is frozen or cut off, else after `timeout` seconds.
        """
        await_ready(self.url, timeout, self._vessel.require_usable)

    def rabbitmqctl(self, *args: str, timeout: float = 60.0) -> str:
        """Run `rabbitmqctl ARGS` in the container (seconds: it starts a virtual machine); return what it printed.

        timeout: seconds, kept by rabbitmqctl itself. Raises `BrokerUnavailable` with its output if it fails.
        """
        return command_in(self._vessel.require_living("ask"), "rabbitmqctl", "-q", "--timeout", str(int(timeout)), *args)

    def close(self) -> None:
        """Remove the container and a temporary volume, after a graceful stop where the data are kept; leave what is not ours."""
        self._vessel.close()

    def __repr__(self) -> str:
        known = self._vessel.known
        address = "no address yet" if known is None else masked(known.url)
        return f"<DockerBroker {self.name} {address}{' adopted' if self._vessel.adopted else ''}>"

    # How

    def _await_start(self, container: Container) -> None:
        began = int(time.time()) - 1
        with trouble("looking at the container"):
            container.reload()
        crashes = int(container.attrs["RestartCount"])

        def check() -> None:
            now = self._vessel.look()
            if now is None:
                raise BrokerStartFailed(f"the container {self.name} was removed while it started: is somebody clearing up?")
            if now.status == "paused":
                raise BrokerStartFailed(f"the container {self.name} was paused while it started: thaw() it")
            if now.status != "running" or int(now.attrs["RestartCount"]) > crashes:
                code = now.attrs["State"]["ExitCode"]
                raise failure(f"RabbitMQ ended while it started{f' (exit status {code})' if code else ''}", now, began)

        try:
            await_ready(self.url, self._start_timeout, check)
        except AccessRefused as error:
            raise AccessRefused(
                f"{error}\nThe broker in {self.name} does not know the user and password of its environment: RABBITMQ_DEFAULT_USER and "
                "_PASS count only when its data are new, and guest cannot log in through a published port."
            ) from error
        except BrokerUnavailable as error:
            raise failure(f"RabbitMQ runs in {self.name} but did not become usable: {error}", container, began) from error
        with trouble("looking at the container"):
            container.reload()
        self._served = started(container)

    def _answers(self) -> bool:
        try:
            await_ready(self.url, LOOK)
        except BrokerUnavailable:
            return False
        return True
