"""The process of a sender or of a receiver is killed: with a data_dir nothing of what was accepted is lost, and nothing is handled twice.

Where a repetition cannot be excluded, the test says so and pins it down: between the effect of a handler and the moment in which its
return is on disk. Everything else, from `send()` returning to the last receipt, holds through SIGKILL.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import chatlib
from chatlib.brokers import LocalBroker
from chatlib.names import inbox_queue
from chatlib.store import Store
from tests.support import ROOT, wait_until
from tests.wire import raw

Unique = Callable[[str], str]

SENDER = """
import itertools, json, os, sys
import chatlib
url, folder, sender, to, life, first = sys.argv[1:]
with chatlib.connect(url, data_dir=folder) as chat:
    user = chat.user(sender)
    for number in range(int(first), 1_000_000):
        sent = user.send(to, f"{life} {number}")
        os.write(1, f"{sent.message_id} {life} {number}\\n".encode())  # only now that send() has returned
"""

RECEIVER = """
import os, signal, sys
import chatlib
url, folder, receiver, effects, die_at, after = sys.argv[1:]
effect = os.open(effects, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
count, dropped = 0, 0

def die(where):
    if where == die_at and count >= int(after):
        os.write(1, f"dropped {dropped}\\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)

def handler(message):
    global count
    os.write(effect, f"{message.message_id} {message.content}\\n".encode())  # one call: whole or not at all
    count += 1
    die("effect")

def hops(event):
    global dropped
    dropped += event["hop"] == "consume.dropped"
    die(event["hop"])

with chatlib.connect(url, data_dir=folder, settings=chatlib.Settings(prefetch=20)) as chat:
    chat.on_event(hops)
    chat.user(receiver).on_message(handler)
    os.write(1, b"ready\\n")
    sys.stdin.read()
    os.write(1, f"dropped {dropped}\\n".encode())
"""


def python(code: str, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def left_in(folder: Path) -> int:
    """How many messages wait in an outbox that nobody has open."""
    store = Store(folder)
    try:
        return len(store.waiting())
    finally:
        store.close()


# the sender


@pytest.mark.timeout(180)
def test_a_killed_sender_loses_nothing_that_send_had_accepted(broker: LocalBroker, unique: Unique, tmp_path: Path) -> None:
    """1 eight senders, one after the other on one data_dir, each killed at a random moment in the middle of sending as fast as it can;
    2 a last one only connects; 3 everything for which send() had returned was received once, under that id, in order; 4 of what
    was received and not told, there is at most one message for each kill: accepted, and killed before it could say so.
    """
    rng, folder, ann, bob = random.Random(8), tmp_path / "ann", unique("ann"), unique("bob")
    told: list[tuple[str, str]] = []
    got: list[tuple[str, str]] = []
    recovered = 0
    with chatlib.connect(broker) as chat:
        chat.user(bob).on_message(lambda message: got.append((message.message_id, message.content)))
        # 1
        for life in range(8):
            with python(SENDER, broker.url, folder, ann, "@" + bob, life, len(told)) as process:
                assert process.stdout
                for _ in range(rng.randrange(1, 1_500)):
                    told.append(tuple(process.stdout.readline().rstrip("\n").split(" ", 1)))  # type: ignore[arg-type]  # noqa: PERF401
                process.kill()
                assert process.wait(10) == -signal.SIGKILL
                told += [tuple(line.split(" ", 1)) for line in process.stdout.read().split("\n")[:-1]]  # type: ignore[misc]
            recovered += left_in(folder)
        # 2
        with chatlib.connect(broker, data_dir=folder) as last:
            assert last.flush(60)
        assert left_in(folder) == 0
        # 3
        wait_until(lambda: {message_id for message_id, _ in told} <= {message_id for message_id, _ in got}, 60, "everything has come")
        assert chat.flush(30)
        ids = [message_id for message_id, _ in got]
        assert len(set(ids)) == len(ids)
        known = dict(told)
        assert [pair for pair in got if pair[0] in known] == told
        # 4
        strangers = [content.split()[0] for message_id, content in got if message_id not in known]
        assert all(count == 1 for count in Counter(strangers).values()) and len(strangers) <= 8
        assert recovered > 0, "no sender died with anything in its outbox: the fault was not seen"
        print(f"{len(told)} accepted, {recovered} of them found in the outboxes of the dead")


def test_what_was_sent_while_the_broker_was_away_survives_the_sender(broker: LocalBroker, unique: Unique, tmp_path: Path) -> None:
    """Accepted without any broker in reach, killed, and sent by the next process."""
    from tests.wire import Cable

    ann, bob = unique("ann"), unique("bob")
    with chatlib.connect(broker) as chat, Cable(broker.url) as cable:
        receiver = chat.user(bob)
        with python(SENDER.replace("1_000_000", "10_000"), cable.url, tmp_path, ann, "@" + bob, "away", 0) as process:
            assert process.stdout
            process.stdout.readline()
            cable.refusing = True
            cable.cut()
            told = [process.stdout.readline().split()[0] for _ in range(9_999)]
            process.kill()
            process.wait(10)
        waiting = left_in(tmp_path)
        assert waiting > 0
        before = {message.message_id for message in receiver.receive(timeout=1) if not message.ack()}
        assert not set(told) <= before
        with chatlib.connect(broker, data_dir=tmp_path) as last:
            assert last.flush(30)
        after = [message.message_id for message in receiver.receive(timeout=2) if not message.ack()]
        assert set(told) <= before | set(after) and not before & set(after)
        assert after == sorted(after)  # ids rise with the sending


def test_a_data_dir_belongs_to_one_process(broker: LocalBroker, unique: Unique, tmp_path: Path) -> None:
    """And is free again as soon as that one is gone, however it went."""
    with python(SENDER, broker.url, tmp_path, unique("ann"), "@" + unique("bob"), 0, 0) as process:
        assert process.stdout and process.stdout.readline()
        with pytest.raises(chatlib.OutboxLocked, match="another process"):
            chatlib.connect(broker, data_dir=tmp_path)
        process.kill()
        process.wait(10)
    chatlib.connect(broker, data_dir=tmp_path).close()


# the receiver


class Lives:
    """Receivers on one data_dir, one after the other, and what they did."""

    def __init__(self, broker: LocalBroker, name: str, folder: Path) -> None:
        self.broker, self.name, self.folder = broker, name, folder
        self.path = folder / "effects"
        self.dropped = 0
        self.last_words: list[str] = []  #: the last effect of each that was killed

    def effects(self) -> list[str]:
        return [line.split(" ", 1)[1] for line in self.path.read_text().split("\n")[:-1]] if self.path.exists() else []

    def live(self, die_at: str, after: int) -> None:
        """One that kills itself, by SIGKILL, at the hop `die_at` when it has handled `after` messages."""
        with python(RECEIVER, self.broker.url, self.folder / "data", self.name, self.path, die_at, after) as process:
            assert process.stdout
            words = process.stdout.read().split()
            assert process.wait(30) == -signal.SIGKILL, words
        self.dropped += int(words[words.index("dropped") + 1])
        self.last_words.append(self.effects()[-1])

    def live_and_be_killed(self, more: int) -> None:
        """One that is killed from outside when it has had about `more` effects."""
        before = len(self.effects())
        with python(RECEIVER, self.broker.url, self.folder / "data", self.name, self.path, "never", 0) as process:
            wait_until(lambda: len(self.effects()) >= before + more, 30, f"{more} more effects", poll=0.001)
            os.kill(process.pid, signal.SIGKILL)
            assert process.wait(10) == -signal.SIGKILL
        self.last_words.append(self.effects()[-1])

    def live_to_the_end(self, expected: int) -> None:
        """One that handles all the rest and closes properly."""
        with python(RECEIVER, self.broker.url, self.folder / "data", self.name, self.path, "never", 0) as process:
            assert process.stdin and process.stdout
            wait_until(lambda: len(set(self.effects())) >= expected, 60, f"all {expected} are handled")
            with raw(self.broker.url) as observer:
                wait_until(lambda: observer.depth(inbox_queue(self.name)) == 0, 10, "nothing waits")
            process.stdin.close()
            words = process.stdout.read().split()
            assert process.wait(20) == 0
        self.dropped += int(words[words.index("dropped") + 1])


@pytest.mark.timeout(180)
def test_killed_between_the_handlers_return_and_its_ack_repeats_nothing(broker: LocalBroker, unique: Unique, tmp_path: Path) -> None:
    """Ten receivers die in exactly that instant: the id is on disk, the ack was never written, so the message comes again on the wire.

    Each effect happened once, in order; the next receiver dropped the redelivery (at least one for each kill: the fault was seen); and
    every sender was told of everything, also of what a receiver had handled and could not tell any more when he died.
    """
    with chatlib.connect(broker) as chat:
        ann = chat.user(unique("ann"))
        name = unique("bob")
        chat.users([name], online=False)
        sent = [ann.send("@" + name, str(number)) for number in range(400)]
        assert chat.flush(30)
        lives = Lives(broker, name, tmp_path)
        for life in range(10):
            lives.live("handled", 1 + 3 * life)
        lives.live_to_the_end(400)
        assert lives.effects() == [str(number) for number in range(400)]
        assert lives.dropped >= 10
        wait_until(lambda: all(message.receipts == {name: "delivered"} for message in sent), 30, "all receipts have come")


@pytest.mark.timeout(180)
def test_killed_between_the_effect_and_the_handlers_return_repeats_that_one_and_no_other(
    broker: LocalBroker, unique: Unique, tmp_path: Path
) -> None:
    """The limit of what a library can do, stated and held: an effect that is not in the same transaction as the id may happen again.

    Five receivers die in their handler, right after its effect: exactly those five effects happened twice, each at its place.
    """
    with chatlib.connect(broker) as chat:
        ann = chat.user(unique("ann"))
        name = unique("bob")
        chat.users([name], online=False)
        for number in range(100):
            ann.send("@" + name, str(number))
        assert chat.flush(30)
        lives = Lives(broker, name, tmp_path)
        for life in range(5):
            lives.live("effect", 3 + life)
        lives.live_to_the_end(100)
        twice = [effect for effect, count in Counter(lives.effects()).items() if count == 2]
        assert twice == lives.last_words and len(twice) == 5
        assert max(Counter(lives.effects()).values()) == 2
        assert sorted(set(lives.effects()), key=int) == [str(number) for number in range(100)]


@pytest.mark.timeout(180)
def test_killed_at_any_moment_nothing_is_lost_and_only_the_last_effect_may_repeat(
    broker: LocalBroker, unique: Unique, tmp_path: Path
) -> None:
    """Twelve kills from outside, at random moments, while 3,000 messages keep coming."""
    rng = random.Random(12)
    with chatlib.connect(broker) as chat:
        ann = chat.user(unique("ann"))
        name = unique("bob")
        chat.users([name], online=False)
        sender = threading.Thread(target=lambda: [ann.send("@" + name, str(number)) for number in range(3_000)])
        sender.start()
        lives = Lives(broker, name, tmp_path)
        for _ in range(12):
            lives.live_and_be_killed(rng.randrange(1, 200))
        sender.join(30)
        lives.live_to_the_end(3_000)
        counts = Counter(lives.effects())
        assert sorted(counts, key=int) == [str(number) for number in range(3_000)]
        repeated = {effect for effect, count in counts.items() if count > 1}
        assert repeated <= set(lives.last_words) and max(counts.values()) <= 2
        firsts = list(dict.fromkeys(lives.effects()))
        assert firsts == [str(number) for number in range(3_000)]  # in order
        print(f"{len(repeated)} of 12 kills hit between an effect and its id")


@pytest.mark.timeout(180)
def test_a_retry_survives_the_receiver(broker: LocalBroker, unique: Unique, tmp_path: Path) -> None:
    """Killed when the broker has the copy that waits, and the original is not acked yet: both come, and one success is what remains."""
    failing = RECEIVER.replace("    os.write(effect", "    if message.attempt == 1: raise ValueError('not now')\n    os.write(effect")
    assert failing != RECEIVER
    with chatlib.connect(broker) as chat:
        ann = chat.user(unique("ann"))
        name = unique("bob")
        chat.users([name], online=False)
        sent = ann.send("@" + name, "0").wait(30)
        effects = tmp_path / "effects"
        with python(failing, broker.url, tmp_path / "data", name, effects, "retried", 0) as process:
            assert process.stdout
            process.stdout.read()
            assert process.wait(20) == -signal.SIGKILL
        assert not effects.read_text()
        with python(failing, broker.url, tmp_path / "data", name, effects, "never", 0) as process:
            assert process.stdin and process.stdout
            wait_until(lambda: effects.read_text(), 30, "the second attempt succeeds")
            wait_until(lambda: sent.receipts == {name: "delivered"}, 10, "its sender knows")
            with raw(broker.url) as observer:
                queues = (inbox_queue(name), f"retries.{name}")
                wait_until(lambda: not sum(observer.depth(queue) for queue in queues), 10, "nothing waits")
            process.stdin.close()
            process.stdout.read()
        assert effects.read_text() == f"{sent.message_id} 0\n"
