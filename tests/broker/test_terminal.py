"""`chatlib chat` on a real broker: as a program in pipes, and at a pseudo-terminal, seen through a terminal emulator."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyte
import pytest

import chatlib
from chatlib.brokers import LocalBroker
from tests.support import ROOT, process_runs, wait_until

COMMAND = [str(Path(sys.executable).with_name("chatlib")), "chat"]
PATIENCE = 60.0  # seconds; the machine may be busy with other tests
Unique = Callable[[str], str]


def environment(state: Path, **more: str) -> dict[str, str]:
    """What a terminal of a test inherits: its own state folder, nothing that says which broker or which terminal."""
    kept = {name: value for name, value in os.environ.items() if name not in {"CHATLIB_BROKER_URL", "NO_COLOR", "TERM"}}
    return kept | {"XDG_STATE_HOME": str(state), "TERM": "xterm-256color", "PYTHONUTF8": "1"} | more


def greeting(user: str, to: str = "") -> str:
    """The first line of every terminal: it is connected then. to: the person with whom it begins."""
    return f"* you are {user}. {f'What you type goes to {to}' if to else 'Begin with /to @bob or /join #team'}; /help lists the rest"


class Pipes:
    """`chatlib chat` with its input and output in pipes."""

    def __init__(self, state: Path, user: str, *options: str, **more: str) -> None:
        self.user = user
        self.process = subprocess.Popen(
            [*COMMAND, "--as", user, *options],
            cwd=ROOT,
            env=environment(state, **more),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self.raw = b""
        self._errors = b""
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_output, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def _read_output(self) -> None:
        assert self.process.stdout
        while piece := self.process.stdout.read(65536):
            self.raw += piece

    def _read_errors(self) -> None:
        assert self.process.stderr
        while piece := self.process.stderr.read(65536):
            self._errors += piece

    @property
    def lines(self) -> list[str]:
        """What it has written, without the times."""
        return [re.sub(r"^[-\d]*\s?\d\d:\d\d ", "", line) for line in self.raw.decode().splitlines()]

    def type(self, *lines: str | bytes) -> None:
        """Type these lines."""
        assert self.process.stdin
        for line in lines:
            self.process.stdin.write((line if isinstance(line, bytes) else line.encode()) + b"\n")

    def sees(self, *expected: str) -> None:
        """Wait until it has written all of these lines, in this order, whatever else is between them."""

        def found() -> bool:
            ended = self.process.poll() is not None
            rest = iter(self.lines)
            there = all(line in rest for line in expected)
            if ended and not there:
                raise EOFError(self.process.returncode)
            return there

        try:
            wait_until(found, PATIENCE, f"{expected} at {self.user}")
        except (AssertionError, EOFError) as error:
            told = self._errors.decode(errors="replace")
            raise AssertionError("\n".join([repr(error), "written:", *self.lines, "to standard error:", told])) from None

    def leave(self) -> tuple[int, str]:
        """End its input; the exit status and what was written to standard error."""
        assert self.process.stdin
        self.process.stdin.close()
        status = self.process.wait(PATIENCE)
        self.close()
        return status, self._errors.decode()

    def close(self) -> None:
        """End it, whatever it does; idempotent."""
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join(PATIENCE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream
            stream.close()


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """A broker for the tests of this file that kill theirs."""
    with LocalBroker(tmp_path_factory.mktemp("broker")) as node:
        yield node


@pytest.fixture
def fragile(own_broker: LocalBroker) -> LocalBroker:
    """A broker to kill: it runs at the beginning, whatever the test before has left."""
    own_broker.start()
    return own_broker


@pytest.fixture
def pipes(tmp_path: Path) -> Iterator[Callable[..., Pipes]]:
    """Return what opens `chatlib chat` in pipes; at the end none is left."""
    opened: list[Pipes] = []

    def opener(user: str, *options: str, **more: str) -> Pipes:
        opened.append(Pipes(tmp_path / "state", user, *options, **more))
        return opened[-1]

    yield opener
    for each in opened:
        each.close()


def test_two_talk_and_see_their_ticks(broker: LocalBroker, pipes: Callable[..., Pipes], unique: Unique) -> None:
    """1 hello; 2 delivered, since bob's terminal is open; 3 read only when he opens the conversation; 4 then at once."""
    a, b = unique("alice"), unique("böb🦊")
    bob = pipes(b, "--broker", broker.url)
    bob.sees(greeting(b))
    alice = pipes(a, "--broker", broker.url)
    alice.type(f"@{b} hello, bob")
    bob.sees(f"{a}: hello, bob")
    alice.sees(f"→ @{b}: hello, bob  ✓✓ [1]")
    assert not any("read" in line for line in alice.lines)
    bob.type(f"/to @{a}")
    bob.sees(f"* what you type goes to @{a}; 1 read")
    alice.sees(f"→ @{b}: hello, bob  ✓✓ [1]", f"→ @{b}: hello, bob  ✓✓ read [1]")
    bob.type("hello, alice")
    alice.sees(f"{b}: hello, alice")
    bob.sees(f"→ @{a}: hello, alice  ✓✓ read [1]")
    assert [alice.leave(), bob.leave()] == [(0, ""), (0, "")]


