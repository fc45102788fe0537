"""The vessel of a broker: one container through its whole life, whether we made it, adopted it, or Compose did."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from threading import RLock
from typing import TYPE_CHECKING, Any

from chatlib.brokers.docker.access import Access, Membership
from chatlib.brokers.docker.compose import ComposeService
from chatlib.brokers.docker.container import create, find, launch, require_volume_free
from chatlib.brokers.docker.engine import Engine, remove, trouble
from chatlib.brokers.docker.reaper import Reaper
from chatlib.brokers.ports import Ports
from chatlib.errors import BrokerStartFailed, BrokerUnavailable, ChatError
from chatlib.waiting import until

if TYPE_CHECKING:
    from docker.models.containers import Container

__all__ = ["LIVING", "Plan", "Vessel", "networks_of", "started"]

STOP_PATIENCE = 30  # seconds from SIGTERM to SIGKILL; 4.0 takes 1.3, 3.10 takes 6.4
GONE_PATIENCE = 15.0  # seconds until a killed process is gone
LIVING = {"running", "paused", "restarting"}  # Docker's words
# pkill may be missing in an image; a shell and /proc are not. The kernel spares process 1, which is noticed below.
CRASH = 'for p in /proc/[0-9]*; do read -r name < "$p/comm" && [ "$name" = beam.smp ] && kill -9 "${p#/proc/}"; done'

_log = logging.getLogger("chatlib.brokers")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to make where there is no container to adopt."""

    name: str
    image: str
    volume: str
    temporary: bool  #: the volume goes with us
    detached: bool  #: the container does not
    ports: Ports | None
    config: tuple[str, ...]
    member: Membership | None = None  #: of a cluster


