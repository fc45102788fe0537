"""LocalCluster for real: three nodes that are one broker, replicated queues by default, and nothing left of it, however its owner ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import chatlib
from chatlib import Settings, bulk
from chatlib.brokers import BrokerState, LocalCluster, find_installation, registry
from chatlib.brokers.ports import is_free
from chatlib.errors import BrokerNotInstalled, BrokerStartFailed, BrokerUnavailable, InboxFull, ManagementError
from chatlib.names import DEAD_LETTERS, history_queue, inbox_queue, receipts_queue, retries_queue
from tests.support import ROOT, process_runs, wait_until
from tests.wire import management, raw

pytestmark = pytest.mark.timeout(240)

Unique = Callable[[str], str]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """One for this file; its last tests kill the process that it would be, so nothing here breaks it for good."""
    try:
        find_installation()
    except BrokerNotInstalled as error:
        pytest.skip(str(error))
    with LocalCluster(3, tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster
        cluster.kill()  # quicker than the graceful stop
    assert not any(is_free(port) is False for port in ports_of(cluster)), "something still listens"


def ports_of(cluster: LocalCluster) -> set[int]:
    return {port for node in cluster.nodes for port in (node.ports.amqp, node.ports.management, node.ports.dist, node.ports.epmd)}


def queues_of(cluster: LocalCluster) -> dict[str, dict[str, object]]:
    """The queues that there are, by name, as the management API has them."""
    with management(cluster) as client:
        return {queue["name"]: queue for queue in client.get("queues").raise_for_status().json()}


class TestReady:
    def test_three_nodes_serve_and_see_each_other(self, cluster: LocalCluster) -> None:
        assert (cluster.state, cluster.is_running, len(cluster.nodes)) == (BrokerState.RUNNING, True, 3)
        names = {node.node_name for node in cluster.nodes}
        assert len(names) == 3 and len(set(cluster.urls)) == 3
        for node in cluster.nodes:
            node.wait_ready(5)
            with management(node) as client:
                seen = {each["name"] for each in client.get("nodes").raise_for_status().json() if each["running"]}
            assert seen == names
        assert cluster.url in cluster.urls and cluster.management_url == cluster.nodes[0].management_url

    def test_one_user_and_one_password_for_all_on_loopback_only(self, cluster: LocalCluster) -> None:
        assert len({url.split("@")[0] for url in cluster.urls}) == 1
        assert len({node.ports.epmd for node in cluster.nodes}) == 1 and len(ports_of(cluster)) == 10
        pids = {node.pid for node in cluster.nodes}
        listening = [each for each in psutil.net_connections("tcp") if each.pid in pids and each.status == psutil.CONN_LISTEN]
        assert len(listening) >= 9 and {each.laddr.ip for each in listening} == {"127.0.0.1"}

    def test_what_one_node_takes_every_node_hands_out(self, cluster: LocalCluster, unique: Unique) -> None:
        queue = unique("shared")
        with raw(cluster.urls[0]) as first, raw(cluster.urls[2]) as last:
            first.channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
            first.put(queue, b"by node 0", delivery_mode=2)
            assert last.take(queue, 1)[0][1] == b"by node 0"
            first.channel.queue_delete(queue)

    def test_starting_what_runs_changes_nothing(self, cluster: LocalCluster) -> None:
        before = [node.pid for node in cluster.nodes]
        cluster.start()
        assert [node.pid for node in cluster.nodes] == before

    def test_what_makes_no_sense_is_refused(self, cluster: LocalCluster, tmp_path: Path) -> None:
        for count in (0, 8):
            with pytest.raises(ValueError, match="1 to 7 nodes"):
                LocalCluster(count)
        with pytest.raises(ValueError, match="nodes 0 to 2"):
            cluster.kill(3)
        for sides in (([0], [1]), ([], [0, 1, 2]), ([0, 1], [1, 2]), ([0], [1, 2, 3])):
            with pytest.raises(ValueError, match="each node, 0 to 2, on one of two sides"):
                cluster.partition(*sides)
        with pytest.raises(ManagementError):
            cluster.leader_of("no-such-queue")
        with pytest.raises(BrokerStartFailed, match=r"a cluster of 3 nodes.*LocalCluster\(3, \.\.\.\)"):
            LocalCluster(5, cluster.nodes[0].data_dir.parent).start()
        assert cluster.state is BrokerState.RUNNING


class TestQueues:
    def test_all_that_waits_is_replicated_by_default(self, cluster: LocalCluster, unique: Unique) -> None:
        bob, team = unique("bob"), unique("team")
        with chatlib.connect(cluster) as chat:
            user = chat.user(bob)
            user.on_message(print)
            user.join(f"#{team}")
            chat.group(f"#{team}", history=True)
            there = queues_of(cluster)
        for name in (inbox_queue(bob), receipts_queue(bob), retries_queue(bob), DEAD_LETTERS, "histories"):
            assert there[name]["type"] == "quorum", name
            assert cluster.members_of(name) == [0, 1, 2]
        assert there[history_queue(team)]["type"] == "stream"
        assert "classic" not in {queue["type"] for queue in there.values()}

    def test_who_knows_one_address_only_finds_out_by_what_is_there(self, cluster: LocalCluster, unique: Unique) -> None:
        bob, eve = unique("bob"), unique("eve")
        with chatlib.connect(cluster) as chat:
            chat.user(bob)
        with chatlib.connect(cluster.urls[1]) as chat:  # one URL: it begins with classic queues, and is told better
            chat.user(bob).send(f"@{bob}", "to myself").wait(10)
            chat.user(eve)
        assert {queues_of(cluster)[inbox_queue(name)]["type"] for name in (bob, eve)} == {"quorum"}

    def test_many_at_once(self, cluster: LocalCluster, unique: Unique, monkeypatch: pytest.MonkeyPatch) -> None:
        """As hundreds are, over many channels side by side; what is bound has settled, and takes messages."""
        monkeypatch.setattr(bulk, "CHANNELS", 8)
        monkeypatch.setattr(bulk, "STEP", 2)
        names = [unique("many") for _ in range(8)]
        with chatlib.connect(cluster) as chat:
            users = chat.users(names, online=False)
            for sent in users[0].send_many([(user.address, "hello") for user in users]):
                sent.wait(20)
            assert [user.waiting for user in users] == [1] * len(users)
            assert {queues_of(cluster)[inbox_queue(name)]["type"] for name in names} == {"quorum"}

    def test_leader_of(self, cluster: LocalCluster, unique: Unique) -> None:
        """It leads from where the chat was connected that declared it; a classic queue is where it is."""
        bob, queue = unique("bob"), unique("classic")
        with chatlib.connect(cluster.urls[::-1]) as chat:
            chat.user(bob)
        assert cluster.leader_of(inbox_queue(bob)) == 2
        with raw(cluster.urls[1]) as observer:
            observer.channel.queue_declare(queue, durable=True)
            assert cluster.leader_of(queue) == 1 and cluster.members_of(queue) == [1]
            observer.channel.queue_delete(queue)

    def test_a_full_inbox_is_told_as_on_one_node(self, cluster: LocalCluster, unique: Unique) -> None:
        """A nack may also mean that a leader is lost; here it does not, and nobody waits for one."""
        with chatlib.connect(cluster, settings=Settings(inbox_limit=10)) as chat:
            ann, bob, cid = chat.users([unique("ann"), unique("bob"), unique("cid")])
            team = "#" + unique("team")
            bob.join(team)
            cid.join(team)
            bob.go_offline()
            for number in range(11):  # one more, since a quorum queue refuses what comes after it has noticed
                ann.send(bob.address, str(number)).wait(20)
            with pytest.raises(InboxFull) as error:
                ann.send(bob.address, "one too many").wait(20)
            assert error.value.who == (bob.name,) and bob.waiting == 11
            with pytest.raises(InboxFull) as error:
                ann.send(team, "to both").wait(20)
            assert error.value.who == (bob.name,)
            assert [message.content for message in cid.receive(limit=1, timeout=10)] == ["to both"]
            ann.send(cid.address, "and others are not held up").wait(10)


# Starts a cluster, says what it is as soon as there are three nodes, and goes on.
OWNER = """
import json, threading
from chatlib.brokers import LocalCluster
cluster = LocalCluster(3)
threading.Thread(target=cluster.start).start()
while not all(pids := [node.pid for node in cluster.nodes]):
    threading.Event().wait(0.1)
