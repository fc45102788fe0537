"""Brokers without a broker: names, ports, records, errors; real processes where processes matter."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path

import psutil
import pytest

from chatlib import brokers
from chatlib.brokers import BrokerState, LocalBroker, Ports, RemoteBroker, default_broker, diagnosis, installation, masked, node, registry
from chatlib.brokers.identity import load_or_create
from chatlib.brokers.installation import Installation
from chatlib.brokers.ports import choose_ports, require_free
from chatlib.brokers.process import OurProcess
from chatlib.brokers.reaper import Reaper
from chatlib.errors import BrokerNotInstalled, BrokerNotOurs, BrokerStartFailed, BrokerUnavailable, ChatError, InvalidName
from tests.support import process_runs, wait_until


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own, and no broker from outside."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("CHATLIB_BROKER_URL", raising=False)
    return tmp_path / "state" / "chatlib"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is not ours in the registry's eyes."""
    child = subprocess.Popen(["sleep", "300"], start_new_session=True)
    yield child
    child.kill()
    child.wait()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://bob:secret@host:5672/%2F", "amqp://bob:***@host:5672/%2F"),
        ("amqps://bob:se%40cr%3Aet@host", "amqps://bob:***@host"),
        ("amqp://bob:p:q@r@host/x", "amqp://bob:***@host/x"),
        ("amqp://bob@host/x", "amqp://bob@host/x"),
        ("amqp://host/x", "amqp://host/x"),
    ],
)
def test_passwords_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


class TestPorts:
    def test_chosen_ports_are_free_different_and_below_the_ephemeral_range(self) -> None:
        chosen = choose_ports(Ports())
        assert len(set(astuple(chosen))) == 4
        assert all(1024 < port < 32768 for port in astuple(chosen))
        require_free(chosen)

    def test_given_ports_are_kept(self) -> None:
        assert choose_ports(Ports(amqp=25_001, epmd=25_002)).amqp == 25_001

    @pytest.mark.parametrize("bad", [{"amqp": -1}, {"amqp": 65536}, {"amqp": 5, "dist": 5}])
    def test_impossible_ports_are_refused(self, bad: dict[str, int]) -> None:
        with pytest.raises(ValueError, match="four different numbers"):
            Ports(**bad)

    @pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])  # noqa: S104  (a stranger may listen everywhere)
    def test_a_taken_port_is_named_with_its_holder(self, address: str) -> None:
        with socket.socket() as other:
            other.bind((address, 0))
            other.listen()
            port = other.getsockname()[1]
            with pytest.raises(BrokerStartFailed, match=rf"port {port} \(for management\).*taken by process {os.getpid()}"):
                require_free(Ports(management=port, amqp=choose_ports(Ports()).amqp))


