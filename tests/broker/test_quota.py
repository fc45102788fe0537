"""The quota of an inbox over a real broker: an absent user cannot fill the disk, the sender is told who, the others get theirs once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

import chatlib
from chatlib import Chat, ChatError, ChatUser, InboxFull, PublishRejected, ReceivedMessage, Settings
from chatlib.brokers import LocalBroker
from tests.support import wait_until

Unique = Callable[[str], str]
LIMIT = 10


@pytest.fixture
def chat(broker: LocalBroker) -> Iterator[Chat]:
    with chatlib.connect(broker, settings=Settings(inbox_limit=LIMIT)) as chat:
        yield chat


def contents(user: ChatUser, limit: int | None = None, timeout: float = 0.5) -> list[str]:
    """What comes for `user`, acked."""
    return [message.content for message in user.receive(limit=limit, timeout=10 if limit else timeout) if not message.ack()]


def fill(sender: ChatUser, user: ChatUser) -> list[str]:
    """Fill the inbox of `user`, who is away."""
    user.go_offline()
    words = [f"{user.name} {number}" for number in range(LIMIT)]
    for word in words:
        sender.send(user.address, word).wait(5)
    assert user.waiting == LIMIT
    return words


def refused(sender: ChatUser, to: str, content: str) -> InboxFull:
    sent = sender.send(to, content)
    with pytest.raises(InboxFull) as caught:
        sent.wait(10)
    assert sent.state == "rejected" and sent.error is caught.value and isinstance(caught.value, PublishRejected)
    assert not caught.value.definite and sent.message_id in str(caught.value)
    return caught.value


def test_of_a_burst_exactly_so_many_are_taken_and_each_of_the_others_is_told(chat: Chat, unique: Unique) -> None:
    """Pipelined: states and inbox agree, message by message; nothing is dropped without a word, nothing kept that was refused."""
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    bob.go_offline()
    sent = [ann.send(bob.address, str(number)) for number in range(500)]
    assert chat.flush(20)
    assert all(message.state != "pending" for message in sent), "that is what flush waits for"
    confirmed = [message.content for message in sent if message.state == "confirmed"]
    assert len(confirmed) == LIMIT and all(message.state == "rejected" for message in sent if message.content not in confirmed)
    assert all(isinstance(message.error, InboxFull) and message.error.who == (bob.name,) for message in sent if message.error)
    bob.go_online()
    assert contents(bob, LIMIT) == confirmed and contents(bob) == []


def test_who_is_full_is_asked_for_all_at_once_and_holds_nobody_up(chat: Chat, unique: Unique, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand refusals in a group: some questions to the management API, not a thousand, and receipts of others come meanwhile."""
    group = "#" + unique("team")
    ann, bob, cid, zoe = (chat.user(unique(name)) for name in ("ann", "bob", "cid", "zoe"))
    bob.join(group)
    cid.join(group)
    cid.on_message(lambda _: None)
    zoe.on_message(lambda _: None)
    fill(ann, bob)
    asked: list[str] = []
    members = chat.members
    monkeypatch.setattr(chat, "members", lambda name: [asked.append(name), members(name)][1])
    sent = [ann.send(group, str(number)) for number in range(1000)]
    other = ann.send(zoe.address, "hello")
    assert chat.flush(60)
    assert all(bob.name in message.error.who for message in sent if isinstance(message.error, InboxFull))
    assert sum(isinstance(message.error, InboxFull) for message in sent) == 1000
    assert 1 <= len(asked) < 200, len(asked)
    wait_until(lambda: other.receipts == {zoe.name: "delivered"}, 10, "the receipt of somebody else")


