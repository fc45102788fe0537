"""The command line without a broker: help, versions, wrong arguments, unsanitary input; how quick it is."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import chatlib
from chatlib.brokers.identity import load_or_create
from chatlib.cli import app
from chatlib.doctor import Finding
from tests.support import ROOT

COMMANDS = [
    "doctor",
    "bench",
    "chaos",
    "chat",
    "replay",
    "broker",
    *(f"broker {name}" for name in ["start", "stop", "restart", "kill", "freeze", "thaw", "status", "logs", "list"]),
]
LINE = '{"id": 1, "ts": "2024-04-20T10:00:05Z", "group": "#garden", "sender": "marta", "text": "good morning"}'


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(autouse=True)
def of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state folder of its own, no broker by environment, a wide terminal."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("CHATLIB_BROKER_URL", raising=False)
    monkeypatch.setenv("COLUMNS", "120")


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


# help and versions


def test_version_is_that_of_the_package() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"chatlib {chatlib.__version__}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help(command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


@pytest.mark.parametrize("command", ["doctor", "replay", "broker start"])
def test_help_has_examples_one_on_each_line(command: str) -> None:
    lines = [line.strip(" │") for line in run(*command.split(), "--help").stdout.splitlines()]
    assert "Examples:" in lines
    assert any(line.startswith(f"chatlib {command}") for line in lines[lines.index("Examples:") :])


def test_no_arguments_show_the_commands() -> None:
    result = run()
    assert all(name in result.output for name in ("doctor", "replay", "broker", "chat"))


def test_help_imports_nothing_heavy_and_takes_less_than_half_a_second() -> None:
    """In processor time, the best of up to ten runs: what else the machine does is not measured."""
    program = """
import json, sys, time
from chatlib.cli import app
try:
    app(["--help"])
except SystemExit as end:
    assert end.code == 0
