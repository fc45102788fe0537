"""Retries, dead letters and receipts while the broker is killed: each message ends in one place, and nothing ends nowhere."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import chatlib
from chatlib import Chat, ChatError, ReceivedMessage, RetryPolicy, Settings
from chatlib.checker import check
from chatlib.events import DEAD, DELIVERED, DROPPED, HANDLED, REPLAYED, RETRIED, UNKNOWN, Event
from chatlib.names import inbox_queue, retries_queue, retry_queue
from chatlib.retry import GRID
from tests.support import wait_until
from tests.wire import raw

Unique = Callable[[str], str]
Kill = Callable[[Any], None]
COUNT = 1_000


def warm_up(chat: Chat, unique: Unique) -> None:
    """Have the retry queues made, and wait until they have settled: the first seconds of a broker are another test's subject."""
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    ann.send(bob.address, "x").wait(20)
    (message,) = bob.receive(limit=1, timeout=20)
    message.retry("warming up")
    assert chat.flush(30)
    (message,) = bob.receive(limit=1, timeout=20)
    message.ack()
    bob.go_offline()


def waiting(url: str, user: str) -> dict[str, int]:
    """Where messages for `user` could still be, and how many are; retry queues are everybody's."""
    import pika

    found = {}
    with raw(url) as observer:
        for queue in (inbox_queue(user), retries_queue(user)):
            found[queue] = observer.depth(queue)
    for queue in (retry_queue(step, number) for step in GRID[:40] for number in (0, 1)):
        try:
            with raw(url) as observer:
                found[queue] = observer.depth(queue)
        except pika.exceptions.ChannelClosedByBroker:
            pass
    return {queue: count for queue, count in found.items() if count}


@pytest.mark.timeout(480)
def test_a_thousand_failing_messages_each_end_in_one_place(mortal: Any, kill_and_start: Kill, unique: Unique, tmp_path: Path) -> None:
    """A handler that fails for all at first: 600 succeed at their second or third attempt, 400 never do.

    1 the broker is killed twice, while hundreds wait for their retry; 2 each of the 600 was handled once, each of the 400 is dead
    once, none is both, none is nowhere; 3 senders know it of the 600, and of them only; 4 reasons and attempts came along; 5 the
    kills were felt, and nothing waits any more.
    """
    settings = Settings(retry=RetryPolicy(attempts=4, base=0.5, cap=2.0))
    with chatlib.connect(mortal, data_dir=tmp_path, settings=settings) as chat:
        warm_up(chat, unique)
        chat.dead_letters.purge()
        events: list[Event] = []
        chat.on_event(events.append)
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        handled: Counter[int] = Counter()
        stories: defaultdict[int, list[tuple[int, tuple[str, ...]]]] = defaultdict(list)

        def handler(message: ReceivedMessage) -> None:
            number = int(message.content)
            stories[number].append((message.attempt, message.failures))
            if number >= 600 or message.attempt < 2 + number % 2:
                raise RuntimeError(f"{number} at {message.attempt}")
            handled[number] += 1

        def hops(name: str) -> int:
            return sum(event["hop"] == name for event in list(events))

        bob.on_message(handler)
        sent = ann.send_many((bob.address, str(number)) for number in range(COUNT))
        # 1
        in_the_air = []
        for goal in (400, 1_400):
            wait_until(lambda goal=goal: hops(RETRIED) >= goal, 60, f"{goal} retries", poll=0.005)
            kill_and_start(mortal)
            in_the_air.append(hops(RETRIED) - sum(event["hop"] == DELIVERED and event["attempt"] > 1 for event in list(events)))
        # 2
        wait_until(lambda: len(handled) + len(chat.dead_letters) >= COUNT, 240, "each has ended somewhere", poll=0.5)
        assert chat.flush(60)
        wait_until(lambda: waiting(mortal.url, bob.name) == {}, 30, "nothing waits any more", poll=0.5)
        letters = chat.dead_letters.list()
        assert set(handled) == set(range(600)) and set(handled.values()) == {1}
        assert sorted(int(letter.message.content) for letter in letters if letter.message) == list(range(600, COUNT))
        assert len(letters) == 400
        # 3
        expected = [{bob.name: "delivered"} if number < 600 else {} for number in range(COUNT)]
        wait_until(lambda: [message.receipts for message in sent] == expected, 30, "the sender knows of those that were handled")
        # 4
        for number, story in stories.items():
            attempts = [attempt for attempt, _ in story]
            last = 4 if number >= 600 else 2 + number % 2
            assert sorted(set(attempts)) == list(range(1, last + 1)), (number, attempts)
            assert all(failures == tuple(f"RuntimeError: {number} at {n}" for n in range(1, attempt)) for attempt, failures in story)
        for letter in letters:
            assert letter.attempts == 4 and len(letter.failures) == 4 and letter.user == bob.name
        # 5
        assert chat.reconnects >= 2 and max(in_the_air) > 100, in_the_air
        assert hops(UNKNOWN) + hops(DROPPED) > 0
        verdict = check(events)
        assert (verdict.lost, verdict.duplicated, verdict.unexpected) == (0, 0, 0), verdict
        assert hops(HANDLED) == 600 and hops(DEAD) >= 400
        print(f"{in_the_air} waited at the kills, {hops(UNKNOWN)} outcomes unknown, {hops(DROPPED)} copies dropped, {hops(DEAD)} burials")
        bob.on_message(None)
        assert chat.dead_letters.purge() >= 400


