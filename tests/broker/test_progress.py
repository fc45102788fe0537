"""How far a message has come, over a real broker: n of m, cumulative, only ever forward, whatever the order in which receipts arrive."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator

import pytest

import chatlib
from chatlib import Chat, SentMessage
from chatlib.brokers import LocalBroker
from chatlib.names import receipts_queue
from tests.support import wait_until
from tests.wire import raw

Unique = Callable[[str], str]
RANK = {"nothing": 0, "delivered": 1, "read": 2}


@pytest.fixture
def chat(broker: LocalBroker) -> Iterator[Chat]:
    with chatlib.connect(broker) as chat:
        yield chat


def watch(sent: SentMessage) -> list[dict[str, str]]:
    """What `on_change` was told, as the receipts were at each call."""
    changes: list[dict[str, str]] = []
    sent.on_change(lambda message: changes.append(dict(message.receipts)))
    return changes


def test_a_group_message_goes_from_none_to_all_of_its_members(chat: Chat, unique: Unique) -> None:
    """Its author does not count, nor does who is no member; who joins later raises the m; each change is told once."""
    group = "#" + unique("team")
    ann, *members = (chat.user(unique(name)) for name in ("ann", "bob", "cid", "dan", "eve"))
    for user in (ann, *members[:3]):
        user.join(group)
    members[3].go_offline()
    sent = ann.send(group, "x").wait(5)
    changes = watch(sent)
    assert sent.progress == (0, 0, 3) and str(sent.progress) == "0 of 3 delivered, 0 read"
    for number, member in enumerate(members[:3], 1):
        for message in member.receive(limit=1, timeout=5):
            message.ack()
        wait_until(lambda number=number: sent.progress == (number, number - 1, 3), 5, f"{number} of 3")
        for _ in range(2):
            message.mark_read()
        wait_until(lambda number=number: sent.progress == (number, number, 3), 5, f"{number} of 3 read")
        message.ack()  # a second time: nothing
        wait_until(lambda number=number: len(changes) == 2 * number, 5, "each change was told")
    assert len(changes) == 6  # delivered and read, once each, of three
    assert changes[-1] == {member.name: "read" for member in members[:3]}
    members[3].join(group)
    assert sent.progress == (3, 3, 4)
    members[2].leave(group)
    assert sent.progress == (3, 3, 4)  # who had it still counts


def test_who_keeps_it_private_is_one_of_m_and_never_of_n(chat: Chat, unique: Unique) -> None:
    group = "#" + unique("team")
    ann, bob, cid = (chat.user(unique(name)) for name in ("ann", "bob", "cid"))
    for member in (bob, cid):
        member.join(group)
    bob.private = True
    sent = ann.send(group, "x").wait(5)
    for member in (bob, cid):
        for message in member.receive(limit=1, timeout=5):
            message.ack()
            message.mark_read()
    wait_until(lambda: sent.progress == (1, 1, 2), 5, "one of two")
    bob.private = False
    again = ann.send(group, "y").wait(5)
    for message in bob.receive(limit=1, timeout=5):
        message.ack()
    wait_until(lambda: again.receipts == {bob.name: "delivered"}, 5, "from now on he tells")
    assert sent.receipts == {cid.name: "read"}


def test_nobody_can_say_how_many_without_management(broker: LocalBroker, unique: Unique) -> None:
    from tests.broker.test_quota import WithoutManagement

    with chatlib.connect(WithoutManagement(broker.url)) as chat:
        group = "#" + unique("team")
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        bob.join(group)
        sent = ann.send(group, "x").wait(5)
        for message in bob.receive(limit=1, timeout=5):
            message.ack()
        wait_until(lambda: sent.receipts == {bob.name: "delivered"}, 5, "the receipt comes all the same")
        assert sent.progress == (1, 0, None) and str(sent.progress) == "1 of ? delivered, 0 read"


def test_one_read_covers_all_before_it_with_one_receipt(chat: Chat, broker: LocalBroker, unique: Unique) -> None:
    """Reading the last of 200 is one message on the wire, and 200 changes for the sender."""
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    sent = [ann.send(bob.address, str(number)) for number in range(200)]
    messages = list(bob.receive(limit=100, timeout=5))
    for message in messages:
        message.ack()
    messages += list(bob.receive(limit=100, timeout=5))
    for message in messages[100:]:
        message.ack()
    wait_until(lambda: all(message.receipts for message in sent), 10, "all are delivered")
    ann.go_offline()
    messages[-1].mark_read()
    assert chat.flush(5)
    with raw(broker.url) as observer:
        assert observer.depth(receipts_queue(ann.name)) == 1
    ann.go_online()
    wait_until(lambda: all(message.receipts == {bob.name: "read"} for message in sent), 10, "all are read")


@pytest.mark.parametrize("seed", range(12))
def test_in_whatever_order_receipts_come_the_state_is_what_they_say_together(
    chat: Chat, broker: LocalBroker, unique: Unique, seed: int
) -> None:
    """Receipts of three readers for twelve messages, shuffled, repeated, with gaps. The model: read up to the last "read" of that
    reader, delivered where he said so beyond it. And at no moment did anything fall back.
    """
    rng = random.Random(seed)
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    bob.go_offline()
    sent = [ann.send(bob.address, str(number)) for number in range(12)]
    last = ann.send(bob.address, "sentinel")
    changes = [watch(message) for message in sent]
    assert chat.flush(10)
    readers = ["r1", "r2", "r3"]
    said = [(reader, number, status) for reader in readers for number in range(12) for status in ("delivered", "read")]
    said = rng.choices(said, k=rng.randrange(1, 60))
    with raw(broker.url) as wire:
        for reader, number, status in said:
            receipt = {"type": "RECEIVE_MESSAGE", "version": 1, "recipient_id": reader}
            receipt |= {"message_id": sent[number].message_id, "read_status": status}
            wire.put(receipts_queue(ann.name), json.dumps(receipt).encode())
        receipt = {
            "type": "RECEIVE_MESSAGE",
            "version": 1,
            "recipient_id": "end",
            "message_id": last.message_id,
            "read_status": "delivered",
        }
        wire.put(receipts_queue(ann.name), json.dumps(receipt).encode())
    wait_until(lambda: "end" in last.receipts, 10, "all receipts have come")
    for number, message in enumerate(sent):
        expected = {}
        for reader in readers:
            if any(who == reader and status == "read" and which >= number for who, which, status in said):
                expected[reader] = "read"
            elif (reader, number, "delivered") in said:
                expected[reader] = "delivered"
        assert message.receipts == expected, (seed, number, said)
    for told in changes:
        for before, after in itertools.pairwise(told):
            assert before != after  # each call was news
            for reader in readers:
                assert RANK[before.get(reader, "nothing")] <= RANK[after.get(reader, "nothing")]
