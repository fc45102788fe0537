"""The broker is killed, again and again: what was accepted is confirmed in the end, and handled once, in order."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

import chatlib
from chatlib import Chat, ChatUser, ReceivedMessage, Settings
from chatlib.brokers import LocalBroker
from chatlib.events import CONFIRMED, DELIVERED, DROPPED, RECEIPT, SENT, UNKNOWN, Event
from chatlib.names import inbox_queue
from tests.support import process_runs, wait_until
from tests.wire import raw

Unique = Callable[[str], str]


@pytest.fixture(scope="module")
def ours(new_broker: Callable[[], LocalBroker]) -> Iterator[LocalBroker]:
    with new_broker() as broker:
        yield broker
        broker.kill()


def sync(broker: LocalBroker) -> None:
    """Have the broker write its metadata: 3.10.8 may forget a queue that was declared less than about a second before SIGKILL.

    That is the broker's doing, measured by the tests of `LocalBroker`; here the subject is what becomes of messages.
    """
    broker.rabbitmqctl("eval", "catch mnesia:sync_log().")  # there is no Mnesia in 4.3


def kill_and_start(broker: LocalBroker) -> None:
    """SIGKILL, seen to have worked; and up again."""
    pid = broker.pid
    assert pid
    broker.kill()
    assert not broker.is_running and not process_runs(pid)
    broker.start()
    assert broker.pid not in (None, pid)


class Tally:
    """How many events of each hop a chat has had."""

    def __init__(self, chat: Chat) -> None:
        self.hops: Counter[str] = Counter()
        self.redelivered = 0
        chat.on_event(self)

    def __call__(self, event: Event) -> None:
        self.hops[event["hop"]] += 1
        self.redelivered += bool(event.get("redelivered"))


def collect(user: ChatUser) -> list[tuple[str, int]]:
    """A handler that notes the conversation and the number that each message begins with."""
    got: list[tuple[str, int]] = []

    def handler(message: ReceivedMessage) -> None:
        got.append((message.conversation, int(message.content.split(" ", 1)[0])))

    user.on_message(handler)
    return got


@pytest.mark.timeout(240)
def test_a_burst_of_20_000_through_three_kills(ours: LocalBroker, unique: Unique) -> None:
    """1 20,000 messages are accepted while the broker dies three times; 2 all are confirmed in the end; 3 every recipient handled each
    exactly once, in the order of each conversation; 4 all of that was hard: outcomes were unknown, links were made anew.

    Sizes are mixed on purpose: the broker keeps bodies above 4 kB in another file than small ones, and may lose them apart.
    """
    group, rng = "#" + unique("team"), random.Random(20)
    with chatlib.connect(ours) as chat:
        tally = Tally(chat)
        ann, bob, cid = (chat.user(unique(name)) for name in ("ann", "bob", "cid"))
        bob.join(group)
        cid.join(group)
        sync(ours)
        bobs, cids = collect(bob), collect(cid)
        sent: list[chatlib.SentMessage] = []

        def burst() -> None:
            for number in range(20_000):
                filling = "x" * (6_000 if rng.random() < 0.01 else rng.randrange(200))
                sent.append(ann.send(group if number % 2 else bob.address, f"{number} {filling}"))

        # 1
        sender = threading.Thread(target=burst)
        sender.start()
        for threshold in (1_000, 8_000, 15_000):
            wait_until(
                lambda threshold=threshold: tally.hops[CONFIRMED] - tally.hops[RECEIPT] >= threshold,
                60,
                f"{threshold} are confirmed",
                poll=0.001,
            )
            assert chat.unconfirmed > 0
            kill_and_start(ours)
        sender.join(60)
        # 2
        assert len(sent) == 20_000 and chat.flush(60)
        assert Counter(message.state for message in sent) == {"confirmed": 20_000}
        # 3
        wait_until(lambda: len(bobs) >= 20_000 and len(cids) >= 10_000, 60, "everything is handled")
        assert [number for to, number in bobs if to == ann.address] == list(range(0, 20_000, 2))
        assert [number for to, number in bobs if to == group] == list(range(1, 20_000, 2))
        assert cids == [(group, number) for number in range(1, 20_000, 2)]
        # 4
        assert tally.hops[UNKNOWN] > 0 and chat.reconnects >= 3
        assert tally.hops[SENT] >= tally.hops[CONFIRMED] + tally.hops[UNKNOWN] - chat.unconfirmed
        wait_until(lambda: sum(len(message.receipts) for message in sent) == 30_000, 60, "all receipts have come, too")
        for user in (bob, cid):
            user.go_offline()
        with raw(ours.url) as observer:
            wait_until(lambda: observer.depth(inbox_queue(bob.name)) == observer.depth(inbox_queue(cid.name)) == 0, 10, "nothing is left")
        print(f"unknown {tally.hops[UNKNOWN]}, duplicates dropped {tally.hops[DROPPED]}, redelivered {tally.redelivered}")


@pytest.mark.timeout(180)
def test_killed_while_somebody_empties_a_full_inbox(ours: LocalBroker, unique: Unique) -> None:
    """5,000 wait for bob; the broker dies when he has handled some: the rest comes, nothing twice, though acks were lost on the way."""
    with chatlib.connect(ours, settings=Settings(prefetch=300)) as chat:
        tally = Tally(chat)
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        bob.go_offline()
        sync(ours)
        for number in range(5_000):
            ann.send(bob.address, f"{number} ")
        assert chat.flush(60)
        got = collect(bob)
        bob.go_online()
        wait_until(lambda: len(got) >= 1_500, 30, "some are handled", poll=0.001)
        assert len(got) < 5_000
        kill_and_start(ours)
        wait_until(lambda: len(got) >= 5_000, 60, "everything is handled")
        assert [number for _, number in got] == list(range(5_000))
        assert chat.reconnects >= 1 and tally.redelivered > 0
        assert tally.hops[DELIVERED] > 5_000 or tally.redelivered > 0
        bob.go_offline()
        with raw(ours.url) as observer:
            wait_until(lambda: observer.depth(inbox_queue(bob.name)) == 0, 10, "nothing is left")
        assert len(got) == 5_000


@pytest.mark.timeout(180)
def test_a_clean_restart_in_the_middle_of_sending(ours: LocalBroker, unique: Unique) -> None:
    """stop() says farewell to its clients (320) and start() finds everything: retries that were waiting, too."""
    settings = Settings(retry=chatlib.RetryPolicy(attempts=3, base=2, cap=2, jitter=False))
    with chatlib.connect(ours, settings=settings) as chat:
        ann, bob, cid = (chat.user(unique(name)) for name in ("ann", "bob", "cid"))
        got = collect(bob)
        ann.send(cid.address, "for later").wait(30)
        (later,) = cid.receive(limit=1, timeout=10)
        later.retry("after the restart")
        stopped = threading.Thread(target=ours.stop)
        for number in range(3_000):
            ann.send(bob.address, f"{number} ")
            if number == 1_000:
                stopped.start()
        stopped.join(60)
        assert not ours.is_running
        wait_until(lambda: chat.state == "recovering", 20, "the link knows")
        ann.send(bob.address, "3000 while it is down")
        ours.start()
        assert chat.flush(60)
        wait_until(lambda: len(got) >= 3_001, 30, "everything is handled")
        assert [number for _, number in got] == list(range(3_001))
        assert chat.reconnects >= 1
        (again,) = cid.receive(limit=1, timeout=20)
        assert (again.content, again.attempt) == ("for later", 2)
        again.ack()
