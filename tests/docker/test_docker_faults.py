"""`chatlib.faults` on RabbitMQ 4 in a container: the same as on a local node, by the engine's and the container's own means."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import chatlib
from chatlib import faults
from chatlib.brokers import BrokerState, DockerBroker
from chatlib.faults import FaultError
from chatlib.names import inbox_queue
from tests.support import process_runs, wait_until
from tests.talk import Talk
from tests.wire import management

pytestmark = pytest.mark.timeout(180)

Unique = Callable[[str], str]
LIMITS = "{vm_memory_monitor:get_vm_memory_high_watermark(), rabbit_disk_monitor:get_disk_free_limit()}."


@pytest.fixture(scope="module")
def container() -> Iterator[DockerBroker]:
    with DockerBroker() as broker:
        yield broker
        broker.kill()


@pytest.fixture
def node(container: DockerBroker) -> DockerBroker:
    container.start()
    return container


@pytest.fixture
def talk(node: DockerBroker, unique: Unique) -> Iterator[Talk]:
    with Talk(node, unique) as talk:
        yield talk


def alarms(broker: DockerBroker) -> set[str]:
    """Which alarms the broker reports now."""
    with management(broker) as client:
        answer = client.get("health/checks/alarms").json()
    return {alarm["resource"].split()[0] for alarm in answer.get("alarms", [])}  # "disk space", "memory"


def test_kill_and_freeze(node: DockerBroker, talk: Talk) -> None:
    pid = node.pid
    assert pid
    with faults.freeze(node):
        assert node.state is BrokerState.FROZEN
        talk.stalls("while it is paused", 50)
        with pytest.raises(FaultError, match="frozen and answers nobody"):
            faults.disk_alarm(node)
    talk.goes_on("after it was unpaused")
    with faults.kill(node):
        assert node.state is BrokerState.STOPPED and not process_runs(pid)
        wait_until(lambda: talk.chat.state == "recovering", 20, "the link is lost")
        with pytest.raises(FaultError, match="does not run"):
            faults.memory_alarm(node)
    assert node.state is BrokerState.RUNNING and node.pid != pid
    assert talk.verdict().valid and talk.chat.reconnects >= 1


def test_both_alarms_block_who_publishes_and_give_their_limits_back(node: DockerBroker, talk: Talk) -> None:
    before = node.rabbitmqctl("eval", LIMITS)
    with faults.memory_alarm(node), faults.disk_alarm(node):
        assert alarms(node) == {"memory", "disk"}
        wait_until(lambda: talk.was("blocked"), 10, "the link is blocked")
        talk.stalls("under the alarms")
    assert alarms(node) == set()
    assert node.rabbitmqctl("eval", LIMITS) == before
    talk.goes_on("after the alarms")
    assert talk.verdict().valid and talk.chat.reconnects == 0


def test_the_network_connections_and_queues(node: DockerBroker, unique: Unique) -> None:
    with faults.Path(node) as path, Talk(path, unique) as talk:
        with faults.cut(path):
            wait_until(lambda: talk.chat.state == "recovering", 10, "the link is lost")
        talk.goes_on("after the cut")
        assert faults.close_connections(node, talk.chat).count == 2
        wait_until(lambda: talk.chat.reconnects >= 2, 20, "it is back")
        talk.goes_on("after the operator closed its connections")
        talk.quiet()
        faults.delete_queue(node, inbox_queue(talk.bob.name))
        talk.goes_on("into the new inbox")
        assert talk.verdict(returned=True).valid
    with chatlib.connect(node), pytest.raises(FaultError, match="there is no such queue"):
        faults.delete_queue(node, unique("none"))
