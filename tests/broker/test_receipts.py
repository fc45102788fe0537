"""Receipts over a real broker: delivered when acked, read when marked, only ever rising, told to the sender wherever he is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

import chatlib
from chatlib import Chat, OutboxFull, Settings
from chatlib.brokers import LocalBroker
from chatlib.events import RECEIPT, Event
from chatlib.names import receipts_queue
from chatlib.store import Store
from tests.support import wait_until
from tests.wire import Cable, raw

Unique = Callable[[str], str]


@pytest.fixture
def chat(broker: LocalBroker) -> Iterator[Chat]:
    with chatlib.connect(broker) as chat:
        yield chat


def test_delivered_comes_with_the_ack_and_read_with_the_mark(chat: Chat, unique: Unique) -> None:
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    sent = ann.send(bob.address, "x").wait(30)
    (message,) = bob.receive(limit=1, timeout=5)
    assert sent.receipts == {}
    message.ack()
    wait_until(lambda: sent.receipts == {bob.name: "delivered"}, 5, "delivered")
    message.mark_read()
    wait_until(lambda: sent.receipts == {bob.name: "read"}, 5, "read")
    message.mark_read()
    assert chat.flush(5)
    assert sent.receipts == {bob.name: "read"}
    assert str(sent.progress) == "1 of 1 delivered, 1 read"


def test_in_a_group_each_member_is_counted_by_name(chat: Chat, unique: Unique) -> None:
    group = "#" + unique("team")
    ann, *members = (chat.user(unique(name)) for name in ("ann", "bob", "cid", "dan"))
    for user in (ann, *members):
        user.join(group)
    sent = ann.send(group, "x").wait(30)
    for member in members[:2]:
        for message in member.receive(limit=1, timeout=5):
            message.ack()
            if member is members[0]:
                message.mark_read()
    wait_until(lambda: sent.receipts == {members[0].name: "read", members[1].name: "delivered"}, 5, "two of three")
    assert (sent.progress.delivered, sent.progress.read, sent.progress.of) == (2, 1, 3)


def test_reading_one_reads_all_before_it_and_none_after(chat: Chat, unique: Unique) -> None:
    """Cumulative, for every sender in the conversation; another conversation is not touched."""
    group = "#" + unique("team")
    ann, cid, bob = (chat.user(unique(name)) for name in ("ann", "cid", "bob"))
    bob.join(group)
    sent = [(ann if number % 2 else cid).send(group, str(number)) for number in range(20)]
    private = ann.send(bob.address, "private")
    messages = list(bob.receive(limit=21, timeout=5))
    for message in messages:
        message.ack()
    next(message for message in messages if message.content == "12").mark_read()
    wait_until(lambda: all(message.receipts == {bob.name: "read"} for message in sent[:13]), 10, "0 to 12 are read")
    wait_until(lambda: all(message.receipts == {bob.name: "delivered"} for message in [*sent[13:], private]), 10, "the others delivered")


def test_reading_one_that_nobody_holds_reads_those_before_it(chat: Chat, unique: Unique) -> None:
    """The sender kept the first and let go of the last; what is read up to the last is read."""
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    first = ann.send(bob.address, "first")
    ann.send(bob.address, "second").wait(30)
    *_, last = bob.receive(limit=2, timeout=5)
    last.mark_read()
    wait_until(lambda: first.receipts == {bob.name: "read"}, 10, "the first is read")


def test_a_receipt_never_falls_back(chat: Chat, broker: LocalBroker, unique: Unique) -> None:
    """Given a "read", an old "delivered" that comes again, as resends do, changes nothing."""
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    changes: list[dict[str, str]] = []
    sent = ann.send(bob.address, "x")
    sent.on_change(lambda message: changes.append(dict(message.receipts)))
    for message in bob.receive(limit=1, timeout=5):
        message.ack()
        message.mark_read()
    wait_until(lambda: sent.receipts == {bob.name: "read"}, 5, "read")
    old = {"type": "RECEIVE_MESSAGE", "version": 1, "recipient_id": bob.name, "message_id": sent.message_id, "read_status": "delivered"}
    with raw(broker.url) as stranger:
        stranger.put(receipts_queue(ann.name), json.dumps(old).encode())
        stranger.put(receipts_queue(ann.name), json.dumps(old | {"recipient_id": "eve"}).encode())
    wait_until(lambda: "eve" in sent.receipts, 5, "the receipts after it are seen")
    assert sent.receipts == {bob.name: "read", "eve": "delivered"}
    statuses = [change[bob.name] for change in changes if bob.name in change]
    assert statuses == sorted(statuses)  # "delivered" < "read"


def test_a_sender_who_was_away_hears_of_it_when_he_is_back(broker: LocalBroker, unique: Unique) -> None:
    """Also in another process later: the SentMessage is gone, the hooks hear of it by its id."""
    ann, bob = unique("ann"), unique("bob")
    with chatlib.connect(broker) as chat:
        chat.user(bob).go_offline()
        sent = chat.user(ann).send("@" + bob, "x").wait(30)
        message_id = sent.message_id
    with chatlib.connect(broker) as chat:
        for message in chat.user(bob).receive(limit=1, timeout=5):
            message.ack()
    with chatlib.connect(broker) as chat:
        heard: list[Event] = []
        chat.on_event(lambda event: heard.append(event) if event["hop"] == RECEIPT else None)
        chat.user(ann)
        wait_until(lambda: heard, 10, "the receipt")
        assert [(event["message_id"], event["user"], event["state"]) for event in heard] == [(message_id, bob, "delivered")]


def test_receipts_survive_the_loss_of_the_link(broker: LocalBroker, unique: Unique) -> None:
    with Cable(broker.url) as cable, chatlib.connect(cable.url) as chat:
        _survive(chat, cable, unique)


def _survive(chat: Chat, cable: Cable, unique: Unique) -> None:
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    sent = [ann.send(bob.address, str(number)) for number in range(100)]
    held = list(bob.receive(limit=100, timeout=10))
    cable.cut()
    wait_until(lambda: chat.state == "recovering" or chat.reconnects, 10, "the link is lost")
    for message in held:
        message.ack()
    wait_until(lambda: all(message.receipts == {bob.name: "delivered"} for message in sent), 20, "all are told")
    assert chat.reconnects >= 1


def test_who_keeps_his_reading_to_himself_sends_nothing(broker: LocalBroker, unique: Unique) -> None:
    with chatlib.connect(broker, settings=Settings(receipts=False)) as chat:
        ann, bob, cid = (chat.user(unique(name)) for name in ("ann", "bob", "cid"))
        assert bob.private
        cid.private = False
        ann.go_offline()
        for user in (bob, cid):
            ann.send(user.address, "x").wait(30)
            for message in user.receive(limit=1, timeout=5):
                message.ack()
                message.mark_read()
        assert chat.flush(5)
        with raw(broker.url) as observer:
            told = [json.loads(body)["recipient_id"] for _, body in observer.take(receipts_queue(ann.name), 2)]
            assert told == [cid.name, cid.name]
            assert observer.depth(receipts_queue(ann.name)) == 0


def test_what_is_no_receipt_is_dropped_from_a_queue_of_receipts(chat: Chat, broker: LocalBroker, unique: Unique) -> None:
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    sent = ann.send(bob.address, "x").wait(30)
    good = {"type": "RECEIVE_MESSAGE", "version": 1, "recipient_id": bob.name, "message_id": sent.message_id, "read_status": "delivered"}
    with raw(broker.url) as stranger:
        for body in (
            b"",
            b"\xff\xfe",
            b"[]",
            json.dumps(good | {"read_status": "loved"}).encode(),
            json.dumps(good | {"version": 9}).encode(),
        ):
            stranger.put(receipts_queue(ann.name), body)
        stranger.put(receipts_queue(ann.name), json.dumps(good).encode())
        wait_until(lambda: sent.receipts == {bob.name: "delivered"}, 5, "the good one behind them")
        ann.go_offline()
        wait_until(lambda: stranger.depth(receipts_queue(ann.name)) == 0, 5, "all are taken")
    assert chat.reconnects == 0


def test_the_longest_names_can_tell_each_other(chat: Chat, unique: Unique) -> None:
    """A receipt's own id is made of its parts and must fit into 255 bytes; what does not fit would hold up the whole link."""
    for letter in ("n", "ñ", "🦊"):
        suffix = unique("x")
        room = 240 - len(suffix)
        ann, bob = (chat.user(letter * (room // len(letter.encode()) - 1) + suffix + end) for end in "ab")
        sent = ann.send(bob.address, "x").wait(30)
        for message in bob.receive(limit=1, timeout=5):
            message.ack()
        wait_until(lambda sent=sent, bob=bob: sent.receipts == {bob.name: "delivered"}, 5, f"the receipt of {letter}")
    assert chat.reconnects == 0


def test_with_a_data_dir_no_receipt_is_lost_with_its_chat(broker: LocalBroker, unique: Unique, tmp_path: Path) -> None:
    """1 acked and read while no broker can be reached, and closed at once; 2 the next chat on that folder tells the senders."""
    with chatlib.connect(broker) as other, Cable(broker.url) as cable:
        ann = other.user(unique("ann"))
        name = unique("bob")
        other.users([name], online=False)
        sent = [ann.send("@" + name, str(number)) for number in range(10)]
        assert other.flush(30)
        with chatlib.connect(cable.url, data_dir=tmp_path) as chat:
            messages = list(chat.user(name).receive(limit=10, timeout=10))
            cable.refusing = True
            cable.cut()
            wait_until(lambda: chat.state == "recovering", 10, "the link is down")
            for message in messages:
                message.ack()
            messages[4].mark_read()
            chat.close(timeout=0.1)
        assert all(message.receipts == {} for message in sent)
        chatlib.connect(broker, data_dir=tmp_path).close()  # he does not even have to come back
        wait_until(lambda: [message.receipts.get(name) for message in sent] == ["read"] * 5 + ["delivered"] * 5, 20, "all are told")
        store = Store(tmp_path)
        assert store.waiting_receipts() == []
        store.close()


def test_what_was_refused_is_not_read_with_what_came_later(broker: LocalBroker, unique: Unique) -> None:
    with chatlib.connect(broker, settings=Settings(inbox_limit=1)) as chat:
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        bob.go_offline()
        first, refused = ann.send_many([(bob.address, "first"), (bob.address, "refused")])
        assert chat.flush(10)
        assert (first.state, refused.state) == ("confirmed", "rejected")
        bob.go_online()
        (message,) = bob.receive(limit=1, timeout=5)
        message.ack()
        last = ann.send(bob.address, "last").wait(10)
        (message,) = bob.receive(limit=1, timeout=5)
        message.ack()
        message.mark_read()
        wait_until(lambda: first.receipts == last.receipts == {bob.name: "read"}, 10, "both are read")
        assert refused.receipts == {}


def test_marking_again_after_a_full_disk_tells_everybody(
    broker: LocalBroker, unique: Unique, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first receipt was refused: nothing counts as told, and all are told when it is marked again."""
    with chatlib.connect(broker, data_dir=tmp_path) as chat:
        ann, cid, bob = (chat.user(unique(name)) for name in ("ann", "cid", "bob"))
        group = "#" + unique("team")
        bob.join(group)
        sent = [who.send(group, "x").wait(10) for who in (ann, cid)]
        messages = list(bob.receive(limit=2, timeout=5))
        for message in messages:
            message.ack()
        assert chat._store
        with monkeypatch.context() as patch:
            patch.setattr(chat._store, "add_receipts", Mock(side_effect=OutboxFull("the disk is full")))
            with pytest.raises(OutboxFull):
                messages[-1].mark_read()
        messages[-1].mark_read()
        wait_until(lambda: all(each.receipts == {bob.name: "read"} for each in sent), 10, "both senders know")
