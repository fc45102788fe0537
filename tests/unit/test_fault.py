"""What a fault is, whoever makes it; and the path, with a server that says back what it hears."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chatlib import faults
from chatlib.brokers import LocalBroker, RemoteBroker
from chatlib.errors import BrokerUnavailable, ChatError
from chatlib.faults import Fault, FaultError, Path, forwarder
from chatlib.faults.fault import inflict
from tests.support import ROOT, process_runs, wait_until


class Switch:
    """Something that a fault breaks and mends; `mending` raises what is put there."""

    def __init__(self) -> None:
        self.broken = False
        self.mended = 0
        self.trouble: list[BaseException] = []

    def smash(self) -> None:
        self.broken = True

    def mend(self) -> None:
        if self.trouble:
            raise self.trouble.pop()
        self.broken, self.mended = False, self.mended + 1

    def fault(self, seen: Callable[[], bool] | None = None, patience: float = 5.0) -> Fault:
        return inflict("smash", "switch", self.smash, seen=seen or (lambda: self.broken), heal=self.mend, patience=patience)


@pytest.fixture
def switch() -> Switch:
    return Switch()


class TestFault:
    def test_it_begins_when_it_is_done_and_ends_when_it_is_healed(self, switch: Switch) -> None:
        before = time.time()
        fault = switch.fault()
        assert switch.broken and before <= fault.began <= time.time() and fault.ended is None
        assert repr(fault) == "<Fault smash: switch, not healed>"
        fault.heal()
        assert not switch.broken and fault.ended is not None and fault.began <= fault.ended <= time.time()
        assert repr(fault) == "<Fault smash: switch, healed>"
        assert str(fault).startswith("smash: switch, from ") and str(fault).endswith(" UTC")

    def test_healed_twice_is_healed_once(self, switch: Switch) -> None:
        with switch.fault() as fault:
            fault.heal()
            ended = fault.ended
            fault.heal()
        assert switch.mended == 1 and fault.ended == ended

    def test_it_is_healed_after_an_exception_and_the_exception_goes_on(self, switch: Switch) -> None:
        with pytest.raises(ZeroDivisionError), switch.fault():
            _ = 1 / 0
        assert switch.mended == 1 and not switch.broken

    def test_what_cannot_be_healed_says_so_and_goes_on_until_it_is(self, switch: Switch) -> None:
        fault = switch.fault()
        switch.trouble = [BrokerUnavailable("it is gone")]
        with pytest.raises(FaultError, match=r"smash of switch could not be healed, call heal\(\) again: it is gone"):
            fault.heal()
        assert fault.ended is None
        fault.heal()
        assert fault.ended is not None and not switch.broken

    def test_an_exception_is_not_hidden_by_a_fault_that_cannot_be_healed(self, switch: Switch) -> None:
        switch.trouble = [BrokerUnavailable("it is gone")]
        with pytest.raises(ZeroDivisionError) as caught, switch.fault():
            _ = 1 / 0
        assert ["it is gone" in note for note in caught.value.__notes__] == [True]
        switch.trouble = [BrokerUnavailable("it is gone")]
        with pytest.raises(FaultError, match="it is gone"), switch.fault():
            pass

    def test_a_fault_of_which_nothing_is_seen_is_undone(self, switch: Switch) -> None:
        with pytest.raises(FaultError, match=r"no effect of it was seen within 0\.05 s; it was undone"):
            switch.fault(seen=lambda: False, patience=0.05)
        assert switch.mended == 1 and not switch.broken

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), BrokerUnavailable("it is gone"), OSError("no")])
    def test_what_goes_wrong_on_the_way_is_undone(self, switch: Switch, error: BaseException) -> None:
        def seen() -> bool:
            raise error

        with faults.recording() as found, pytest.raises(FaultError if isinstance(error, Exception) else KeyboardInterrupt) as caught:
            switch.fault(seen=seen)
        assert switch.mended == 1 and found == []
        assert isinstance(error, KeyboardInterrupt) or "cannot smash switch: " in str(caught.value)

    def test_its_facts_cannot_be_changed(self, switch: Switch) -> None:
        fault = switch.fault()
        for name in ("name", "target", "detail", "count", "began", "ended"):
            with pytest.raises(AttributeError):
                setattr(fault, name, 0)

    def test_what_is_over_at_once_has_nothing_to_heal(self) -> None:
        fault = Fault("delete_queue", "inbox.bob")
        assert fault.ended == fault.began and repr(fault) == "<Fault delete_queue: inbox.bob, over>"
        fault.heal()
        with fault:
            pass
        assert fault.ended == fault.began

    def test_a_record_is_json(self, switch: Switch) -> None:
        fault = switch.fault()
        record = json.loads(json.dumps(fault.as_record()))
        assert record == {"name": "smash", "target": "switch", "detail": "", "began": fault.began, "ended": None, "count": None}

    def test_threads_that_heal_at_the_same_time_heal_once(self, switch: Switch) -> None:
        fault, gate = switch.fault(), threading.Barrier(8)

        def heal() -> None:
            gate.wait(5)
            fault.heal()

        threads = [threading.Thread(target=heal) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
        assert switch.mended == 1


class TestRecording:
    def test_it_has_what_begins_within_it_in_any_thread(self, switch: Switch) -> None:
        before = switch.fault()
        with faults.recording() as outer:
            with faults.recording() as inner:
                first = switch.fault()
                thread = threading.Thread(target=switch.fault)
                thread.start()
                thread.join(5)
            last = Fault("close_connections", "all")
        after = switch.fault()
        assert inner == outer[:2] and inner[0] is first and outer[2] is last
        assert before not in outer and after not in outer

    def test_a_listener_gets_the_records_of_a_history_also_of_the_end_that_comes_later(self, switch: Switch) -> None:
        heard: list[dict[str, object]] = []

        def broken_listener(event: dict[str, object]) -> None:
            heard.append(event)
            raise RuntimeError("planted")

        with faults.recording(broken_listener):
            fault = switch.fault()
        fault.heal()
        switch.fault().heal()
        assert [(event["hop"], event["name"], event["target"], event["at"]) for event in heard] == [
            ("fault.began", "smash", "switch", fault.began),
            ("fault.ended", "smash", "switch", fault.ended),
        ]


class TestWhatCannotBeDone:
    @pytest.mark.parametrize(
        "make", [faults.stop, faults.kill, faults.freeze, faults.memory_alarm, faults.disk_alarm], ids=lambda make: make.__name__
    )
    def test_what_does_not_run_or_is_not_ours_is_left_alone(self, make: Callable[[object], Fault]) -> None:
        with faults.recording() as found:
            with pytest.raises(FaultError, match="it does not run, start"):
                make(LocalBroker())
            with pytest.raises(FaultError, match=r"run by somebody else; use chatlib\.LocalBroker"):
                make(RemoteBroker("amqp://guest:guest@127.0.0.1:1/"))
        assert found == []

    @pytest.mark.parametrize(
        "wrong", [None, 5, "amqp://guest:guest@127.0.0.1:1/", object()], ids=["None", "a number", "a URL", "an object"]
    )
    def test_what_is_of_the_wrong_kind_is_told_the_right_one(self, wrong: Any) -> None:
        for whole in (faults.stop, faults.kill, faults.freeze, faults.memory_alarm, faults.disk_alarm, faults.close_connections):
            with pytest.raises(FaultError, match=r"it takes a broker, such as chatlib\.LocalBroker"):
                whole(wrong)
        with pytest.raises(FaultError, match="it takes a broker"):
            faults.delete_queue(wrong, "inbox.bob")
        for given in (wrong, LocalBroker()):  # the likeliest mistake: a single broker
            for split in (
                lambda it: faults.partition(it, [0], [1]),
                lambda it: faults.node_down(it, 0),
                lambda it: faults.node_frozen(it, 0),
            ):
                with pytest.raises(FaultError, match=r"it takes a cluster: chatlib\.LocalCluster"):
                    split(given)
            for way in (faults.cut, faults.black_hole, faults.half_open, lambda it: faults.delay(it, 1), lambda it: faults.throttle(it, 1)):
                with pytest.raises(FaultError, match=r"it takes a path: with faults\.Path\(broker\)"):
                    way(given)
        if not isinstance(wrong, str):
            with pytest.raises(ValueError, match="a path leads to a broker"):
                faults.Path(wrong)
        if not isinstance(wrong, int):
            with pytest.raises(FaultError, match="it takes a process or its number"):
                faults.kill_process(wrong)

    def test_without_a_management_api_there_is_no_operator(self) -> None:
        for broker in (LocalBroker(), RemoteBroker("amqp://guest:guest@127.0.0.1:1/", "http://127.0.0.1:1")):
            with pytest.raises(FaultError, match="is the broker up, with the plugin rabbitmq_management"):
                faults.close_connections(broker)
            with pytest.raises(FaultError, match="rabbitmq_management"):
                faults.delete_queue(broker, "inbox.bob")

    def test_the_error_is_one_of_chatlib_and_goes_to_another_process(self) -> None:
        assert issubclass(FaultError, ChatError)
        assert str(pickle.loads(pickle.dumps(FaultError("no")))) == "no"  # noqa: S301  our own bytes


class TestKillProcess:
    SLEEPER = (sys.executable, "-c", "import sys; sys.stdin.read()")

    def test_a_child_and_a_stranger(self) -> None:
        with subprocess.Popen(self.SLEEPER, stdin=subprocess.PIPE) as child:
            fault = faults.kill_process(child)
            assert child.returncode == -signal.SIGKILL
            assert (fault.name, fault.target, fault.ended) == ("kill_process", f"process {child.pid}", fault.began)
            with pytest.raises(FaultError, match="ended already"):
                faults.kill_process(child)
        with subprocess.Popen(self.SLEEPER, stdin=subprocess.PIPE) as child:
            faults.kill_process(child.pid)
            assert not process_runs(child.pid)
            assert child.wait(5) == -signal.SIGKILL, "its exit status is left to its parent"

    def test_one_of_multiprocessing(self) -> None:
        process = multiprocessing.get_context("spawn").Process(target=signal.pause)
        with pytest.raises(FaultError, match="was not started"):
            faults.kill_process(process)
        process.start()
        assert faults.kill_process(process).target == f"process {process.pid}"
        assert not process.is_alive() and process.exitcode == -signal.SIGKILL
        with pytest.raises(FaultError, match="ended already"):
            faults.kill_process(process)

    @pytest.mark.parametrize("pid", [0, -1, 1, 2**22 + 1])
    def test_what_must_not_be_killed_is_not(self, pid: int) -> None:
        with pytest.raises(FaultError, match="process"):
            faults.kill_process(pid)

    def test_one_does_not_kill_oneself(self) -> None:
        with pytest.raises(FaultError, match="process"):
            faults.kill_process(os.getpid())


@pytest.fixture
def echo() -> Iterator[str]:
    """The URL of a server that says back what it hears, and ends when the client does."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(client: socket.socket) -> None:
        with client:
            try:
                while data := client.recv(65536):
                    client.sendall(data)
            except OSError:
                pass

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield f"amqp://ann:secret@127.0.0.1:{listener.getsockname()[1]}/%2F"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def path(echo: str) -> Iterator[Path]:
    with Path(echo) as path:
        yield path


