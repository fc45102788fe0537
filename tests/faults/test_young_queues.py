"""The trap of the young quorum queue and stream, and that nobody who uses chatlib can fall into it.

RabbitMQ confirms messages of a quorum queue or stream that was declared a moment ago, and after SIGKILL has neither queue nor
messages: a new Raft server is entered in a table that is written to disk only when nobody has touched it for half a second
(`ra_directory`). Measured on 3.10.8 and 4.0: killed at once, nothing survives; a second later, everything does. Therefore:

- inboxes, receipts and dead letters are classic queues, which may be used at once;
- the stream of a history is bound two seconds after it was declared, and `chat.group(history=True)` returns then;
- of what waits in new retry queues, the original stays with the broker, unacked, until they have settled.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pika
import pytest

import chatlib
from chatlib import ReceivedMessage, RetryPolicy, Settings
from chatlib.events import RETRIED, Event
from chatlib.topology import SETTLING
from tests.support import wait_until
from tests.wire import management, raw

Unique = Callable[[str], str]
COUNT = 200
TURNS = 6  # at most
RAW = 40  # confirmed one by one, while the queue is young


def raw_trap(url: str, name: str) -> None:
    """What anybody might do: declare, publish, see it confirmed."""
    with raw(url) as stranger:
        stranger.channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"})
        for number in range(RAW):  # raises NackError or UnroutableError unless it is confirmed
            stranger.channel.basic_publish("", name, str(number).encode(), pika.BasicProperties(delivery_mode=2), mandatory=True)


def left_of(url: str, name: str) -> int:
    """What is there of it after the restart; 0 if the queue is gone or broken. A good one needs a second to elect its leader."""
    pause = threading.Event()
    for _ in range(30):
        try:
            with raw(url) as observer:
                if found := observer.depth(name):
                    return found
        except pika.exceptions.ChannelClosedByBroker:
            pass
        pause.wait(0.1)
    return 0


def is_old(broker: Any) -> bool:
    """Whether this is a version of which the trap is known."""
    with management(broker) as client:
        version = client.get("overview").raise_for_status().json()["rabbitmq_version"]
    return tuple(map(int, version.split(".")[:2])) < (4, 3)


@pytest.mark.timeout(240)
def test_everything_of_chatlib_that_was_begun_right_before_a_sigkill_survives_it(
    new_broker: Callable[[], Any], kill_and_start: Callable[[Any], None], unique: Unique
) -> None:
    """In the last second before the kill, on a broker that has never seen chatlib: 1 a user signs up, and gets 200 confirmed messages;
    2 a history was begun, and 200 confirmed messages are in it; 3 somebody fails at 30 messages, the first that are ever retried
    there; 4 somebody falls into the trap with pika, and his messages are confirmed, too. Kill. His are gone, ours are all there.

    On a busy machine the kill may come too late for the trap (the table is on disk by then): another turn is taken.
    """
    policy = RetryPolicy(attempts=4, base=0.2, cap=0.4)
    with new_broker() as broker:
        old = is_old(broker)
        trap_closed = 0
        for turn in range(1, TURNS + 1):
            if turn > 2 and (trap_closed or not old):
                break
            with chatlib.connect(broker, settings=Settings(retry=policy)) as chat:
                retried: list[Event] = []
                handled: Counter[str] = Counter()
                chat.on_event(lambda event, retried=retried: retried.append(event) if event["hop"] == RETRIED else None)

                def fail_at_first(message: ReceivedMessage, handled: Counter[str] = handled) -> None:
                    if message.attempt == 1:
                        raise RuntimeError("not at the first time")
                    handled[message.content] += 1

                ann, dan = chat.user(unique("ann")), chat.user(unique("dan"))
                dan.on_message(fail_at_first)
                # 2
                team = chat.group("#" + unique("team"), history=True)
                said = ann.send_many((team.address, str(number)) for number in range(COUNT))
                # 1
                name = unique("bob")
                chat.users([name], online=False)
                sent = ann.send_many(("@" + name, str(number)) for number in range(COUNT))
                for message in (*said, *sent):
                    message.wait(20)
                # 3
                failing = ann.send_many((dan.address, str(number)) for number in range(30))
                wait_until(lambda retried=retried: retried, 20, "the first retry")
                # 4
                trapped = unique("trap")
                raw_trap(broker.url, trapped)
                kill_and_start(broker)

                survived = left_of(broker.url, trapped)
                print(f"turn {turn}: of {RAW} confirmed messages in a young quorum queue {survived} survived")
                trap_closed += survived < RAW
                bob = chat.user(name)
                bob.go_online()
                assert [message.content for message in bob.receive(limit=COUNT, timeout=20) if not message.ack()] == [
                    str(number) for number in range(COUNT)
                ]
                assert list(bob.receive(timeout=0.5)) == []
                assert [message.content for message in team.history()] == [str(number) for number in range(COUNT)]
                wait_until(lambda handled=handled: len(handled) == 30, 40, "what was retried comes back")
                assert chat.flush(40)
                assert set(handled.values()) == {1}
                wait_until(lambda failing=failing: all(message.receipts for message in failing), 10, "and their sender knows")
                assert chat.reconnects >= 1
        assert trap_closed or not old, "the trap did not close: this test shows nothing"
        broker.kill()


@pytest.mark.timeout(180)
def test_a_replicated_inbox_is_bound_only_when_it_has_settled(
    new_broker: Callable[[], Any], kill_and_start: Callable[[Any], None], unique: Unique
) -> None:
    """1 a user signs up with a quorum inbox, and gets 200 confirmed messages; 2 the broker is killed at once: all are there."""
    with new_broker() as broker:
        with chatlib.connect(broker, settings=Settings(queue_type="quorum")) as chat:
            # 1
            ann, name = chat.user(unique("ann")), unique("bob")
            began = time.monotonic()
            chat.users([name], online=False)
            assert time.monotonic() - began >= SETTLING
            for message in ann.send_many((f"@{name}", str(number)) for number in range(COUNT)):
                message.wait(20)
            # 2
            kill_and_start(broker)
            bob = chat.users([name], online=True)[0]
            bob.go_online()
            got = [message.content for message in bob.receive(limit=COUNT, timeout=30) if not message.ack()]
            assert got == [str(number) for number in range(COUNT)]
            assert chat.reconnects >= 1
        broker.kill()