def test_in_a_group_ticks_count_the_members(broker: LocalBroker, pipes: Callable[..., Pipes], unique: Unique) -> None:
    team = "#" + unique("team")
    where = ("--broker", broker.url, "--management", broker.management_url)
    a, b, c = (pipes(unique(name), *where) for name in ("alice", "bob", "carol"))
    for each in (a, b, c):
        each.type(f"/join {team}")
        each.sees(f"* you are a member of {team}; what you type goes there")
    c.type("/offline")
    c.sees("* you are offline: what is sent to you is kept. /online gets it")
    a.type("hello all")
    b.sees(f"{team} {a.user}: hello all")
    a.sees(f"→ {team}: hello all  ✓ 1/2, 1 read [1]")
    c.type("/online")
    c.sees("* you are online", f"{team} {a.user}: hello all")
    a.sees(f"→ {team}: hello all  ✓✓ 2/2 read [1]")
    a.type("/who", "/groups", f"/leave {team}", "/groups")
    a.sees(
        f"* 3 members in {team}: {', '.join(sorted([a.user, b.user, c.user]))}",
        f"* you are in {team}",
        f"* you are not in {team} now",
        "* you are in no group: /join #team",
    )
    a.type("to nobody")
    a.sees("! to whom? Write '@bob hello' or '#team hello', or open a conversation with '/to @bob'")


def test_what_is_sent_to_somebody_offline_comes_in_order_when_he_is_back(
    broker: LocalBroker, pipes: Callable[..., Pipes], unique: Unique
) -> None:
    a, b = unique("alice"), unique("bob")
    bob = pipes(b, "--broker", broker.url)
    bob.type("/offline")
    bob.sees("* you are offline: what is sent to you is kept. /online gets it")
    alice = pipes(a, "--broker", broker.url, "--to", f"@{b}")
    said = [f"number {number}" for number in range(300)]
    alice.type(*said)
    alice.sees(f"→ @{b}: number 299  ✓ [300]")
    with chatlib.connect(broker) as chat:  # it waits on the broker, and not in bob's terminal
        assert chat.users([b], online=False)[0].waiting == 300
    assert not any("number" in line for line in bob.lines)
    bob.type("/online")
    bob.sees(f"{a}: number 299")
    assert [line for line in bob.lines if "number" in line] == [f"{a}: {each}" for each in said]
    alice.sees(f"→ @{b}: number 299  ✓✓ [300]")