class Vessel:
    """One container; every method may be called in every state and from any thread."""

    def __init__(self, plan: Plan, service: ComposeService | None = None) -> None:
        self.plan = plan
        self.service = service
        self.adopted = False
        self.mutex = RLock()
        self.engine = Engine()
        self.engine.sweep()
        self._access: Access | None = None
        self._made = False  # whether we have made the container once
        self._closed = False
        self._process = 0  # ours, from the moment on that there may be something to remove; a forked child holds nothing
        self._reaper: Reaper | None = None
        self._cut: dict[str, Any] = {}  # the networks that `disconnect` took away

    @property
    def known(self) -> Access | None:
        """How it is reached, if that was needed before."""
        return self._access

    @property
    def access(self) -> Access:
        """How it is reached; the first use looks for a container to adopt, else chooses or reads back ports and password."""
        with self.mutex:
            if self._closed:
                raise BrokerStartFailed("this broker was closed and its temporary volume removed: make a new DockerBroker()")
            if self._access is None:
                container = self.look()
                if container is None and self.service is not None:
                    container = self._up(self.service)
                if container is None:
                    self._access = Access.new(self.engine, self.plan.name, self.plan.volume, self.plan.ports, self.plan.member)
                else:
                    self._access = Access.read(container)
                    self.adopted = self.service is None or not self.service.brought_up
            return self._access

    # Looking

    def look(self) -> Container | None:
        """Return the container as it is now, or None."""
        if self.service is not None:
            return self.service.container(self.engine)
        return find(self.engine, self.plan.name)

    def living(self) -> Container | None:
        """Return the container if its process is there, frozen or not."""
        container = self.look()
        return container if container is not None and container.status in LIVING else None

    def require_living(self, action: str) -> Container:
        """Return it, or raise `BrokerUnavailable`: nothing to `action`."""
        container = self.living()
        if container is None:
            raise BrokerUnavailable(f"the broker {self.plan.name} does not run, so there is nothing to {action}: start() it first")
        return container

    def require_usable(self) -> None:
        """Raise `BrokerUnavailable` if no client can use it before somebody does something."""
        container = self.living()
        if container is None:
            raise BrokerUnavailable(f"the broker {self.plan.name} does not run: start() it")
        if container.status == "paused":
            raise BrokerUnavailable(f"the broker {self.plan.name} is frozen: thaw() it")
        if container.status == "running" and not networks_of(container):
            raise BrokerUnavailable(f"the broker {self.plan.name} is cut off from its networks: reconnect() it")

    # Starting and ending

    def begin(self) -> Container:
        """Start the container's process, after making the container where there is none; it is not ready yet."""
        access, container, plan = self.access, self.look(), self.plan
        if container is None and self.service is not None:
            container = self._up(self.service)
        elif container is None:
            if self.adopted:
                raise BrokerStartFailed(f"somebody removed the container {plan.name}, which was not ours: make a new DockerBroker()")
            require_volume_free(self.engine, access)
            self._own()
            container = create(
                self.engine,
                access,
                plan.image,
                config=plan.config,
                owned=not plan.detached,
                temporary=plan.temporary,
                fresh=not self._made,
                member=plan.member,
            )
            self._made = True
        if container.status not in LIVING:
            require_volume_free(self.engine, access)
            launch(container, access)
        return container

    def undo_begin(self) -> None:
        """After a failed start: remove a container of ours (the volume stays until `close`), end one that is not."""
        try:
            container = self.look()
            if container is not None and self._made and self.service is None:
                remove(container)
            elif container is not None:
                self.kill()
        except ChatError as error:  # the error that made the start fail is the one to tell
            _log.debug("after a failed start: %s", error)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after STOP_PATIENCE."""
        container = self.living()
        if container is not None:
            self.thaw()  # or it would never hear it
            with trouble("stopping the container"):
                container.stop(timeout=STOP_PATIENCE)

    def kill(self) -> None:
        """SIGKILL to the container; returns when it is gone. No restart policy brings it back."""
        from docker.errors import APIError

        container = self.living()
        if container is None:
            return
        with trouble("killing the container"):
            try:
                container.kill()
            except APIError:
                container.reload()
                if container.status in LIVING:
                    raise
        if not until(lambda: (now := self.look()) is None or now.status not in LIVING, GONE_PATIENCE):
            raise BrokerUnavailable(f"the container {container.name} does not end after SIGKILL: see `docker ps` and the engine's log")

    def crash(self) -> None:
        """SIGKILL to RabbitMQ inside; returns when it is gone, or back already by the container's restart policy."""
        container = self.require_living("crash")
        before = started(container)
        with trouble("killing RabbitMQ in the container"):
            container.exec_run(["sh", "-c", CRASH], user="root", detach=True)  # the answer would break off with the container
        if not until(lambda: (now := self.look()) is None or now.status != "running" or started(now) != before, GONE_PATIENCE):
            raise BrokerUnavailable(
                f"RabbitMQ in {container.name} survived: there is no process beam.smp that something inside can kill. Use kill()."
            )

    def close(self) -> None:
        """Remove what is ours: gracefully where the data are kept, by SIGKILL where they go too; leave what is not ours."""
        with self.mutex:
            if self.service is not None:
                self.service.down()
            elif self._process == os.getpid():
                if not self.plan.temporary:
                    self.stop()
                self._closed = self.plan.temporary
            self.release()
            self._made = False
            self.engine.close()

    def release(self) -> None:
        """Remove container and temporary volume at once. An engine that does not answer is no error: a later sweep does it."""
        from docker.errors import NotFound

        if self._process != os.getpid():
            return
        self._process = 0
        name, volume = self.plan.name, self._temporary_volume
        try:
            with trouble("removing the broker's container"):
                container = find(self.engine, name)
                if container is not None:
                    remove(container)
                if volume:
                    with contextlib.suppress(NotFound):
                        remove(self.engine.client.volumes.get(volume))
            if self._reaper is not None:
                self._reaper.dismiss()
                self._reaper = None
        except ChatError as error:
            _log.warning("the container %s could not be removed now, and will be when the next DockerBroker is made: %s", name, error)

    # Faults that leave the process alive

    def freeze(self) -> None:
        """`docker pause`."""
        container = self.require_living("freeze")
        if container.status != "paused":
            with trouble("pausing the container"):
                container.pause()

    def thaw(self) -> None:
        """`docker unpause`, if it is paused."""
        container = self.look()
        if container is not None and container.status == "paused":
            with trouble("unpausing the container"):
                container.unpause()

    def disconnect(self) -> None:
        """Take it off all its networks."""
        container = self.look()
        if container is None:
            raise BrokerUnavailable(f"the broker {self.plan.name} has no container to disconnect: start() it first")
        networks = networks_of(container)
        with trouble("disconnecting the container"):
            for network in networks:
                self.engine.client.networks.get(network).disconnect(container)
        self._cut = networks or self._cut

    def reconnect(self) -> None:
        """Put it back on the networks that it was on, or on the one that it was made with."""
        container = self.look()
        if container is None or networks_of(container):
            return
        mode = container.attrs["HostConfig"]["NetworkMode"]
        networks = self._cut or {"bridge" if mode == "default" else mode: {}}
        with trouble("connecting the container"):
            for network, settings in networks.items():
                aliases = [alias for alias in settings.get("Aliases") or [] if alias != container.short_id]
                self.engine.client.networks.get(network).connect(container, aliases=aliases or None)
        self._cut = {}

    def move(self, network: str) -> None:
        """Take it to that network, off all others, under the names that it has; open connections break."""
        container = self.look()
        if container is None:
            raise BrokerUnavailable(f"the broker {self.plan.name} has no container to move: start() it first")
        networks = networks_of(container)
        names = {alias for settings in networks.values() for alias in settings.get("Aliases") or []} - {container.short_id}
        with trouble(f"moving the container to the network {network}"):
            for each in networks:
                if each != network:
                    self.engine.client.networks.get(each).disconnect(container)
            if network not in networks:
                self.engine.client.networks.get(network).connect(container, aliases=sorted(names | {self.access.hostname}))

    # How

    @property
    def _temporary_volume(self) -> str:
        return self.plan.volume if self.plan.temporary else ""

    def _own(self) -> None:
        """From now on there may be something that must not outlive this process."""
        if not self.plan.detached and self._process != os.getpid():
            self._process = os.getpid()
            self._reaper = Reaper(self.plan.name, self._temporary_volume)

    def _up(self, service: ComposeService) -> Container:
        service.up(self.engine)
        container = service.container(self.engine)
        if container is None:
            raise BrokerStartFailed(f"{service.file} was brought up and has no container for its service {service.service!r}")
        return container


def networks_of(container: Container) -> dict[str, Any]:
    """Return the networks that the container is on, by name, with what the engine says of each."""
    return dict(container.attrs["NetworkSettings"]["Networks"] or {})


def started(container: Container) -> str:
    """Return when its process was started, a time stamp that no other start has."""
    return str(container.attrs["State"]["StartedAt"])