def test_in_a_group_the_full_ones_are_named_and_the_others_get_it_once(chat: Chat, unique: Unique) -> None:
    group = "#" + unique("team")
    ann, bob, cid, dan, eve = (chat.user(unique(name)) for name in ("ann", "bob", "cid", "dan", "eve"))
    for member in (ann, bob, cid, dan, eve):
        member.join(group)
    waiting = {member: fill(ann, member) for member in (bob, dan)}
    for number in range(3):
        error = refused(ann, group, f"group {number}")
        assert set(error.who) == {bob.name, dan.name}
        assert f"@{bob.name}" in str(error) and "do not send it again" in str(error)
    for member in (cid, eve):
        assert contents(member, 3) == ["group 0", "group 1", "group 2"]
        assert contents(member) == []
    # drained, everything works again, for the one as for the group
    for member in (bob, dan):
        member.go_online()
        assert contents(member, LIMIT) == waiting[member]
    ann.send(group, "after").wait(5)
    ann.send(bob.address, "you too").wait(5)
    assert contents(bob, 2) == ["after", "you too"]
    assert [contents(member, 1) for member in (cid, dan, eve)] == [["after"]] * 3


def test_room_for_one_is_room_for_one(chat: Chat, unique: Unique) -> None:
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    words = fill(ann, bob)
    refused(ann, bob.address, "too much")
    bob.go_online()
    (first,) = bob.receive(limit=1, timeout=5)
    bob.go_offline()
    first.ack()
    wait_until(lambda: bob.waiting == LIMIT - 1, 5, "one was taken out, the rest was given back")
    ann.send(bob.address, "fits").wait(5)
    refused(ann, bob.address, "too much again")
    bob.go_online()
    assert contents(bob, LIMIT) == [*words[1:], "fits"] and contents(bob) == []


@dataclass
class WithoutManagement:
    """A broker whose management API does not answer."""

    url: str
    management_url: str = "http://127.0.0.1:1"


def test_without_management_it_is_an_error_that_cannot_name_the_member(broker: LocalBroker, unique: Unique) -> None:
    with chatlib.connect(WithoutManagement(broker.url), settings=Settings(inbox_limit=LIMIT)) as chat:
        group = "#" + unique("team")
        ann, bob, cid = (chat.user(unique(name)) for name in ("ann", "bob", "cid"))
        bob.join(group)
        cid.join(group)
        fill(ann, bob)
        error = refused(ann, group, "to all")
        assert error.who == () and group in str(error)
        assert contents(cid, 1) == ["to all"]
        assert refused(ann, bob.address, "to him").who == (bob.name,)  # one inbox can be asked directly
        with pytest.raises(chatlib.ChatError, match="management"):
            chat.members(group)


def test_one_full_inbox_holds_up_nobody_else(chat: Chat, unique: Unique) -> None:
    """Refused and accepted messages in one pipeline: 300 to somebody who is full, 300 to somebody who is there, mixed."""
    ann, bob, cid = chat.user(unique("ann")), chat.user(unique("bob")), chat.user(unique("cid"))
    fill(ann, bob)
    got: list[str] = []
    cid.on_message(lambda message: got.append(message.content))
    sent = [ann.send((bob if number % 2 else cid).address, str(number)) for number in range(20)]
    wait_until(lambda: got == [str(number) for number in range(0, 20, 2)], 20, "the other one has everything, in order")
    wait_until(lambda: [message.state for message in sent] == ["confirmed", "rejected"] * 10, 10, "each has its own outcome")
    assert chat.reconnects == 0


def test_a_handler_that_waits_for_what_is_refused_is_told_even_if_it_is_the_only_one(broker: LocalBroker, unique: Unique) -> None:
    """Finding out whose inbox is full must not wait for the handler that waits for it."""
    with chatlib.connect(broker, settings=Settings(inbox_limit=LIMIT, handler_threads=1)) as chat:
        ann, bob, cid = (chat.user(unique(name)) for name in ("ann", "bob", "cid"))
        fill(ann, bob)
        told: list[object] = []

        def forward(message: ReceivedMessage) -> None:
            try:
                told.append(cid.send(bob.address, message.content).wait(15))
            except ChatError as error:
                told.append(error)

        cid.on_message(forward)
        ann.send(cid.address, "for bob")
        wait_until(lambda: told, 20, "the handler is through")
        assert isinstance(told[0], InboxFull) and told[0].who == (bob.name,)