class TestIdentity:
    def test_it_is_kept_for_later_processes_and_secret(self, tmp_path: Path) -> None:
        first = load_or_create(tmp_path / "b")
        assert load_or_create(tmp_path / "b") == first
        assert stat.S_IMODE((tmp_path / "b" / "broker.json").stat().st_mode) == 0o600
        assert first.password not in repr(first) and first.cookie not in repr(first)
        assert first.user != "guest" and len(first.password) >= 20
        assert [path.name for path in (tmp_path / "b").iterdir()] == ["broker.json"]

    def test_what_is_given_replaces_what_was_kept_but_never_the_node(self, tmp_path: Path) -> None:
        first = load_or_create(tmp_path)
        second = load_or_create(tmp_path, ports=Ports(amqp=25_003), config=["a = 1"])
        assert (second.node, second.password, second.ports.dist) == (first.node, first.password, first.ports.dist)
        assert (second.ports.amqp, second.config) == (25_003, ("a = 1",))
        assert load_or_create(tmp_path) == second

    def test_nodes_of_a_cluster_leave_out_the_feature_flags_of_a_plugin_where_one_would_not_serve_again(self, tmp_path: Path) -> None:
        alone = load_or_create(tmp_path / "b")
        member = replace(alone, peers=(alone.node, "another@localhost"))
        old = Installation(Path("/r/sbin/rabbitmq-server"), Path("/e/erl"), Path("/e/epmd"), "3.10.8", "25.2.3")
        given = node.environment(member, old)["RABBITMQ_FEATURE_FLAGS"].split(",")
        assert "quorum_queue" in given and "stream_queue" in given and "drop_unroutable_metric" not in given
        for identity, found in ((alone, old), (member, replace(old, version="4.0.5"))):
            assert "RABBITMQ_FEATURE_FLAGS" not in node.environment(identity, found)

    def test_two_processes_agree_on_a_new_folder(self, tmp_path: Path) -> None:
        code = "import sys, pathlib, chatlib.brokers.identity as i; print(i.load_or_create(pathlib.Path(sys.argv[1])).url)"
        children = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "b")], stdout=subprocess.PIPE) for _ in range(4)]
        answers = {child.communicate()[0] for child in children}
        assert len(answers) == 1 and answers != {b""}

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 9}', "nonsense"])
    def test_a_damaged_one_is_refused_and_left(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "broker.json").write_text(text, encoding="utf-8")
        with pytest.raises(BrokerStartFailed, match="is damaged"):
            load_or_create(tmp_path)
        assert (tmp_path / "broker.json").read_text(encoding="utf-8") == text

    def test_a_database_without_its_identity_is_not_taken_for_a_new_broker(self, tmp_path: Path) -> None:
        (tmp_path / "rabbitmq" / "mnesia" / "chatlib-1@localhost").mkdir(parents=True)
        with pytest.raises(BrokerStartFailed, match=r"no broker\.json"):
            load_or_create(tmp_path)


