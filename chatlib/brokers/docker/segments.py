"""The networks of a cluster of containers: one on which all nodes find each other, and one for each part that is cut off."""

from __future__ import annotations

import os
from collections.abc import Sequence

from chatlib.brokers.docker.engine import OWNER_LABEL, Engine, owner_label, remove, trouble
from chatlib.brokers.docker.reaper import NETWORKS_SCRIPT, Reaper
from chatlib.brokers.docker.vessel import Vessel, networks_of

__all__ = ["Segments"]

LABEL = "chatlib.cluster"  # on a network: the cluster that it is of


class Segments:
    """name: of the cluster. own: whether it has a network of its own, of that name; else its containers are on one already."""

    def __init__(self, name: str, *, own: bool) -> None:
        self.name = name
        self._own = own
        self._home = name if own else ""
        self._reaper: Reaper | None = None
        self._process = 0  # ours, from the moment on that there may be something to remove
        self._cut = 0  # networks made for parts

    def prepare(self, engine: Engine) -> None:
        """Make the network of the cluster, if it has one and it is not there."""
        if self._own and not self._exists(engine, self.name):
            self._make(engine, self.name)

    def arrange(self, engine: Engine, parts: Sequence[Sequence[Vessel]]) -> None:
        """Put each part on a network of its own; the largest part stays where all were."""
        self._find_home(parts)
        largest = max(parts, key=len)
        for part in parts:
            home = self._home
            if part is not largest:
                self._cut += 1
                home = f"{self.name}-part{self._cut}"
                self._make(engine, home)
            for vessel in part:
                if vessel.look() is not None:
                    vessel.move(home)

    def unite(self, engine: Engine, vessels: Sequence[Vessel]) -> None:
        """Put all on the network of the cluster again."""
        if not self._cut:
            return
        for vessel in vessels:
            if vessel.look() is not None:
                vessel.move(self._home)
        with trouble("removing networks"):
            for network in engine.client.networks.list(filters={"label": f"{LABEL}={self.name}"}):
                if network.name != self._home:
                    remove(network)
        self._cut = 0

    def release(self, engine: Engine) -> None:
        """Remove every network that was made; call it when the containers are gone."""
        if self._process != os.getpid():
            return
        with trouble("removing networks"):
            for network in engine.client.networks.list(filters={"label": f"{LABEL}={self.name}"}):
                remove(network)
        self._process = 0
        if self._reaper is not None:
            self._reaper.dismiss()
            self._reaper = None

    def _find_home(self, parts: Sequence[Sequence[Vessel]]) -> None:
        if not self._home:
            containers = [container for part in parts for vessel in part if (container := vessel.look()) is not None]
            self._home = next(network for container in containers for network in networks_of(container))

    def _make(self, engine: Engine, name: str) -> None:
        if self._reaper is None or self._process != os.getpid():
            self._process = os.getpid()
            self._reaper = Reaper(f"{LABEL}={self.name}", "", script=NETWORKS_SCRIPT)
        with trouble(f"making the network {name}"):
            engine.client.networks.create(name, driver="bridge", labels={LABEL: self.name, OWNER_LABEL: owner_label()})

    @staticmethod
    def _exists(engine: Engine, name: str) -> bool:
        with trouble(f"looking for the network {name}"):
            return any(network.name == name for network in engine.client.networks.list(names=[name]))
