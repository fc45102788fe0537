"""LocalBroker for real: each claim of its life, and that nothing is left of it, however its owner ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
import pika
import psutil
import pytest

from chatlib.brokers import BrokerState, LocalBroker, Ports, RemoteBroker, default_broker, find_installation, registry, running_brokers
from chatlib.brokers.ports import is_free
from chatlib.errors import AccessRefused, BrokerNotInstalled, BrokerStartFailed, BrokerUnavailable
from tests.support import ROOT, process_runs, unique_name, wait_until

pytestmark = pytest.mark.timeout(180)

PERSISTENT = pika.BasicProperties(delivery_mode=2)


@pytest.fixture(autouse=True, scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder of this file's own: what is on record there was started here."""
    try:
        find_installation()
    except BrokerNotInstalled as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        patch.delenv("CHATLIB_BROKER_URL", raising=False)
        yield folder / "chatlib"
    assert list((folder / "chatlib" / "nodes").iterdir()) == [], "a record of a broker was left"


@pytest.fixture(scope="module")
def home(state: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a blank and letters beyond Latin-1 in its path."""
    return tmp_path_factory.mktemp("data") / "dados da sessão 会议"


@pytest.fixture(scope="module")
def shared(home: Path) -> Iterator[LocalBroker]:
    """One broker for the tests that put it through its states; each brings it up again where it needs to."""
    with LocalBroker(home) as broker:
        yield broker
        broker.kill()  # quicker than the graceful stop, which test_restart... has seen


@pytest.fixture
def node(shared: LocalBroker) -> LocalBroker:
    shared.start()
    return shared


def open_channel(url: str) -> pika.adapters.blocking_connection.BlockingChannel:
    parameters = pika.URLParameters(url)
    parameters.socket_timeout = parameters.stack_timeout = 2
    channel = pika.BlockingConnection(parameters).channel()
    channel.confirm_delivery()
    return channel


def put(url: str, text: str) -> str:
    """Leave a confirmed, persistent message in a new durable queue; return the queue."""
    channel = open_channel(url)
    queue = unique_name("kept")
    channel.queue_declare(queue, durable=True)
    channel.basic_publish("", queue, text.encode(), PERSISTENT, mandatory=True)
    channel.connection.close()
    return queue


def settle(broker: LocalBroker) -> None:
    """Have the metadata written to the disk.

    A durable queue that was declared less than a second before SIGKILL is gone in about 1 of 15 tries, with the confirmed
    messages in it (RabbitMQ 3.10.8: Mnesia's log is written late). That is the broker's doing and not what is tested here.
    """
    broker.rabbitmqctl("eval", "mnesia:sync_log().")


def take(url: str, queue: str) -> str | None:
    channel = open_channel(url)
    _, _, body = channel.basic_get(queue, auto_ack=True)
    channel.connection.close()
    return None if body is None else body.decode()


def processes_of(owner: int | None = None) -> set[int]:
    """Node, epmd, reaper and their children: all that a Python process has started."""
    return {child.pid for child in psutil.Process(owner).children(recursive=True)}


def nothing_left(pids: set[int], ports: Ports, folder: Path | None) -> bool:
    left = [pid for pid in pids if process_runs(pid)]
    taken = [port for port in (ports.amqp, ports.management, ports.dist, ports.epmd) if not is_free(port)]
    assert not left and not taken, f"processes {left}, ports {taken}"
    assert folder is None or not folder.exists(), f"{folder} is still there"
    return True


class TestLife:
    def test_a_node_sees_the_plugins_that_it_runs_and_all_where_its_path_is_not_plain(self, node: LocalBroker, broker: LocalBroker) -> None:
        """`broker` lives in a temporary folder; the path of `node` has a blank, which RabbitMQ's scripts do not take here."""
        for each, own in ((broker, True), (node, False)):
            home = each.data_dir / "rabbitmq" / "home"
            assert (f'"{home}/plugins"' in each.rabbitmqctl("eval", "rabbit_plugins:plugins_dir().")) is own
            assert home.exists() is own
            assert "rabbitmq_management" in each.rabbitmqctl("eval", "rabbit_plugins:active().")
            assert each.rabbitmqctl("list_users")

    def test_a_started_broker_serves_its_own_user_on_loopback_only(self, node: LocalBroker) -> None:
        assert node.state is BrokerState.RUNNING and node.is_running
        assert take(node.url, put(node.url, "hello")) == "hello"
        parts = urlsplit(node.url)
        assert parts.username != "guest" and parts.hostname == "127.0.0.1"
        with pytest.raises(AccessRefused):
            RemoteBroker(f"amqp://guest:guest@127.0.0.1:{parts.port}/%2F").start()
        node.stop()
        others = processes_of()  # the broker that other tests share is a child of this process, too
        node.start()
        listening = [
            connection.laddr
            for pid in processes_of() - others
            for connection in psutil.Process(pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert {address.port for address in listening} == {node.ports.amqp, node.ports.management, node.ports.dist, node.ports.epmd}
        assert {address.ip for address in listening} <= {"127.0.0.1", "::1"}
        assert all(1024 < address.port < 32768 for address in listening)

    def test_management_is_up_with_statistics_every_second(self, node: LocalBroker) -> None:
        parts = urlsplit(node.url)
        login = (parts.username or "", unquote(parts.password or ""))
        queue = put(node.url, "one")

        def counted() -> bool:
            answer = httpx.get(f"{node.management_url}/api/queues/%2F/{queue}", auth=login).raise_for_status().json()
            assert answer["messages"] == 1
            return True

        wait_until(counted, 20, "management to count the message")
        assert node.rabbitmqctl("eval", "application:get_env(rabbit, collect_statistics_interval).").strip() == "{ok,1000}"

    def test_starting_what_runs_changes_nothing(self, node: LocalBroker) -> None:
        pid, url = node.pid, node.url
        node.start()
        assert (node.pid, node.url) == (pid, url)

    def test_kill_ends_the_process_and_no_confirmed_message(self, node: LocalBroker) -> None:
        queue, url, pid = put(node.url, "survivor"), node.url, node.pid
        assert pid is not None
        settle(node)
        node.kill()
        assert not process_runs(pid)
        assert (node.state, node.is_running, node.pid) == (BrokerState.STOPPED, False, None)
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            open_channel(url)
        with pytest.raises(BrokerUnavailable, match="start"):
            node.wait_ready(30)
        node.kill()
        began = time.monotonic()
        node.start()
        print(f"kill, start, ready: {time.monotonic() - began:.1f} s")
        assert node.url == url and node.pid != pid
        assert take(url, queue) == "survivor"

    def test_a_crash_is_seen_and_started_again(self, node: LocalBroker) -> None:
        assert node.pid is not None
        os.kill(node.pid, signal.SIGKILL)  # not by us: out of memory, say
        wait_until(lambda: node.state is BrokerState.STOPPED, 5, "the broker object to see the crash")
        node.start()
        node.wait_ready(5)

    def test_a_start_whose_node_was_killed_leaves_the_next_one_alone(self, node: LocalBroker) -> None:
        node.kill()
        with ThreadPoolExecutor() as pool:
            first = pool.submit(node.start)
            wait_until(lambda: node.state is BrokerState.STARTING, 10, "the first start is under way")
            node.kill()
            node.start()
            with pytest.raises(BrokerStartFailed, match="killed by signal 9"):
                first.result(30)
        assert node.state is BrokerState.RUNNING
        node.wait_ready(10)

    def test_a_frozen_broker_lives_and_answers_nothing(self, node: LocalBroker) -> None:
        node.freeze()
        node.freeze()
        assert node.state is BrokerState.FROZEN and node.is_running
        with pytest.raises(BrokerUnavailable, match="frozen"):
            node.wait_ready(30)
        with socket.create_connection(("127.0.0.1", node.ports.amqp), 2) as client:
            client.settimeout(0.5)
            client.sendall(b"AMQP\x00\x00\x09\x01")
            with pytest.raises(TimeoutError):
                client.recv(8)
            node.thaw()
            node.thaw()
            client.settimeout(10)
            assert client.recv(8)[:1] == b"\x01"  # the first frame, as if nothing had been
        assert node.state is BrokerState.RUNNING

    def test_start_thaws(self, node: LocalBroker) -> None:
        pid = node.pid
        node.freeze()
        node.start()
        assert (node.state, node.pid) == (BrokerState.RUNNING, pid)

    def test_a_frozen_broker_can_be_killed(self, node: LocalBroker) -> None:
        pid = node.pid
        assert pid is not None
        node.freeze()
        node.kill()
        assert not process_runs(pid)
        node.thaw()
        with pytest.raises(BrokerUnavailable, match="start"):
            node.freeze()

    def test_restart_is_graceful_and_keeps_address_and_data(self, node: LocalBroker) -> None:
        queue, url, pid = put(node.url, "kept"), node.url, node.pid
        channel = open_channel(url)
        with ThreadPoolExecutor() as pool:
            restarted = pool.submit(node.restart)
            with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as said:
                wait_until(lambda: channel.connection.process_data_events(0.1), 20, "the broker to say goodbye")
            restarted.result()
        assert said.value.reply_code == 320
        assert node.url == url and node.pid != pid
        assert take(url, queue) == "kept"

    def test_a_forked_child_neither_stops_nor_keeps_the_broker(self, node: LocalBroker) -> None:
        child = os.fork()
        if child == 0:
            try:
                node.close()
                node._finalizer()  # as at its exit
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert node.state is BrokerState.RUNNING
        node.wait_ready(5)

    def test_two_owners_of_one_folder(self, node: LocalBroker, home: Path) -> None:
        with pytest.raises(BrokerStartFailed, match=f"in use by a broker of process {os.getpid()}"):
            LocalBroker(home).start()
        code = f"import chatlib.brokers; chatlib.brokers.LocalBroker({str(home)!r}).start()"
        other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert other.returncode == 1
        assert f"in use by a broker of process {os.getpid()}" in other.stderr
        node.wait_ready(5)


class TestFailedStart:
    def test_a_taken_port(self, tmp_path: Path) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            broker = LocalBroker(tmp_path, ports=Ports(amqp=port))
            with pytest.raises(BrokerStartFailed, match=f"port {port} .* is taken by process {os.getpid()}"):
                broker.start()
        assert broker.state is BrokerState.STOPPED

    def test_a_node_that_ends_is_told_at_once_with_its_own_words(self, tmp_path: Path) -> None:
        broker = LocalBroker(tmp_path, config=["nonsense = 3"], start_timeout=100)
        before = processes_of()
        began = time.monotonic()
        with pytest.raises(BrokerStartFailed, match="configuration line") as failed:
            broker.start()
        assert time.monotonic() - began < 40, "it waited for the deadline instead of watching the process"
        assert any("nonsense" in line for line in failed.value.log)
        assert broker.state is BrokerState.STOPPED
        broker.close()
        nothing_left(processes_of() - before, broker.ports, None)

    def test_no_rabbitmq_on_an_empty_path(self) -> None:
        code = "import chatlib.brokers; chatlib.brokers.LocalBroker().start()"
        bare = {"PATH": "", "HOME": os.environ.get("HOME", "/"), "CHATLIB_RABBITMQ_SERVER": "/nowhere/rabbitmq-server"}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=bare, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert "BrokerNotInstalled" in done.stderr and "apt install" in done.stderr and "conda" in done.stderr and "docker" in done.stderr


class TestNothingStaysBehind:
    def test_five_one_after_the_other_in_every_way_to_end_one(self) -> None:
        for way in ("with", "close", "collected", "crashed", "killed"):
            before = processes_of()
            broker: LocalBroker | None = LocalBroker()
            assert broker is not None
            broker.start()
            pids, ports, folder = processes_of() - before, broker.ports, broker.data_dir
            assert len(pids) >= 3 and folder.is_dir()
            if way == "with":
                with broker:
                    pass
            elif way == "close":
                broker.close()
                broker.close()
                with pytest.raises(BrokerStartFailed, match="was closed"):
                    broker.start()
            elif way == "crashed":
                os.kill(broker.pid or 0, signal.SIGKILL)
                broker.close()
            elif way == "killed":
                broker.kill()
                assert folder.is_dir()
                broker.close()
            broker = None
            wait_until(lambda p=pids, q=ports, f=folder: nothing_left(p, q, f), 5, f"all of a {way} broker to be gone")

    def test_three_at_once(self) -> None:
        before = processes_of()
        brokers = [LocalBroker(name=f"b{number}") for number in range(3)]
        with ThreadPoolExecutor() as pool:
            list(pool.map(LocalBroker.start, brokers))
            queues = [put(broker.url, broker.name) for broker in brokers]
            assert [take(broker.url, queue) for broker, queue in zip(brokers, queues, strict=True)] == ["b0", "b1", "b2"]
            pids, places = processes_of() - before, [(broker.ports, broker.data_dir) for broker in brokers]
            list(pool.map(LocalBroker.close, brokers))
        for ports, folder in places:
            wait_until(lambda p=ports, f=folder: nothing_left(pids, p, f), 5, "all three to be gone")


# Starts brokers in the folders that it is given ("" is a temporary one), says what they are, and waits or ends.
OWNER = """
import dataclasses, json, sys
from chatlib.brokers import LocalBroker
brokers = [LocalBroker(folder or None) for folder in sys.argv[2:]]
for broker in brokers:
    broker.start()
print(json.dumps([[broker.pid, str(broker.data_dir), dataclasses.astuple(broker.ports)] for broker in brokers]), flush=True)
sys.argv[1] == "wait" and sys.stdin.read()
"""


class Owner:
    """A Python process that owns brokers, to be ended in hard ways."""

    def __init__(self, then: str, *folders: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, then, *folders], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        self.nodes = [pid for pid, _, _ in told]
        self.folders = [Path(folder) for _, folder, _ in told]
        self.ports = [Ports(*ports) for _, _, ports in told]
        self.processes = {*self.nodes, *(processes_of(self.process.pid) if then == "wait" else ())}

    def end(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        self.process.communicate(timeout=10)


class TestOwnersDeath:
    def test_sigkill_of_the_owner_takes_its_brokers_along(self, tmp_path: Path) -> None:
        owner = Owner("wait", "", str(tmp_path / "kept"))
        assert len(owner.processes) >= 6
        owner.end(signal.SIGKILL)
        wait_until(lambda: nothing_left(owner.processes, owner.ports[0], owner.folders[0]), 10, "the temporary broker to be gone")
        wait_until(lambda: nothing_left(owner.processes, owner.ports[1], None), 10, "the other broker to be gone")
        assert (tmp_path / "kept" / "broker.json").exists()
        wait_until(lambda: not [entry for entry in registry.entries() if entry.owner == owner.process.pid], 5, "the records to be gone")

    def test_where_the_reaper_died_too_the_next_start_finds_what_is_left(self, tmp_path: Path) -> None:
        owner = Owner("wait", "", str(tmp_path / "kept"))
        orphan = LocalBroker(tmp_path / "kept")  # not its owner: it only knows the address
        queue = put(orphan.url, "still here")
        settle(orphan)
        reapers = [pid for pid in owner.processes if "chatlib-reaper" in psutil.Process(pid).cmdline()]
        assert len(reapers) == 2
        for pid in reapers:
            os.kill(pid, signal.SIGKILL)
        owner.end(signal.SIGKILL)
        assert all(process_runs(pid) for pid in owner.nodes), "something else stopped them: this test proves nothing"
        with LocalBroker(tmp_path / "kept") as heir:
            assert not any(process_runs(pid) for pid in owner.nodes)
            assert not owner.folders[0].exists()
            assert heir.ports == owner.ports[1]
            assert take(heir.url, queue) == "still here"
            heir.kill()
        nothing_left(owner.processes, owner.ports[0], owner.folders[0])

    def test_a_normal_end_without_close(self) -> None:
        owner = Owner("end", "")
        assert owner.process.wait(20) == 0
        wait_until(lambda: nothing_left(owner.processes, owner.ports[0], owner.folders[0]), 5, "the broker to be gone")


class TestDetached:
    def test_it_outlives_its_starter_and_is_found_and_stopped_by_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        name = unique_name("detached")
        assert LocalBroker.named(name).state is BrokerState.STOPPED

        def elsewhere(verb: str) -> str:
            code = f"from chatlib.brokers import LocalBroker as L; b = L.named({name!r}); b.{verb}(); print(b.url)"
            done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=90, check=True)
            return done.stdout.strip()

        with ThreadPoolExecutor() as pool:  # two terminals at the same moment: one broker
            urls = set(pool.map(elsewhere, ("start", "start")))
        assert len(urls) == 1
        url = urls.pop()
        broker = LocalBroker.named(name)
        pid = broker.pid
        assert pid is not None
        try:
            assert broker.url == url and broker.state is BrokerState.RUNNING and broker.detached
            assert [found.name for found in running_brokers()] == [name]
            registry.sweep()
            with default_broker() as chosen:  # a running one comes before a new one, and is not stopped at the end
                assert chosen.url == url
            monkeypatch.setenv("CHATLIB_BROKER_URL", url)  # as the help of `chatlib broker` advises
            named = default_broker()
            assert isinstance(named, RemoteBroker) and named.management_url == broker.management_url
            monkeypatch.delenv("CHATLIB_BROKER_URL")
            broker.close()
            assert broker.pid == pid
            queue = put(url, "from one process to another")
            settle(broker)
            broker.freeze()
            assert broker.state is BrokerState.FROZEN
            elsewhere("kill")
            assert not process_runs(pid) and broker.state is BrokerState.STOPPED and running_brokers() == []
            broker.start()
            assert broker.url == url and take(url, queue) == "from one process to another"
            with pytest.raises(BrokerStartFailed, match="in use by a detached broker"):
                LocalBroker(broker.data_dir).start()
            elsewhere("stop")
            assert broker.state is BrokerState.STOPPED
            # who started it may die before he saw it serve: whoever starts it next notes that it does
            code = f"from chatlib.brokers import LocalBroker as L; L.named({name!r})._keeper.launch(); import os; os._exit(0)"
            subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=90, check=True)
            broker.wait_ready(60)
            assert broker.state is BrokerState.STARTING
            broker.start()
            assert broker.state is BrokerState.RUNNING and LocalBroker.named(name).state is BrokerState.RUNNING
            elsewhere("stop")
            nothing_left({pid}, broker.ports, None)
            assert broker.log_lines(5) and broker.data_dir.is_dir()
        finally:
            broker.kill()