def test_a_restart_of_the_broker_loses_nothing_that_was_typed(fragile: LocalBroker, pipes: Callable[..., Pipes], unique: Unique) -> None:
    """1 SIGKILL, and both terminals say so; 2 typed meanwhile: pending; 3 start: confirmed, delivered, in order."""
    a, b = unique("alice"), unique("böb")
    """1 SIGKILL, and both terminals say so; 2 typed meanwhile: pending; 3 start: confirmed, delivered, in order."""
    alice, bob = pipes(a, "--broker", fragile.url, "--to", f"@{b}"), pipes(b, "--broker", fragile.url, "--to", f"@{a}")
    alice.sees(greeting(a, f"@{b}"))
    bob.sees(greeting(b, f"@{a}"))
    alice.type("before")
    alice.sees(f"→ @{b}: before  ✓✓ read [1]")
    fragile.kill()
    for each in (alice, bob):
        each.sees("* the broker is gone: reconnecting. What you type is kept and sent when it is back")
    alice.type("one", "two", "three")
    alice.sees(f"→ @{b}: one  · [2]", f"→ @{b}: two  · [3]", f"→ @{b}: three  · [4]")
    assert not fragile.is_running
    assert not any("three  ✓" in line for line in alice.lines)
    fragile.start()
    bob.sees("* connected again")
    alice.sees("* connected again", f"→ @{b}: three  ✓✓ read [4]")
    alice.sees(f"→ @{b}: one  ✓✓ read [2]")
    alice.sees(f"→ @{b}: two  ✓✓ read [3]")
    assert [line for line in bob.lines if line.startswith(f"{a}: ")] == [f"{a}: {each}" for each in ("before", "one", "two", "three")]
    assert [alice.leave()[0], bob.leave()[0]] == [0, 0]


def test_what_was_typed_survives_the_death_of_the_terminal(fragile: LocalBroker, pipes: Callable[..., Pipes], unique: Unique) -> None:
    """The broker is down, words are typed, the terminal is killed; the next one of the same user sends them, once."""
    a, b = unique("alice"), unique("böb")
    """The broker is down, words are typed, the terminal is killed; the next one of the same user sends them, once."""
    bob = pipes(b, "--broker", fragile.url)
    bob.sees(greeting(b))
    alice = pipes(a, "--broker", fragile.url, "--to", f"@{b}")
    alice.type("before")
    bob.sees(f"{a}: before")
    fragile.kill()
    alice.sees("* the broker is gone: reconnecting. What you type is kept and sent when it is back")
    alice.type("last words", "and these")
    alice.sees(f"→ @{b}: and these  · [3]")
    alice.process.kill()
    assert alice.process.wait(PATIENCE) == -signal.SIGKILL
    fragile.start()
    again = pipes(a, "--broker", fragile.url)
    bob.sees(f"{a}: last words", f"{a}: and these")
    assert again.leave()[0] == 0
    assert [line for line in bob.lines if line.startswith(f"{a}: ")] == [f"{a}: before", f"{a}: last words", f"{a}: and these"]


def test_leaving_without_a_confirm_is_no_success(fragile: LocalBroker, pipes: Callable[..., Pipes], unique: Unique) -> None:
    a = unique("alice")
    alice = pipes(a, "--broker", fragile.url, "--to", f"@{a}")
    alice.type("before")
    alice.sees(f"→ @{a}: before  ✓✓ read [1]")
    fragile.kill()
    alice.sees("* the broker is gone: reconnecting. What you type is kept and sent when it is back")
    alice.type("after")
    assert alice.leave() == (1, "")
    assert alice.lines[-1] == f"! 1 message without a confirm: kept, and sent when you start `chatlib chat --as {a}` again"


