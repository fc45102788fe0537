"""`chatlib.faults` on three nodes: one down, one frozen, the network in two; who talks goes on with the two that are left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from chatlib import Monitor, Settings, faults
from chatlib.brokers import BrokerState, LocalCluster, find_installation, members
from chatlib.errors import BrokerNotInstalled, BrokerUnavailable, OutcomeUnknown
from chatlib.faults import FaultError
from chatlib.names import inbox_queue
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
    """1 a node dies, the one that was asked for figures: another is; 2 another is frozen, for too short a time to be given up;
    3 a third is cut off, and pauses; 4 nothing is lost.
    """
    monitor = Monitor(cluster)
    with Talk(cluster, unique) as talk, monitor.sampler() as sampler:
        wait_until(sampler.rows, 20, "a sample")
        # 1
        with faults.node_down(cluster, 0) as down:
            assert down.target == "node 0" and cluster.nodes[0].state is BrokerState.STOPPED
            wait_until(lambda: seen_by(cluster, 1) == {1, 2}, 30, "the others see that it is gone")
            talk.goes_on("with the other two")
            wait_until(lambda: sampler.rows()[-1]["up"], 20, "the samples go on")
            assert len(monitor.queues()) > 1
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
            wait_until(lambda: [seen_by(cluster, node) for node in (0, 1)] == [{0, 1}] * 2, 30, "the majority is alone")
            talk.goes_on("with the majority")
        assert [seen_by(cluster, node) for node in range(3)] == [{0, 1, 2}] * 3
        talk.goes_on("with all three")
        # 4
        verdict = talk.verdict()
        assert verdict.valid, verdict
        assert talk.faults == [down, frozen, split] and all(fault.ended for fault in talk.faults)


def leader_and_connected(cluster: LocalCluster, talk: Talk) -> tuple[int, int]:
    """The node that leads bob's inbox, and the one that the chat is connected to."""
    return cluster.leader_of(inbox_queue(talk.bob.name)), cluster.urls.index(talk.chat._link.url)


def test_the_leader_dies_and_then_the_majority(cluster: LocalCluster, unique: Unique) -> None:
    """1 the leader is killed under send, with the connections to it: the others go on; 2 one more dies: sending stops, and says so;
    3 the last one serves nobody, alone; 4 they come back: all goes on, in order, and nothing was lost.
    """
    with Talk(cluster, unique) as talk:
        # 1
        leader, connected = leader_and_connected(cluster, talk)
        assert leader == connected
        began = time.monotonic()
        faults.node_down(cluster, leader)
        talk.goes_on("with two of three")
        print(f"a leader's death was over after {time.monotonic() - began:.1f} s, the last of 20 messages handled")
        successor, connected = leader_and_connected(cluster, talk)
        assert successor != leader != connected and talk.was("recovering") and talk.chat.reconnects >= 1
        # 2
        faults.node_down(cluster, successor)
        talk.stalls("without a majority")
        with pytest.raises(OutcomeUnknown):
            talk.sent[-1].wait(1)
        wait_until(lambda: talk.chat.state == "recovering", 20, "the chat says that it has no broker")
        # 3
        (last,) = {0, 1, 2} - {leader, successor}
        assert cluster.nodes[last].is_running and cluster.state is not BrokerState.RUNNING
        with pytest.raises(BrokerUnavailable):
            cluster.nodes[last].wait_ready(1)
        # 4
        with ThreadPoolExecutor() as pool:  # both at once: the one that died first waits for the one that died last
            healing = [pool.submit(fault.heal) for fault in talk.faults]
            talk.goes_on("after the majority has come back")
            for done in healing:
                done.result(60)
        verdict = talk.verdict()
        assert verdict.valid, verdict
        assert talk.chat.reconnects >= 2


def test_the_leader_is_cut_off_and_then_frozen(cluster: LocalCluster, unique: Unique) -> None:
    """1 the leader is cut off from the others, with the chat at its side: it stops serving, the chat moves over, all goes on;
    2 a leader is frozen until the others give it up: they go on; 3 thawed, it is one of them again; 4 nothing was lost, all in order.
    """
    with Talk(cluster, unique, Settings(heartbeat=5)) as talk:
        # 1
        leader, connected = leader_and_connected(cluster, talk)
        assert leader == connected
        others = sorted({0, 1, 2} - {leader})
        with faults.partition(cluster, [leader], others):
            wait_until(lambda: [seen_by(cluster, node) for node in others] == [set(others)] * 2, 30, "the majority is alone")
            talk.goes_on("with the majority")
            successor, connected = leader_and_connected(cluster, talk)
            assert {successor, connected} <= set(others)
            with pytest.raises(BrokerUnavailable):
                cluster.nodes[leader].wait_ready(1)
        assert [seen_by(cluster, node) for node in range(3)] == [{0, 1, 2}] * 3
        # 2
        leader, _ = leader_and_connected(cluster, talk)
        others = sorted({0, 1, 2} - {leader})
        with faults.node_frozen(cluster, leader):
            talk.goes_on("while it is frozen")
            assert cluster.nodes[leader].state is BrokerState.FROZEN and cluster.leader_of(inbox_queue(talk.bob.name)) in others
            wait_until(lambda: all(seen_by(cluster, node) == set(others) for node in others), 30, "the others have given it up")
        # 3
        assert [seen_by(cluster, node) for node in range(3)] == [{0, 1, 2}] * 3
        talk.goes_on("with all three")
        # 4
        verdict = talk.verdict()
        assert verdict.valid, verdict


def test_what_cannot_be_done_to_a_cluster(cluster: LocalCluster) -> None:
    for make in (faults.node_down, faults.node_frozen):
        with pytest.raises(FaultError, match="this cluster has the nodes 0 to 2"):
            make(cluster, 3)
    for sides in ([[0], [1]], [[], [0, 1, 2]], [[0, 1], [1, 2]], [[0], [1, 2, 3]]):
        with pytest.raises(FaultError, match="each of the nodes 0 to 2 has to be on one of two sides"):
            faults.partition(cluster, *sides)
    with pytest.raises(FaultError, match=r"take one of its nodes, such as cluster\.nodes\[0\]"):
        faults.memory_alarm(cluster)


def test_a_node_that_does_not_serve_again_is_started_anew(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its process runs and RabbitMQ in it has stopped, as after a pause that does not end; this one was told to."""
    monkeypatch.setattr(members, "OVERLOOKED", 2.0)
    monkeypatch.setattr(members, "FINDING", 15.0)
    before = cluster.nodes[2].pid
    cluster.nodes[2].rabbitmqctl("stop_app")
    cluster.heal()
    assert [seen_by(cluster, node) for node in range(3)] == [{0, 1, 2}] * 3
    assert cluster.nodes[2].pid not in (None, before)
    assert any("killing and starting" in record.getMessage() for record in caplog.records)
