"""LocalCluster: several private RabbitMQ nodes that are one broker, without root and without Docker.

With RabbitMQ 3.10.8 on 2 busy cores three nodes are up after 18 to 41 s and take about 140 MB each; after SIGKILL of the node that
leads the queues in use, sending goes on within 0.4 to 1.5 s, and the node is back 9 to 17 s after its start was asked for.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from chatlib.brokers import erlang, identity, registry
from chatlib.brokers.base import BrokerState
from chatlib.brokers.identity import Identity
from chatlib.brokers.installation import find_installation
from chatlib.brokers.keeper import folder_trouble, require_plain
from chatlib.brokers.local import LocalBroker
from chatlib.brokers.mapper import Mapper
from chatlib.brokers.members import BrokerCluster
from chatlib.brokers.ports import Ports, choose_distinct, choose_ports
from chatlib.errors import BrokerStartFailed, BrokerUnavailable
from chatlib.waiting import seconds

__all__ = ["LocalCluster"]

MOST = 7  # nodes; more members make a quorum queue slower, not safer


class LocalCluster(BrokerCluster[LocalBroker]):
    """Private RabbitMQ nodes, ordinary processes of this user, joined to one broker whose queues are replicated.

    nodes: how many, 1 to 7; an odd number, since a majority must run and see each other.
    data_dir: where they live; None: a temporary folder that goes with `close()` or when Python ends; else the data, the ports and
        the password stay, as with a `LocalBroker`.
    name: for people. plugins, config: as of a `LocalBroker`, for each node. start_timeout: seconds for all nodes to come up.

    Each node takes about 150 MB of memory. Give `chatlib.connect` the cluster itself: the chat moves to a living node by itself.
    Whoever starts a cluster owns it, as with a `LocalBroker`: when the object is collected or its process ends, it all ends.
    """

    def __init__(
        self,
        nodes: int = 3,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        name: str | None = None,
        plugins: Iterable[str] | None = None,
        config: Iterable[str] | None = None,
        start_timeout: float = 120.0,
    ) -> None:
        super().__init__()
        if not 1 <= nodes <= MOST:
            raise ValueError(f"a cluster has 1 to {MOST} nodes, not {nodes}")
        self._count = nodes
        self._data_dir = None if data_dir is None else Path(data_dir).expanduser().absolute()
        self._name = name or (self._data_dir.name if self._data_dir is not None else "cluster")
        self._plugins = None if plugins is None else tuple(plugins)
        self._config = None if config is None else tuple(config)
        self.start_timeout = seconds(start_timeout, "start_timeout")
        self._nodes: tuple[LocalBroker, ...] = ()
        self._mapper: Mapper | None = None
        self._closed = False

    @property
    def name(self) -> str:
        """A short name for people."""
        return self._name

    @property
    def nodes(self) -> tuple[LocalBroker, ...]:
        """The nodes, each a `LocalBroker`; the first use chooses their ports. Raises `BrokerStartFailed`."""
        if self._nodes:  # without waiting for a start that is under way
            return self._nodes
        with self._mutex:
            if self._closed:
                raise BrokerStartFailed("this cluster was closed and its temporary folder removed: make a new LocalCluster()")
            if not self._nodes:
                self._nodes = self._made()
            return self._nodes

    def close(self) -> None:
        """Stop all nodes and give everything up; a temporary folder is removed."""
        with self._mutex:
            if self._mapper is None or self._mapper.ended:  # never used; closed already; or a forked child, which owns nothing
                return
            self._each(self._nodes, lambda node: node.kill() if self._data_dir is None else node.stop())
            for node in self._nodes:
                node.close()
            self._mapper.end()
            self._closed = self._data_dir is None
            self._nodes, self._mapper = (), None

    def __repr__(self) -> str:
        return f"<LocalCluster {self._name} of {self._count} nodes>"

    # How

    def _made(self) -> tuple[LocalBroker, ...]:
        with folder_trouble(self._data_dir):
            folder = self._data_dir or Path(tempfile.mkdtemp(prefix=f"{registry.TEMPORARY_PREFIX}cluster-")).absolute()
            require_plain(folder)
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            mapper = Mapper(folder, temporary=self._data_dir is None)
        self._mapper = mapper
        try:
            with folder_trouble(folder):
                members = _members(folder, self._count, self._name)
            nodes = tuple(
                LocalBroker(member.folder, plugins=self._plugins, config=self._config, start_timeout=self.start_timeout)
                for member in members
            )
        except BaseException:
            mapper.end()
            self._mapper = None
            raise
        # at exit and when this object is collected: the nodes first, then the folder
        weakref.finalize(self, _abandon, [node._keeper.abandon for node in nodes], mapper)
        return nodes

    def _prepare(self) -> None:
        nodes, mapper = self.nodes, self._mapper
        assert mapper is not None
        registry.sweep()
        with folder_trouble(self._data_dir):
            mapper.start(nodes[0]._keeper.identity, find_installation())

    def _bring_up(self, chosen: Sequence[LocalBroker]) -> None:
        begun = [node for node in chosen if not node.is_running]

        def undo(node: LocalBroker) -> None:
            if node in begun:
                node.kill()

        first, *others = chosen
        if others and not any((node.data_dir / "rabbitmq" / "mnesia").exists() for node in self.nodes):
            self._each([first], lambda node: node.start(), undo)  # new nodes: the first is the cluster, the others join it
            chosen = others
        self._each(chosen, lambda node: node.start(), undo)

    def _divide(self, parts: Sequence[Sequence[int]]) -> None:
        names = [node.node_name for node in self.nodes]
        apart = {
            names[index]: [name for other, name in enumerate(names) if other not in part]
            for part in parts
            for index in part
            if self.nodes[index].state is BrokerState.RUNNING
        }
        self._until_none(lambda: erlang.split(apart), "still see nodes of the other side")

    def _join(self) -> None:
        living = [node.node_name for node in self.nodes if node.state is BrokerState.RUNNING]
        self._until_none(lambda: erlang.joined(living), "do not see all the others")

    def _until_none(self, expression: Callable[[], str], what: str) -> None:
        asker = next((node._keeper.identity for node in self.nodes if node.state is BrokerState.RUNNING), None)
        if asker is None:
            return
        installation = find_installation()
        for _ in range(3):
            left = erlang.evaluate(asker, installation, expression())
            if left == "[]":
                return
        raise BrokerUnavailable(f"nodes of {self!r} {what}: {left}")


def _abandon(nodes: Sequence[Callable[[], None]], mapper: Mapper) -> None:
    for abandon in nodes:
        abandon()
    mapper.end()


def _members(folder: Path, count: int, name: str) -> list[Identity]:
    """Return the identities of the nodes in `folder`, made new where there are none."""
    folders = [folder / f"node{index}" for index in range(count)]
    found = [identity.load(each) for each in folders]
    kept = [each for each in found if each is not None]
    if kept and (len(kept) != count or any(len(each.peers) != count for each in kept)):
        peers = len(kept[0].peers)
        raise BrokerStartFailed(
            f"{folder} holds a cluster of {peers} nodes, not of {count}: LocalCluster({peers}, ...), or another data_dir"
        )
    return kept or _new_members(folders, name)


def _new_members(folders: Sequence[Path], name: str) -> list[Identity]:
    shared = Ports(epmd=choose_ports(Ports()).epmd)
    fresh = [
        identity.create(folder, name=f"{name} node {index}", ports=ports)
        for index, (folder, ports) in enumerate(zip(folders, choose_distinct(len(folders), shared), strict=True))
    ]
    first, peers = fresh[0], tuple(each.node for each in fresh)
    members = [replace(each, user=first.user, password=first.password, cookie=first.cookie, peers=peers) for each in fresh]
    for member in members:
        member.folder.mkdir(exist_ok=True, mode=0o700)
        identity.save(member)
    return members
