"""The wait between attempts, as the broker keeps it: as long as the policy says, nobody waits with it, and nothing is held unacked."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable

import pytest

import chatlib
from chatlib import Chat, ReceivedMessage, RetryPolicy, Settings
from chatlib.brokers import LocalBroker
from chatlib.events import DELIVERED, RETRIED, Event
from chatlib.names import inbox_queue, retries_queue, retry_queue
from chatlib.retry import on_grid
from tests.support import wait_until
from tests.wire import raw

Unique = Callable[[str], str]


def warm_up(chat: Chat, unique: Unique) -> None:
    """Have the retry queues of this policy made and settled: the first one to retry waits for that."""
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    ann.send(bob.address, "x").wait(20)
    (message,) = bob.receive(limit=1, timeout=20)
    message.retry("warming up")
    assert chat.flush(30)
    bob.go_offline()


class Clock:
    """When each attempt at each message came, and which wait was announced before it."""

    def __init__(self, chat: Chat, user: str) -> None:
        self.user = user
        self.came: defaultdict[str, dict[int, float]] = defaultdict(dict)
        self.failed: defaultdict[str, dict[int, float]] = defaultdict(dict)
        self.announced: defaultdict[str, dict[int, float]] = defaultdict(dict)
        chat.on_event(self)

    def __call__(self, event: Event) -> None:
        if event.get("user") == self.user:
            if event["hop"] == DELIVERED:
                self.came[event["message_id"]].setdefault(event["attempt"], event["at"])
            elif event["hop"] == RETRIED:
                self.announced[event["message_id"]][event["attempt"]] = event["delay"]

    def fail(self, message: ReceivedMessage) -> None:
        self.failed[message.message_id][message.attempt] = time.time()
        raise RuntimeError("no")

    def waits(self, attempt: int) -> list[tuple[float, float]]:
        """(announced, measured) seconds between the failure of `attempt` and the next delivery, of every message that has both."""
        return [
            (self.announced[message_id][attempt], came[attempt + 1] - self.failed[message_id][attempt])
            for message_id, came in self.came.items()
            if attempt + 1 in came and attempt in self.announced[message_id]
        ]


def test_waits_are_as_long_as_the_policy_says_and_spread_over_the_whole_range(broker: LocalBroker, unique: Unique) -> None:
    """Full jitter: attempt n+1 comes after a random part of base * factor^(n-1), measured from failure to delivery by 150 messages.

    Announced waits are those of the policy (seeded, so they repeat); measured ones are not shorter, and longer by what a busy
    machine takes; small and large ones both occur, as a uniform distribution has them.
    """
    policy = RetryPolicy(attempts=3, base=0.8, factor=2.0, cap=60)
    with chatlib.connect(broker, settings=Settings(retry=policy)) as chat:
        warm_up(chat, unique)
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        bob._inbox._rng = random.Random(42)
        clock = Clock(chat, bob.name)
        bob.on_message(lambda message: clock.fail(message) if message.attempt < 3 else None)
        sent = ann.send_many((bob.address, str(number)) for number in range(150))
        wait_until(lambda: all(message.receipts for message in sent), 40, "all are handled at the third attempt")
        for attempt, longest in ((1, 0.8), (2, 1.6)):
            waits = clock.waits(attempt)
            assert len(waits) == 150
            announced = sorted(wait for wait, _ in waits)
            assert announced[0] >= 0.1 and announced[-1] <= on_grid(longest) / 1000
            assert all(int(wait * 1000) == on_grid(wait) for wait in announced)
            late = sorted(measured - wait for wait, measured in waits)
            assert late[0] > -0.01, f"one came {-late[0]:.3f} s before its time"
            assert late[len(late) // 2] < 1.0, f"half of them came {late[len(late) // 2]:.2f} s late"
            quarters = [sum(longest * q / 4 <= wait < longest * (q + 1) / 4 + 0.001 for wait in announced) for q in range(4)]
            assert all(count > 150 / 4 / 2 for count in quarters), f"not uniform: {quarters}"
            print(f"attempt {attempt}: quarters {quarters}, late by {late[0]:.3f} to {late[-1]:.3f} s, half by {late[75]:.3f} s")


def test_a_short_wait_does_not_stand_behind_a_long_one(broker: LocalBroker, unique: Unique) -> None:
    """100 ms behind 5 s, of the same user: the short one comes when it is due, again and again, while the long one waits."""
    policy = RetryPolicy(attempts=3, base=0.1, factor=50.0, cap=5.0, jitter=False)
    with chatlib.connect(broker, settings=Settings(retry=policy)) as chat:
        warm_up(chat, unique)
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        clock, done = Clock(chat, bob.name), list[str]()

        def handler(message: ReceivedMessage) -> None:
            if message.attempt < (3 if message.content == "long" else 2):
                clock.fail(message)
            done.append(message.content)

        bob.on_message(handler)
        long = ann.send(bob.address, "long")
        wait_until(lambda: 2 in clock.announced[long.message_id], 10, "the long one waits for its third attempt")
        began = time.monotonic()
        for number in range(10):
            ann.send(bob.address, str(number)).wait(5)
            wait_until(lambda number=number: str(number) in done, 4, f"{number} is through")
        assert time.monotonic() - began < 4 and "long" not in done
        assert sorted(clock.waits(1))[0][1] >= 0.1
        wait_until(lambda: "long" in done, 15, "and the long one, too")
        ((announced, measured),) = clock.waits(2)
        assert announced == on_grid(5.0) / 1000 and announced <= measured < announced + 3


def test_while_they_wait_nothing_is_unacked_and_others_are_handled(broker: LocalBroker, unique: Unique) -> None:
    """1 more messages wait for their retry than a consumer may have unacked (prefetch 10), and all that comes behind them is handled;
    2 the chat is closed, which would give back what is unacked: nothing is in his queues, everything waits; 3 another one gets it all.
    """
    settings = Settings(retry=RetryPolicy(attempts=2, base=5.0, cap=5.0, jitter=False), prefetch=10)
    name, got = unique("bob"), list[str]()

    def handler(message: ReceivedMessage) -> None:
        if message.attempt == 1 and message.content.startswith("fail"):
            raise RuntimeError("no")
        got.append(message.content)

    with chatlib.connect(broker, settings=settings) as chat:
        warm_up(chat, unique)
        # 1
        ann, bob = chat.user(unique("ann")), chat.user(name)
        bob.on_message(handler)
        began = time.monotonic()
        for word in ("fail", "good"):
            for number in range(100):
                ann.send(bob.address, f"{word} {number}")
        wait_until(lambda: len(got) == 100, 4, "the good ones are handled while the others wait")
        assert got == [f"good {number}" for number in range(100)]
        assert chat.flush(4)
    # 2
    with raw(broker.url) as observer:
        found = [observer.depth(queue) for queue in (inbox_queue(name), retries_queue(name), retry_queue(on_grid(5.0)))]
        assert time.monotonic() - began < 5, "they are due: the test is too slow"
        assert found[:2] == [0, 0] and found[2] in (100, 101), found  # perhaps with the one that warmed up
    # 3
    with chatlib.connect(broker, settings=settings) as chat:
        chat.user(name).on_message(handler)
        wait_until(lambda: len(got) == 200, 20, "they come back")
    assert sorted(got[100:]) == sorted(f"fail {number}" for number in range(100))


def test_after_its_total_time_a_message_is_given_up(broker: LocalBroker, unique: Unique) -> None:
    """Many attempts are left, the time is not: dead, after at most that time, with the reasons of all attempts."""
    policy = RetryPolicy(attempts=1000, base=0.1, cap=0.1, jitter=False, total_time=0.5)
    with chatlib.connect(broker, settings=Settings(retry=policy)) as chat:
        warm_up(chat, unique)
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        clock = Clock(chat, bob.name)
        bob.on_message(clock.fail)
        sent = ann.send(bob.address, "x")
        letter = wait_until(lambda: chat.dead_letters[sent.message_id], 20, "it is given up")
        assert 2 <= letter.attempts <= 6 and len(letter.failures) == letter.attempts
        assert letter.first_failure and letter.last_failure
        assert (letter.last_failure - letter.first_failure).total_seconds() <= 0.5 + 1.0
        chat.dead_letters.purge(sent.message_id)


def test_one_attempt_means_none_again(broker: LocalBroker, unique: Unique) -> None:
    with chatlib.connect(broker, settings=Settings(retry=RetryPolicy(attempts=1))) as chat:
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        attempts: list[int] = []

        def handler(message: ReceivedMessage) -> None:
            attempts.append(message.attempt)
            raise RuntimeError("no")

        bob.on_message(handler)
        sent = ann.send(bob.address, "x")
        letter = wait_until(lambda: chat.dead_letters[sent.message_id], 10, "it is dead at once")
        assert attempts == [1] and letter.attempts == 1
        chat.dead_letters.purge(sent.message_id)


def test_the_first_to_retry_on_a_broker_is_held_up_by_nobody(broker: LocalBroker, unique: Unique) -> None:
    """Making the queues takes a while: the handler and `retry` return at once, and the messages behind are handled meanwhile."""
    policy = RetryPolicy(attempts=2, base=13.0, cap=13.0, jitter=False)  # waits that no other test has made
    with chatlib.connect(broker, settings=Settings(retry=policy)) as chat:
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        for number in range(50):
            ann.send(bob.address, str(number))
        assert chat.flush(10)
        first, *others = bob.receive(limit=50, timeout=10)
        began = time.monotonic()
        first.retry("make fifty queues, please")
        assert time.monotonic() - began < 0.2
        for message in others:
            message.ack()
        assert time.monotonic() - began < 2 and chat.unconfirmed >= 1
        wait_until(lambda: chat.unconfirmed == 0, 30, "it is safe")
        assert list(bob.receive(timeout=0.3)) == []


@pytest.mark.parametrize(
    "policy", [RetryPolicy(), RetryPolicy(attempts=1), RetryPolicy(attempts=100, cap=1e9), RetryPolicy(min_delay=5, base=1)]
)
def test_the_queues_that_are_made_are_those_that_can_be_asked_for(policy: RetryPolicy) -> None:
    steps = policy.steps()
    assert steps == tuple(sorted(set(steps))) and steps[0] == 100
    for seed in range(200):
        rng = random.Random(seed)
        asked = [policy.delay_ms(attempt, 0, rng) for attempt in range(1, min(policy.attempts, 50))]
        assert set(asked) <= {*steps, None}