print(json.dumps([time.process_time(), sorted({name.partition(".")[0] for name in sys.modules})]))
"""
    best = float("inf")
    for _ in range(10):
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        seconds, modules = json.loads(done.stdout.splitlines()[-1])
        assert "typer" in modules and not set(modules) & {"pandas", "plotly", "docker", "prompt_toolkit", "ipywidgets", "numpy"}
        best = min(best, seconds)
        if best < 0.5:
            return
    pytest.fail(f"chatlib --help took {best:.2f} s of processor time at best")


# wrong arguments


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["replay", "--nonsense"],
        ["replay", "--speed", "-1"],
        ["replay", "--speed", "fast"],
        ["replay", "--gap", "-1"],
        ["replay", "one.jsonl", "two.jsonl"],
        ["broker", "nonsense"],
        ["broker", "logs", "--lines", "-1"],
        ["chat"],
        ["doctor", "now"],
    ],
)
def test_wrong_arguments_give_a_usage_and_status_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.stderr and not result.stdout


# replay: what cannot be played


def refused(*arguments: str) -> str:
    """What `chatlib replay` says to this, in its one line."""
    result = run("replay", *arguments)
    assert result.exit_code == 2, result.output
    assert not result.stdout
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0].removeprefix("error: ")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    said = refused(str(tmp_path / "nowhere.jsonl"))
    assert "nowhere.jsonl" in said and "No such file" in said


def test_a_folder_is_no_transcript(tmp_path: Path) -> None:
    assert "directory" in refused(str(tmp_path))


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("hello", "not JSON"),
        ('{"id": 2', "not JSON"),
        ("[]", "JSON object"),
        ('{"id": 2, "ts": "2024-04-20T10:00:05Z", "group": "#garden", "sender": "marta"}', "text is missing"),
        ('{"id": 2, "ts": "yesterday", "group": "#garden", "sender": "marta", "text": "x"}', "ts 'yesterday'"),
        ('{"id": 2, "ts": "2024-04-20T10:00:05Z", "group": "#garden", "sender": "a b", "text": "x"}', "space"),
        (LINE, "id 1 was used in line 1"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, bad: str, why: str) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_text(f"{LINE}\n\n{bad}\n")
    said = refused(str(file))
    assert "chat.jsonl, line 3: " in said and why in said


@pytest.mark.parametrize("content", ["", "\n\n", LINE.replace('"text": "good morning"', '"event": "join"')])
def test_a_file_without_messages_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "empty.jsonl"
    file.write_text(content)
    assert "empty.jsonl: has no messages to replay" in refused(str(file))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "binary.jsonl"
    file.write_bytes(os.urandom(64).replace(b"\n", b"x") + b"\xff\n")
    assert "binary.jsonl, line 1: " in refused(str(file))


def test_a_broker_that_is_not_there_is_named_without_its_password() -> None:
    port = closed_port()
    said = refused("--broker", f"amqp://chat:secret@127.0.0.1:{port}/")
    assert f"127.0.0.1:{port}" in said and "secret" not in said


def test_a_host_that_nobody_knows_is_not_taken_for_a_closed_port() -> None:
    result = run("replay", "--broker", "amqp://bob:secret@nohost.invalid/")
    assert result.exit_code == 2 and "unknown" in result.stderr and "spelling" in result.stderr and "secret" not in result.stderr


@pytest.mark.parametrize("command", [("dead-letters", "list"), ("chat", "--as", "alice"), ("replay",)])
def test_a_bad_url_of_the_environment_is_named_by_its_variable(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATLIB_BROKER_URL", "bogus")
    result = run(*command)
    assert result.exit_code == 2 and "$CHATLIB_BROKER_URL" in result.stderr and "amqp://" in result.stderr


def test_a_limit_of_silences_without_a_speed_is_refused() -> None:
    result = run("replay", "--idle-limit", "2")
    assert result.exit_code == 2 and "--speed" in result.stderr


@pytest.mark.parametrize("where", ["file", "file/folder"])
def test_chaos_says_at_once_where_it_cannot_write(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    result = run("chaos", "--faults", "1", "--output", str(tmp_path / where))
    assert result.exit_code == 2 and "--output" in result.stderr and "seed" not in result.stderr


def test_a_url_that_is_none_is_refused() -> None:
    assert "amqp://user:password@host:5672" in refused("--broker", "http://127.0.0.1:15672")


def test_a_history_cannot_be_kept_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """Told before the replay and not after it."""
    assert "there is no folder" in refused("--keep-history", str(tmp_path / "nowhere" / "run.jsonl"))


def test_a_history_that_cannot_be_written_is_told_before_the_replay(tmp_path: Path) -> None:
    assert "Is a directory" in refused("--keep-history", str(tmp_path))


# broker: what is said without any


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "ä", "x" * 41])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    result = run("broker", "status", f"--name={name}")
    assert result.exit_code == 2
    assert "a broker's name has 1 to 40 letters" in result.stderr


@pytest.mark.parametrize("command", ["stop", "status", "kill", "freeze", "thaw", "restart", "logs"])
def test_a_broker_that_never_was_is_an_error_that_says_how_to_make_it(command: str) -> None:
    result = run("broker", command, "--name", "nobody")
    assert result.exit_code == 1
    assert not result.stdout
    assert result.stderr == "error: there is no broker 'nobody'; make one with: chatlib broker start --name nobody\n"


def test_odd_folders_do_not_hide_the_brokers_beside_them(tmp_path: Path) -> None:
    """A damaged one is listed as that, one that can be none is not listed."""
    for name, text in (("mine", "nonsense"), ("not a name", "{}")):
        folder = tmp_path / "state" / "chatlib" / "brokers" / name
        folder.mkdir(parents=True)
        (folder / "broker.json").write_text(text)
    (tmp_path / "state" / "chatlib" / "brokers" / "empty").mkdir()
    load_or_create(tmp_path / "state" / "chatlib" / "brokers" / "good")
    found = json.loads(run("broker", "list", "--json").stdout)
    assert [(each["name"], each["state"]) for each in found] == [("good", "stopped"), ("mine", "damaged")]
    shown = run("broker", "list")
    assert shown.exit_code == 0 and "good" in shown.stdout and "damaged" in shown.stdout


def test_asking_for_a_broker_makes_none(tmp_path: Path) -> None:
    run("broker", "status", "--name", "nobody")
    assert not (tmp_path / "state" / "chatlib" / "brokers").exists()


def test_no_brokers_are_an_empty_list() -> None:
    assert json.loads(run("broker", "list", "--json").stdout) == []
    told = run("broker", "list")
    assert (told.exit_code, told.stdout) == (0, "")
    assert "chatlib broker start" in told.stderr


# bench: the checkout's benchmarks


def test_bench_without_a_checkout_names_the_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys.modules["chatlib.cli.bench"], "CHECKOUT", tmp_path)
    result = run("bench", "--quick")
    assert result.exit_code == 2
    assert "make bench" in result.stderr


def test_bench_refuses_a_case_that_it_does_not_know() -> None:
    assert run("bench", "--only", "flight").exit_code == 2


# doctor: what it shows and how it ends


def doctor(monkeypatch: pytest.MonkeyPatch, *findings: Finding, as_json: bool = False) -> Result:
    monkeypatch.setattr("chatlib.doctor.CHECKS", tuple(lambda found=found: found for found in findings))
    return run("doctor", *(["--json"] if as_json else []))


FINE = Finding("Python", "ok", "3.11.2")
ODD = Finding("memory", "warning", "400 MB available", "close [some] programs")
BAD = Finding("RabbitMQ", "problem", "not installed", "sudo apt install rabbitmq-server")


def test_a_fit_machine_ends_with_status_0(monkeypatch: pytest.MonkeyPatch) -> None:
    result = doctor(monkeypatch, FINE)
    assert result.exit_code == 0
    assert "✔  Python  3.11.2" in result.stdout and "Fit." in result.stdout


def test_a_warning_is_shown_with_its_fix_and_does_not_change_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    result = doctor(monkeypatch, FINE, ODD)
    assert result.exit_code == 0
    assert "warning: 400 MB available" in result.stdout and "→ close [some] programs" in result.stdout


def test_a_problem_ends_with_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    result = doctor(monkeypatch, FINE, ODD, BAD)
    assert result.exit_code == 1
    assert "✘  RabbitMQ" in result.stdout and "→ sudo apt install rabbitmq-server" in result.stdout and "1 problem" in result.stdout


def test_findings_are_json_for_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    result = doctor(monkeypatch, FINE, BAD, as_json=True)
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {"healthy": False, "findings": [FINE.to_dict(), BAD.to_dict()]}


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
@pytest.mark.parametrize(
    "option", ["chaos --minutes", "chaos --rate", "chaos --drain", "replay --speed", "replay --idle-limit", "replay --gap"]
)
def test_numbers_without_end_are_wrong_arguments(option: str, value: str) -> None:
    result = run(*option.split(), value)
    assert result.exit_code == 2 and option.split()[1] in result.stderr, result