def test_errors_are_one_line_each_and_end_nothing(broker: LocalBroker, pipes: Callable[..., Pipes], unique: Unique) -> None:
    a, nobody = unique("alice"), unique("nobody")
    to_nobody = f"@{nobody}"
    alice = pipes(a, "--broker", broker.url)
    alice.type("hello", "/foo", "/join team", "@", f"@{nobody} hi", "/history", b"@bob \xff\xfe", f"@{a} " + "x" * 70_000, "/history 0")
    alice.sees(f"→ {to_nobody}: hi  ✗ no such user [1]")
    alice.type(f"/to {to_nobody}", "/history", "/join", "/leave", "/who @x", "/history on", "/to #a b", "/say")
    alice.sees(f"* 1 message in {to_nobody}, seen in this session:", f"{a}: hi  ✗ no such user")
    alice.type(f"@{a} still here")
    alice.sees(f"→ @{a}: still here  ✓✓ read [2]")
    alice.sees(f"{a}: still here")
    errors = [line for line in alice.lines if line.startswith("! ")]
    reasons = ["to whom", "no command /foo", "'@user' or '#group'", "empty", "half a surrogate", "at most 65,536 bytes", "from 1 to 1,000"]
    reasons += [
        "which group? /join",
        "which group? /leave",
        "@x is a user",
        "only groups keep a history",
        "/to takes an address",
        "say what?",
    ]
    assert len(errors) == len(reasons), errors
    assert all(reason in error for reason, error in zip(reasons, errors, strict=True)), errors
    assert alice.leave() == (1, ""), "in a pipe, a refused line is no success"


def test_what_others_say_reaches_no_terminal_raw(broker: LocalBroker, pipes: Callable[..., Pipes], unique: Unique) -> None:
    a = unique("alice")
    alice = pipes(a, "--broker", broker.url)
    alice.sees(greeting(a))
    with chatlib.connect(broker) as chat:
        mallory = chat.user(unique("mallory"))
        mallory.send(f"@{a}", "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r\n12:00 bob: I resign").wait(10)
        mallory.send(f"@{a}", "the end").wait(10)
    alice.sees(f"{mallory.name}: the end")
    assert rf"{mallory.name}: \x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r\n12:00 bob: I resign" in alice.lines
    text = alice.raw.decode()
    assert {character for character in text if ord(character) < 32 or 127 <= ord(character) < 160} == {"\n"}
    assert "\u202e" not in text


def test_a_second_terminal_of_the_same_user_is_told_what_to_do(broker: LocalBroker, pipes: Callable[..., Pipes], unique: Unique) -> None:
    a = unique("alice")
    first = pipes(a, "--broker", broker.url)
    first.sees(greeting(a))
    status, why = pipes(a, "--broker", broker.url).leave()
    assert status == 2
    assert "open in another terminal" in why and "--data-dir" in why and "Traceback" not in why
    status, why = pipes(a, "--broker", broker.url, "--data-dir", str(ROOT / "README.md")).leave()  # no folder
    assert status == 2 and "--data-dir" in why and "Traceback" not in why


def test_a_group_that_keeps_its_history_shows_it_to_a_newcomer(broker: LocalBroker, pipes: Callable[..., Pipes], unique: Unique) -> None:
    team = "#" + unique("team")
    alice = pipes(unique("alice"), "--broker", broker.url)
    alice.type(f"/join {team}", "/history on", *(f"number {n}" for n in range(5)))
    alice.sees(f"→ {team}: number 4  ✓ [5]")
    bob = pipes(unique("bob"), "--broker", broker.url)
    bob.type(f"/to {team}", "/history 3")
    bob.sees(f"* 3 messages in {team}, kept by the broker:", *(f"{team} {alice.user}: number {n}" for n in (2, 3, 4)))
    assert f"{team} {alice.user}: number 1" not in bob.lines


