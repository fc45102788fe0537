"""DockerBroker: a RabbitMQ in a container as an object, of our own, adopted, or from a docker-compose.yml.

Ready means that a client can connect and declare, as for every broker here. No Docker health check is set: its command starts a
virtual machine every time, 7-9 s of processor time for what a handshake tells in milliseconds (measured, RabbitMQ 4.0, 2 cores).
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from threading import Event, RLock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from chatlib.brokers import diagnosis
from chatlib.brokers.base import BrokerState, masked
from chatlib.brokers.compose import ComposeService
from chatlib.brokers.container import Access, create, find, launch, networks_of, require_volume_free
from chatlib.brokers.engine import Engine, remove, trouble
from chatlib.brokers.ports import Ports
from chatlib.brokers.readiness import await_ready
from chatlib.errors import AccessRefused, BrokerStartFailed, BrokerUnavailable, ChatError, InvalidName

if TYPE_CHECKING:
    from docker.models.containers import Container

__all__ = ["IMAGE", "DockerBroker"]

IMAGE = "rabbitmq:4-management"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
STOP_PATIENCE = 30  # seconds from SIGTERM to SIGKILL; 4.0 takes 1.3, 3.10 takes 6.4
GONE_PATIENCE = 15.0  # seconds until a killed container is gone
LOOK = 1.0  # seconds that `state` waits for an answer of a broker that has not served us yet
LIVING = {"running", "paused", "restarting"}  # Docker's words
# pkill may be missing in an image; a shell and /proc are not. PID 1 is spared by the kernel, which is found out below.
CRASH = 'for p in /proc/[0-9]*; do read -r name < "$p/comm" && [ "$name" = beam.smp ] && kill -9 "${p#/proc/}"; done'

_log = logging.getLogger("chatlib.brokers")


class DockerBroker:
    """A RabbitMQ in a Docker container; its data lie in a volume, its ports are on loopback and stay for as long as the volume.

    image: any RabbitMQ image with the management plugin; pulled if it is not here.
    name: of the container; by default a fresh one. A container of that name that is there, running or not, is adopted: used
        and broken as any other, and left alone by `close()`.
    volume: a named volume that is kept, and with it ports and password. None: a temporary one that goes with the container.
    ports: fixed ports instead of free ones, `Ports(amqp=5673)`; what is 0 is chosen below 32768.
    config: more lines of rabbitmq.conf, such as "vm_memory_high_watermark.relative = 0.1".
    detached: the container (and its volume) outlives this process; needs a name, by which any process adopts it later.
    start_timeout: seconds that `start()` waits for a broker that neither serves nor ends.

    Container and temporary volume go with `close()`, when the object is collected and when Python ends. What a SIGKILLed process
    left is removed when the next DockerBroker is made.
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
        for given in (name, volume):
            if given is not None and not NAME.fullmatch(given):
                raise InvalidName(f"a container's or volume's name has 1 to 63 of a-z, A-Z, 0-9, '_', '.', '-', not {given!r}")
        if detached and name is None:
            raise ValueError("a detached broker needs a name, by which it is found again")
        self._image = image
        self._name = name or f"chatlib-{secrets.token_hex(6)}"
        self._volume = volume or f"{self._name}-data"
        self._temporary = volume is None and not detached
        self._wanted_ports = ports
        self._config = tuple(config)
        self._detached = detached
        self._start_timeout = start_timeout
        self._service: ComposeService | None = None
        self._access: Access | None = None
        self._adopted = False
        self._created = False  # whether this object has made the container once
        self._closed = False
        self._served = ""  # the start (Docker's time stamp) that has served a client
        self._networks: dict[str, Any] = {}  # what `disconnect()` took away
        self._mutex = RLock()
        self._engine = Engine()
        self._engine.sweep()
        self._holding = _Holding(self._engine)
        self._finalizer = weakref.finalize(self, self._holding.release)  # when this object is collected, and at exit

    @classmethod
    def from_compose(
        cls, file: str | os.PathLike[str] | None = None, *, service: str = "broker", project: str | None = None, **options: Any
    ) -> Self:
        """Return the broker that is a service of a Compose file: adopted if it is up, else brought up by `start()`.

        file: by default the docker-compose.yml of this folder or above, else the project's. options: `start_timeout`.
        `close()` leaves an adopted one alone and takes down what it brought up; its named volume stays either way.
        """
        broker = cls(**options)
        broker._service = ComposeService(None if file is None else Path(file), service, project)
        broker._name = f"{broker._service.file.parent.name}-{service}"
        broker._temporary = False
        return broker

    # What it is

    @property
    def name(self) -> str:
        """The container's name."""
        return self._name

    @property
    def url(self) -> str:
        """The AMQP address with user and password; stays the same through restarts, and for a kept volume for good."""
        return self._known().url

    @property
    def management_url(self) -> str:
        """The root of the management API and pages; log in as in `url`."""
        return self._known().management_url

    @property
    def ports(self) -> Ports:
        """Those published on this machine: `amqp` and `management`; the others are 0."""
        return self._known().ports

    @property
    def volume(self) -> str:
        """The named volume with the data, or "" where an adopted container has none."""
        return self._known().volume

    @property
    def image(self) -> str:
        """The image that a container of ours is made from."""
        return self._image

    @property
    def node_name(self) -> str:
        """Erlang's name of the node, for rabbitmqctl."""
        return f"rabbit@{self._known().hostname}"

    @property
    def adopted(self) -> bool:
        """Whether the container was there already, so that `close()` leaves it alone."""
        self._known()
        return self._adopted

    @property
    def detached(self) -> bool:
        """Whether it outlives this process."""
        return self._detached

    @property
    def state(self) -> BrokerState:
        """Where it is now. Where the engine itself does not answer: RUNNING if the broker does, else STOPPED."""
        try:
            container = self._container()
        except BrokerStartFailed:
            return BrokerState.RUNNING if self._access is not None and self._answers() else BrokerState.STOPPED
        if container is None or container.status not in LIVING:
            return BrokerState.STOPPED
        if container.status == "paused":
            return BrokerState.FROZEN
        if container.status == "running" and (self._served == _started(container) or self._answers()):
            self._served = _started(container)
            return BrokerState.RUNNING
        return BrokerState.STARTING

    @property
    def is_running(self) -> bool:
        """Whether the container's process is there, frozen or cut off included."""
        return self.state is not BrokerState.STOPPED

    @property
    def is_connected(self) -> bool:
        """Whether the container is on a network; see `disconnect`."""
        container = self._container()
        return container is not None and bool(networks_of(container))

    @property
    def pid(self) -> int | None:
        """The container's first process, as the engine's machine counts them, or None."""
        container = self._container()
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
            "image": self.image,
            "volume": self.volume,
            "adopted": self.adopted,
            "detached": self.detached,
        }

    def logs(self, count: int | None = None) -> str:
        """Return what the container has said, all of it or the last `count` lines; "" where there is no container."""
        container = self._container()
        if container is None:
            return ""
        with trouble("reading the container's log"):
            return container.logs(tail="all" if count is None else count).decode("utf-8", "replace")

    def log_lines(self, count: int = 50) -> list[str]:
        """Return the last `count` lines of the broker's log, oldest first."""
        return self.logs(count).splitlines() if count > 0 else []

    # What can be done with it

    def start(self) -> None:
        """Start it, or thaw and reconnect it if that is what it lacks; returns when a client can connect and declare.

        Raises `BrokerNotInstalled` (no engine, no image) or `BrokerStartFailed` (port taken, engine stopped, RabbitMQ ended ...)
        with RabbitMQ's own log lines, as soon as it has ended.
        """
        with self._mutex:
            access, container = self._known(), self._container()
            begun = container is None or container.status not in LIVING
            try:
                if begun:
                    container = self._begun(container, access)
                assert container is not None
                if container.status == "paused":
                    self.thaw()
                self.reconnect()
                self._await_start(container)
            except BaseException:
                if begun:  # also on Ctrl-C: nothing half-started stays behind
                    self._undo_start()
                raise

    def stop(self) -> None:
        """Stop it gracefully: SIGTERM, and SIGKILL after 30 s. The data stays."""
        with self._mutex:
            container = self._living()
            if container is not None:
                self.thaw()  # or it would never hear it
                with trouble("stopping the container"):
                    container.stop(timeout=STOP_PATIENCE)

    def kill(self) -> None:
        """SIGKILL to the container, as in a crash; returns when it is gone. Docker does not bring it back: `start()` does."""
        with self._mutex:
            container = self._living()
            if container is not None:
                self._kill(container)

    def crash(self) -> None:
        """SIGKILL to RabbitMQ inside the container; returns when it is gone.

        Docker brings it back by its restart policy ("on-failure"; "unless-stopped" in the Compose file), as it would after a real
        crash: wait for it with `wait_ready()`. An adopted container without such a policy stays down.
        """
        with self._mutex:
            container = self._require_living("crash")
            before = _start_of(container)
            with trouble("killing RabbitMQ in the container"):
                # detached: the answer would break off with the container
                container.exec_run(["sh", "-c", CRASH], user="root", detach=True)
            if not self._until(lambda now: now is None or _start_of(now) != before or now.status != "running"):
                raise BrokerUnavailable(
                    f"RabbitMQ in {self.name} survived: there is no beam.smp, or it is the container's first process, which nothing "
                    "inside can kill. Use kill()."
                )

    def restart(self) -> None:
        """`stop()` and `start()`."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """`docker pause`: connections hang, and even new ones are accepted (by the proxy) and never answered.

        Raises `BrokerUnavailable` if it does not run.
        """
        with self._mutex:
            container = self._require_living("freeze")
            if container.status != "paused":
                with trouble("pausing the container"):
                    container.pause()

    def thaw(self) -> None:
        """`docker unpause`: undo `freeze()`; nothing happens in any other state."""
        with self._mutex:
            container = self._container()
            if container is not None and container.status == "paused":
                with trouble("unpausing the container"):
                    container.unpause()

    def disconnect(self) -> None:
        """Take the container off its networks: it runs, and no client reaches it; open connections break.

        Raises `BrokerUnavailable` if there is no container.
        """
        with self._mutex:
            container = self._container()
            if container is None:
                raise BrokerUnavailable(f"{self!r} has no container to disconnect: start() it first")
            networks = networks_of(container)
            with trouble("disconnecting the container"):
                for network in networks:
                    self._engine.client.networks.get(network).disconnect(container)
            self._networks = networks or self._networks

    def reconnect(self) -> None:
        """Undo `disconnect()`, whichever process did it; the published ports return. Clients find it within a moment."""
        with self._mutex:
            container = self._container()
            if container is None or networks_of(container):
                return
            mode = container.attrs["HostConfig"]["NetworkMode"]
            networks = self._networks or {"bridge" if mode == "default" else mode: {}}
            with trouble("connecting the container"):
                for network, settings in networks.items():
                    aliases = [alias for alias in settings.get("Aliases") or [] if alias != container.short_id]
                    self._engine.client.networks.get(network).connect(container, aliases=aliases or None)
            self._networks = {}

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Return when a client can connect and declare.

        Raises `BrokerUnavailable` at once if it does not run, is frozen or cut off, else after `timeout` seconds.
        """
        await_ready(self.url, timeout, self._require_usable)

    def rabbitmqctl(self, *args: str, timeout: float = 60.0) -> str:
        """Run `rabbitmqctl ARGS` in the container (seconds: it starts a virtual machine); return what it printed.

        timeout: seconds, kept by rabbitmqctl itself. Raises `BrokerUnavailable` with its output if it fails.
        """
        container = self._require_living("ask by rabbitmqctl")
        with trouble("running rabbitmqctl in the container"):
            command = ["rabbitmqctl", "-q", "--timeout", str(int(timeout)), *args]
            code, (out, err) = container.exec_run(command, user="rabbitmq", demux=True)
        if code:
            said = (err or out or b"").decode("utf-8", "replace").strip()
            raise BrokerUnavailable(f"rabbitmqctl {' '.join(args)} failed ({code}): {said}")
        return (out or b"").decode("utf-8", "replace")

    def close(self) -> None:
        """Remove the container and a temporary volume, after a graceful stop where the data are kept; leave what is not ours."""
        with self._mutex:
            if self._service is not None:
                self._service.down()
            elif not self._temporary and self._holding.container:
                self.stop()
            self._holding.release()
            self._closed = self._temporary and not self._adopted
            self._created = False
            self._engine.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        known = self._access
        address = "no address yet" if known is None else masked(known.url)
        return f"<DockerBroker {self.name} {address}{' detached' if self.detached else ''}{' adopted' if self._adopted else ''}>"

    # How

    def _known(self) -> Access:
        """Return how it is reached; the first use looks for a container to adopt, else chooses or reads back ports and password."""
        with self._mutex:
            if self._closed:
                raise BrokerStartFailed("this broker was closed and its temporary volume removed: make a new DockerBroker()")
            if self._access is None:
                container = self._container()
                if container is None and self._service is not None:
                    self._service.up(self._engine)
                    container = self._container()
                    if container is None:
                        raise BrokerStartFailed(f"{self._service.file} was brought up and has no container for {self._service.service!r}")
                if container is None:
                    self._access = Access.new(self._engine, self._name, self._volume, self._wanted_ports)
                else:
                    self._access, self._adopted = Access.read(container), True
                    self._name = self._access.name
            return self._access

    def _container(self) -> Container | None:
        if self._service is not None:
            return self._service.container(self._engine)
        return find(self._engine, self._name)

    def _living(self) -> Container | None:
        container = self._container()
        return container if container is not None and container.status in LIVING else None

    def _require_living(self, action: str) -> Container:
        container = self._living()
        if container is None:
            raise BrokerUnavailable(f"{self!r} does not run, so there is nothing to {action}: start() it first")
        return container

    def _begun(self, container: Container | None, access: Access) -> Container:
        """Return the container with its first process started: made anew where there is none."""
        if container is None and self._service is not None:
            self._service.up(self._engine)
            container = self._container()
        elif container is None:
            if self._adopted:
                raise BrokerStartFailed(f"somebody removed the container {self.name}, which was not ours: make a new DockerBroker()")
            require_volume_free(self._engine, access)
            if not self._detached:
                self._holding.take(access.name, access.volume if self._temporary else "")
            container = create(
                self._engine,
                access,
                self._image,
                config=self._config,
                owned=not self._detached,
                temporary=self._temporary,
                fresh=not self._created,
            )
            self._created = True
        if container is None:
            raise BrokerStartFailed(f"the container {self.name} vanished while it was started: is somebody removing it?")
        if container.status not in LIVING:
            require_volume_free(self._engine, access)
            launch(container, access)
        return container

    def _await_start(self, container: Container) -> None:
        began = time.time()
        with trouble("looking at the container"):
            container.reload()
        crashes = int(container.attrs["RestartCount"])

        def check() -> None:
            now = self._container()
            if now is not None and now.status == "running" and int(now.attrs["RestartCount"]) == crashes:
                return
            if now is None:
                raise BrokerStartFailed(f"the container {self.name} was removed while it started")
            if now.status == "paused":
                raise BrokerStartFailed(f"the container {self.name} was paused while it started: thaw() it")
            code = now.attrs["State"]["ExitCode"]
            raise self._failure(f"RabbitMQ ended while it started{f' (exit status {code})' if code else ''}", now, began)

        try:
            await_ready(self.url, self._start_timeout, check)
        except AccessRefused as error:
            if not self._adopted:
                raise
            raise AccessRefused(
                f"{error}\nThe container {self.name} was made with another user or password than its environment says "
                "(guest cannot log in through a published port): set RABBITMQ_DEFAULT_USER and _PASS when it is made."
            ) from error
        except BrokerUnavailable as error:
            raise self._failure(f"RabbitMQ runs in {self.name} but did not become usable: {error}", container, began) from error
        container.reload()
        self._served = _started(container)

    def _failure(self, what: str, container: Container, began: float) -> BrokerStartFailed:
        with trouble("reading the container's log"):
            text = container.logs(since=int(began) - 1, tail=400).decode("utf-8", "replace")
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        return BrokerStartFailed(f"{what}. {diagnosis.advice(lines)}".rstrip(), diagnosis.telling_lines(lines))

    def _undo_start(self) -> None:
        """After a failed start: remove a container of ours (the volume stays until `close()`), end one that is not."""
        try:
            container = self._container()
            if container is None:
                return
            if self._holding.container or (self._detached and self._created):
                remove(container)
            elif container.status in LIVING:
                self._kill(container)
        except ChatError as error:  # the first error is the one to tell
            _log.debug("after a failed start: %s", error)

    def _kill(self, container: Container) -> None:
        from docker.errors import APIError

        with trouble("killing the container"):
            try:
                container.kill()
            except APIError:
                container.reload()
                if container.status == "paused":  # some engines refuse that
                    container.unpause()
                    container.kill()
                elif container.status in LIVING:
                    raise
        if not self._until(lambda now: now is None or now.status not in LIVING):
            raise BrokerUnavailable(f"the container {self.name} does not end after SIGKILL: look at `docker ps` and the engine's log")

    def _until(self, condition: Callable[[Container | None], bool]) -> bool:
        """Whether the container meets the condition within GONE_PATIENCE."""
        deadline, pause = time.monotonic() + GONE_PATIENCE, Event()
        while not condition(self._container()):
            if time.monotonic() > deadline:
                return False
            pause.wait(0.02)
        return True

    def _answers(self) -> bool:
        try:
            await_ready(self.url, LOOK)
        except BrokerUnavailable:
            return False
        return True

    def _require_usable(self) -> None:
        container = self._container()
        if container is None or container.status not in LIVING:
            raise BrokerUnavailable(f"{self!r} does not run: start() it")
        if container.status == "paused":
            raise BrokerUnavailable(f"{self!r} is frozen: thaw() it")
        if container.status == "running" and not networks_of(container):
            raise BrokerUnavailable(f"{self!r} is cut off from its networks: reconnect() it")


class _Holding:
    """What this process has made on the engine and must not leave behind; a forked child holds nothing."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._process = os.getpid()
        self.container = self._volume = ""

    def take(self, container: str, volume: str) -> None:
        """From now on these go when the process goes; volume: "" for one that is kept."""
        self._process, self.container, self._volume = os.getpid(), container, volume

    def release(self) -> None:
        """Remove them. An engine that does not answer is no error: the next DockerBroker sweeps, by the labels."""
        from docker.errors import NotFound

        if self._process != os.getpid() or not self.container:
            return
        name, volume = self.container, self._volume
        self.container = self._volume = ""
        try:
            with trouble("removing the broker's container"):
                container = find(self._engine, name)
                if container is not None:
                    remove(container)
                if volume:
                    try:
                        remove(self._engine.client.volumes.get(volume))
                    except NotFound:
                        pass
        except ChatError as error:
            _log.warning("the container %s could not be removed now, and will be when the next DockerBroker is made: %s", name, error)


def _started(container: Container) -> str:
    return str(container.attrs["State"]["StartedAt"])


def _start_of(container: Container) -> tuple[int, str]:
    """What changes with every start of the container's process."""
    return int(container.attrs["State"]["Pid"]), _started(container)
