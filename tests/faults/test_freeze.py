"""The broker is frozen (SIGSTOP): it lives, holds its connections, and answers nothing. Sending goes on, and nothing is lost or doubled."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

import chatlib
from chatlib import OutboxFull, OutcomeUnknown, Settings
from chatlib.brokers import BrokerState, LocalBroker
from chatlib.events import UNKNOWN, Event
from tests.support import wait_until

Unique = Callable[[str], str]
QUICK = Settings(heartbeat=2, attempt_timeout=2, request_timeout=2)


@pytest.fixture(scope="module")
def ours(new_broker: Callable[[], LocalBroker]) -> Iterator[LocalBroker]:
    with new_broker() as broker:
        yield broker
        broker.kill()


def frozen(broker: LocalBroker) -> bool:
    return broker.is_running and broker.state is BrokerState.FROZEN


def test_frozen_for_longer_than_the_heartbeat(ours: LocalBroker, unique: Unique) -> None:
    """1 a stream of messages is under way; 2 frozen: send() returns as quickly as ever, the link notices within some heartbeats, and
    tries again; 3 thawed: everything is confirmed, and handled once, in order; the broker was never restarted.
    """
    pid = ours.pid
    unknown: list[Event] = []
    with chatlib.connect(ours, settings=QUICK) as chat:
        chat.on_event(lambda event: unknown.append(event) if event["hop"] == UNKNOWN else None)
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        got: list[int] = []
        bob.on_message(lambda message: got.append(int(message.content)))
        # 1
        sent = [ann.send(bob.address, str(number)) for number in range(500)]
        assert chat.flush(30)
        try:
            # 2
            ours.freeze()
            wait_until(lambda: frozen(ours), 5, "it is stopped")
            began = time.monotonic()
            sent += [ann.send(bob.address, str(number)) for number in range(500, 3_000)]
            assert time.monotonic() - began < 3
            with pytest.raises(OutcomeUnknown):
                sent[-1].wait(0.5)
            wait_until(lambda: chat.state == "recovering", 30, "the link has noticed")
            with pytest.raises(chatlib.BrokerUnavailable, match="recovering"):
                bob.join("#" + unique("team"))
            sent += [ann.send(bob.address, str(number)) for number in range(3_000, 3_500)]
            assert frozen(ours) and chat.reconnects == 0 and len(unknown) > 0
        finally:
            ours.thaw()
        # 3
        assert chat.flush(60) and chat.reconnects >= 1
        assert {message.state for message in sent} == {"confirmed"}
        wait_until(lambda: len(got) >= 3_500, 30, "everything is handled")
        assert got == list(range(3_500))
        assert ours.pid == pid


def test_a_short_freeze_only_delays(ours: LocalBroker, unique: Unique) -> None:
    """Shorter than the heartbeat: the connections stay, nothing is sent twice."""
    with chatlib.connect(ours, settings=Settings(heartbeat=15)) as chat:
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        sends: list[str] = []
        chat.on_event(
            lambda event: sends.append(event["message_id"]) if event["hop"] == "publish.sent" and event["user"] == ann.name else None
        )
        try:
            ours.freeze()
            sent = [ann.send(bob.address, str(number)) for number in range(100)]
            with pytest.raises(OutcomeUnknown):
                sent[0].wait(1.0)
            assert frozen(ours)
        finally:
            ours.thaw()
        assert chat.flush(30) and chat.reconnects == 0
        assert sends == [message.message_id for message in sent]
        assert [message.content for message in bob.receive(limit=100, timeout=10) if not message.ack()] == [str(n) for n in range(100)]


def test_a_full_outbox_holds_the_sender_back_and_then_refuses(ours: LocalBroker, unique: Unique) -> None:
    """Memory stays bounded: with nobody to take them, 1,000 are accepted and not one more; what was accepted arrives."""
    settings = Settings(heartbeat=15, outbox_limit=1_000, send_timeout=0.5)
    with chatlib.connect(ours, settings=settings) as chat:
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        assert chat.flush(10)
        accepted = []
        try:
            ours.freeze()
            began = time.monotonic()
            with pytest.raises(OutboxFull, match=r"outbox_limit.*nothing was accepted"):
                accepted.extend(ann.send(bob.address, str(number)) for number in range(2_000))
            assert 0.4 < time.monotonic() - began < 10
            assert len(accepted) == 1_000 and frozen(ours)
        finally:
            ours.thaw()
        assert ann.send(bob.address, "room again").wait(30)
        got = [message.content for message in bob.receive(limit=1_001, timeout=20) if not message.ack()]
        assert got == [*map(str, range(1_000)), "room again"]


def test_closing_a_chat_on_a_frozen_broker_takes_no_longer_than_it_may(ours: LocalBroker, unique: Unique) -> None:
    """With a data_dir nothing is lost by it either: the next chat sends what was left."""
    chat = chatlib.connect(ours)
    ann = chat.user(unique("ann"))
    try:
        ours.freeze()
        sent = ann.send(ann.address, "x")
        began = time.monotonic()
        chat.close(timeout=1)
        assert time.monotonic() - began < 5 and frozen(ours)
        with pytest.raises(chatlib.ChatClosed):
            sent.wait(5)
    finally:
        ours.thaw()
