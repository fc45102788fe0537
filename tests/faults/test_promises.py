"""The customer's heart: senders, receivers and the broker are killed at random moments of one run, and nothing is lost or done twice.

What is promised, and where the promise ends:

- When `send()` returned, the message is on disk (`data_dir`) and reaches every recipient.
- When a handler or `ack()` returned, the message's id is on disk, and it is never handled again.
- Between the effect of a handler and that moment lies an instant in which SIGKILL makes the effect happen again: the id is not on
  disk yet, and to forget the message would be to lose it. No library can close it, unless effect and id are one transaction. Here
  it is found out, not assumed: after each kill the dead receiver's disk says which ids were there. The effect that was not may
  happen once more; any other repetition is a defect.

CI kills the sender 5 times, both receivers 5 times each and the broker 3 times; CHATLIB_LONG=1 makes that 20, 20 each and 10.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import chatlib
from chatlib.brokers import LocalBroker
from chatlib.checker import check
from chatlib.events import DROPPED, STORED, UNKNOWN
from chatlib.handled import DONE
from chatlib.names import inbox_queue
from chatlib.recorder import Recorder, stream
from tests.faults.actors import PATIENT
from tests.support import IN_CI, ROOT, process_runs, wait_until
from tests.wire import raw

LONG = bool(os.environ.get("CHATLIB_LONG"))
MESSAGES = 20_000
KILLS = {"sender": 20, "receiver": 20, "broker": 10} if LONG else {"sender": 5, "receiver": 5, "broker": 3}
SEED = int(os.environ.get("CHATLIB_SEED", "3" if IN_CI or not LONG else str(random.SystemRandom().randrange(10_000))))


def lines(path: Path) -> list[list[str]]:
    """The lines of a file that others append to, split into words."""
    return [line.split(" ") for line in path.read_text().splitlines()] if path.exists() else []


class Actor(threading.Thread):
    """One role: a process after another, each killed when the role has come so far, the last one lives to the end."""

    def __init__(self, run: Run, name: str, role: str, log: str, moments: list[int]) -> None:
        super().__init__(name=name, daemon=True)
        self.run_ = run
        self.role = role
        self.log = run.folder / log
        self.data_dir = run.folder / f"{name}.data"
        self.history = run.folder / f"{name}.jsonl"
        self.moments = moments  # in lines of the log
        self.killed: list[int] = []  # pids that SIGKILL ended, seen by their exit status
        self.failure: BaseException | None = None

    def progress(self) -> int:
        return self.run_.count(self.log)

    def start_process(self, **options: Any) -> subprocess.Popen[bytes]:
        all_options = {"url": self.run_.url, "name": self.name, "data_dir": str(self.data_dir), "history": str(self.history)}
        all_options |= {"life": len(self.killed), **options}
        command = [sys.executable, "-m", "tests.faults.actors", self.role, json.dumps(all_options)]
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(20) == -signal.SIGKILL, "it had ended before it was killed"
        assert process.stdin
        process.stdin.close()
        self.killed.append(process.pid)

    def run(self) -> None:
        try:
            self.play()
        except BaseException as exc:
            self.failure = exc
            self.run_.failed.set()

    def play(self) -> None:
        raise NotImplementedError

    def await_moment(self, moment: int, process: subprocess.Popen[bytes]) -> None:
        """Wait until the role has come so far; the process must live until then."""

        def there() -> bool:
            come = self.progress() >= moment
            assert not self.run_.failed.is_set()
            assert come or process.poll() is None, "it has ended by itself"
            return come

        deadline = time.monotonic() + self.run_.patience
        while not there():
            assert time.monotonic() < deadline, f"{self.name} stays at {self.progress()}, waiting for {moment}"
            self.run_.failed.wait(0.001)


class Sender(Actor):
    """Its progress is what send() has accepted."""

    in_outboxes = 0  #: messages that the dead had accepted and not seen confirmed

    def play(self) -> None:
        for moment in [*self.moments, None]:
            left = MESSAGES - self.progress()
            process = self.start_process(accepted=str(self.log), to=self.run_.addresses, count=left)
            if moment is None:
                assert process.wait(self.run_.patience) == 0
                assert process.stdin
                process.stdin.close()
                return
            self.await_moment(moment, process)
            self.kill(process)
            self.in_outboxes += read(self.data_dir, "SELECT COUNT(*) FROM outbox")[0][0]


class Receiver(Actor):
    """Its progress is the effects of its handler."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.in_doubt: dict[int, set[str]] = {}  # life -> ids whose effect happened, and that were not on disk when it died
        self.on_disk: dict[int, set[str]] = {}
        self.may_end = threading.Event()

    def play(self) -> None:
        for moment in [*self.moments, None]:
            process = self.start_process(effects=str(self.log))
            if moment is None:
                assert self.may_end.wait(self.run_.patience) and process.poll() is None
                process.communicate(timeout=30)
                assert process.returncode == 0
                return
            self.await_moment(moment, process)
            self.kill(process)
            life = len(self.killed) - 1
            here = {words[1] for words in lines(self.log) if words[0] == str(life)}
            self.on_disk[life] = {row[0] for row in read(self.data_dir, f"SELECT message_id FROM handled WHERE attempt = {DONE:d}")}  # noqa: S608
            self.in_doubt[life] = here - self.on_disk[life]