@pytest.mark.timeout(240)
def test_a_replay_goes_through_a_kill(mortal: Any, kill_and_start: Kill, unique: Unique) -> None:
    """1 four hundred dead letters; 2 all are replayed, and the broker is killed when some are through; 3 the call returns or says by a
    typed error that it does not know; whatever is still listed is replayed again; 4 each was handled once, none is left.
    """
    count = 400
    with chatlib.connect(mortal) as chat:
        chat.dead_letters.purge()
        replayed: list[Event] = []
        chat.on_event(lambda event: replayed.append(event) if event["hop"] == REPLAYED else None)
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        # 1
        ann.send_many((bob.address, str(number)) for number in range(count))
        for message in bob.receive(limit=count, timeout=20):
            message.reject("not now")
        wait_until(lambda: len(chat.dead_letters) == count, 30, "all are dead")
        handled: Counter[str] = Counter()
        bob.on_message(lambda message: handled.update([message.content]))
        # 2
        outcome: list[int | ChatError] = []

        def replay() -> None:
            try:
                outcome.append(chat.dead_letters.replay(timeout=60))
            except ChatError as exc:
                outcome.append(exc)

        thread = threading.Thread(target=replay)
        thread.start()
        wait_until(lambda: handled, 30, "some are through", poll=0.0005)
        kill_and_start(mortal)
        # 3
        thread.join(90)
        assert len(outcome) == 1 and (outcome[0] == count or isinstance(outcome[0], ChatError)), outcome
        left = wait_until(lambda: (chat.dead_letters.list(), True), 30, "the dead letters can be listed")[0]
        print(f"replay: {outcome[0]!r}; {len(replayed)} told, {len(left)} still listed after it")
        if left:
            wait_until(lambda: chat.dead_letters.replay() >= 0, 30, "they can be replayed again")
        # 4
        wait_until(lambda: len(handled) == count, 60, "all are handled")
        assert chat.flush(30) and chat.dead_letters.list() == []
        assert set(handled.values()) == {1}
        assert chat.reconnects >= 1


@pytest.mark.timeout(240)
def test_a_wait_that_the_broker_does_not_survive_ends_when_it_is_due(mortal: Any, unique: Unique, tmp_path: Path) -> None:
    """A message waits 8 seconds; nobody is connected, the broker is killed, and is away for a part of it. Then it comes: not before.

    With a data_dir: the broker may forget the ack of the original in the kill, and hands it out again at once; who remembers that this
    attempt is over drops it.
    """
    settings = Settings(retry=RetryPolicy(attempts=2, base=8.0, cap=8.0, jitter=False))
    name = unique("bob")
    with chatlib.connect(mortal, settings=settings, data_dir=tmp_path) as chat:
        bob = chat.user(name)
        chat.user(unique("ann")).send(bob.address, "x").wait(20)
        (message,) = bob.receive(limit=1, timeout=20)
        message.retry("later")
        failed = time.time()
        assert chat.flush(30)
    mortal.kill()
    assert not mortal.is_running
    mortal.start()
    with chatlib.connect(mortal, settings=settings, data_dir=tmp_path) as chat:
        (again,) = chat.user(name).receive(limit=1, timeout=30)
        waited = time.time() - failed
        again.ack()
        assert (again.attempt, again.failures) == (2, ("later",))
        assert waited >= 8.0, f"it came after {waited:.1f} s"
