"""DockerBroker on a real engine: every operation with a confirmed persistent message that survives it, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pika
import pytest

import chatlib
from chatlib.brokers import BrokerState, DockerBroker, Ports, RemoteBroker, default_broker
from chatlib.brokers.docker.engine import OWNER_LABEL, Engine
from chatlib.brokers.ports import is_free
from chatlib.errors import AccessRefused, BrokerNotInstalled, BrokerStartFailed, BrokerUnavailable
from tests.support import ROOT, process_runs, unique_name, wait_until
from tests.wire import management, raw

pytestmark = pytest.mark.timeout(180)

Inventory = Callable[[], set[str]]


@pytest.fixture(scope="module")
def volume(engine: Engine) -> Iterator[str]:
    name = unique_name("chatlib-test")
    yield name
    engine.client.volumes.get(name).remove()


@pytest.fixture(scope="module")
def shared(volume: str) -> Iterator[DockerBroker]:
    """One broker for the tests that put it through its states; each starts it where it needs to."""
    with DockerBroker(volume=volume) as broker:
        with raw(broker.url) as observer:
            observer.channel.queue_declare("kept", durable=True)
        # 3.10 and 4.0 write what a queue is to the disk a second late: what is tested here is the messages in it
        broker.rabbitmqctl("eval", "catch mnesia:sync_log().")
        yield broker
        broker.kill()  # quicker than the graceful stop


@pytest.fixture
def node(shared: DockerBroker) -> DockerBroker:
    shared.start()
    return shared


@pytest.fixture
def message(node: DockerBroker) -> Iterator[str]:
    """The text of a confirmed, persistent message in a durable queue; at the end of the test it is there, once, and is taken."""
    text = unique_name("message")
    with raw(node.url) as observer:
        assert observer.depth("kept") == 0
        observer.put("kept", text.encode(), delivery_mode=2)
    yield text
    with raw(node.url) as observer:
        assert [body.decode() for _, body in observer.take("kept", 1)] == [text]
        assert observer.depth("kept") == 0


def refused(url: str) -> bool:
    try:
        with raw(url):
            return False
    except (pika.exceptions.AMQPError, OSError):
        return True


class TestLife:
    def test_it_serves_its_own_user_on_loopback_with_live_statistics(self, node: DockerBroker, engine: Engine, message: str) -> None:
        assert (node.state, node.is_running, node.is_connected, node.adopted) == (BrokerState.RUNNING, True, True, False)
        parts = urlsplit(node.url)
        assert parts.hostname == "127.0.0.1" and parts.username not in {None, "guest"} and parts.port == node.ports.amqp
        with pytest.raises(AccessRefused):
            RemoteBroker(f"amqp://guest:guest@127.0.0.1:{parts.port}/%2F").start()
        container = engine.client.containers.get(node.name)
        published = {binding["HostIp"] for each in container.ports.values() for binding in each or []}
        assert published == {"127.0.0.1"}
        assert 1024 < node.ports.amqp < 32768 and 1024 < node.ports.management < 32768
        assert container.attrs["Config"]["Hostname"] == "broker" and node.node_name == "rabbit@broker"
        began = time.monotonic()
        with management(node) as client:
            wait_until(lambda: client.get("queues/%2F/kept").json()["messages"] == 1, 10, "management to count the message")
        assert time.monotonic() - began < 4.5, "5 s is RabbitMQ's default interval"

    def test_what_it_says_of_itself(self, node: DockerBroker) -> None:
        assert node.rabbitmqctl("eval", "1 + 1.").strip() == "2"
        with pytest.raises(BrokerUnavailable, match="no-such-command"):
            node.rabbitmqctl("no-such-command")
        assert "Server startup complete" in node.logs()
        assert len(node.log_lines(3)) == 3 and node.log_lines(0) == []
        status = json.loads(json.dumps(node.status()))
        assert (status["state"], status["url"], status["volume"]) == ("running", node.url, node.volume)
        assert process_runs(status["pid"])
        password = urlsplit(node.url).password
        assert password and password not in repr(node)

    def test_kill_ends_it_and_no_confirmed_message(self, node: DockerBroker, message: str) -> None:
        url, pid = node.url, node.pid
        assert pid is not None
        node.kill()
        assert (node.state, node.is_running, node.pid) == (BrokerState.STOPPED, False, None)
        assert not process_runs(pid) and refused(url)
        with pytest.raises(BrokerUnavailable, match="start"):
            node.wait_ready(30)
        with pytest.raises(BrokerUnavailable, match="start"):
            node.freeze()
        node.kill()
        node.stop()
        node.start()
        assert node.url == url and node.pid != pid and node.state is BrokerState.RUNNING

    def test_a_crash_inside_is_mended_by_docker_itself(self, node: DockerBroker, engine: Engine, message: str) -> None:
        def restarts() -> int:
            return int(engine.client.containers.get(node.name).attrs["RestartCount"])

        before, pid = restarts(), node.pid
        assert pid is not None
        node.crash()
        assert not process_runs(pid)
        node.wait_ready(60)
        assert restarts() == before + 1 and node.state is BrokerState.RUNNING

    def test_stop_and_start_are_graceful_and_keep_address_and_data(self, node: DockerBroker, message: str) -> None:
        url = node.url
        channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
        with ThreadPoolExecutor() as pool:
            stopped = pool.submit(node.stop)
            with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as said:
                wait_until(lambda: channel.connection.process_data_events(0.1), 20, "the broker to say goodbye")
            stopped.result()
        assert said.value.reply_code == 320
        assert node.state is BrokerState.STOPPED
        node.start()
        assert node.url == url

    def test_a_frozen_broker_lives_and_answers_nothing(self, node: DockerBroker, message: str) -> None:
        node.freeze()
        node.freeze()
        assert node.state is BrokerState.FROZEN and node.is_running
        for impossible in (lambda: node.wait_ready(30), node.crash):
            with pytest.raises(BrokerUnavailable, match="thaw"):
                impossible()
        with socket.create_connection(("127.0.0.1", node.ports.amqp), 2) as client:
            client.settimeout(0.5)
            client.sendall(b"AMQP\x00\x00\x09\x01")
            with pytest.raises(TimeoutError):
                client.recv(8)
            node.thaw()
            node.thaw()
            client.settimeout(10)
            assert client.recv(8)[:1] == b"\x01"  # the first frame, as if nothing had been
        pid = node.pid
        node.freeze()
        node.start()  # thaws
        assert (node.state, node.pid) == (BrokerState.RUNNING, pid)

    def test_a_frozen_broker_can_be_killed(self, node: DockerBroker, message: str) -> None:
        node.freeze()
        node.kill()
        assert node.state is BrokerState.STOPPED
        node.start()

    def test_cut_off_it_lives_and_nobody_reaches_it(self, node: DockerBroker, message: str) -> None:
        pid = node.pid
        channel = pika.BlockingConnection(pika.URLParameters(node.url)).channel()
        node.disconnect()
        node.disconnect()
        assert (node.is_connected, node.is_running, node.pid) == (False, True, pid)
        assert refused(node.url)
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            wait_until(lambda: channel.connection.process_data_events(0.1), 10, "the open connection to break")
        with pytest.raises(BrokerUnavailable, match="reconnect"):
            node.wait_ready(30)
        node.reconnect()
        node.reconnect()
        node.wait_ready(10)
        assert (node.is_connected, node.pid) == (True, pid)
        node.disconnect()
        node.start()  # reconnects
        assert node.pid == pid

    def test_a_container_that_somebody_removed_is_made_again_around_the_same_data(
        self, node: DockerBroker, engine: Engine, message: str
    ) -> None:
        url, before = node.url, engine.client.containers.get(node.name)
        before.remove(force=True, v=True)
        assert node.state is BrokerState.STOPPED and node.logs() == ""
        with pytest.raises(BrokerUnavailable, match="start"):
            node.disconnect()
        node.start()
        assert node.url == url and engine.client.containers.get(node.name).id != before.id

    def test_a_volume_is_for_one_broker_at_a_time(self, node: DockerBroker) -> None:
        other = DockerBroker(volume=node.volume, ports=Ports(21_001, 21_002))
        with pytest.raises(BrokerStartFailed, match=f"in use by the container {node.name}"):
            other.start()

    def test_another_object_of_the_same_name_adopts_it(self, node: DockerBroker) -> None:
        with DockerBroker(name=node.name) as guest:
            assert guest.adopted and guest.url == node.url and guest.management_url == node.management_url
            guest.freeze()
            assert node.state is BrokerState.FROZEN
            guest.thaw()
        assert node.state is BrokerState.RUNNING
        node.wait_ready(5)

    def test_a_forked_child_neither_stops_nor_keeps_it(self, node: DockerBroker) -> None:
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

    def test_a_chat_lives_through_its_death(self, node: DockerBroker) -> None:
        """1 bob is away; 2 a message is confirmed; 3 the broker crashes and Docker starts it; 4 bob gets the message, once."""
        with chatlib.connect(node) as chat:
            alice, bob = chat.user(unique_name("alice")), chat.user(unique_name("bob"))
            alice.send(bob.address, "before").wait(5)
            bob.go_offline()
            node.rabbitmqctl("eval", "catch mnesia:sync_log().")
            alice.send(bob.address, "meanwhile").wait(5)
            node.crash()
            later = alice.send(bob.address, "later")
            later.wait(60)
            assert chat.reconnects >= 1
            bob.go_online()
            seen = []
            for received in bob.receive(limit=3, timeout=20):
                seen.append(received.content)
                received.ack()
            assert seen == ["before", "meanwhile", "later"]


def test_3_10_in_a_container_too() -> None:
    with DockerBroker("rabbitmq:3-management") as broker:
        with management(broker) as client:
            assert client.get("overview").json()["rabbitmq_version"].startswith("3.")
        with raw(broker.url) as observer:
            observer.channel.queue_declare("kept", durable=True)
            broker.rabbitmqctl("eval", "mnesia:sync_log().")
            observer.put("kept", b"survivor", delivery_mode=2)
        broker.kill()
        broker.start()
        with raw(broker.url) as observer:
            assert observer.take("kept", 1)[0][1] == b"survivor"


class TestFailedStart:
    def test_a_taken_port_is_named_with_its_holder(self, inventory: Inventory) -> None:
        before = inventory()
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            broker = DockerBroker(ports=Ports(amqp=port))
            with pytest.raises(BrokerStartFailed, match=f"port {port} is taken by process {os.getpid()}"), broker:
                pass
        assert inventory() == before
        with pytest.raises(BrokerStartFailed, match="was closed"):
            broker.start()

    def test_a_broker_that_ends_is_told_at_once_with_its_own_words(self, inventory: Inventory) -> None:
        before = inventory()
        broker = DockerBroker(config=["nonsense = 3"], start_timeout=150)
        began = time.monotonic()
        with pytest.raises(BrokerStartFailed, match="configuration line") as failed, broker:
            pass
        assert time.monotonic() - began < 60, "it waited for the deadline instead of watching the container"
        assert any("nonsense" in line for line in failed.value.log)
        assert inventory() == before

    def test_an_image_that_is_not_here_and_cannot_be_pulled(self, inventory: Inventory) -> None:
        before = inventory()
        with pytest.raises(BrokerNotInstalled, match=r"docker pull rabbitmq:0\.0-none(.|\n)*rabbitmq:4-management"):
            DockerBroker("rabbitmq:0.0-none").start()
        assert inventory() == before

    def test_what_is_no_broker_is_not_adopted(self, engine: Engine) -> None:
        name = unique_name("chatlib-test")
        container = engine.client.containers.create("rabbitmq:4-management", ["true"], name=name)
        try:
            with pytest.raises(BrokerStartFailed, match="no port for AMQP"):
                DockerBroker(name=name).start()
        finally:
            container.remove(v=True)

    def test_a_volume_of_somebody_else(self, engine: Engine) -> None:
        volume = engine.client.volumes.create(unique_name("chatlib-test"))
        try:
            with pytest.raises(BrokerStartFailed, match=r"password(.|\n)*docker volume rm"):
                DockerBroker(volume=volume.name).start()
        finally:
            volume.remove()

    def test_a_volume_that_was_removed_is_not_replaced_by_an_empty_one(self, engine: Engine) -> None:
        broker = DockerBroker(config=["nonsense = 3"])
        with pytest.raises(BrokerStartFailed, match="configuration line"):
            broker.start()  # the container is gone again, the volume is there until close()
        engine.client.volumes.get(broker.volume).remove()
        with pytest.raises(BrokerStartFailed, match="somebody removed the volume"):
            broker.start()
        broker.close()


class Relay:
    """A socket of its own in front of the engine's, to be closed: an engine that stops in between."""

    def __init__(self, path: Path, target: str) -> None:
        self._target = target
        self._open: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            self._open += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def test_an_engine_that_stops_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine, inventory: Inventory, caplog: pytest.LogCaptureFixture
) -> None:
    """Each operation says so and what to do; close() does not fail; what is left goes when the owner goes or by the next sweep."""
    before = inventory()
    direct = engine.client.api.base_url
    assert direct == "http+docker://localhost", "this test stands in front of a Unix socket"
    relay = Relay(tmp_path / "engine.sock", os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://"))
    with monkeypatch.context() as patch:
        patch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'engine.sock'}")
        broker = DockerBroker()
        broker.start()
        relay.stop()
        for operation in (broker.start, broker.stop, broker.kill, broker.crash, broker.freeze, broker.disconnect, broker.logs):
            with pytest.raises(BrokerStartFailed, match=r"engine stopped answering(.|\n)*systemctl start docker"):
                operation()
        assert broker.state is BrokerState.RUNNING  # the container lives on, only its engine's socket is gone
        broker.close()
        assert "could not be removed now" in caplog.text
    name = broker.name
    engine.client.containers.get(name).remove(force=True, v=True)
    engine.client.volumes.get(f"{name}-data").remove()
    assert inventory() == before