class Murderer(threading.Thread):
    """Kills the broker when so many effects have happened, and starts it again."""

    def __init__(self, run: Run, moments: list[int]) -> None:
        super().__init__(name="broker", daemon=True)
        self.run_ = run
        self.moments = moments
        self.killed: list[int] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            for moment in self.moments:
                deadline = time.monotonic() + self.run_.patience
                while sum(receiver.progress() for receiver in self.run_.receivers) < moment:
                    assert not self.run_.failed.wait(0.002) and time.monotonic() < deadline
                pid = self.run_.broker.pid
                assert pid
                self.run_.broker.kill()
                assert not process_runs(pid)
                self.killed.append(pid)
                self.run_.broker.start()
                assert self.run_.broker.pid != pid
        except BaseException as exc:
            self.failure = exc
            self.run_.failed.set()


class Run:
    """One run: a sender, bob and cid, and a broker, each with its killer."""

    patience = 1500.0 if LONG else 240.0

    def __init__(self, broker: LocalBroker, folder: Path, rng: random.Random) -> None:
        self.broker = broker
        self.url = broker.url
        self.folder = folder
        self.failed = threading.Event()
        self.addresses = ["@bob", "#team"]
        self._sizes: dict[Path, tuple[int, int]] = {}
        self._lock = threading.Lock()

        def moments(count: int, end: int) -> list[int]:
            return sorted(rng.sample(range(1, end), count))

        # bob gets what is for him and what is for the group, cid what is for the group; both end well before the last message
        self.sender = Sender(self, "ann", "sender", "accepted", moments(KILLS["sender"], MESSAGES - 100))
        self.receivers = [
            Receiver(self, "bob", "receiver", "bob.effects", moments(KILLS["receiver"], MESSAGES * 95 // 100)),
            Receiver(self, "cid", "receiver", "cid.effects", moments(KILLS["receiver"], MESSAGES // 2 * 95 // 100)),
        ]
        self.murderer = Murderer(self, moments(KILLS["broker"], MESSAGES * 14 // 10))
        self.actors: list[Actor] = [self.sender, *self.receivers]

    def count(self, path: Path) -> int:
        """How many lines a growing file has; reads only what is new."""
        with self._lock:
            if not path.exists():
                return 0
            offset, count = self._sizes.get(path, (0, 0))
            with path.open("rb") as file:
                file.seek(offset)
                new = file.read()
            self._sizes[path] = (offset + len(new), count + new.count(b"\n"))
            return self._sizes[path][1]

    def sign_up(self) -> None:
        recorder = Recorder(self.folder / "setup.jsonl", flush_every=0)
        with recorder, chatlib.connect(self.broker, settings=PATIENT, on_event=recorder) as chat:
            for member in chat.users(["ann", "bob", "cid"], online=False)[1:]:
                member.join("#team")

    def play(self) -> None:
        for thread in (*self.actors, self.murderer):
            thread.start()
        self.join(self.sender)
        self.join(self.murderer)
        accepted = lines(self.sender.log)
        expected = {
            receiver: {words[0] for words in accepted if receiver.name == "bob" or words[1] == "#team"} for receiver in self.receivers
        }
        deadline = time.monotonic() + self.patience
        for receiver in self.receivers:
            while not expected[receiver] <= {words[1] for words in lines(receiver.log)} or receiver.moments[len(receiver.killed) :]:
                missing = expected[receiver] - {words[1] for words in lines(receiver.log)}
                assert not self.failed.wait(0.2), self.failures()
                assert time.monotonic() < deadline, f"{len(missing)} messages never came to {receiver.name}: {sorted(missing)[:5]}"
        for receiver in self.receivers:
            with raw(self.url) as observer:
                wait_until(
                    lambda receiver=receiver: observer.depth(inbox_queue(receiver.name)) == 0, 60, f"{receiver.name}'s inbox is empty"
                )
            receiver.may_end.set()
            self.join(receiver)

    def join(self, thread: threading.Thread) -> None:
        while thread.is_alive():
            assert not self.failed.is_set(), self.failures()
            thread.join(0.1)
        assert not self.failed.is_set(), self.failures()

    def failures(self) -> list[str]:
        return [f"{thread.name}: {thread.failure!r}" for thread in (*self.actors, self.murderer) if thread.failure]


def read(folder: Path, statement: str) -> list[Any]:
    """What the file of a process that is dead says."""
    database = sqlite3.connect(folder / "chat.sqlite3", timeout=20)
    try:
        return database.execute(statement).fetchall()
    finally:
        database.close()


@pytest.mark.timeout(3600 if LONG else 400)
def test_everybody_is_killed_and_nothing_is_lost_repeated_or_out_of_order(new_broker: Callable[[], Any], tmp_path: Path) -> None:
    """1 the burst, while everybody is killed; 2 the faults happened, and they hurt; 3 the checker's verdict over the records of all
    processes; 4 the effects, which know nothing of chatlib, say the same; 5 repeated were at most the effects whose id was not on disk.
    """
    began = time.monotonic()
    with new_broker() as broker:
        run = Run(broker, tmp_path, random.Random(SEED))
        run.sign_up()
        # 1
        run.play()
        broker.kill()
    # 2
    kills = {actor.name: len(actor.killed) for actor in run.actors} | {"broker": len(run.murderer.killed)}
    assert kills == {"ann": KILLS["sender"], "bob": KILLS["receiver"], "cid": KILLS["receiver"], "broker": KILLS["broker"]}
    assert len(set(run.murderer.killed)) == KILLS["broker"]
    histories = [tmp_path / "setup.jsonl", *(actor.history for actor in run.actors)]
    hops = Counter(event["hop"] for event in stream(*histories))
    assert run.sender.in_outboxes > 0, "no sender died with anything in its outbox"
    assert hops[UNKNOWN] > 0 and hops[DROPPED] > 0, "no outcome was ever unknown, nothing came twice: the kills did not hurt"
    # 3
    verdict = check(stream(*histories))
    in_doubt = [(receiver.name, message_id) for receiver in run.receivers for ids in receiver.in_doubt.values() for message_id in ids]
    print(
        f"seed {SEED}: {time.monotonic() - began:.0f} s, kills {kills}, {run.sender.in_outboxes} messages found in dead senders' outboxes, "
        f"{hops[UNKNOWN]} outcomes unknown, {hops[DROPPED]} copies dropped, {len(in_doubt)} effects whose id was not on disk",
        verdict,
        sep="\n",
    )
    assert (verdict.lost, verdict.duplicated, verdict.unexpected, verdict.out_of_order) == (0, 0, 0, 0), verdict.examples
    assert verdict.attempted == verdict.confirmed >= MESSAGES
    assert verdict.unjudged == 0
    assert verdict.vouched <= 2 * KILLS["receiver"]  # remembered, and killed before it was recorded
    # 4
    accepted = lines(run.sender.log)
    ids = [words[0] for words in accepted]
    assert len(ids) == len(set(ids)) >= MESSAGES
    assert hops[STORED] >= MESSAGES
    for receiver in run.receivers:
        effects = lines(receiver.log)
        firsts = dict.fromkeys(words[1] for words in effects)
        for address, conversation in (("@bob", "@ann"), ("#team", "#team")):
            if address == "@bob" and receiver.name != "bob":
                continue
            sent = [words[0] for words in accepted if words[1] == address]
            got = list(dict.fromkeys(words[1] for words in effects if words[2] == conversation))
            strangers = set(got) - set(sent)  # accepted, and killed before it was told
            assert len(strangers) <= KILLS["sender"]
            assert [message_id for message_id in got if message_id not in strangers] == sent, "lost, or out of order"
            assert got == sorted(got)
        # 5
        assert all(len(ids) <= 1 for ids in receiver.in_doubt.values()), "more than the message in hand was not on disk"
        seen: dict[str, int] = {}
        allowed = {(life, message_id) for life, ids in receiver.in_doubt.items() for message_id in ids}
        for life, message_id, _ in effects:
            before = seen.get(message_id)
            assert before is None or (before, message_id) in allowed, f"{message_id} was on disk, and {receiver.name} handled it again"
            seen[message_id] = int(life)
        assert len(effects) - len(firsts) <= len(allowed) <= KILLS["receiver"]
