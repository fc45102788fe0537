"""DockerCluster on a real engine: three containers that are one broker, cut apart and healed, and nothing left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import httpx
import pytest

from chatlib import Settings, faults
from chatlib.brokers import BrokerState, DockerBroker, DockerCluster
from chatlib.brokers.docker.engine import Engine
from chatlib.brokers.ports import is_free
from chatlib.errors import BrokerUnavailable, InvalidName
from chatlib.names import inbox_queue
from tests.support import ROOT, unique_name, wait_until
from tests.talk import Talk
from tests.wire import management

pytestmark = pytest.mark.timeout(400)

Unique = Callable[[str], str]
Inventory = Callable[[], set[str]]


@pytest.fixture(scope="module")
def cluster(inventory: Inventory) -> Iterator[DockerCluster]:
    before = inventory()
    with DockerCluster() as cluster:
        new = {cluster.name} | {f"{cluster.name}-node{index}" for index in range(3)}
        assert {name.split()[1].removesuffix("-data") for name in inventory() - before} == new
        yield cluster
    assert inventory() == before


def seen_by(cluster: DockerCluster, node: int) -> set[int]:
    """The nodes that run as far as this one knows; none, where it gives no answer."""
    names = [each.node_name for each in cluster.nodes]
    try:
        with management(cluster.nodes[node]) as client:
            found = client.get("nodes", params={"columns": "name,running"}).raise_for_status().json()
    except httpx.HTTPError:
        return set()
    return {names.index(each["name"]) for each in found if each["running"]}


def leader_and_connected(cluster: DockerCluster, talk: Talk) -> tuple[int, int]:
    """The node that leads bob's inbox, and the one that the chat is connected to."""
    return cluster.leader_of(inbox_queue(talk.bob.name)), cluster.urls.index(talk.chat._link.url)


def test_three_containers_serve_and_see_each_other(cluster: DockerCluster) -> None:
    assert (cluster.state, cluster.is_running, len(set(cluster.urls))) == (BrokerState.RUNNING, True, 3)
    assert [seen_by(cluster, node) for node in range(3)] == [{0, 1, 2}] * 3
    assert len({url.split("@")[0] for url in cluster.urls}) == 1
    with pytest.raises(ValueError, match="nodes 0 to 2"):
        cluster.kill(3)
    with pytest.raises(InvalidName):
        DockerCluster(name="not/a/name")


def refuses(node: DockerBroker) -> bool:
    """Whether it takes no clients."""
    try:
        node.wait_ready(1)
    except BrokerUnavailable:
        return True
    return False


def test_a_dead_leader_a_partition_and_a_frozen_node(cluster: DockerCluster, unique: Unique) -> None:
    """1 the leader is killed under send; 2 the new one is cut off, with the chat at its side or not: the majority goes on, and the chat
    with it; 3 healed; 4 one is frozen until the others give it up, and thawed; 5 nothing was lost, all in order.
    """
    with Talk(cluster, unique, Settings(heartbeat=5)) as talk:
        # 1
        leader, connected = leader_and_connected(cluster, talk)
        assert leader == connected and cluster.members_of(inbox_queue(talk.bob.name)) == [0, 1, 2]
        with faults.node_down(cluster, leader):
            talk.goes_on("with two of three")
            assert leader not in leader_and_connected(cluster, talk)
        # 2
        leader, _ = leader_and_connected(cluster, talk)
        others = sorted({0, 1, 2} - {leader})
        with faults.partition(cluster, [leader], others):
            talk.goes_on("with the majority")
            wait_until(lambda: all(seen_by(cluster, node) == set(others) for node in others), 40, "the majority is alone")
            assert set(leader_and_connected(cluster, talk)) <= set(others)
            assert cluster.nodes[leader].is_connected, "it is on a network of its own"
            wait_until(lambda: refuses(cluster.nodes[leader]), 40, "and takes no clients")
        # 3
        assert [seen_by(cluster, node) for node in range(3)] == [{0, 1, 2}] * 3
        talk.goes_on("with all three")
        # 4
        with faults.node_frozen(cluster, others[0]):
            talk.goes_on("while one is frozen")
            rest = sorted({0, 1, 2} - {others[0]})
            wait_until(lambda: all(seen_by(cluster, node) == set(rest) for node in rest), 40, "the others have given it up")
        assert [seen_by(cluster, node) for node in range(3)] == [{0, 1, 2}] * 3
        # 5
        verdict = talk.verdict()
        assert verdict.valid, verdict


def test_several_partitions_leave_nobody_a_majority_until_they_are_healed(cluster: DockerCluster) -> None:
    cluster.partition([0], [1, 2])
    cluster.partition([1], [0, 2])
    networks = {name for node in cluster.nodes for name in node._vessel.look().attrs["NetworkSettings"]["Networks"]}  # type: ignore[union-attr]
    assert len(networks) == 3
    with pytest.raises(BrokerUnavailable):
        wait_until(lambda: cluster.wait_ready(1), 60, "nobody serves")
    cluster.heal()
    assert [seen_by(cluster, node) for node in range(3)] == [{0, 1, 2}] * 3


def test_the_nodes_of_a_compose_file(engine: Engine, inventory: Inventory) -> None:
    """Brought up, joined, cut apart and healed, and taken down; the named volumes stay, as ever with Compose."""
    taken = [port for port in (5673, 5674, 5675, 15673, 15674, 15675) if not is_free(port)]
    if taken:
        pytest.skip(f"docker-compose.yml wants ports that are in use here: {taken}")
    before, project = inventory(), unique_name("chatlib-test")
    try:
        with DockerCluster.from_compose(project=project) as cluster:
            assert [node.node_name for node in cluster.nodes] == ["rabbit@rabbit1", "rabbit@rabbit2", "rabbit@rabbit3"]
            assert [seen_by(cluster, node) for node in range(3)] == [{0, 1, 2}] * 3  # type: ignore[comparison-overlap]
            with faults.partition(cluster, [0], [1, 2]):
                wait_until(lambda: seen_by(cluster, 1) == {1, 2}, 40, "the majority is alone")
            assert seen_by(cluster, 0) == {0, 1, 2}
        left = {f"volume {project}_rabbit{number}-data" for number in (1, 2, 3)}
        assert left <= inventory() - before and all(name.startswith("volume ") for name in inventory() - before)
    finally:
        for volume in engine.client.volumes.list(filters={"label": f"com.docker.compose.project={project}"}):
            volume.remove()


# Starts a cluster, says what it is called as soon as there are three containers, and goes on.
OWNER = """
import json, threading
from chatlib.brokers import DockerCluster
cluster = DockerCluster()
threading.Thread(target=cluster.start).start()
while not all(node.is_running for node in cluster.nodes):
    threading.Event().wait(0.1)
print(json.dumps(cluster.name), flush=True)
"""


def test_sigkill_of_its_owner_takes_it_along(inventory: Inventory) -> None:
    """Containers, volumes and the network: what is left goes by itself."""
    before = inventory()
    owner = subprocess.Popen([sys.executable, "-c", OWNER], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        name = json.loads(owner.stdout.readline())
        nodes = [f"{name}-node{index}" for index in range(3)]
        mine = {f"network {name}", *(f"container {node}" for node in nodes), *(f"volume {node}-data" for node in nodes)}
        assert inventory() - before == mine
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.communicate(timeout=10)
    wait_until(lambda: inventory() == before, 40, "containers, volumes and the network to be gone")
