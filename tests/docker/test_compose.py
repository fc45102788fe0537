"""docker-compose.yml on a real engine: the broker alone, JupyterLab beside it, three nodes as a cluster; each is used, then taken down."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pika
import pytest
import websocket

import chatlib
from chatlib.brokers import BrokerState, DockerBroker, Ports
from chatlib.brokers.docker.engine import Engine
from chatlib.brokers.node import RETRIED_AFTER
from chatlib.brokers.ports import choose_ports, is_free
from chatlib.errors import BrokerStartFailed
from tests.support import ROOT, unique_name, wait_until
from tests.wire import raw

pytestmark = pytest.mark.timeout(900)  # JupyterLab's image is built here, in minutes where no layer of it is cached

PORTS = (5672, 15672, 5673, 15673, 5674, 15674, 5675, 15675)
BROKER = "amqp://chatlib:chatlib@127.0.0.1:5672/"
CLUSTER = [f"amqp://chatlib:chatlib@127.0.0.1:{port}/" for port in (5673, 5674, 5675)]
TOKEN = "a-token-of-the-test"


class Project:
    """The project's Compose file, under a name of the test's own, so that a course in use here is not touched."""

    def __init__(self) -> None:
        self.name = unique_name("chatlib-test")
        self.lab_port = choose_ports(Ports()).amqp

    def __call__(self, *args: str, check: bool = True) -> str:
        done = subprocess.run(
            ["docker", "compose", "--project-name", self.name, *args],
            cwd=ROOT,
            env=os.environ | {"PORT": str(self.lab_port), "TOKEN": TOKEN},
            capture_output=True,
            text=True,
            timeout=850,
            check=False,
        )
        assert not check or done.returncode == 0, f"docker compose {' '.join(args)}: {done.stdout}{done.stderr}"
        return done.stdout

    def services(self) -> dict[str, str]:
        """The services that have a container, and how that is: "running", "exited"."""
        lines = self("ps", "--all", "--format", "json").splitlines()
        return {each["Service"]: each["State"] for each in map(json.loads, lines)}


@pytest.fixture(scope="module")
def compose(engine: Engine) -> Iterator[Project]:
    taken = [port for port in PORTS if not is_free(port)]
    if taken:
        pytest.skip(f"docker-compose.yml wants ports that are in use here: {taken}")
    project = Project()
    try:
        yield project
    finally:
        project("--profile", "lab", "--profile", "cluster", "down", "--volumes", "--rmi", "local", "--timeout", "5", check=False)


def test_the_broker_of_the_file_is_brought_up_adopted_and_taken_down(compose: Project) -> None:
    """1 brought up by the object, crashes, comes back; 2 closed: gone; 3 up by Compose: healthy, the message is there; 4 adopted."""
    with DockerBroker.from_compose(project=compose.name) as broker:
        assert (broker.url, broker.management_url) == (BROKER.replace("5672/", "5672/%2F"), "http://127.0.0.1:15672")
        assert not broker.adopted and broker.name == f"{compose.name}-broker-1" and broker.node_name == "rabbit@broker"
        limit = broker.rabbitmqctl(
            "eval", "{ok, Value} = application:get_env(rabbit, dead_letter_worker_publisher_confirm_timeout), Value."
        )
        assert int(limit) == RETRIED_AFTER
        with raw(broker.url) as observer:
            observer.channel.queue_declare("kept", durable=True)
            broker.rabbitmqctl("eval", "catch mnesia:sync_log().")
            observer.put("kept", b"survivor", delivery_mode=2)
        broker.crash()
        broker.wait_ready(60)
        broker.disconnect()
        broker.reconnect()
        broker.wait_ready(10)
        broker.stop()
    assert compose.services() == {} and is_free(5672)

    compose("up", "--detach", "--wait", "broker")
    with raw(BROKER) as observer:  # at once: healthy means that it serves
        assert observer.depth("kept") == 1
    with DockerBroker.from_compose(ROOT / "docker-compose.yml", project=compose.name) as broker:
        assert broker.adopted
        broker.kill()
        assert broker.state is BrokerState.STOPPED and compose.services() == {"broker": "exited"}
        broker.start()
        with raw(broker.url) as observer:
            assert observer.take("kept", 1)[0][1] == b"survivor"
    assert compose.services() == {"broker": "running"}, "an adopted broker is left alone"


def test_a_compose_file_that_is_not_there_or_not_good(tmp_path: Path) -> None:
    with pytest.raises(BrokerStartFailed, match="no Compose file"):
        DockerBroker.from_compose(tmp_path / "docker-compose.yml")
    (tmp_path / "docker-compose.yml").write_text("services: {broker: {imagine: rabbitmq}}\n")
    with pytest.raises(BrokerStartFailed, match=r"failed(.|\n)*imagine"):
        DockerBroker.from_compose(tmp_path / "docker-compose.yml").start()


def run_in_kernel(address: str, code: str) -> str:
    """Run `code` in a new kernel of the JupyterLab at `address`; return what it printed. A traceback fails the test."""
    http = httpx.Client(base_url=f"http://{address}", headers={"Authorization": f"token {TOKEN}"}, timeout=60, trust_env=False)
    with http:
        kernel = http.post("/api/kernels", json={"name": "python3", "path": "notebooks"}).raise_for_status().json()["id"]
        channels = websocket.create_connection(f"ws://{address}/api/kernels/{kernel}/channels?token={TOKEN}", timeout=120)
        try:
            header = {"msg_id": "1", "msg_type": "execute_request", "username": "", "session": "test", "version": "5.3"}
            content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
            request = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell", "buffers": []}
            channels.send(json.dumps(request))
            printed = ""
            while True:
                answer: dict[str, Any] = json.loads(channels.recv())
                kind, said = answer["header"]["msg_type"], answer["content"]
                if kind == "stream":
                    printed += said["text"]
                elif kind == "execute_reply":
                    assert said["status"] == "ok", f"{said.get('ename')}: {said.get('evalue')}\n{printed}"
                elif kind == "status" and said["execution_state"] == "idle" and answer["parent_header"].get("msg_id") == "1":
                    return printed
        finally:
            channels.close()
            http.delete(f"/api/kernels/{kernel}")


IN_THE_LAB = """
import chatlib
with chatlib.default_broker() as broker, chatlib.connect(broker) as chat:
    for name in ("{ann}", "{bob}"):
        chat.user(name).go_offline()
    chat.user("{ann}").send("@{bob}", "from the lab").wait(timeout=30)
    print(broker.url)
