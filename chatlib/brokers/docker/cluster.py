"""DockerCluster: several RabbitMQ containers that are one broker, of our own or from a docker-compose.yml."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from chatlib.brokers.docker.access import Membership
from chatlib.brokers.docker.broker import IMAGE, NAME, DockerBroker
from chatlib.brokers.docker.engine import Engine
from chatlib.brokers.docker.segments import Segments
from chatlib.brokers.docker.vessel import Plan, Vessel
from chatlib.brokers.members import BrokerCluster
from chatlib.brokers.node import LARGEST_WAL, SUSPECT, TICK_TIME
from chatlib.brokers.ports import choose_distinct
from chatlib.errors import ChatError, InvalidName
from chatlib.waiting import seconds

__all__ = ["DockerCluster"]

SERVICES = ("rabbit1", "rabbit2", "rabbit3")  # of our docker-compose.yml, profile "cluster"

_log = logging.getLogger("chatlib.brokers")


class DockerCluster(BrokerCluster[DockerBroker]):
    """RabbitMQ containers on a network of their own, joined to one broker whose queues are replicated.

    nodes: how many, an odd number. image, config: as of a `DockerBroker`, for each node. name: begins the names of the containers.
    start_timeout: seconds for all nodes to come up.

    A partition moves containers to another network. Containers, network and data go with `close()`, when the object is collected
    and when the process ends, in whatever way. Raises as `DockerBroker` where no engine can be used.
    """

    def __init__(
        self,
        nodes: int = 3,
        *,
        image: str = IMAGE,
        name: str | None = None,
        config: Iterable[str] = (),
        start_timeout: float = 180.0,
    ) -> None:
        start_timeout = seconds(start_timeout, "start_timeout")
        if not 1 <= nodes <= 7:
            raise ValueError(f"a cluster has 1 to 7 nodes, not {nodes}")
        if name is not None and not NAME.fullmatch(f"{name}-node0"):
            raise InvalidName(f"a cluster's name begins names of containers, so it has up to 57 of a-z, A-Z, 0-9, '_.-', not {name!r}")
        name = name or f"chatlib-{secrets.token_hex(4)}"
        hosts = [f"{name}-node{index}" for index in range(nodes)]
        user, password, cookie = f"chat-{secrets.token_hex(3)}", secrets.token_urlsafe(18), secrets.token_hex(16).upper()
        lines = (*_joining(hosts), *config)
        vessels = [
            Vessel(Plan(host, image, f"{host}-data", True, False, ports, lines, Membership(name, host, user, password, cookie)))
            for host, ports in zip(hosts, choose_distinct(nodes), strict=True)
        ]
        self._own(name, [DockerBroker.of(vessel, start_timeout) for vessel in vessels], start_timeout, own_network=True)

    @classmethod
    def from_compose(
        cls,
        file: str | os.PathLike[str] | None = None,
        *,
        services: Sequence[str] = SERVICES,
        project: str | None = None,
        start_timeout: float = 180.0,
    ) -> Self:
        """Return the cluster that these services of a Compose file are: as `DockerBroker.from_compose`, for each of them."""
        start_timeout = seconds(start_timeout, "start_timeout")
        cluster = cls.__new__(cls)
        path = None if file is None else Path(file)
        nodes = [DockerBroker.from_compose(path, service=each, project=project, start_timeout=start_timeout) for each in services]
        cluster._own(f"chatlib-{secrets.token_hex(4)}", nodes, start_timeout, own_network=False)
        return cluster

    def _own(self, name: str, nodes: Sequence[DockerBroker], start_timeout: float, *, own_network: bool) -> None:
        super().__init__()
        self._name = name
        self._nodes = tuple(nodes)
        self.start_timeout = start_timeout
        self._engine = Engine()
        self._segments = Segments(name, own=own_network)
        weakref.finalize(self, _abandon, [node._vessel for node in nodes], self._segments, self._engine)  # when collected, and at exit

    @property
    def name(self) -> str:
        """A short name for people; the names of the containers begin with it, unless they are those of a Compose file."""
        return self._name

    @property
    def nodes(self) -> tuple[DockerBroker, ...]:
        """The nodes, each a `DockerBroker`."""
        return self._nodes

    def close(self) -> None:
        """Remove containers, networks and data; what was there before is left alone, on its own network."""
        with self._mutex, contextlib.ExitStack() as stack:
            stack.callback(self._engine.close)
            stack.callback(self._segments.release, self._engine)
            for node in self._nodes:  # what brought a Compose project up, the first, takes it down, last of all
                stack.callback(node.close)
            self._mend()
            stopping = [node for node in self._nodes if (service := node._vessel.service) is not None and service.brought_up]
            if stopping:  # all at once: one after the other, the last ones are a minority, which takes them long to end
                self._each(stopping, lambda node: node.stop())

    def __repr__(self) -> str:
        return f"<DockerCluster {self._name} of {len(self._nodes)} nodes>"

    # How

    def _prepare(self) -> None:
        self._segments.prepare(self._engine)
        for node in self._nodes:
            _ = node.url  # one after the other, since Compose makes a network for the first

    def _bring_up(self, chosen: Sequence[DockerBroker]) -> None:
        begun = [node for node in chosen if not node.is_running]

        def undo(node: DockerBroker) -> None:
            if node in begun:
                node._vessel.kill()  # without the lock, which its start() holds

        self._each(chosen, lambda node: node.start(), undo)

    def _divide(self, parts: Sequence[Sequence[int]]) -> None:
        self._segments.arrange(self._engine, [[self._nodes[index]._vessel for index in part] for part in parts])

    def _join(self) -> None:
        self._segments.unite(self._engine, [node._vessel for node in self._nodes])


def _joining(hosts: Sequence[str]) -> list[str]:
    """Return the lines of rabbitmq.conf by which these hosts find each other; those of a `LocalCluster` in another language."""
    return [
        "cluster_formation.peer_discovery_backend = classic_config",
        *(f"cluster_formation.classic_config.nodes.{number} = rabbit@{host}" for number, host in enumerate(hosts, 1)),
        "cluster_partition_handling = pause_minority",
        f"net_ticktime = {TICK_TIME}",
        f"raft.adaptive_failure_detector.poll_interval = {SUSPECT}",
        f"raft.wal_max_size_bytes = {LARGEST_WAL}",
    ]


def _abandon(vessels: Sequence[Vessel], segments: Segments, engine: Engine) -> None:
    try:
        for vessel in vessels:
            vessel.release()
        segments.release(engine)
    except ChatError as error:
        _log.warning("the networks of %s could not be removed now, and will be when the next broker is made: %s", segments.name, error)