def client_of(path: Path) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", path.port), timeout=10)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def heard(client: socket.socket, count: int) -> bytes:
    """Exactly so many bytes, or what came before the end."""
    data = b""
    while len(data) < count and (more := client.recv(count - len(data))):
        data += more
    return data


def says_back(client: socket.socket, data: bytes = b"hello") -> float:
    """Seconds until it is heard again, unchanged."""
    began = time.monotonic()
    threading.Thread(target=client.sendall, args=(data,), daemon=True).start()
    assert heard(client, len(data)) == data
    return time.monotonic() - began


class TestPath:
    def test_it_leads_to_the_same_place_by_another_port(self, path: Path, echo: str) -> None:
        assert path.url == echo.replace(echo.split("@")[1].split("/")[0], f"127.0.0.1:{path.port}")
        assert "secret" not in repr(path) and path.management_url is None
        with client_of(path) as client:
            says_back(client)
            wait_until(lambda: (path.connections, path.sent, path.received, path.swallowed) == (1, 5, 5, 0), 5, "it is counted")
            says_back(client, os.urandom(3_000_000))
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b"", "the end is passed on, each way by itself"
        wait_until(lambda: path.connections == 0, 5, "nothing is open")

    def test_many_at_once(self, path: Path) -> None:
        clients = [client_of(path) for _ in range(100)]
        for number, client in enumerate(clients):
            client.sendall(f"{number:4}".encode() * 1000)
        for number, client in enumerate(clients):
            assert heard(client, 4000) == f"{number:4}".encode() * 1000
        assert path.connections == 100
        with faults.cut(path):
            assert path.connections == 0
        for client in clients:
            client.close()

    def test_cut(self, path: Path) -> None:
        with client_of(path) as client:
            says_back(client)
            with faults.cut(path) as fault:
                assert path.connections == 0 and (fault.name, fault.target) == ("cut", "path")
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
                with pytest.raises(ConnectionRefusedError):
                    client_of(path)
        with client_of(path) as client:
            says_back(client)

    def test_black_hole(self, path: Path) -> None:
        with client_of(path) as lost, client_of(path) as quiet:
            says_back(quiet)
            with faults.black_hole(path):
                lost.sendall(b"lost")
                wait_until(lambda: path.swallowed == 4, 5, "it is swallowed")
                with client_of(path) as late:
                    late.sendall(b"late")
                    wait_until(lambda: path.swallowed == 8, 5, "who comes now is accepted, and swallowed, too")
                    late.settimeout(0.1)
                    with pytest.raises(TimeoutError):
                        late.recv(1)
            with pytest.raises(ConnectionResetError):
                lost.recv(1)
            says_back(quiet)

    def test_who_gives_up_in_a_black_hole_does_it_unheard(self, path: Path) -> None:
        with client_of(path) as client:
            says_back(client)
            with faults.black_hole(path):
                client.close()
                with client_of(path) as other:
                    other.sendall(b"x")
                    wait_until(lambda: path.swallowed == 1, 5, "the forwarder has seen what came before")
                assert path.connections >= 1, "the other side still thinks that it is connected"
        wait_until(lambda: path.connections == 0, 5, "it is told at last")

    def test_half_open(self, path: Path) -> None:
        """1 the client is cut, the other side is not told; 2 who comes now gets through; 3 healed, the other side is told."""
        with pytest.raises(FaultError, match="no connection goes through it"):
            faults.half_open(path)
        with client_of(path) as client:
            says_back(client)
            with faults.half_open(path):
                # 1
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
                assert path.connections == 1
                # 2
                with client_of(path) as again:
                    says_back(again)
                    assert path.connections == 2
                    # 3
                    with faults.half_open(path) as second, pytest.raises(ConnectionResetError):
                        again.recv(1)
                    assert second.ended and path.connections == 1
            assert path.connections == 0
        with client_of(path) as client:
            says_back(client)

    def test_delay_keeps_order_and_does_not_narrow_the_line(self, path: Path) -> None:
        with client_of(path) as client:
            with faults.delay(path, 0.15) as fault:
                assert fault.detail == "0.15 s each way"
                assert says_back(client) >= 0.3
                data = os.urandom(1_000_000)
                assert says_back(client, data) >= 0.3
                client.sendall(b"on its way")
            assert heard(client, 10) == b"on its way"
            client.sendall(b"end")
            assert heard(client, 3) == b"end"

    def test_the_end_of_a_delayed_connection_comes_after_its_last_words(self, path: Path) -> None:
        with client_of(path) as client, faults.delay(path, 0.1):
            client.sendall(b"bye")
            client.shutdown(socket.SHUT_WR)
            assert heard(client, 100) == b"bye"

    def test_throttle_is_shared_by_all(self, path: Path) -> None:
        with client_of(path) as one, client_of(path) as other, faults.throttle(path, 20_000):
            began = time.monotonic()
            for client in (one, other):
                client.sendall(b"x" * 4_000)
            for client in (one, other):
                assert len(heard(client, 4_000)) == 4_000
            assert time.monotonic() - began >= 0.35

    def test_what_a_throttle_held_back_goes_on_at_once_when_it_is_healed(self, path: Path) -> None:
        with client_of(path) as client:
            with faults.throttle(path, 1):
                client.sendall(b"x" * 100_000)
            assert len(heard(client, 100_000)) == 100_000

    def test_several_at_once_in_any_order(self, path: Path) -> None:
        with client_of(path) as client:
            slow, slower = faults.delay(path, 0.1), faults.delay(path, 0.2)
            assert says_back(client) >= 0.6
            slow.heal()
            assert says_back(client) >= 0.4
            one, two = faults.cut(path), faults.cut(path)
            hole = faults.black_hole(path)
            one.heal()
            with pytest.raises(ConnectionRefusedError):
                client_of(path)
            two.heal()
            hole.heal()
        with client_of(path) as client:
            assert says_back(client) >= 0.4
            slower.heal()
            says_back(client)

    def test_a_port_that_was_taken_meanwhile_is_asked_for_again(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(forwarder, "PORT_PATIENCE", 0.2)
        fault = faults.cut(path)
        with socket.create_server(("127.0.0.1", path.port)):
            with pytest.raises(FaultError, match=rf"port {path.port} of the path was taken"):
                fault.heal()
            assert fault.ended is None
        fault.heal()
        with client_of(path) as client:
            says_back(client)

    def test_a_path_that_is_closed_can_be_healed_and_not_broken(self, path: Path) -> None:
        fault = faults.cut(path)
        path.close()
        path.close()
        fault.heal()
        assert repr(path).endswith(" closed>")
        with pytest.raises(FaultError, match="this path is closed"):
            faults.black_hole(path)

    def test_a_path_that_nobody_holds_ends(self, echo: str) -> None:
        def threads() -> int:
            return sum(thread.name.startswith("path ") for thread in threading.enumerate())

        before = threads()
        path = Path(echo)
        assert threads() == before + 1
        del path
        wait_until(lambda: threads() == before, 5, "its thread ends")

    def test_nobody_behind_it(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        with Path(f"amqp://127.0.0.1:{port}") as path, pytest.raises(ConnectionResetError), client_of(path) as client:
            client.recv(1)

    def test_what_makes_no_sense(self, path: Path) -> None:
        for wrong in (0, -1, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="more than 0"):
                faults.delay(path, wrong)
            with pytest.raises(ValueError, match="more than 0"):
                faults.throttle(path, wrong)
        for url in ("http://ann:secret@127.0.0.1:1/", "nonsense"):
            with pytest.raises(ValueError, match="a path leads to a broker") as caught:
                Path(url)
            assert "secret" not in str(caught.value)


def test_faults_are_loaded_only_when_asked_for() -> None:
    program = "import sys, chatlib; print('chatlib.faults' in sys.modules); from chatlib import faults; print(faults.kill.__name__)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "kill"]