class TestNoBroker:
    def test_no_rabbitmq_names_the_three_ways(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("CHATLIB_RABBITMQ_SERVER", raising=False)
        monkeypatch.setattr(installation, "DEBIAN_LIB", tmp_path / "none")
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CONDA_PREFIX", raising=False)
        with pytest.raises(BrokerNotInstalled, match=r"(?s)not installed.*apt install rabbitmq-server.*conda.*docker compose up"):
            LocalBroker().start()

    def test_a_rabbitmq_without_erlang_says_so(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        server = tmp_path / "lib" / "rabbitmq_server-9.9.9" / "sbin" / "rabbitmq-server"
        server.parent.mkdir(parents=True)
        server.write_text("#!/bin/sh\n", encoding="utf-8")
        server.chmod(0o755)
        monkeypatch.setenv("CHATLIB_RABBITMQ_SERVER", str(server))
        monkeypatch.setenv("PATH", "")
        with pytest.raises(BrokerNotInstalled, match="Erlang is missing"):
            LocalBroker().start()

    def test_a_wrong_variable_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CHATLIB_RABBITMQ_SERVER", "/nowhere/rabbitmq-server")
        with pytest.raises(BrokerNotInstalled, match="CHATLIB_RABBITMQ_SERVER=/nowhere"):
            installation.find_installation()

    def test_a_conda_environment_is_found_newest_first(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for version in ("4.3.4", "4.10.0"):
            server = tmp_path / "lib" / f"rabbitmq_server-{version}" / "sbin" / "rabbitmq-server"
            server.parent.mkdir(parents=True)
            server.touch(0o755)
        root = tmp_path / "lib" / "erlang"
        (root / "bin").mkdir(parents=True)
        (root / "releases" / "27").mkdir(parents=True)
        (root / "releases" / "27" / "OTP_VERSION").write_text("27.3.1\n", encoding="utf-8")
        (tmp_path / "bin").mkdir()
        for program in ("erl", "epmd"):
            (root / "bin" / program).touch(0o755)
            (tmp_path / "bin" / program).symlink_to(root / "bin" / program)
        monkeypatch.delenv("CHATLIB_RABBITMQ_SERVER", raising=False)
        monkeypatch.setattr(installation, "DEBIAN_LIB", tmp_path / "none")
        monkeypatch.setenv("PATH", "/usr/bin:/bin")
        monkeypatch.setenv("CONDA_PREFIX", str(tmp_path))
        found = installation.find_installation()
        assert (found.version, found.erlang_version) == ("4.10.0", "27.3.1")
        assert found.erl == tmp_path / "bin" / "erl"

    def test_behind_a_wrapper_the_program_that_it_would_run_is_found(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """As conda-forge and Debian install it: the wrapper runs what it is called as, so by its own name it would run itself for ever."""
        scripts = tmp_path / "lib" / "rabbitmq" / "sbin"
        scripts.mkdir(parents=True)
        (tmp_path / "bin").mkdir()
        for program in (
            scripts / "rabbitmq-script-wrapper",
            scripts / "rabbitmq-server",
            tmp_path / "bin" / "erl",
            tmp_path / "bin" / "epmd",
        ):
            program.touch(0o755)
        (tmp_path / "bin" / "rabbitmq-server").symlink_to(scripts / "rabbitmq-script-wrapper")
        (tmp_path / "lib" / "rabbitmq" / "plugins" / "rabbit-4.3.4").mkdir(parents=True)
        monkeypatch.delenv("CHATLIB_RABBITMQ_SERVER", raising=False)
        monkeypatch.setattr(installation, "DEBIAN_LIB", tmp_path / "none")
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        for given in (None, str(tmp_path / "bin" / "rabbitmq-server")):
            if given:
                monkeypatch.setenv("CHATLIB_RABBITMQ_SERVER", given)
            found = installation.find_installation()
            assert found.server == scripts / "rabbitmq-server" and found.erl == tmp_path / "bin" / "erl"
            assert (found.home, found.version) == (tmp_path / "lib" / "rabbitmq", "4.3.4")

    @pytest.mark.parametrize("name", ["a[b]", "it's", 'say "x"', "new\nline", "$HOME", "a*", "back\\slash", "{}"])
    def test_a_path_that_rabbitmq_cannot_take_is_refused_with_the_rule(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(BrokerStartFailed, match="whose path has a quote"):
            LocalBroker(tmp_path / name).start()
        assert not (tmp_path / name).exists()

    @pytest.mark.parametrize("where", ["file", "file/below", "/proc/nothing"])
    def test_a_folder_that_cannot_be_one(self, tmp_path: Path, where: str) -> None:
        (tmp_path / "file").write_text("x", encoding="utf-8")
        with pytest.raises(BrokerStartFailed, match=r"cannot be used: .*Use a data_dir"):
            LocalBroker(tmp_path / where).start()

    def test_a_full_disk_is_said_before_the_start(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 20_000_000}))
        with pytest.raises(BrokerStartFailed, match="20 MB free"):
            LocalBroker(tmp_path).start()

    def test_an_unknown_plugin(self, tmp_path: Path) -> None:
        with pytest.raises(BrokerStartFailed, match="no plugin rabbitmq_managementt"):
            LocalBroker(tmp_path, plugins=["rabbitmq_managementt"]).start()

    def test_a_stopped_broker(self, tmp_path: Path) -> None:
        broker = LocalBroker(tmp_path)
        assert (broker.state, broker.is_running, broker.pid) == (BrokerState.STOPPED, False, None)
        for harmless in (broker.stop, broker.kill, broker.thaw, broker.close, broker.close):
            harmless()
        with pytest.raises(BrokerUnavailable, match="start"):
            broker.freeze()
        with pytest.raises(BrokerUnavailable, match="does not run"):
            broker.wait_ready(30)
        password = broker.url.split(":")[2].split("@")[0]
        assert password not in repr(broker) and "***" in repr(broker)


class TestOurProcess:
    def test_a_process_without_our_tag_is_never_touched(self, sleeper: subprocess.Popen[bytes]) -> None:
        created = psutil.Process(sleeper.pid).create_time()
        stranger = OurProcess(sleeper.pid, created, "0123456789abcdef")
        assert not stranger.alive
        assert stranger.kill()  # "gone": from our point of view there is none
        stranger.signal(signal.SIGTERM)
        assert process_runs(sleeper.pid)

    def test_a_process_that_took_over_the_pid_is_never_touched(self) -> None:
        child = subprocess.Popen(["/bin/sh", "-c", "sleep 300; :", "tag-0123"], start_new_session=True)
        try:
            created = psutil.Process(child.pid).create_time()
            wait_until(lambda: OurProcess(child.pid, created, "tag-0123").alive, what="the shell to carry its tag")
            earlier = OurProcess(child.pid, created - 60, "tag-0123")
            assert not earlier.alive
            earlier.kill()
            assert process_runs(child.pid)
        finally:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    def test_one_in_the_middle_of_an_exec_is_alive(self, tmp_path: Path) -> None:
        """A shell that becomes a shell, again and again: without patience some 30 of these looks found no command line."""
        again = tmp_path / "again"
        again.write_text('exec /bin/sh "$0" "$1"')
        child = subprocess.Popen(["/bin/sh", str(again), "tag-0123"])
        try:
            found = OurProcess(child.pid, psutil.Process(child.pid).create_time(), "tag-0123")
            for _ in range(5000):
                assert found.alive
        finally:
            child.kill()
            child.wait()
        assert not found.alive

    def test_its_reaper_ends_one_in_the_middle_of_an_exec(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = tmp_path / "seen"
        fake = tmp_path / "tr"  # the reaper reads a command line through it
        fake.write_text(f"""#!/bin/sh\n[ -e {seen} ] || {{ : > {seen}; exit 0; }}\nPATH=${{PATH#*:}} exec tr "$@"\n""")
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        child = subprocess.Popen(["/bin/sh", "-c", "read -r _", "tag-0123"], stdin=subprocess.PIPE, start_new_session=True)
        reaper = Reaper("tag-0123", None, tmp_path / "record")
        try:
            reaper.watch(child.pid)
            reaper.disown()  # what the death of the owner does
            assert child.wait(10) == -signal.SIGKILL and seen.exists()
        finally:
            child.kill()
            child.communicate()


class TestRegistry:
    def make(self, state: Path, tag: str, data_dir: Path, *lines: dict[str, object], **changes: object) -> Path:
        path = registry.state_folder() / "nodes" / f"{tag}.jsonl"
        assert path.is_relative_to(state)
        path.parent.mkdir(exist_ok=True)
        head = {
            "tag": tag,
            "data_dir": str(data_dir),
            "temporary": True,
            "detached": False,
            "host": os.uname().nodename,
            "owner": 1,
        } | changes
        path.write_text(
            "".join(json.dumps(line) + "\n" for line in (head, *lines)) + '{"role": "ep', encoding="utf-8"
        )  # killed as it wrote
        return path

    def test_what_a_dead_owner_left_is_swept(self, state: Path, tmp_path: Path) -> None:
        folder = tmp_path / "chatlib-broker-x"
        folder.mkdir()
        child = subprocess.Popen(["/bin/sh", "-c", "sleep 300; :", "feedface"], start_new_session=True)
        line = {"role": "vm", "pid": child.pid, "created": psutil.Process(child.pid).create_time()}
        path = self.make(state, "feedface", folder, line)
        wait_until(lambda: next(registry.entries()).running, what="the shell to carry its tag")
        assert [entry.tag for entry in registry.sweep()] == ["feedface"]
        assert child.wait(5) == -signal.SIGKILL
        assert not folder.exists() and not path.exists()

    def test_what_has_a_living_owner_is_left(self, state: Path, tmp_path: Path) -> None:
        folder = tmp_path / "chatlib-broker-x"
        folder.mkdir()
        record = registry.Record("cafe", folder, temporary=True, detached=False)
        assert registry.sweep() == []
        assert folder.exists() and record.path.exists()
        record.disown()  # as the system does at the owner's death
        assert [entry.tag for entry in registry.sweep()] == ["cafe"]

    def test_only_a_temporary_folder_with_our_name_is_removed(self, state: Path, tmp_path: Path) -> None:
        for name, temporary in (("chatlib-broker-kept", False), ("Documents", True)):
            (tmp_path / name).mkdir()
            self.make(state, name, tmp_path / name, temporary=temporary)
        registry.sweep()
        assert (tmp_path / "chatlib-broker-kept").exists() and (tmp_path / "Documents").exists()

    def test_another_machines_record_in_a_shared_home_is_left(self, state: Path, tmp_path: Path) -> None:
        folder = tmp_path / "chatlib-broker-x"
        folder.mkdir()
        path = self.make(state, "abcd", folder, host="another-machine")
        assert registry.sweep() == [] and list(registry.entries()) == []
        assert path.exists() and folder.exists()

    def test_a_node_that_runs_here_is_ours_though_this_machine_has_another_name_by_now(self, state: Path, tmp_path: Path) -> None:
        """The name changes with the network on some systems; process, its time of creation and its tag do not."""
        child = subprocess.Popen(["/bin/sh", "-c", "sleep 300; :", "f00d"], start_new_session=True)
        line = {"role": "vm", "pid": child.pid, "created": psutil.Process(child.pid).create_time()}
        self.make(state, "f00d", tmp_path, line, host="as-it-was-called", temporary=False)
        wait_until(lambda: [entry.tag for entry in registry.entries()] == ["f00d"], what="the shell to carry its tag")
        assert [entry.tag for entry in registry.sweep()] == ["f00d"]
        assert child.wait(5) == -signal.SIGKILL

    def test_a_start_that_nobody_saw_through_can_be_noted_later(self, state: Path, tmp_path: Path) -> None:
        path = self.make(state, "beef", tmp_path, detached=True)
        path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")  # the line that was cut off is ended
        (entry,) = registry.entries()
        assert not entry.ready
        for _ in range(2):
            entry.mark_ready()
            (entry,) = registry.entries()
            assert entry.ready

    def test_a_home_that_cannot_be_written(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", "/proc/nothing")
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        assert registry.state_folder() == tmp_path / f"chatlib-state-{os.getuid()}"
        assert os.access(registry.state_folder(), os.W_OK)


# What RabbitMQ 3.10.8 says, shortened
PORT_LOG = """\
2026-11-22 02:53:14.300000+00:00 [info] <0.223.0> epmd monitor knows us, inter-node communication (distribution) port: 23413
2026-11-22 02:53:14.396457+00:00 [error] <0.762.0>     reason: {listen_error,{acceptor,{127,0,0,1},34263},eaddrinuse}
2026-11-22 02:53:14.397904+00:00 [error] <0.665.0> Error during startup: {error,
2026-11-22 02:53:14.397904+00:00 [error] <0.665.0>     ancestors: [<0.129.0>]
Error during startup: {error,
"""


class TestDiagnosis:
    def test_the_telling_lines_once_and_without_the_rest(self) -> None:
        assert diagnosis.telling_lines(PORT_LOG.splitlines()) == [
            "reason: {listen_error,{acceptor,{127,0,0,1},34263},eaddrinuse}",
            "Error during startup: {error,",
        ]

    @pytest.mark.parametrize(
        ("line", "help_text"),
        [
            ("[error] <0.1.0>  reason: {listen_error,{acceptor,{127,0,0,1},34263},eaddrinuse}", "port is taken"),
            ("[error] <0.1.0> ERROR: could not bind to distribution port 34263 on host localhost.", "port is taken"),
            ("[error] <0.1.0> error:{badmatch,{error,enospc}}", "disk is full"),
            ("[error] <0.1.0>   - Conf file attempted to set unknown variable: nonsense", "configuration line"),
            ("[error] <0.1.0> reason: {'EXIT',nodistribution}", "/etc/hosts"),
        ],
    )
    def test_advice_follows_the_log(self, line: str, help_text: str) -> None:
        assert help_text in diagnosis.advice([f"2026-11-22 02:53:14.396457+00:00 {line}"])

    def test_what_a_healthy_node_says_is_no_cause(self) -> None:
        assert diagnosis.advice(PORT_LOG.splitlines()[:1]) == ""

    def test_only_what_this_start_said_counts(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_text(PORT_LOG, encoding="utf-8")
        offset = log.stat().st_size
        with log.open("a", encoding="utf-8") as file:
            file.write("exec: erl: not found\n")
        error = diagnosis.start_failure("It ended", log, offset)
        assert error.log == ["exec: erl: not found"]
        assert "Erlang is missing" in str(error) and str(log) in str(error)


class TestRemote:
    @pytest.mark.parametrize(
        ("url", "management"),
        [
            ("amqp://u:p@chat.example.org/x", "http://chat.example.org:15672"),
            ("amqps://u:p@chat.example.org:5671", "https://chat.example.org:15671"),
            ("amqp://[::1]:5672/", "http://[::1]:15672"),
        ],
    )
    def test_the_management_address_is_derived(self, url: str, management: str) -> None:
        assert RemoteBroker(url).management_url == management
        assert RemoteBroker(url, "http://other:1/").management_url == "http://other:1"

    @pytest.mark.parametrize("url", ["", "host", "http://host", "amqp://", "amqp://host:port/", "amqp://u:secret@/x"])
    def test_what_is_no_address_is_refused_without_its_password(self, url: str) -> None:
        with pytest.raises(ValueError, match="amqp://user:password@host") as caught:
            RemoteBroker(url)
        assert "secret" not in str(caught.value) and isinstance(caught.value, ChatError)

    @pytest.mark.parametrize("verb", ["stop", "restart", "kill", "freeze", "thaw"])
    def test_its_life_is_not_ours(self, verb: str) -> None:
        broker = RemoteBroker("amqp://u:secret@chat.example.org")
        with pytest.raises(BrokerNotOurs, match="somebody else") as caught:
            getattr(broker, verb)()
        assert "secret" not in f"{caught.value} {broker!r}"

    def test_nobody_there(self) -> None:
        broker = RemoteBroker(f"amqp://u:secret@127.0.0.1:{choose_ports(Ports()).amqp}")
        with pytest.raises(BrokerUnavailable) as caught:
            broker.wait_ready(0.2)
        assert "secret" not in str(caught.value)
        assert broker.state is BrokerState.STOPPED


class TestDefault:
    def test_the_variable_comes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CHATLIB_BROKER_URL", "amqp://u:p@host/x")
        broker = default_broker()
        assert isinstance(broker, RemoteBroker) and broker.url == "amqp://u:p@host/x" and broker.management_url == "http://host:15672"

    def test_and_its_management_api_may_be_elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CHATLIB_BROKER_URL", "amqp://u:p@host/x")
        monkeypatch.setenv("CHATLIB_MANAGEMENT_URL", "http://host:8080/")
        broker = default_broker()
        assert isinstance(broker, RemoteBroker) and broker.management_url == "http://host:8080"

    def test_then_a_local_one_not_yet_started(self) -> None:
        broker = default_broker()
        assert isinstance(broker, LocalBroker) and broker.state is BrokerState.STOPPED and not broker.detached

    def test_without_anything_it_says_how_to_get_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CHATLIB_RABBITMQ_SERVER", "/nowhere")
        monkeypatch.setattr(brokers, "_docker_broker", lambda: None)
        with pytest.raises(BrokerNotInstalled, match="Three ways"):
            default_broker()


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "x" * 41, "ü"])
def test_names_of_brokers(name: str) -> None:
    with pytest.raises(InvalidName, match="1 to 40"):
        LocalBroker.named(name)
