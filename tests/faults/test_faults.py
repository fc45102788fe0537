"""`chatlib.faults` on a real broker: each fault hits somebody who is talking, is seen to do so, and is healed; the verdict is valid.

The proof that a fault was there comes first: the link's states, unconfirmed messages that pile up, an alarm in the broker's own list.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import chatlib
from chatlib import faults
from chatlib.brokers import BrokerState, RemoteBroker
from chatlib.errors import BrokerUnavailable, Unroutable
from chatlib.faults import FaultError
from chatlib.names import inbox_queue
from tests.support import ROOT, process_runs, wait_until
from tests.talk import Talk
from tests.wire import management

pytestmark = pytest.mark.timeout(120)

Unique = Callable[[str], str]
LIMITS = "{vm_memory_monitor:get_vm_memory_high_watermark(), rabbit_disk_monitor:get_disk_free_limit()}."


@pytest.fixture
def direct(mortal: Any, unique: Unique) -> Iterator[Talk]:
    """Talk straight to the broker."""
    with Talk(mortal, unique) as talk:
        yield talk


@pytest.fixture
def path(mortal: Any) -> Iterator[faults.Path]:
    with faults.Path(mortal) as path:
        yield path


@pytest.fixture
def through(path: faults.Path, unique: Unique) -> Iterator[Talk]:
    """Talk through the path."""
    with Talk(path, unique) as talk:
        yield talk


def alarms(broker: Any) -> set[str]:
    """Which alarms the broker reports now."""
    with management(broker) as client:
        answer = client.get("health/checks/alarms").json()
    return {alarm["resource"].split()[0] for alarm in answer.get("alarms", [])}  # "disk space", "memory"


class TestBroker:
    def test_kill_with_two_more_faults_at_once(self, mortal: Any, direct: Talk) -> None:
        """1 an alarm, then frozen, then killed; 2 healed in the wrong order: what is dead has no alarm and cannot be thawed; 3 and comes
        back without either."""
        # 1
        pid = mortal.pid
        alarm = faults.memory_alarm(mortal)
        assert alarms(mortal) == {"memory"}
        wait_until(lambda: direct.was("blocked"), 10, "the link is blocked")
        frozen = faults.freeze(mortal)
        with faults.kill(mortal) as fault:
            assert (fault.name, fault.target) == ("kill", "broker")
            assert not mortal.is_running and not process_runs(pid)
            wait_until(lambda: direct.chat.state == "recovering", 20, "the link is lost")
            direct.stalls("while it is dead")
            # 2
            for other in (alarm, frozen):
                other.heal()
                assert other.ended and mortal.state is BrokerState.STOPPED
            with pytest.raises(FaultError, match=r"cannot kill broker: it does not run, start\(\) it first"):
                faults.kill(mortal)
            with pytest.raises(BrokerUnavailable, match="does not run"):
                mortal.rabbitmqctl("eval", LIMITS)
        # 3
        assert mortal.state is BrokerState.RUNNING and mortal.pid != pid and alarms(mortal) == set()
        fault.heal()
        direct.goes_on("after the start")
        assert direct.verdict().valid and direct.chat.reconnects >= 1
        assert direct.faults == [alarm, frozen, fault]

    def test_stop(self, mortal: Any, direct: Talk) -> None:
        def stopped() -> None:
            with faults.stop(mortal):
                assert mortal.state is BrokerState.STOPPED
                wait_until(lambda: direct.chat.state == "recovering", 20, "the link is lost")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            stopped()
        assert mortal.state is BrokerState.RUNNING
        assert direct.verdict().valid and direct.chat.reconnects >= 1

    def test_freeze(self, mortal: Any, direct: Talk) -> None:
        with faults.freeze(mortal):
            assert mortal.state is BrokerState.FROZEN
            direct.stalls("while it is frozen", 50)
            with pytest.raises(FaultError, match="frozen already"):
                faults.freeze(mortal)
            with pytest.raises(FaultError, match="frozen and answers nobody"):
                faults.memory_alarm(mortal)
        assert mortal.state is BrokerState.RUNNING
        direct.goes_on("after it was thawed")
        assert direct.verdict().valid and direct.chat.reconnects == 0, "it was not away long enough for anybody to hang up"


class TestAlarms:
    def test_both_alarms_block_who_publishes_and_give_their_limits_back(self, mortal: Any, unique: Unique) -> None:
        """1 blocked, and who only reads goes on; 2 not a second time; 3 one healed, the other still blocks; 4 no healing while frozen;
        5 the limits are what they were."""
        before = mortal.rabbitmqctl("eval", LIMITS)
        with Talk(mortal, unique) as talk, chatlib.connect(mortal, on_event=talk.recorder) as second:
            cid = second.user(unique("cid"))
            cid.go_offline()
            talk.ann.send(cid.address, "for later").wait(10)
            with faults.disk_alarm(mortal) as disk:
                with faults.memory_alarm(mortal) as memory:
                    assert alarms(mortal) == {"memory", "disk"}
                    # 1
                    wait_until(lambda: talk.was("blocked"), 10, "the link is blocked")
                    talk.stalls("under the alarm")
                    cid.go_online()
                    assert [message.content for message in cid.receive(limit=1, timeout=10) if not message.ack()] == ["for later"]
                    # 2
                    with pytest.raises(FaultError, match="has a memory alarm already"):
                        faults.memory_alarm(mortal)
                    assert alarms(mortal) == {"memory", "disk"}
                # 3
                assert memory.ended and alarms(mortal) == {"disk"}
                assert talk.chat.state == "blocked"
                # 4
                with faults.freeze(mortal), pytest.raises(FaultError, match=r"frozen: thaw\(\) it, then heal\(\) again"):
                    disk.heal()
                assert disk.ended is None
            assert alarms(mortal) == set()
            talk.goes_on("after the alarms")
            assert talk.verdict().valid and talk.chat.reconnects == 0
        # 5
        assert mortal.rabbitmqctl("eval", LIMITS) == before


class TestPath:
    def test_cut(self, path: faults.Path, through: Talk) -> None:
        with faults.cut(path):
            assert path.connections == 0
            wait_until(lambda: through.chat.state == "recovering", 10, "the link is lost")
            through.stalls("while it is cut")
        through.goes_on("after the cut")
        assert through.verdict().valid and through.chat.reconnects == 1

    def test_black_hole(self, path: faults.Path, through: Talk) -> None:
        with faults.black_hole(path):
            through.stalls("in the black hole", 50)
            assert through.chat.state == "connected", "nobody knows yet"
            assert path.swallowed > 0
        through.goes_on("after the black hole")
        assert through.verdict().valid and through.chat.reconnects == 1

    def test_half_open(self, path: faults.Path, through: Talk) -> None:
        """The chat is back at once, while the broker still has its old connections, and hands messages to the old consumers.

        Nothing is lost: those come again. Of the order nothing is said here: what came by the new consumer meanwhile was earlier.
        """
        with faults.half_open(path):
            wait_until(lambda: through.chat.reconnects == 1, 10, "it is back")
            assert path.connections == 4
            swallowed = path.swallowed
            wait_until(lambda: path.swallowed > swallowed, 10, "the broker talks to those who are gone")
        verdict = through.verdict()
        assert (verdict.lost, verdict.duplicated, verdict.unexpected, path.connections) == (0, 0, 0, 2)

    def test_delay_and_throttle(self, path: faults.Path, through: Talk) -> None:
        """Two at once: a confirm takes a round trip at least, and large content what the rate allows; nobody hangs up."""
        began = time.monotonic()
        with faults.delay(path, 0.2):
            through.say("late").wait(20)
            assert time.monotonic() - began >= 0.4
            with faults.throttle(path, 50_000):
                began = time.monotonic()
                through.say("x" * 40_000).wait(20)
                assert time.monotonic() - began >= 1.0
        through.goes_on("after the jam")
        assert through.verdict().valid and through.chat.reconnects == 0


class TestConnections:
    def test_those_of_a_chat(self, mortal: Any, direct: Talk) -> None:
        """The operator closes both of its connections; it comes back, and others notice nothing."""
        with chatlib.connect(mortal) as bystander:
            fault = faults.close_connections(mortal, direct.chat)
            assert fault.count == 2 and fault.ended == fault.began and fault.target == f"connections of {direct.chat.name}"
            wait_until(lambda: direct.chat.reconnects >= 1, 20, "it is back")
            assert any("closed by an operator" in reason for _, reason in direct.states)
            direct.goes_on("after it")
            assert direct.verdict().valid and bystander.reconnects == 0

    def test_by_name_and_all_of_them(self, mortal: Any, unique: Unique) -> None:
        """A broker that somebody else runs can be asked the same, since it takes the API only."""
        name, remote = unique("party"), RemoteBroker(mortal.url, mortal.management_url)
        with chatlib.connect(mortal, name=f"{name} one") as one, chatlib.connect(mortal, name=unique("other")) as other:
            assert faults.close_connections(remote, name).count in (1, 2)
            wait_until(lambda: one.reconnects >= 1, 20, "it is back")
            assert other.reconnects == 0
            wait_until(lambda: faults.close_connections(remote).count and other.reconnects >= 1, 30, "the other one is closed, too")

    def test_nobody(self, mortal: Any, unique: Unique, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("chatlib.faults.connections.LISTED", 0.1)
        with pytest.raises(FaultError, match=r"none was listed within 0\.1 s; is the client connected to this broker"):
            faults.close_connections(mortal, unique("nobody"))


class TestQueues:
    def test_the_inbox_of_somebody_online_is_made_again_with_his_memberships(self, mortal: Any, unique: Unique) -> None:
        """Nothing was in it. What is sent before it is there again is returned to the sender; nothing is lost without a word."""
        team = "#" + unique("team")
        with Talk(mortal, unique) as talk:
            talk.bob.join(team)
            talk.quiet()
            fault = faults.delete_queue(mortal, inbox_queue(talk.bob.name))
            assert (fault.target, fault.ended) == (f"inbox.{talk.bob.name}", fault.began)
            talk.goes_on("into the new inbox")
            before = len(talk.handled)
            talk.ann.send(team, "to the group").wait(10)
            wait_until(lambda: "to the group" in talk.handled[before:], 10, "he still is a member")
            assert talk.verdict(returned=True).valid and talk.chat.reconnects == 0

    def test_the_inbox_of_somebody_offline_is_missed_by_the_sender_and_made_again_when_he_comes(self, mortal: Any, unique: Unique) -> None:
        with chatlib.connect(mortal) as chat:
            ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
            bob.go_offline()
            ann.send(bob.address, "gone").wait(10)
            faults.delete_queue(RemoteBroker(mortal.url, mortal.management_url), inbox_queue(bob.name))
            with pytest.raises(Unroutable):
                ann.send(bob.address, "nobody there").wait(10)
            bob.go_online()
            ann.send(bob.address, "hello again").wait(10)
            assert [message.content for message in bob.receive(limit=1, timeout=10)] == ["hello again"]

    def test_there_is_no_such_queue(self, mortal: Any, unique: Unique) -> None:
        with chatlib.connect(mortal), pytest.raises(FaultError, match=r"there is no such queue; there are .*dead-letters"):
            faults.delete_queue(mortal, unique("none"))


class TestProcesses:
    PROGRAM = """