def test_without_a_kept_history_there_is_what_was_seen(broker: LocalBroker, pipes: Callable[..., Pipes], unique: Unique) -> None:
    a, b, team = unique("alice"), unique("bob"), "#" + unique("team")
    alice, bob = pipes(a, "--broker", broker.url), pipes(b, "--broker", broker.url)
    bob.type(f"/join {team}")
    bob.sees(f"* you are a member of {team}; what you type goes there")
    alice.type(f"{team} one", f"@{b} two")
    bob.sees(f"{a}: two")
    bob.type("/history", f"@{a} three")
    bob.sees(f"* 1 message in {team}, seen in this session:", f"{team} {a}: one")
    alice.sees(f"{b}: three")
    alice.type("/history")
    alice.sees(f"* 2 messages in @{b}, seen in this session:", f"{a}: two", f"{b}: three")


def test_whoever_stops_reading_ends_it(broker: LocalBroker, tmp_path: Path, unique: Unique) -> None:
    """`chatlib chat --as alice | head -1`, and somebody writes to her: no traceback, and the message stays for her."""
    a = unique("alice")
    read, write = os.pipe()
    command = [*COMMAND, "--as", a, "--broker", broker.url]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(tmp_path), stdin=subprocess.PIPE, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    with process, os.fdopen(read, "rb") as output, chatlib.connect(broker) as chat:
        assert b"you are" in output.readline()
        output.close()
        chat.user(unique("bob")).send(f"@{a}", "are you there?").wait(10)
        assert process.wait(PATIENCE) != 0
        assert process.stderr and process.stderr.read() == b""
        wait_until(lambda: chat.users([a], online=False)[0].waiting == 1, PATIENCE, "the message in the inbox")