with chatlib.LocalBroker() as own:  # what the lessons break
    own.kill()
    print(own.state.value)
"""


def test_jupyterlab_answers_and_a_kernel_there_reaches_the_broker(compose: Project, engine: Engine) -> None:
    """1 up with the broker; 2 the address that it prints works; 3 a kernel sends through the broker and runs one of its own."""
    compose("--profile", "lab", "up", "--detach", "--wait", "lab")
    assert compose.services() == {"broker": "running", "lab": "running"}
    address = f"127.0.0.1:{compose.lab_port}"
    page = f"http://{address}/lab/tree/notebooks/00-start-here.ipynb?token={TOKEN}"
    assert page in engine.client.containers.get(f"{compose.name}-lab-1").logs().decode().splitlines()
    with httpx.Client(follow_redirects=True, timeout=30, trust_env=False) as http:
        assert "JupyterLab" in http.get(page).raise_for_status().text
        listed = http.get(f"http://{address}/api/contents/notebooks").raise_for_status()  # by the cookie of that log-in
    assert httpx.get(listed.url, trust_env=False).status_code == 403, "without the token nothing is shown"
    assert "00-start-here.ipynb" in {entry["name"] for entry in listed.json()["content"]}
    ann, bob = unique_name("ann"), unique_name("bob")
    assert run_in_kernel(address, IN_THE_LAB.format(ann=ann, bob=bob)).split() == ["amqp://chatlib:chatlib@broker:5672/", "stopped"]
    with chatlib.connect(BROKER) as chat:  # and here, outside, is what was sent there
        (message,) = chat.user(bob).receive(limit=1, timeout=10)
        assert (message.sender_id, message.content) == (ann, "from the lab")
        message.ack()
    compose("--profile", "lab", "down", "--rmi", "local", "--timeout", "10")


def test_three_nodes_are_a_cluster_and_outlive_one_of_them(compose: Project, engine: Engine, unique: Callable[[str], str]) -> None:
    """1 up: three running; 2 a quorum queue of three holds a confirmed message; 3 its leader is killed; 4 the others serve it."""
    compose("--profile", "cluster", "up", "--detach", "--wait", "rabbit1", "rabbit2", "rabbit3")
    api = httpx.Client(base_url="http://127.0.0.1:15673/api/", auth=("chatlib", "chatlib"), timeout=10, trust_env=False)
    names = {f"rabbit@rabbit{number}" for number in (1, 2, 3)}

    def running(client: httpx.Client) -> set[str]:
        return {node["name"] for node in client.get("nodes").raise_for_status().json() if node["running"]}

    with api:
        wait_until(lambda: running(api) == names, 60, "three nodes to run as one cluster", poll=0.5)
    queue = unique("quorum")
    with raw(CLUSTER[1]) as observer:
        observer.channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        observer.put(queue, b"survivor", delivery_mode=2)
    with chatlib.connect(CLUSTER) as chat:
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        ann.send(bob.address, "hello").wait(30)
        assert [message.content for message in bob.receive(limit=1, timeout=10)] == ["hello"]

    with httpx.Client(base_url="http://127.0.0.1:15674/api/", auth=("chatlib", "chatlib"), timeout=10, trust_env=False) as other:
        leader = wait_until(lambda: other.get(f"queues/%2F/{queue}").json().get("leader"), 20, "the queue's leader to be told")
    number = int(leader[-1])
    engine.client.containers.get(f"{compose.name}-rabbit{number}-1").kill()
    left = [url for index, url in enumerate(CLUSTER, 1) if index != number]

    def taken() -> bytes | None:
        try:
            with raw(left[0]) as observer:
                return observer.take(queue, 1, timeout=5)[0][1]
        except pika.exceptions.AMQPError:  # "nodedown", while a new leader is being elected
            return None

    assert wait_until(taken, 60, "the queue's new leader to serve", poll=0.5) == b"survivor"
    with httpx.Client(base_url=f"http://127.0.0.1:{15673 + (number % 3)}/api/", auth=("chatlib", "chatlib"), timeout=10) as alive:
        wait_until(lambda: running(alive) == names - {leader}, 30, "two nodes to run", poll=0.5)
    with chatlib.connect(CLUSTER) as chat:  # the dead one is among the addresses
        chat.user(unique("cid")).send(chat.user(unique("dan")).address, "goes on").wait(30)