print(json.dumps([pids, str(cluster.nodes[0].data_dir.parent)]), flush=True)
"""


def test_sigkill_of_its_owner_takes_it_along() -> None:
    """Also in the middle of a start. Nodes, port mapper, reapers, folder and records: all gone, and nobody had to close anything."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        pids, folder = json.loads(owner.stdout.readline())
        processes = {child.pid for child in psutil.Process(owner.pid).children(recursive=True)}
        assert set(pids) < processes and Path(folder).is_dir()
        assert any("epmd" in " ".join(psutil.Process(pid).cmdline()) for pid in processes)
        assert len([entry for entry in registry.entries() if entry.owner == owner.pid]) == 4
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.communicate(timeout=10)
    wait_until(lambda: not any(map(process_runs, processes)), 20, "every process to be gone")
    wait_until(lambda: not Path(folder).exists(), 10, "the folder to be gone")
    wait_until(lambda: not [entry for entry in registry.entries() if entry.owner == owner.pid], 10, "the records to be gone")


def test_a_cluster_that_was_closed_says_so() -> None:
    cluster = LocalCluster(1)
    folder = cluster.nodes[0].data_dir.parent
    assert folder.is_dir() and (cluster.state, cluster.is_running) == (BrokerState.STOPPED, False)
    with pytest.raises(BrokerUnavailable, match="start"):
        cluster.wait_ready(5)
    cluster.close()
    cluster.close()
    assert not folder.exists()
    with pytest.raises(BrokerStartFailed, match="make a new LocalCluster"):
        cluster.start()


def test_folders_that_can_hold_no_cluster_are_refused_with_a_reason(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for bad, said in ((file, "cannot be used"), (tmp_path / "a[b", "cannot work in a folder")):
        with pytest.raises(BrokerStartFailed, match=said):
            LocalCluster(3, bad).start()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
