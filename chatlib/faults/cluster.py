"""Faults of a cluster: a node down or frozen, and a network that falls apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chatlib.brokers.base import Broker
from chatlib.faults.fault import Fault

__all__ = ["Cluster", "node_down", "node_frozen", "partition"]


class Cluster(Protocol):
    """What these faults need of a LocalCluster or DockerCluster; nodes are numbered from 0."""

    @property
    def nodes(self) -> Sequence[Broker]:
        """The brokers that it is made of."""

    def start(self, node: int | None = None) -> None:
        """Start one node, or all; returns when it serves, as a member."""

    def kill(self, node: int | None = None) -> None:
        """SIGKILL to one node, or to all."""

    def freeze(self, node: int) -> None:
        """SIGSTOP to one node."""

    def thaw(self, node: int) -> None:
        """SIGCONT to one node."""

    def partition(self, one: Sequence[int], other: Sequence[int]) -> None:
        """No node of one side reaches any of the other."""

    def heal(self) -> None:
        """Every node sees every other again."""


def node_down(cluster: Cluster, node: int) -> Fault:
    """SIGKILL to one node. Healed: it is up again and back in the cluster."""
    raise NotImplementedError


def node_frozen(cluster: Cluster, node: int) -> Fault:
    """Freeze one node: the others notice when its heartbeats stay away. Healed: it runs again."""
    raise NotImplementedError


def partition(cluster: Cluster, one: Sequence[int], other: Sequence[int]) -> Fault:
    """Split the network between two groups of nodes. Healed: every node sees every other again."""
    raise NotImplementedError
