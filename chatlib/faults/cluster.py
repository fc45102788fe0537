"""Faults of a cluster: a node down or frozen, and a network that falls apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chatlib.brokers.base import Broker, BrokerState
from chatlib.faults.brokers import require_running
from chatlib.faults.fault import Fault, impossible, inflict, require_kind

__all__ = ["Cluster", "node_down", "node_frozen", "partition"]

A_CLUSTER = "a cluster: chatlib.LocalCluster() or chatlib.DockerCluster()"


class Cluster(Broker, Protocol):
    """What these faults need of a LocalCluster or DockerCluster; nodes are numbered from 0, and without one all are meant."""

    @property
    def nodes(self) -> Sequence[Broker]:
        """The brokers that it is made of."""

    def start(self, node: int | None = None) -> None:
        """Start one node; returns when it serves, as a member."""

    def kill(self, node: int | None = None) -> None:
        """SIGKILL to one node."""

    def freeze(self, node: int | None = None) -> None:
        """SIGSTOP to one node."""

    def thaw(self, node: int | None = None) -> None:
        """SIGCONT to one node; returns when it is back."""

    def partition(self, one: Sequence[int], other: Sequence[int]) -> None:
        """No node of one side reaches any of the other."""

    def heal(self) -> None:
        """Every node sees every other again."""


def node_down(cluster: Cluster, node: int) -> Fault:
    """SIGKILL to one node. Healed: it is up again and back in the cluster.

    node: counted from 0. Raises FaultError for one that is not there, or does not run; and so do the others.
    """
    target, broker = _node("node_down", cluster, node)
    return inflict("node_down", target, lambda: cluster.kill(node), seen=lambda: not broker.is_running, heal=lambda: cluster.start(node))


def node_frozen(cluster: Cluster, node: int) -> Fault:
    """Freeze one node: the others notice when its heartbeats stay away. Healed: it runs again; one that died meanwhile is left so."""
    name = "node_frozen"
    target, broker = _node(name, cluster, node)
    if broker.state is BrokerState.FROZEN:
        raise impossible(name, target, "it is frozen already: heal that fault, or thaw() it, first")
    return inflict(
        name, target, lambda: cluster.freeze(node), seen=lambda: broker.state is BrokerState.FROZEN, heal=lambda: cluster.thaw(node)
    )


def partition(cluster: Cluster, one: Sequence[int], other: Sequence[int]) -> Fault:
    """Split the network between two groups that have each node once, such as `[0, 1], [2]`. Healed: every node sees every other again.

    Returns when no node sees any of the other side. Of several partitions the first that is healed ends all.
    """
    sides = sorted(set(one)), sorted(set(other))
    target = " | ".join(f"node{'s' if len(side) > 1 else ''} {', '.join(map(str, side))}" for side in sides)
    require_kind("partition", target, cluster, "nodes", A_CLUSTER)
    if not all(sides) or sorted([*sides[0], *sides[1]]) != list(range(len(cluster.nodes))):
        last = len(cluster.nodes) - 1
        raise impossible("partition", target, f"each of the nodes 0 to {last} has to be on one of two sides, such as [0], [1, 2]")
    require_running("partition", cluster, target="the cluster")
    return inflict("partition", target, lambda: cluster.partition(*sides), seen=lambda: True, heal=cluster.heal)


def _node(name: str, cluster: Cluster, node: int) -> tuple[str, Broker]:
    """What to call it, and the node, which runs."""
    target = f"node {node}"
    require_kind(name, target, cluster, "nodes", A_CLUSTER)
    nodes = cluster.nodes
    if not 0 <= node < len(nodes):
        raise impossible(name, target, f"this cluster has the nodes 0 to {len(nodes) - 1}")
    require_running(name, nodes[node], target=target)
    return target, nodes[node]