import sys, chatlib
url, role, name, other = sys.argv[1:]
with chatlib.connect(url) as chat:
    user = chat.user(name)
    if role == "receiver":
        for message in user.receive(limit=1, timeout=30):
            print(message.content, flush=True)
            sys.stdin.read()
    for number in range(10**6):
        sent = user.send(other, str(number))
        if number % 50 == 0:
            sent.wait(20)
            print(number, flush=True)
"""

    @contextlib.contextmanager
    def running(self, *args: str) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-c", self.PROGRAM, *args]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            try:
                yield process
            finally:
                process.kill()

    def test_a_consumer_before_its_ack_and_a_sender(self, mortal: Any, unique: Unique) -> None:
        """What was shown to a receiver and not acked comes again; what a sender saw confirmed is there."""
        name = unique("bob")
        with chatlib.connect(mortal) as chat:
            chat.users([name], online=False)
            chat.user(unique("ann")).send("@" + name, "important").wait(10)
            with self.running(mortal.url, "receiver", name, "") as process:
                assert process.stdout and process.stdout.readline() == "important\n"
                fault = faults.kill_process(process)
                assert process.returncode == -9 and fault.target == f"process {process.pid}"
            bob = chat.user(name)
            bob.go_online()
            (again,) = bob.receive(limit=1, timeout=20)
            assert again.content == "important"
            again.ack()
            with self.running(mortal.url, "sender", unique("cid"), bob.address) as process:
                assert process.stdout
                confirmed = [int(process.stdout.readline()) for _ in range(4)][-1]
                faults.kill_process(process.pid)
            got = [int(message.content) for message in bob.receive(timeout=2) if not message.ack()]
            assert got == list(range(len(got))) and len(got) > confirmed


def test_faults_in_several_threads_are_recorded(mortal: Any, direct: Talk, path: faults.Path) -> None:
    with faults.recording() as found, ThreadPoolExecutor() as pool:
        made = [pool.submit(faults.close_connections, mortal, direct.chat), pool.submit(faults.cut, path)]
        done = [each.result(30) for each in made]
        faults.freeze(mortal).heal()
        done[1].heal()
    assert {fault.name for fault in found} == {"close_connections", "cut", "freeze"} and set(done) < set(found)
    assert all(fault.ended is not None and fault.began <= fault.ended for fault in found)
    assert direct.verdict().valid
