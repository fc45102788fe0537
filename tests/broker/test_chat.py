"""Chatting over a real broker: what is sent is received, by those and only those it is for, in the form that the design fixes."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

import chatlib
from chatlib import Chat, ChatClosed, ChatError, InboxFull, InvalidContent, InvalidName, Settings, Unroutable
from chatlib.brokers import LocalBroker
from chatlib.names import inbox_queue, receipts_queue
from tests.support import SHARED, wait_until
from tests.unit.test_names import REAL
from tests.wire import raw

Unique = Callable[[str], str]


@pytest.fixture
def chat(broker: LocalBroker) -> Iterator[Chat]:
    with chatlib.connect(broker) as chat:
        yield chat


def contents(user: chatlib.ChatUser, limit: int | None = None, timeout: float = 0.5) -> list[str]:
    """What comes for `user`, acked."""
    found = []
    for message in user.receive(limit=limit, timeout=10 if limit else timeout):
        found.append(message.content)
        message.ack()
    return found


def test_the_example_of_the_design_runs_as_written() -> None:
    """1 sent while bob is away; 2 the broker is killed and started; 3 bob gets it; 4 alice sees that he read it."""
    with chatlib.LocalBroker() as broker:
        with chatlib.connect(broker) as chat:
            alice, bob = chat.user("alice"), chat.user("bob")

            bob.join("#team")
            bob.go_offline()
            sent = alice.send("#team", "deploy at five")
            sent.wait(timeout=5)
            url, pid = broker.url, broker.pid

            broker.kill()
            assert not broker.is_running
            broker.start()
            assert broker.url == url and broker.pid != pid

            bob.go_online()
            seen = []
            for message in bob.receive(timeout=5):
                seen.append((message.sender_id, message.content))
                message.ack()
                message.mark_read()
            assert seen == [("alice", "deploy at five")]
            wait_until(lambda: sent.receipts == {"bob": "read"}, 10, "alice sees that bob has read it")
            assert chat.reconnects >= 1
        broker.kill()  # a graceful stop takes 6 s, and is not what this is about


def test_a_message_reaches_the_one_it_is_for_with_all_its_fields(chat: Chat, unique: Unique) -> None:
    ann, bob, cid = (chat.user(unique(name)) for name in ("ann", "bob", "cid"))
    before = datetime.now(UTC)
    sent = ann.send(bob.address, "hello").wait(30)
    (message,) = bob.receive(limit=1, timeout=5)
    assert (message.message_id, message.sender_id, message.recipient_id, message.group_id) == (sent.message_id, ann.name, bob.name, None)
    assert (message.content, message.attempt, message.failures, message.conversation) == ("hello", 1, (), ann.address)
    assert abs((message.timestamp - before).total_seconds()) < 5 and message.timestamp.tzinfo is UTC
    assert message.timestamp == sent.timestamp
    message.ack()
    assert contents(cid) == []


def test_a_group_message_reaches_every_member_once_and_not_its_author(chat: Chat, unique: Unique) -> None:
    group = "#" + unique("team")
    members = [chat.user(unique("member")) for _ in range(5)]
    for member in members:
        member.join(group)
        member.join(group)  # twice is one membership
    stranger = chat.user(unique("stranger"))
    members[0].send(group, "from a member").wait(30)
    stranger.send(group, "from a stranger").wait(30)
    assert contents(members[0]) == ["from a stranger"]
    for member in members[1:]:
        assert contents(member, 2) == ["from a member", "from a stranger"]
    assert contents(stranger) == []


def test_membership_counts_at_the_moment_of_sending(chat: Chat, unique: Unique) -> None:
    group = "#" + unique("team")
    ann, bob, cid = (chat.user(unique(name)) for name in ("ann", "bob", "cid"))
    cid.join(group)
    ann.send(group, "before bob").wait(30)
    bob.join(group)
    assert bob.groups == {group} and bob.groups() == {group}
    ann.send(group, "with bob").wait(30)
    bob.leave(group)
    bob.leave(group)
    assert bob.groups == frozenset()
    ann.send(group, "without bob").wait(30)
    assert contents(bob) == ["with bob"]  # what came while he was a member stays his
    assert contents(cid, 3) == ["before bob", "with bob", "without bob"]


def test_an_absent_user_gets_everything_in_order_when_he_is_back(chat: Chat, broker: LocalBroker, unique: Unique) -> None:
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    ann.send(bob.address, "0").wait(30)
    assert contents(bob, 1) == ["0"]
    bob.go_offline()
    bob.go_offline()
    assert not bob.is_online
    for number in range(1, 301):
        ann.send(bob.address, str(number))
    assert chat.flush(20)
    assert contents(bob, timeout=0.2) == []
    assert bob.waiting == 300
    bob.go_online()
    bob.go_online()
    assert contents(bob, 300) == [str(number) for number in range(1, 301)]
    with raw(broker.url) as observer:
        wait_until(lambda: observer.depth(inbox_queue(bob.name)) == 0 and bob.waiting == 0, 5, "nothing is left")


def test_going_offline_gives_back_what_was_not_shown_in_its_place(chat: Chat, unique: Unique) -> None:
    """One is shown and kept in hand, the rest of the prefetched goes back; the kept one can still be acked."""
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    for number in range(50):
        ann.send(bob.address, str(number))
    (first,) = bob.receive(limit=1, timeout=5)
    bob.go_offline()
    wait_until(lambda: bob.waiting == 49, 5, "the others are back in the queue")
    first.ack()
    bob.go_online()
    assert contents(bob, 49) == [str(number) for number in range(1, 50)]


# on the wire


def test_both_types_on_the_wire_are_what_the_design_says(chat: Chat, broker: LocalBroker, unique: Unique) -> None:
    """JSON in UTF-8 with the keys of the types; AMQP properties message_id, timestamp, type, delivery_mode, content_type."""
    group = "#" + unique("team")
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    bob.join(group)
    bob.go_offline()
    before = int(time.time())
    to_user, to_group = ann.send(bob.address, "é🦊"), ann.send(group, "all")
    assert chat.flush(5)
    with raw(broker.url) as observer:
        taken = observer.take(inbox_queue(bob.name), 2)
    for (properties, body), sent, content in zip(taken, (to_user, to_group), ("é🦊", "all"), strict=True):
        fields = json.loads(body.decode("utf-8"))
        moment = fields.pop("timestamp")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", moment)
        assert datetime.fromisoformat(moment) == sent.timestamp
        assert fields == {
            "type": "SEND_MESSAGE", "version": 1, "message_id": sent.message_id, "sender_id": ann.name, "content": content,
            "group_id": group[1:] if sent is to_group else None, "recipient_id": None if sent is to_group else bob.name,
        }  # fmt: skip
        assert properties.message_id == sent.message_id
        assert properties.type == "SEND_MESSAGE"
        assert properties.delivery_mode == 2
        assert properties.content_type == "application/json"
        assert before <= properties.timestamp <= before + 10
        assert not properties.headers

    ann.go_offline()
    bob.go_online()
    third = chat.user(unique("cid")).send(bob.address, "x")
    fourth = ann.send(bob.address, "y")
    for message in bob.receive(limit=2, timeout=5):
        message.ack()
        message.mark_read()
    assert third.message_id < fourth.message_id
    with raw(broker.url) as observer:
        taken = observer.take(receipts_queue(ann.name), 2)
    for (properties, body), status in zip(taken, ("delivered", "read"), strict=True):
        assert json.loads(body) == {
            "type": "RECEIVE_MESSAGE", "version": 1, "recipient_id": bob.name, "message_id": fourth.message_id, "read_status": status,
        }  # fmt: skip
        assert (properties.type, properties.delivery_mode, properties.content_type) == ("RECEIVE_MESSAGE", 2, "application/json")
        assert properties.message_id and properties.message_id != fourth.message_id
        assert before <= properties.timestamp <= before + 20


def test_a_confirmed_message_is_in_the_queue(chat: Chat, broker: LocalBroker, unique: Unique) -> None:
    """When wait() returns, the broker has it: asked over another connection, at once."""
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    bob.go_offline()
    with raw(broker.url) as observer:
        for number in range(1, 51):
            sent = ann.send(bob.address, str(number))
            assert sent.wait(30) is sent and sent.state == "confirmed" and sent.error is None
            assert observer.depth(inbox_queue(bob.name)) == number


def test_queues_and_exchanges_are_durable(chat: Chat, broker: LocalBroker, unique: Unique) -> None:
    """A passive declare does not look at it: the same name declared as transient must be refused."""
    import pika

    bob = chat.user(unique("bob"))
    for queue in (inbox_queue(bob.name), receipts_queue(bob.name)):
        with raw(broker.url) as observer, pytest.raises(pika.exceptions.ChannelClosedByBroker, match="durable"):
            observer.channel.queue_declare(queue, durable=False)
    for exchange in ("chat.users", "chat.groups", "chat.receipts"):
        with raw(broker.url) as observer, pytest.raises(pika.exceptions.ChannelClosedByBroker, match="durable"):
            observer.channel.exchange_declare(exchange, "direct", durable=False)


# nobody there, no room


def test_a_message_for_nobody_is_returned_and_says_so(chat: Chat, unique: Unique) -> None:
    ann = chat.user(unique("ann"))
    for to, text in (("@" + unique("nobody"), "no user"), ("#" + unique("empty"), "no members")):
        sent = ann.send(to, "hello?")
        with pytest.raises(Unroutable, match=text) as caught:
            sent.wait(30)
        assert sent.state == "returned" and caught.value.definite and sent.error is caught.value
        assert to in str(caught.value) and sent.message_id in str(caught.value)


def test_returned_and_confirmed_are_never_mixed_up(chat: Chat, unique: Unique) -> None:
    """Every third of 600 pipelined messages has no recipient."""
    ann, bob, nobody = chat.user(unique("ann")), chat.user(unique("bob")), "@" + unique("nobody")
    sent = [ann.send(nobody if number % 3 == 0 else bob.address, str(number)) for number in range(600)]
    assert chat.flush(20)
    assert [message.state for message in sent] == ["returned" if number % 3 == 0 else "confirmed" for number in range(600)]
    assert contents(bob, 400) == [str(number) for number in range(600) if number % 3]


def test_a_full_inbox_refuses_and_the_sender_is_told_who(broker: LocalBroker, unique: Unique) -> None:
    group = "#" + unique("team")
    with chatlib.connect(broker, settings=Settings(inbox_limit=5)) as chat:
        ann, bob, cid = (chat.user(unique(name)) for name in ("ann", "bob", "cid"))
        bob.join(group)
        cid.join(group)
        bob.go_offline()
        for number in range(5):
            ann.send(bob.address, str(number)).wait(30)
        sent = ann.send(bob.address, "too much")
        with pytest.raises(InboxFull, match="full") as caught:
            sent.wait(30)
        assert sent.state == "rejected" and caught.value.who == (bob.name,)
        to_group = ann.send(group, "to all")
        with pytest.raises(InboxFull) as caught:
            to_group.wait(30)
        assert not caught.value.definite  # the other member has it
        assert contents(cid, 1) == ["to all"]
        bob.go_online()
        assert contents(bob, 5) == [str(number) for number in range(5)]
        ann.send(bob.address, "room again").wait(30)
        assert contents(bob, 1) == ["room again"]


# names and content


def transcript_names() -> tuple[list[str], list[str]]:
    """The senders of the real transcript whose names are not plain letters and digits, and all its groups."""
    if not SHARED.is_dir():
        pytest.skip("no shared data beside the project")
    with (SHARED / "data" / "real-chat.jsonl").open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    odd = {record["sender"] for record in records if not record["sender"].isalnum()}
    return sorted(odd), sorted({record["group"] for record in records})


def test_names_of_all_kinds_are_users_of_their_own(broker: LocalBroker, unique: Unique) -> None:
    """Real names with odd characters, names up to 240 bytes, scripts, emoji, pairs that differ in case only: each gets his own."""
    odd, groups = transcript_names()
    assert len(odd) > 100 and len(groups) == 17
    names = list(dict.fromkeys([*odd, *REAL, "n" * 240, "." * 80, "BOB", "ａｎｎ", "\u05d0\u05d1", "a\u0301"]))
    with chatlib.connect(broker) as chat:
        postman = chat.user(unique("postman"))
        users = chat.users(names)
        assert len({user.name for user in users}) == len(names)
        for user in users:
            for message in user.receive(timeout=0):  # left by another test with the same names
                message.ack()
        sent = [postman.send(user.address, f"for {user.name}") for user in users]
        assert chat.flush(20)
        assert {message.state for message in sent} == {"confirmed"}
        for user in users:
            assert contents(user, 1) == [f"for {user.name}"]
        expected = [{user.name: "delivered"} for user in users]
        wait_until(lambda: [message.receipts for message in sent] == expected, 20, "each has told that it was delivered")
        for user in users:
            assert contents(user, timeout=0) == []
        reader = chat.user(unique("reader"))
        for group in groups:
            reader.join(group if group.startswith("#") else f"#{group}")
        for group in groups:
            postman.send(group if group.startswith("#") else f"#{group}", group).wait(30)
        assert contents(reader, 17) == groups


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "n" * 241, "@bob", "\u202ebob", "a\x00b"])
def test_a_refused_name_creates_nothing_and_hurts_nobody(chat: Chat, unique: Unique, name: str) -> None:
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    with pytest.raises(InvalidName):
        chat.user(name)
    with pytest.raises(InvalidName):
        ann.send("@" + name, "x")
    with pytest.raises(ChatError):
        ann.join(name if name.startswith("@") else "#" + name)
    ann.send(bob.address, "still here").wait(30)
    assert contents(bob, 1) == ["still here"]
    assert chat.reconnects == 0


EDGES = [
    " ", "\n", "x", "a\r\nb\tc", "é" * 1000, "🦊👨‍👩‍👧‍👦", "\u202eabc", '{"type":"SEND_MESSAGE"}', "\\u0000", "%s %n {0}",
    "\x01\x1b[31m", "'; DROP TABLE outbox; --", "a" * 65_536,
]  # fmt: skip


def test_content_of_all_kinds_arrives_as_it_was(chat: Chat, unique: Unique) -> None:
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    for content in EDGES:
        ann.send(bob.address, content)
    assert contents(bob, len(EDGES)) == EDGES


def test_refused_content_leaves_no_trace(chat: Chat, unique: Unique) -> None:
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    for content in ("", "a\x00b", "\ud800", "a" * 65_537, "🦊" * 16_385, b"bytes", None):
        with pytest.raises(InvalidContent):
            ann.send(bob.address, content)  # type: ignore[arg-type]
    assert chat.unconfirmed == 0
    assert contents(bob, timeout=0.2) == []


# two chats, closed chats, forks


def test_two_chats_of_one_user_share_his_inbox(broker: LocalBroker, unique: Unique) -> None:
    """Competing consumers: each message goes to one of them; what the one that leaves did not settle goes to the other."""
    name = unique("bob")
    with chatlib.connect(broker) as one, chatlib.connect(broker, settings=Settings(prefetch=10)) as other:
        ann = one.user(unique("ann"))
        bobs = [one.user(name), other.user(name)]
        first = [ann.send(bobs[0].address, str(number)) for number in range(200)]
        got: list[list[str]] = [[], []]
        both = [threading.Thread(target=lambda n=n: got[n].extend(contents(bobs[n], timeout=1))) for n in (0, 1)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        assert sorted(map(int, got[0] + got[1])) == list(range(200))
        assert [message.state for message in first] == ["confirmed"] * 200
        bobs[0].go_offline()
        ann.send(bobs[0].address, "kept in hand").wait(30)
        (held,) = bobs[1].receive(limit=1, timeout=5)
        assert held.content == "kept in hand"
        bobs[0].go_online()
        other.close()
        (again,) = bobs[0].receive(limit=1, timeout=5)
        assert again.content == "kept in hand" and again.redelivered
        again.ack()


def test_after_close_everything_says_that_the_chat_is_closed(broker: LocalBroker, unique: Unique) -> None:
    chat = chatlib.connect(broker)
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    ann.send(bob.address, "x").wait(30)
    (message,) = bob.receive(limit=1, timeout=5)
    chat.close()
    chat.close()
    assert chat.state == "closed"
    calls: list[Callable[[], object]] = [
        lambda: chat.user(ann.name),
        lambda: chat.user(unique("new")),
        lambda: ann.send(bob.address, "y"),
        lambda: next(bob.receive(timeout=20), None),
        lambda: ann.join("#team"),
        lambda: ann.leave("#team"),
        lambda: bob.waiting,
        bob.go_online,
        message.ack,
        lambda: message.retry("later"),
        message.mark_read,
    ]
    began = time.monotonic()
    for call in calls:
        with pytest.raises(ChatClosed, match=r"closed.*chatlib\.connect"):
            call()
    bob.go_offline()
    assert time.monotonic() - began < 2
    with chatlib.connect(broker) as again:
        assert contents(again.user(bob.name), 1) == ["x"]  # it was not acked


def test_closing_ends_a_receive_that_waits(broker: LocalBroker, unique: Unique) -> None:
    chat = chatlib.connect(broker)
    bob, began, ended = chat.user(unique("bob")), threading.Event(), threading.Event()

    def wait_long() -> None:
        began.set()
        list(bob.receive(timeout=60))
        ended.set()

    thread = threading.Thread(target=wait_long, daemon=True)
    thread.start()
    assert began.wait(30)
    chat.close()
    assert ended.wait(3)


def test_a_forked_child_is_told_and_its_parent_goes_on(chat: Chat, unique: Unique) -> None:
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            answers = []
            for call in (
                lambda: ann.send(bob.address, "from the child"),
                lambda: chat.user("new"),
                lambda: next(bob.receive(timeout=5), None),
            ):
                try:
                    call()
                except ChatClosed as exc:
                    answers.append(str(exc))
            chat.close()
            os.write(writer, json.dumps(answers).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answers = json.loads(pipe.read())
    os.waitpid(child, 0)
    assert len(answers) == 3 and all("fork" in answer and "connect again in the child" in answer for answer in answers)
    ann.send(bob.address, "from the parent").wait(30)
    assert contents(bob, 1) == ["from the parent"]
    assert chat.reconnects == 0 and chat.state == "connected"


def test_asking_for_messages_while_a_handler_takes_them_is_refused(chat: Chat, unique: Unique) -> None:
    bob = chat.user(unique("bob"))
    bob.on_message(lambda message: None)
    with pytest.raises(ChatError, match=r"on_message\(None\)"):
        bob.receive()
    bob.on_message(None)
    assert contents(bob, timeout=0) == []


def test_a_bare_name_is_no_list_of_names_and_signs_nobody_up(chat: Chat, unique: Unique) -> None:
    name = unique("bob")
    with pytest.raises(TypeError, match=rf"list of names.*user\('{name}'\)"):
        chat.users(name)
    assert name not in chat._users and "b" not in chat._users
    assert [user.name for user in chat.users(iter([name]))] == [name]


def test_the_same_name_is_the_same_user(chat: Chat, unique: Unique) -> None:
    name = unique("caf\u00e9")
    assert chat.user(name) is chat.user(name) is chat.user(name.replace("\u00e9", "e\u0301"))
    assert chat.users([name, unique("other"), name])[2] is chat.user(name)