def test_terminals_without_a_broker_start_one_and_meet_there(
    tmp_path: Path, pipes: Callable[..., Pipes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first starts the broker that outlives it, and says so; the second finds it; it is the one of `chatlib broker`."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    named = LocalBroker.named()
    assert not named.is_running
    try:
        alice = pipes("alice")
        alice.sees(greeting("alice"))
        bob = pipes("bob")
        bob.type("@alice hello")
        alice.sees("bob: hello")
        assert bob.leave() == (0, "")
        status, told = alice.leave()
        assert status == 0
        assert "starting one that stays" in told and "`chatlib broker stop` stops it" in told
        assert named.is_running
    finally:
        named.kill()


# ---- at a terminal --------------------------------------------------------------------------------------------------


class Emulator(pyte.Screen):
    """A terminal that answers when it is asked where its cursor is."""

    descriptor = -1

    def write_process_input(self, data: str) -> None:
        os.write(self.descriptor, data.encode())


class Terminal:
    """`chatlib chat` at a pseudo-terminal of 24 rows and 80 columns."""

    def __init__(self, state: Path, user: str, *options: str, **more: str) -> None:
        self._lock = threading.Lock()
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(slave)
        self._screen = Emulator(80, 24)
        self._screen.descriptor = self.master
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        self._slave = slave
        self.process = subprocess.Popen(
            [*COMMAND, "--as", user, *options],
            cwd=ROOT,
            env=environment(state, **more),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while piece := os.read(self.master, 65536):
                with self._lock:
                    self.raw += piece
                    self._stream.feed(piece)

    @property
    def rows(self) -> list[str]:
        """What is to be seen, without the times."""
        with self._lock:
            return [re.sub(r"^\d\d:\d\d ", "", row.rstrip()) for row in self._screen.display]

    def colors(self, text: str) -> set[str]:
        """The colours of the characters of `text` where it is to be seen first."""
        with self._lock:
            for number, row in enumerate(self._screen.display):
                if text in row:
                    start = row.index(text)
                    return {self._screen.buffer[number][column].fg for column in range(start, start + len(text))}
        raise LookupError(text)

    def type(self, keys: str) -> None:
        """Press these keys."""
        os.write(self.master, keys.encode())

    def sees(self, *expected: str) -> None:
        """Wait until these rows are there at the same time, in this order."""

        def found() -> bool:
            rest = iter(self.rows)
            return all(row in rest for row in expected)

        try:
            wait_until(found, PATIENCE, f"{expected}")
        except AssertionError as error:
            text = "\n".join(self.rows)
            raise AssertionError(f"{error}\nthe screen:\n{text}") from None

    @property
    def is_restored(self) -> bool:
        """Whether the terminal is as it was before: echo, line mode."""
        return termios.tcgetattr(self._slave) == self.before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._slave)
        os.close(self.master)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Return what opens `chatlib chat` at a terminal; at the end none is left."""
    opened: list[Terminal] = []

    def opener(user: str, *options: str, **more: str) -> Terminal:
        opened.append(Terminal(tmp_path / "state", user, *options, **more))
        return opened[-1]

    yield opener
    for each in opened:
        each.close()


LEFT, HOME, CTRL_C, CTRL_D, UP = "\x1b[D", "\x01", "\x03", "\x04", "\x1b[A"


def test_at_a_terminal_lines_are_edited_and_ticks_change_in_place(
    broker: LocalBroker, pipes: Callable[..., Pipes], terminal: Callable[..., Terminal], unique: Unique
) -> None:
    """1 prompt; 2 editing; 3 while something is typed a message comes and a tick changes; 4 history; 5 Ctrl-C; 6 the end."""
    name, b = unique("Åsa🦊"), unique("böb")
    bob = pipes(b, "--broker", broker.url)
    bob.sees(greeting(b))
    screen = terminal(name, "--broker", broker.url, "--to", f"@{b}")
    prompt = f"{name} → @{b}>"
    wait_until(lambda: any(row.startswith(prompt) for row in screen.rows), PATIENCE, "a prompt")

    screen.type("helo" + LEFT + "l" + HOME + "¡" + "\r")
    bob.sees(f"{name}: ¡hello")
    screen.sees(f"→ @{b}: ¡hello  ✓✓", prompt)

    screen.type("half a sen")
    screen.sees(f"{prompt} half a sen")
    bob.type(f"@{name} good evening")
    screen.sees(f"→ @{b}: ¡hello  ✓✓ read", f"{b}: good evening", f"{prompt} half a sen")
    assert sum("¡hello" in row for row in screen.rows) == 1, "one line, whose tick changed"
    screen.type("tence\r")
    bob.sees(f"{name}: half a sentence")
    screen.sees(f"→ @{b}: half a sentence  ✓✓ read", prompt)
    assert screen.colors("half a sentence") == {"default"}
    assert screen.colors("✓✓ read") - {"default"} and screen.colors(f"{b}: good")

    screen.type(UP + UP)
    screen.sees(f"{prompt} ¡hello")
    screen.type(CTRL_C)
    screen.sees(prompt)
    screen.type("/wh\t")
    screen.sees(f"{prompt} /who")
    screen.type("\r")
    screen.sees(f"* {name} and {b}", prompt)
    screen.type("/to nobody\r")
    screen.sees("! an address is '@user' or '#group', got 'nobody': say which by its first", prompt)
    assert screen.process.poll() is None

    screen.type(CTRL_D)
    assert screen.process.wait(PATIENCE) == 0
    assert screen.is_restored
    screen.sees(f"→ @{b}: half a sentence  ✓✓ read", f"* {name} and {b}")


def test_ctrl_c_twice_quits_and_once_does_not(broker: LocalBroker, terminal: Callable[..., Terminal], unique: Unique) -> None:
    a = unique("alice")
    screen = terminal(a, "--broker", broker.url)
    screen.sees(f"{a}>")
    screen.type("some words")
    screen.sees(f"{a}> some words")
    screen.type(CTRL_C)
    screen.sees(f"{a}>")
    screen.type("@")
    screen.sees(f"{a}> @")
    assert screen.process.poll() is None
    screen.type(CTRL_C + CTRL_C)
    assert screen.process.wait(PATIENCE) == 0
    assert screen.is_restored


def test_a_killed_broker_is_seen_at_the_prompt(fragile: LocalBroker, terminal: Callable[..., Terminal], unique: Unique) -> None:
    """The toolbar says so; what is typed shows as pending in place, and is confirmed in place; SIGTERM restores the terminal."""
    a = unique("alice")
    """The toolbar says so; what is typed shows as pending in place, and is confirmed in place; SIGTERM restores the terminal."""
    screen = terminal(a, "--broker", fragile.url, "--to", f"@{a}")
    screen.sees(f"{a} → @{a}>")
    fragile.kill()
    wait_until(lambda: any("○ reconnecting" in row for row in screen.rows), PATIENCE, "the toolbar tells")
    screen.type("are you there?\r")
    screen.sees(f"→ @{a}: are you there?  ·", f"{a} → @{a}>")
    wait_until(lambda: any("1 not confirmed yet" in row for row in screen.rows), PATIENCE, "the toolbar counts")
    fragile.start()
    screen.sees(f"→ @{a}: are you there?  ✓✓ read", f"{a}: are you there?", f"{a} → @{a}>")
    wait_until(lambda: any("● connected" in row for row in screen.rows), PATIENCE, "the toolbar tells")
    assert sum(f"→ @{a}: are you there?" in row for row in screen.rows) == 1
    screen.process.terminate()
    assert screen.process.wait(PATIENCE) == 0
    assert screen.is_restored


def test_many_messages_scroll_up_whole_and_in_order(broker: LocalBroker, terminal: Callable[..., Terminal], unique: Unique) -> None:
    """Each of 200 lines is printed for good exactly once, whatever was drawn in between."""
    a = unique("alice")
    with chatlib.connect(broker) as chat:
        bob = chat.user(unique("bob"))
        chat.users([a], online=False)
        for number in range(200):
            bob.send(f"@{a}", f"number {number:03}")
        assert chat.flush(PATIENCE)
    screen = terminal(a, "--broker", broker.url, "--to", bob.address)
    screen.sees(f"{bob.name}: number 199", f"{a} → {bob.address}>")
    screen.type("/quit\r")
    assert screen.process.wait(PATIENCE) == 0
    wait_until(lambda: not any(row.startswith(f"{a} →") for row in screen.rows), PATIENCE, "the prompt gone")
    numbers = [row.rpartition(" ")[2] for row in screen.rows if "number" in row]
    assert numbers == [f"{number:03}" for number in range(200 - len(numbers), 200)] and len(numbers) >= 20


@pytest.mark.parametrize("variable", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_without_colours_there_are_none(
    broker: LocalBroker, terminal: Callable[..., Terminal], unique: Unique, variable: dict[str, Any]
) -> None:
    """NO_COLOR takes the colours, and not the editing; a dumb terminal gets plain lines."""
    a = unique("alice")
    screen = terminal(a, "--broker", broker.url, **variable)
    wait_until(lambda: any(row.startswith(f"* you are {a}") for row in screen.rows), PATIENCE, "the greeting")
    screen.type(f"@{a} hello\r")
    wait_until(lambda: any(row.startswith(f"{a}: hello") for row in screen.rows), PATIENCE, "the message")
    assert not re.search(rb"\x1b\[[0-9;]*(3[0-7]|38|9[0-7])[0-9;]*m", screen.raw)
    assert (b"\x1b" in screen.raw) == ("NO_COLOR" in variable)
    screen.type("/quit\r")
    assert screen.process.wait(PATIENCE) == 0


def test_a_terminal_that_dies_keeps_nothing_from_the_next(broker: LocalBroker, terminal: Callable[..., Terminal], unique: Unique) -> None:
    """SIGKILL at the prompt: the folder is free at once, and nothing is left running."""
    a = unique("alice")
    screen = terminal(a, "--broker", broker.url)
    screen.sees(f"{a}>")
    screen.process.kill()
    screen.process.wait()
    assert not process_runs(screen.process.pid)
    again = terminal(a, "--broker", broker.url)
    again.sees(f"{a}>")