# Starts a broker, says its name, and waits or ends.
OWNER = """
import sys
from chatlib.brokers import DockerBroker
broker = DockerBroker()
broker.start()
print(broker.name, broker._vessel._reaper._shell.pid, flush=True)
sys.argv[1] == "wait" and sys.stdin.read()
"""


def owner(then: str) -> tuple[subprocess.Popen[str], str, int]:
    """Return a Python process that owns a broker, the container's name, and the process that watches over it."""
    process = subprocess.Popen([sys.executable, "-c", OWNER, then], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    name, reaper = process.stdout.readline().split()
    return process, name, int(reaper)


class TestNothingStaysBehind:
    def test_sigkill_of_the_owner_takes_its_container_along(self, inventory: Inventory) -> None:
        before = inventory()
        process, name, reaper = owner("wait")
        assert inventory() - before == {f"container {name}", f"volume {name}-data"}
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=10)
        wait_until(lambda: inventory() == before, 15, "container and volume to be gone")
        wait_until(lambda: not process_runs(reaper), 5, "the reaper to end")

    def test_where_the_reaper_died_too_the_next_broker_finds_what_is_left(self, inventory: Inventory, engine: Engine) -> None:
        before = inventory()
        process, name, reaper = owner("wait")
        other = engine.client.volumes.create(
            unique_name("chatlib-test"), labels={OWNER_LABEL: '{"machine": "another", "pid": 1, "created": 1}'}
        )
        try:
            DockerBroker()
            assert f"container {name}" in inventory(), "its owner lives: it is left alone"
            os.kill(reaper, signal.SIGKILL)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=10)
            assert f"container {name}" in inventory(), "something else removed it: this test proves nothing"
            DockerBroker()
            assert inventory() - before == {f"volume {other.name}"}, "and another machine's process may live"
        finally:
            other.remove()

    def test_a_normal_end_without_close(self, inventory: Inventory) -> None:
        before = inventory()
        process, _, reaper = owner("end")
        assert process.wait(60) == 0
        assert inventory() == before and not process_runs(reaper)

    def test_collected_or_closed_twice(self, inventory: Inventory) -> None:
        before = inventory()
        broker: DockerBroker | None = DockerBroker()
        assert broker is not None
        broker.start()
        port = broker.ports.amqp
        assert len(inventory() - before) == 2 and not is_free(port)
        broker = None
        wait_until(lambda: inventory() == before and is_free(port), 10, "all of a collected broker to be gone")
        unused = DockerBroker()
        assert unused.url
        unused.close()
        unused.close()
        assert inventory() == before


def test_a_detached_broker_outlives_its_starter_and_is_adopted_by_name(engine: Engine) -> None:
    name = unique_name("chatlib-test")
    code = f"from chatlib.brokers import DockerBroker as D; b = D(name={name!r}, detached=True); b.start(); print(b.url)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    try:
        broker = DockerBroker(name=name)
        assert broker.adopted and broker.url == done.stdout.strip() and broker.state is BrokerState.RUNNING
        broker.kill()
        broker.close()
        assert broker.state is BrokerState.STOPPED
        again = DockerBroker(name=name)
        assert again.adopted and again.url == broker.url
        engine.client.containers.get(name).remove(force=True)
        with pytest.raises(BrokerStartFailed, match="somebody removed the container"):
            again.start()
        revived = DockerBroker(name=name, detached=True)
        assert not revived.adopted and revived.url == broker.url  # from the volume
    finally:
        engine.client.volumes.get(f"{name}-data").remove()


def test_without_a_local_rabbitmq_the_default_is_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CHATLIB_BROKER_URL", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("CHATLIB_RABBITMQ_SERVER", "/nowhere/rabbitmq-server")
    broker = default_broker()
    assert isinstance(broker, DockerBroker)
    broker.close()
