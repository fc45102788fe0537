"""The command line with real brokers, as programs: across processes, in pipes, interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import chatlib
from chatlib import doctor
from chatlib.brokers import LocalBroker, registry
from chatlib.checker import check
from chatlib.recorder import load
from tests.support import ROOT, process_runs, wait_until

PROGRAM = [sys.executable, "-c", "from chatlib.cli import app; app()"]
PATIENCE = 120  # seconds; the machine may be busy with other tests
Unique = Callable[[str], str]
Done = subprocess.CompletedProcess[str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder of its own, for this process and for the programs that it starts; no broker in it survives the test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("CHATLIB_BROKER_URL", raising=False)
    yield tmp_path
    for entry in registry.entries():
        for process in entry.processes.values():
            process.kill()


def run(*arguments: str, **environment: str) -> Done:
    """Run `chatlib ARGUMENTS` to its end."""
    return subprocess.run([*PROGRAM, *arguments], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=PATIENCE)


def works(*arguments: str, **environment: str) -> str:
    """What `chatlib ARGUMENTS` writes when it succeeds."""
    done = run(*arguments, **environment)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done.stdout


def status(name: str = "default") -> dict[str, Any]:
    done = run("broker", "status", "--name", name, "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode == 0) == (found["state"] == "running")
    return found


# chatlib broker


@pytest.mark.timeout(300)
def test_a_broker_lives_across_processes_and_keeps_its_messages_and_its_url(home: Path) -> None:
    """1 start prints the URL only; 2 again finds it; 3 kill and start: messages there; 4 restart, logs; 5 stop; 6 stop again."""
    started = run("broker", "start")
    url = started.stdout.strip()
    assert started.returncode == 0 and url.startswith("amqp://") and len(started.stdout.splitlines()) == 1
    assert "management pages at http://127.0.0.1:" in started.stderr
    with chatlib.connect(url) as chat:
        chat.users(["bob"], online=False)
        chat.user("alice").send("@bob", "still here?").wait(20)

    again = run("broker", "start")
    assert again.stdout.strip() == url and "running already" in again.stderr
    works("broker", "freeze")
    thawed = run("broker", "start")
    assert thawed.stdout.strip() == url and "was frozen, and goes on" in thawed.stderr

    before = status()
    assert before["state"] == "running" and before["url"] == url and process_runs(before["pid"])
    assert run("broker", "kill").returncode == 0
    assert not process_runs(before["pid"]) and status()["state"] == "stopped"
    killed = run("broker", "kill")
    assert killed.returncode == 1 and "chatlib broker start" in killed.stderr and len(killed.stderr.splitlines()) == 1

    assert json.loads(works("broker", "start", "--json"))["url"] == url
    assert status()["pid"] != before["pid"]
    with chatlib.connect(url) as chat:
        received = list(chat.user("bob").receive(limit=1, timeout=20))
        assert [message.content for message in received] == ["still here?"]

    assert works("broker", "restart").strip() == url
    assert len(works("broker", "logs", "-n", "5").splitlines()) == 5
    assert works("broker", "stop") == ""
    assert status()["state"] == "stopped"
    assert "was not running" in run("broker", "stop").stderr


@pytest.mark.timeout(300)
def test_brokers_of_several_names_are_listed_found_and_told_apart(home: Path) -> None:
    """Two side by side, one of them frozen: list, status, doctor and replay say which is which."""
    first, second = (json.loads(works("broker", "start", "--name", name, "--json")) for name in ("one", "two"))
    assert first["url"] != second["url"] and first["pid"] != second["pid"]
    works("broker", "freeze", "--name", "two")
    listed = {each["name"]: each["state"] for each in json.loads(works("broker", "list", "--json"))}
    assert listed == {"one": "running", "two": "frozen"}
    table = works("broker", "list")
    password = first["url"].split(":")[2].split("@")[0]
    assert "frozen" in table and "***" in table and password not in table
    assert status("two")["state"] == "frozen"

    sick = run("doctor", "--json")
    found = {each["check"]: each for each in json.loads(sick.stdout)["findings"]}
    assert sick.returncode == 1 and found["chatlib broker"]["state"] == "problem"
    assert "'two'" in found["chatlib broker"]["found"] and found["chatlib broker"]["fix"] == "chatlib broker thaw --name two"
    works("broker", "thaw", "--name", "two")
    assert status("two")["state"] == "running"
    works("broker", "stop", "--name", "two")

    healthy = json.loads(run("doctor", "--json").stdout)
    found = {each["check"]: each for each in healthy["findings"]}
    assert found["chatlib broker"]["state"] == "ok" and "'one'" in found["chatlib broker"]["found"]

    # a replay without --broker finds the one that runs, and leaves it running
    result = json.loads(works("replay", "--json"))
    assert result["clean"] and result["delivered"] == 115
    assert status("one")["pid"] == first["pid"]
    with chatlib.connect(first["url"]) as chat:
        assert {user.waiting for user in chat.users(["marta", "lee[away]"], online=False)} == {0}


@pytest.mark.timeout(300)
def test_an_alarm_is_a_problem_for_the_doctor(home: Path) -> None:
    node = LocalBroker.named("tight")
    node.start()
    assert doctor.named_brokers().state == "ok"
    node.rabbitmqctl("set_vm_memory_high_watermark", "0.00001")
    found = wait_until(lambda: (seen := doctor.named_brokers()).state == "problem" and seen, 60, "the memory alarm")
    assert found and "blocks all senders: memory alarm on" in found.found
    node.kill()


@pytest.mark.timeout(300)
def test_a_start_that_fails_says_why_and_ends_with_status_1(home: Path) -> None:
    """No RabbitMQ where one was named: the ways to get one; nothing on standard output, no traceback."""
    done = run("broker", "start", CHATLIB_RABBITMQ_SERVER="/nowhere/rabbitmq-server")
    assert (done.returncode, done.stdout) == (1, "")
    assert "CHATLIB_RABBITMQ_SERVER=/nowhere/rabbitmq-server is not a program" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.timeout(300)
def test_a_node_whose_owner_died_with_its_reaper_is_found_by_the_doctor(home: Path) -> None:
    """SIGKILL to the reaper, then to the owner: only the record in the registry knows of the node."""
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, chatlib; b = chatlib.LocalBroker(); b.start(); print(b.pid, flush=True); sys.stdin.read()",
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert owner.stdout
        pid = int(owner.stdout.readline())
        assert f"process {pid}" not in doctor.leftovers().found  # its owner lives
        reapers = [child for child in psutil.Process(owner.pid).children() if "chatlib-reaper" in child.cmdline()]
        assert len(reapers) == 1
        reapers[0].kill()
    finally:
        owner.kill()
        owner.wait()
    assert process_runs(pid)
    found = doctor.leftovers()
    assert found.state == "warning" and f"process {pid}" in found.found
    registry.sweep()
    wait_until(lambda: not process_runs(pid), 20, "it was stopped (by this sweep, or by that of somebody else who starts a broker now)")
    assert f"process {pid}" not in doctor.leftovers().found


# chatlib replay


def test_a_replay_in_a_pipe_is_one_json_object_and_nothing_else(broker: LocalBroker, unique: Unique, tmp_path: Path) -> None:
    history = tmp_path / "run.jsonl"
    done = run("replay", "--json", "--broker", broker.url, "--prefix", f"{unique('cli')}-", "--keep-history", str(history))
    assert done.returncode == 0 and done.stderr == ""
    result = json.loads(done.stdout)
    assert result["clean"] is True and (result["attempted"], result["confirmed"], result["delivered"]) == (52, 52, 115)
    assert {result[name] for name in ("lost", "duplicated", "unexpected", "out_of_order")} == {0}
    assert check(load(history)).delivered == 115


def test_a_replay_for_people_is_a_table_with_the_columns_of_every_verdict(broker: LocalBroker, unique: Unique) -> None:
    text = works("replay", "--broker", broker.url, "--prefix", f"{unique('cli')}-")
    head = next(line for line in text.splitlines() if "attempted" in line and "lost" in line)
    assert head.split() == ["attempted", "confirmed", "delivered", "lost", "duplicated", "unexpected", "out", "of", "order", "messages/s"]
    assert "\x1b" not in text and "✔ 52 attempted, all confirmed, 115 deliveries: nothing lost" in text


def test_a_replay_writes_where_the_locale_knows_only_ascii(broker: LocalBroker, unique: Unique) -> None:
    arguments = ("replay", "--broker", broker.url, "--prefix", f"{unique('cli')}-")
    assert "52 attempted" in works(*arguments, PYTHONIOENCODING="ascii", PYTHONUTF8="0")


def test_a_verdict_that_is_bad_ends_with_status_1(broker: LocalBroker, unique: Unique, tmp_path: Path) -> None:
    """Given a full inbox that refuses: the message is rejected, and the status says so."""
    prefix = f"{unique('cli')}-"
    lines = [
        {"id": 1, "ts": "2024-04-20T10:00:00Z", "group": "#garden", "event": "join", "sender": "bob"},
        {"id": 2, "ts": "2024-04-20T10:00:00Z", "group": "#garden", "event": "quit", "sender": "bob"},
        {"id": 3, "ts": "2024-04-20T10:00:00Z", "group": "#garden", "sender": "ann", "text": "one"},
        {"id": 4, "ts": "2024-04-20T10:00:30Z", "group": "#garden", "sender": "ann", "text": "two"},
    ]
    file = tmp_path / "chat.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    command = [*PROGRAM, "replay", str(file), "--broker", broker.url, "--prefix", prefix, "--speed", "3", "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as replaying:
        with chatlib.connect(broker) as thief:
            inbox = chatlib.names.inbox_queue(f"{prefix}bob")

            def stolen() -> bool:
                try:
                    return thief._link.queues.purge(inbox) == 1
                except chatlib.ChatError:  # he has not signed up yet
                    return False

            wait_until(stolen, 30, "the message in bob's inbox")
        out, _ = replaying.communicate(timeout=PATIENCE)
    result = json.loads(out)
    assert replaying.returncode == 1
    assert (result["clean"], result["lost"], result["delivered"]) == (False, 1, 1)


@pytest.mark.timeout(300)
def test_ctrl_c_ends_a_replay_with_its_broker(home: Path) -> None:
    """Status 130, one word, no traceback, and no node stays behind."""
    command = [*PROGRAM, "replay", "--speed", "1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as replaying:
        node = wait_until(
            lambda: next((entry for entry in registry.entries() if entry.running and entry.ready), None), 60, "a private broker"
        )
        pid = node.processes["vm"].pid
        replaying.send_signal(signal.SIGINT)
        out, err = replaying.communicate(timeout=60)
    assert (replaying.returncode, out) == (130, "")
    assert err.splitlines() == ["at speed 1 this takes about 42 minutes", "starting a private broker ...", "interrupted"]
    assert not process_runs(pid)
