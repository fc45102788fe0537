"""`chatlib dead-letters` as a program, on a real broker: what it shows, what it changes, and its exit status."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import chatlib
from chatlib import Chat
from chatlib.brokers import LocalBroker
from chatlib.cli import app
from chatlib.names import inbox_queue
from tests.support import ROOT, wait_until
from tests.wire import raw

Unique = Callable[[str], str]
Run = Callable[..., subprocess.CompletedProcess[str]]
PROGRAM = [sys.executable, "-c", "from chatlib.cli import app; app()", "dead-letters"]


@pytest.fixture
def chat(broker: LocalBroker) -> Iterator[Chat]:
    with chatlib.connect(broker) as chat:
        chat.dead_letters.purge()
        yield chat
        chat.dead_letters.purge()


@pytest.fixture
def run(broker: LocalBroker, tmp_path: Path) -> Run:
    """Run `chatlib dead-letters ARGUMENTS` against the broker to its end."""

    def run(*arguments: str, url: str | None = broker.url) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"XDG_STATE_HOME": str(tmp_path)}
        environment.pop("CHATLIB_BROKER_URL", None)
        if url is not None:
            environment["CHATLIB_BROKER_URL"] = url
        return subprocess.run([*PROGRAM, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, input="")

    return run


def bury(chat: Chat, name: str, contents: list[str], unique: Unique) -> list[str]:
    ann, bob = chat.user(unique("ann")), chat.user(name)
    ids = [ann.send(bob.address, content).message_id for content in contents]
    for message in bob.receive(limit=len(ids), timeout=10):
        message.reject(f"no {message.content}")
    wait_until(lambda: {letter.message_id for letter in chat.dead_letters} >= set(ids), 10, "all are dead")
    return ids


def test_list_and_show_tell_everything_and_change_nothing(
    chat: Chat, broker: LocalBroker, run: Run, unique: Unique, tmp_path: Path
) -> None:
    name = unique("bob")
    first, second = bury(chat, name, ["deploy at five", "[bold]\x1b[2J"], unique)
    strange = unique("strange")
    with raw(broker.url) as stranger:
        stranger.put(inbox_queue(name), bytes(range(256)) + b"and more", message_id=strange)
    list(chat.user(name).receive(timeout=0.5))
    wait_until(lambda: len(chat.dead_letters) == 3, 10, "the stranger's bytes are dead, too")

    done = run("list")
    assert done.returncode == 0, done.stderr
    for word in (first, second, strange, name, "deploy at five", "no deploy at five", "[bold]", "\\x1b[2J"):
        assert word in done.stdout.replace("\n", ""), word
    assert "\x1b" not in done.stdout  # a message does not command the reader's terminal

    done = run("list", "--json", "--broker", broker.url, url=None)
    assert done.returncode == 0
    rows = json.loads(done.stdout)
    assert [row["message_id"] for row in rows] == [first, second, strange]
    assert rows[0]["content"] == "deploy at five" and rows[0]["user"] == name and rows[0]["reason"] == "no deploy at five"
    assert rows[0]["first_failure"].endswith("+00:00") and rows[0]["attempts"] == 1 and rows[2]["bytes"] == 264
    assert len(json.loads(run("list", "--json", "--limit", "2").stdout)) == 2

    done = run("show", first)
    assert done.returncode == 0 and "deploy at five" in done.stdout and "failure 1" in done.stdout and inbox_queue(name) in done.stdout
    done = run("show", strange)
    assert done.returncode == 0 and "00 01 02 03" in done.stdout and "8 bytes more" in done.stdout
    (letter,) = json.loads(run("show", strange, "--json").stdout)
    assert base64.b64decode(letter["body_base64"]) == bytes(range(256)) + b"and more" and letter["failures"]
    assert [letter.message_id for letter in chat.dead_letters] == [first, second, strange]


def test_replay_and_purge_do_what_they_say(chat: Chat, run: Run, unique: Unique) -> None:
    name = unique("bob")
    ids = bury(chat, name, ["a", "b", "c", "d"], unique)
    done = run("replay", ids[1], "--json")
    assert done.returncode == 0 and json.loads(done.stdout) == {"replayed": 1}
    assert [message.message_id for message in chat.user(name).receive(limit=1, timeout=10) if not message.ack()] == [ids[1]]
    done = run("purge", ids[0])
    assert done.returncode == 0 and "1 dead letter thrown away" in done.stderr and done.stdout == ""
    done = run("replay")
    assert done.returncode == 0 and "2 messages sent again" in done.stderr
    assert [message.message_id for message in chat.user(name).receive(limit=2, timeout=10) if not message.ack()] == ids[2:]
    done = run("list")
    assert done.returncode == 0 and "no dead letters" in done.stderr
    bury(chat, name, ["e", "f"], unique)
    done = run("purge")
    assert done.returncode == 2 and "--yes" in done.stderr and len(chat.dead_letters) == 2  # nobody is there to be asked
    done = run("purge", "--yes", "--json")
    assert done.returncode == 0 and json.loads(done.stdout) == {"purged": 2} and chat.dead_letters.list() == []


def test_what_cannot_be_done_is_said_and_is_no_success(chat: Chat, run: Run, unique: Unique) -> None:
    (message_id,) = bury(chat, unique("bob"), ["x"], unique)
    for arguments in (("show", "nowhere"), ("replay", message_id, "nowhere"), ("purge", "nowhere")):
        done = run(*arguments)
        assert done.returncode == 2 and "nowhere" in done.stderr and "dead-letters list" in done.stderr and done.stdout == ""
        assert "Traceback" not in done.stderr
    assert [letter.message_id for letter in chat.dead_letters] == [message_id]
    done = run("list", url=None)
    assert done.returncode == 2 and "--broker" in done.stderr and "chatlib broker start" in done.stderr
    done = run("list", "--broker", "amqp://nobody:wrong@127.0.0.1:1/")
    assert done.returncode == 2 and "nothing listens" in done.stderr and "wrong" not in done.stderr
    done = run("list", "--broker", "http://127.0.0.1/")
    assert done.returncode == 2 and "amqp://" in done.stderr


@pytest.mark.parametrize("command", [[], ["list"], ["show"], ["replay"], ["purge"]])
def test_each_command_explains_itself(command: list[str]) -> None:
    done = CliRunner().invoke(app, ["dead-letters", *command, "--help"])
    assert done.exit_code == 0 and "Usage" in done.output
    assert not command or ("--broker" in done.output and "--json" in done.output)
