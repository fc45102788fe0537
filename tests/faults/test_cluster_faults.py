"""`chatlib.faults` on three nodes: one down, one frozen, the network in two; who talks goes on with the two that are left."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from chatlib import faults
from chatlib.brokers import BrokerState, LocalCluster, find_installation
from chatlib.errors import BrokerNotInstalled
from chatlib.faults import FaultError
from tests.support import wait_until
from tests.talk import Talk
from tests.wire import management

pytestmark = pytest.mark.timeout(240)

Unique = Callable[[str], str]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    try:
        find_installation()
    except BrokerNotInstalled as error:
        pytest.skip(str(error))
    with LocalCluster() as cluster:
        yield cluster
        cluster.kill()  # quicker than the graceful stop


def seen_by(cluster: LocalCluster, node: int) -> set[int]:
    """The nodes that run as far as this one knows."""
    names = [each.node_name for each in cluster.nodes]
    with management(cluster.nodes[node]) as client:
        return {names.index(each["name"]) for each in client.get("nodes").json() if each["running"]}


def test_each_fault_of_a_cluster(cluster: LocalCluster, unique: Unique) -> None:
    """1 a node dies; 2 another is frozen, for too short a time to be given up; 3 a third is cut off, and pauses; 4 nothing is lost.

    Of the order nothing is said here: after a node's death its old consumers are handed messages for a while (RabbitMQ 3.10).
    """
    with Talk(cluster, unique) as talk:
        # 1
        with faults.node_down(cluster, 0) as down:
            assert down.target == "node 0" and cluster.nodes[0].state is BrokerState.STOPPED
            wait_until(lambda: seen_by(cluster, 1) == {1, 2}, 30, "the others see that it is gone")
            talk.goes_on("with the other two")
            with pytest.raises(FaultError, match="cannot take down node 0: it does not run"):
                faults.node_down(cluster, 0)
        assert cluster.nodes[0].state is BrokerState.RUNNING and seen_by(cluster, 1) == {0, 1, 2}
        # 2
        with faults.node_frozen(cluster, 1) as frozen:
            assert frozen.target == "node 1" and cluster.nodes[1].state is BrokerState.FROZEN
        assert cluster.nodes[1].state is BrokerState.RUNNING
        # 3
        with faults.partition(cluster, [0, 1], [2]) as split:
            assert split.target == "nodes 0, 1 | node 2"
            wait_until(lambda: seen_by(cluster, 0) == {0, 1}, 30, "the majority is alone")
            talk.goes_on("with the majority")
        assert [seen_by(cluster, node) for node in range(3)] == [{0, 1, 2}] * 3
        talk.goes_on("with all three")
        # 4
        verdict = talk.verdict()
        assert (verdict.lost, verdict.duplicated, verdict.unexpected) == (0, 0, 0)
        assert talk.faults == [down, frozen, split] and all(fault.ended for fault in talk.faults)


def test_what_cannot_be_done_to_a_cluster(cluster: LocalCluster) -> None:
    for make in (faults.node_down, faults.node_frozen):
        with pytest.raises(FaultError, match="this cluster has the nodes 0 to 2"):
            make(cluster, 3)
    for sides in ([[0], [1]], [[], [0, 1, 2]], [[0, 1], [1, 2]], [[0], [1, 2, 3]]):
        with pytest.raises(FaultError, match="each of the nodes 0 to 2 has to be on one of two sides"):
            faults.partition(cluster, *sides)
    with pytest.raises(FaultError, match=r"take one of its nodes, such as cluster\.nodes\[0\]"):
        faults.memory_alarm(cluster)
