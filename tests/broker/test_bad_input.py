"""What bad input gets: a typed error that says what to do, within its time; never a hang, a lost message or a dead link for the others."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

import chatlib
from chatlib import AccessRefused, BrokerUnavailable, Chat, ChatError, RetryPolicy, Settings, TopologyMismatch, UnknownHost
from chatlib.brokers import LocalBroker
from chatlib.errors import DecodeError, InvalidUrl
from chatlib.messages import compose, decode, new_message_id
from chatlib.names import DEAD_LETTERS, inbox_queue, parse_address, receipts_queue
from tests.support import wait_until
from tests.wire import Cable, Raw, close_connections, management, raw

Unique = Callable[[str], str]
HASTY = Settings(connect_timeout=1.0, attempt_timeout=0.7, retry=RetryPolicy(attempts=1))


def said(sender: str, to: str, content: str) -> tuple[bytes, str]:
    """A message as it is on the wire, and its id."""
    message = compose(message_id := new_message_id(), sender, parse_address(to), content, time.time())
    return message.encode(), message_id


@pytest.fixture
def chat(broker: LocalBroker) -> Iterator[Chat]:
    with chatlib.connect(broker, settings=Settings(retry=RetryPolicy(attempts=1))) as chat:
        yield chat


@pytest.fixture(scope="module")
def ours(new_broker: Callable[[], LocalBroker]) -> Iterator[LocalBroker]:
    """A broker that the tests of this file may break, if they mend it again."""
    with new_broker() as broker:
        yield broker
        broker.kill()


@contextlib.contextmanager
def listener(answer: bytes = b"") -> Iterator[str]:
    """Something that is no broker, on a port: accepts, says `answer` or nothing, and never closes. The URL."""
    server = socket.create_server(("127.0.0.1", 0))
    accepted: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                accepted.append(connection)
                connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"amqp://guest:secret@127.0.0.1:{server.getsockname()[1]}/"
    finally:
        for end in (server, *accepted):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def changed(url: str, **changes: Any) -> str:
    """`url` with another user, password, host, port or path."""
    parts = urlsplit(url)
    user, password = changes.get("user", parts.username), changes.get("password", parts.password)
    host, port = changes.get("host", parts.hostname), changes.get("port", parts.port)
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{host}:{port}", path=changes.get("path", parts.path)))


def refused(url: str, kind: type[ChatError], text: str, within: float, settings: Settings = HASTY) -> ChatError:
    """The error of connecting: of exactly this kind, with this advice, without the password, in time, and nothing left behind."""
    threads = set(threading.enumerate())
    began = time.monotonic()
    with pytest.raises(kind, match=text) as caught:
        chatlib.connect(url, settings=settings)
    took = time.monotonic() - began
    assert took < within, f"took {took:.1f} s"
    assert type(caught.value) is kind and caught.value.definite
    password = urlsplit(url).password
    assert not password or password not in str(caught.value)
    wait_until(lambda: not set(threading.enumerate()) - threads, 5, "no thread is left")
    return caught.value


# a broker that cannot be used


def test_a_wrong_password_is_said_at_once(broker: LocalBroker, caplog: pytest.LogCaptureFixture) -> None:
    """And by the exception alone: nothing else goes to the learner's screen."""
    refused(
        changed(broker.url, password="wrong"), AccessRefused, r"refused user 'chat-.*the password.*check the part before '@'", 5, Settings()
    )
    refused(changed(broker.url, user="nobody"), AccessRefused, "refused user 'nobody'", 5, Settings())
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING and record.name.startswith(("chatlib", "pika"))]


def test_a_wrong_virtual_host_is_said_at_once(broker: LocalBroker) -> None:
    refused(
        changed(broker.url, path="/no-such-host"), AccessRefused, r"virtual host 'no-such-host'.*check the path of the URL", 5, Settings()
    )


def test_a_user_without_permissions_is_told_which(broker: LocalBroker, unique: Unique) -> None:
    name = unique("guest")
    with management(broker) as client:
        client.put(f"users/{name}", json={"password": "pw", "tags": ""}).raise_for_status()
        refused(changed(broker.url, user=name, password="pw"), AccessRefused, "virtual host", 5, Settings())
        rights = {"configure": "^$", "write": ".*", "read": ".*"}
        client.put(f"permissions/%2F/{name}", json=rights).raise_for_status()
        try:
            refused(changed(broker.url, user=name, password="pw"), AccessRefused, rf"user '{name}' lacks a permission", 5, Settings())
        finally:
            client.delete(f"users/{name}").raise_for_status()


def test_what_a_user_may_not_write_is_refused_and_holds_nothing_else_up(broker: LocalBroker, vhost: str, unique: Unique) -> None:
    """1 of 200 messages, written without a pause, those to a group are refused, each with the reason; the others are confirmed, arrive
    once and in order, and the link was never lost; 2 as soon as it is granted, it works.
    """
    name, path = unique("guest"), urlsplit(vhost).path
    rights = {"configure": ".*", "write": r"^(?!chat\.groups$).*", "read": ".*"}
    with management(broker) as client, chatlib.connect(vhost) as others:
        client.put(f"users/{name}", json={"password": "pw", "tags": ""}).raise_for_status()
        client.put(f"permissions{path}/{name}", json=rights).raise_for_status()
        bob, got = others.user("bob"), []
        bob.join("#team")
        bob.on_message(lambda message: got.append(message.content))
        try:
            with chatlib.connect(changed(vhost, user=name, password="pw")) as chat:
                ann = chat.user("ann")
                # 1
                sent = [ann.send("#team" if number % 3 == 0 else "@bob", str(number)) for number in range(200)]
                wait_until(lambda: all(message.state != "pending" for message in sent), 30, "each has its outcome")
                for message in sent:
                    if message.to == "@bob":
                        assert message.wait(1).state == "confirmed"
                        continue
                    with pytest.raises(
                        AccessRefused, match=rf"{message.message_id} to #team was not taken: .*'{name}' lacks .*chat\.groups"
                    ):
                        message.wait(1)
                    assert message.state == "rejected" and message.error is not None and message.error.definite
                wait_until(lambda: len(got) >= 133, 20, "the others came")
                assert got == [str(number) for number in range(200) if number % 3] and chat.reconnects == 0
                assert chat.flush(5) and chat.unconfirmed == 0
                # 2
                client.put(f"permissions{path}/{name}", json=rights | {"write": ".*"}).raise_for_status()
                ann.send("#team", "now").wait(20)
                wait_until(lambda: got[-1] == "now", 20, "it came")
        finally:
            client.delete(f"users/{name}").raise_for_status()


def test_an_unknown_host_is_said_at_once(broker: LocalBroker) -> None:
    refused(changed(broker.url, host="no-such-host.invalid"), UnknownHost, r"unknown host 'no-such-host\.invalid'.*spelling", 6, Settings())


def test_a_closed_port_says_that_nothing_listens_there(broker: LocalBroker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    refused(changed(broker.url, port=port), BrokerUnavailable, rf"nothing listens at .*:{port}.*start the broker", 4)


def test_a_port_where_nobody_speaks_is_given_up_in_time() -> None:
    with listener() as url:
        refused(url, BrokerUnavailable, "no AMQP answer.*another service has the port", 5)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"AMQP\x00\x01\x00\x00", b"\x00" * 4096, b"SSH-2.0-OpenSSH_9.2\r\n"]
)
def test_a_port_where_something_else_speaks_is_given_up_in_time(answer: bytes) -> None:
    with listener(answer) as url:
        refused(url, BrokerUnavailable, "amqp://", 6)


def test_a_frozen_broker_is_given_up_in_time_and_used_when_thawed(ours: LocalBroker, unique: Unique) -> None:
    ours.freeze()
    try:
        assert ours.is_running
        refused(ours.url, BrokerUnavailable, "no AMQP answer.*frozen", 6)
    finally:
        ours.thaw()
    with chatlib.connect(ours) as chat:
        ann = chat.user(unique("ann"))
        ann.send(ann.address, "x").wait(10)


def test_a_broker_that_comes_up_while_somebody_connects_is_used(broker: LocalBroker, unique: Unique) -> None:
    """The port is closed at first; a forwarder to the broker opens there half a second later."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    cables: list[Cable] = []
    timer = threading.Timer(0.5, lambda: cables.append(Cable(broker.url, port)))
    timer.start()
    try:
        with chatlib.connect(changed(broker.url, port=port), settings=Settings(connect_timeout=10)) as chat:
            ann = chat.user(unique("ann"))
            ann.send(ann.address, "x").wait(10)
            assert cables
    finally:
        timer.join()
        for cable in cables:
            cable.__exit__()


@pytest.mark.parametrize("url", ["", "localhost", "http://localhost", "amqp:/x", 7, None, [], ["amqp://a", "nonsense"]])
def test_what_is_no_url_is_refused_with_an_example(url: Any) -> None:
    with pytest.raises(ChatError, match=r"amqp://|no broker"):
        chatlib.connect(url)


@pytest.mark.parametrize("url", ["amqp://h:99999/", "amqp://h:port/", "amqp://[::1/", "amqp://u:p@127.0.0.1:1/%2F?heartbeat=often"])
def test_a_malformed_url_is_refused_at_once(url: str) -> None:
    began = time.monotonic()
    with pytest.raises(ChatError):
        chatlib.connect(url, settings=HASTY)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("limit", ["channel_max=1", "channel_max=7", "frame_max=4096", "frame_max=32767"])
def test_a_url_that_asks_for_less_than_a_chat_needs_is_refused_at_once(broker: LocalBroker, limit: str) -> None:
    name = limit.partition("=")[0]
    refused(f"{broker.url}?{limit}", InvalidUrl, rf"needs a {name} of at least .*{limit}.*or leave it out", 1)


def test_without_a_free_channel_one_reader_is_told_and_the_link_stays(broker: LocalBroker, unique: Unique) -> None:
    """The least that a URL may ask for: 1 as many sessions as there are channels; 2 one more is refused, with advice; 3 nobody else
    notices, and when one of them is closed there is room again.
    """
    with chatlib.connect(f"{broker.url}?channel_max=8&frame_max=32768") as chat, contextlib.ExitStack() as readers:
        ann = chat.user(unique("ann"))
        # 1
        sessions = [readers.enter_context(chat._link.session()) for _ in range(6)]
        # 2
        for _ in range(2):
            with pytest.raises(ChatError, match=r"no channel is free.*raise channel_max") as caught:
                chat.dead_letters.list()
            assert type(caught.value) is ChatError
        # 3
        ann.send(ann.address, "x").wait(10)
        assert [message.content for message in ann.receive(limit=1, timeout=5) if not message.ack()] == ["x"]
        sessions[0].close()
        chat.dead_letters.list()
        assert chat.reconnects == 0 and chat.state == "connected"


# foreign messages


GOOD: dict[str, Any] = {
    "type": "SEND_MESSAGE", "version": 1, "message_id": "foreign-1", "sender_id": "stranger", "group_id": None, "recipient_id": "bob",
    "content": "hi", "timestamp": "2026-01-02T03:04:05Z",
}  # fmt: skip
RECEIPT = {"type": "RECEIVE_MESSAGE", "version": 1, "recipient_id": "bob", "message_id": "m", "read_status": "read"}
FOREIGN: dict[str, bytes] = {
    "nothing": b"",
    "bytes": bytes(range(256)),
    "text": b"hello",
    "list": b"[1,2]",
    "null": b"null",
    "deep": b"[" * 50_000,
    "a later version": json.dumps(GOOD | {"version": 2}).encode(),
    "another type": json.dumps(GOOD | {"type": "SHOUT"}).encode(),
    "no id": json.dumps({key: value for key, value in GOOD.items() if key != "message_id"}).encode(),
    "a huge id": json.dumps(GOOD | {"message_id": "m" * 10_000}).encode(),
    "half a surrogate as an id": json.dumps(GOOD | {"message_id": "\ud800"}).encode(),
    "half a surrogate": json.dumps(GOOD | {"content": "\ud800"}).encode(),
    "a bad sender": json.dumps(GOOD | {"sender_id": "a b"}).encode(),
    "a time before time": json.dumps(GOOD | {"timestamp": "0001-01-01T00:00:00+23:59"}).encode(),
    "a receipt": json.dumps(RECEIPT).encode(),
}


def letters_of(chat: Chat, user: str) -> list[chatlib.dead_letters.DeadLetter]:  # type: ignore[name-defined]
    return [letter for letter in chat.dead_letters if letter.user == user]


def test_foreign_messages_end_in_the_dead_letters_with_their_bytes_and_a_reason(chat: Chat, broker: LocalBroker, unique: Unique) -> None:
    """Between good messages, in one inbox: the good ones are handled in order, the others are all kept and explained."""
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    got: list[str] = []
    bob.on_message(lambda message: got.append(message.content))
    with raw(broker.url) as stranger:
        for number, (what, body) in enumerate(FOREIGN.items()):
            with pytest.raises(DecodeError) if what != "a receipt" else contextlib.nullcontext():
                decode(body)
            stranger.put(inbox_queue(bob.name), body, message_id=f"foreign {what}" if number % 2 else None)
            ann.send(bob.address, str(number)).wait(30)
        wait_until(lambda: len(got) == len(FOREIGN), 10, "the good ones are handled")
        letters = wait_until(lambda: found if len(found := letters_of(chat, bob.name)) >= len(FOREIGN) else None, 10, "the others are dead")
        assert [letter.body for letter in letters] == list(FOREIGN.values())
        assert all(letter.reason and letter.queue == inbox_queue(bob.name) and letter.last_failure for letter in letters)
        assert "version 2" in letters[list(FOREIGN).index("a later version")].reason
        bob.go_offline()
        wait_until(lambda: stranger.depth(inbox_queue(bob.name)) == 0, 5, "nothing is left")
    assert got == [str(number) for number in range(len(FOREIGN))]
    assert chat.reconnects == 0


class Encoded(bytes):
    """A header's value as it is on the wire, for what pika cannot write (and other clients can)."""


@pytest.fixture
def any_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the test's own connection write `Encoded` values."""
    import pika

    plain = pika.data.encode_value

    def encode_value(pieces: list[bytes], value: Any) -> int:
        if isinstance(value, Encoded):
            pieces.append(bytes(value))
            return len(value)
        return int(plain(pieces, value))

    monkeypatch.setattr(pika.data, "encode_value", encode_value)


PROPERTIES: dict[str, dict[str, Any]] = {
    "none at all": {},
    "an id that is not UTF-8": {"message_id": b"\xff\xfe"},
    "an id of 255 bytes": {"message_id": "i" * 255},
    "a type that is not UTF-8": {"type": b"\xff", "content_type": b"\xfe"},
    "a far time": {"timestamp": 2**63},
    "attempts that are no number": {"headers": {"x-chat-attempt": "many", "x-chat-failures": "no list", "x-chat-first-failure": "x"}},
    "attempts beyond counting": {"headers": {"x-chat-attempt": 2**40, "x-chat-first-attempt": -7}},
    "failures without end": {"headers": {"x-chat-failures": ["f" * 2_000] * 50, "x-chat-first-failure": 2**60}},
    "a date": {"headers": {"when": datetime(9999, 12, 31, tzinfo=UTC)}},
    "bytes in a header": {"headers": {"x-chat-attempt": b"\xff", "raw": b"\x00\xff"}},
    # legal AMQP that pika raises at (numbers that are none, the other such thing, the broker itself refuses)
    "a date after all dates": {"headers": {"when": Encoded(b"T" + (2**62).to_bytes(8, "big"))}},
}


@pytest.mark.usefixtures("any_header")
def test_foreign_properties_hurt_nobody(chat: Chat, broker: LocalBroker, unique: Unique) -> None:
    """A good body with each kind of odd AMQP properties: it is shown, can be acked, retried or rejected, and the link stays up."""
    ann, bob, cid = (chat.user(unique(name)) for name in ("ann", "bob", "cid"))
    with raw(broker.url) as stranger:
        for number, properties in enumerate(PROPERTIES.values()):
            for copy in range(2):  # two of each, since what the first leaves behind might swallow the second
                stranger.put(inbox_queue(bob.name), json.dumps(GOOD | {"message_id": f"{number}-{copy}"}).encode(), **properties)
    shown = list(bob.receive(limit=2 * len(PROPERTIES), timeout=10))
    assert [message.message_id for message in shown] == [f"{number}-{copy}" for number in range(len(PROPERTIES)) for copy in range(2)]
    for message in shown:
        message.ack() if message.message_id.endswith("-0") else message.reject("seen enough")
    letters = wait_until(
        lambda: found if len(found := letters_of(chat, bob.name)) >= len(PROPERTIES) else None, 30, "half of them are dead"
    )
    assert len(letters) == len(PROPERTIES) and {letter.reason for letter in letters} == {"seen enough"}
    ann.send(cid.address, "still here").wait(30)
    assert [message.content for message in cid.receive(limit=1, timeout=5)] == ["still here"]
    bob.go_offline()
    with raw(broker.url) as observer:
        wait_until(lambda: observer.depth(inbox_queue(bob.name)) == 0, 5, "nothing is left")
    assert chat.reconnects == 0


def test_foreign_dead_letters_can_be_listed_and_purged(chat: Chat, broker: LocalBroker) -> None:
    with raw(broker.url) as stranger:
        chat.dead_letters.purge()
        for number, headers in enumerate(
            ({}, {"x-chat-attempt": "many", "x-chat-dead-at": 2**62, "x-chat-failures": 7}, {"x-chat-queue": 5})
        ):
            stranger.put(DEAD_LETTERS, b"\xff", headers=headers, message_id=f"stranger {number}")
        letters = chat.dead_letters.list()
        assert len(letters) == 3 and all(letter.body == b"\xff" and letter.message is None for letter in letters)
        with pytest.raises(ChatError, match="does not say whose inbox"):
            chat.dead_letters.replay()
        assert chat.dead_letters.purge() == 3


# queues that are not what they were


def test_a_foreign_dead_letter_with_endless_reasons_can_be_replayed(chat: Chat, broker: LocalBroker, unique: Unique) -> None:
    """Small as they came, and larger than a frame once they are text: the link would be lost again and again."""
    bob = chat.user(unique("bob"))
    body, message_id = said("eve", bob.address, "boo")
    with raw(broker.url) as stranger:
        headers = {"x-chat-queue": inbox_queue(bob.name), "x-chat-failures": [True] * 20_000}
        stranger.put(DEAD_LETTERS, body, message_id=message_id, headers=headers)
    assert chat.dead_letters.replay(message_id, timeout=10) == 1
    assert [message.content for message in bob.receive(limit=1, timeout=5) if not message.ack()] == ["boo"]
    assert chat.reconnects == 0


@pytest.mark.parametrize("first", [{}, {"x-chat-first-attempt": 2**30 - 1}])
@pytest.mark.parametrize("attempt", [2**30 - 1, 2**30, 2**62])
def test_no_number_of_attempts_makes_a_message_disappear(broker: LocalBroker, unique: Unique, first: dict[str, int], attempt: int) -> None:
    """It fails once. The highest number cannot grow: it is among the dead letters, and stays there. Above that are no numbers."""
    seen: list[int] = []

    def fail_once(message: chatlib.ReceivedMessage) -> None:
        seen.append(message.attempt)
        if len(seen) == 1:
            raise RuntimeError("once")

    with chatlib.connect(broker, settings=Settings(retry=RetryPolicy(base=0.1, cap=0.1))) as chat:
        bob = chat.user(unique("bob"))
        bob.on_message(fail_once)
        body, message_id = said("eve", bob.address, "boo")
        with raw(broker.url) as stranger:
            stranger.put(inbox_queue(bob.name), body, message_id=message_id, headers={"x-chat-attempt": attempt} | first)
        if attempt >= 2**30:
            wait_until(lambda: seen == [1, 2], 15, "it was retried")
            return
        wait_until(lambda: chat.dead_letters[message_id], 10, "it is among the dead letters")
        with pytest.raises(ChatError, match="cannot be counted"):
            chat.dead_letters.replay(message_id)
        assert chat.dead_letters[message_id].reason == "RuntimeError: once" and seen == [attempt]
        assert chat.dead_letters.purge(message_id) == 1


def test_a_foreign_message_under_the_id_of_another_takes_nothing_from_it(broker: LocalBroker, unique: Unique) -> None:
    """Both are in hand when the connection is lost; one is acked: the other comes again, to the next chat, too."""
    with chatlib.connect(broker, name=unique("chat")) as chat:
        bob = chat.user(unique("bob"))
        real, message_id = said("ann", bob.address, "real")
        foreign, _ = said("eve", bob.address, "foreign")
        with raw(broker.url) as stranger:
            for body in (foreign, real):
                stranger.put(inbox_queue(bob.name), body, message_id=message_id, delivery_mode=2)
        held = list(bob.receive(limit=2, timeout=5))
        assert [message.content for message in held] == ["foreign", "real"]
        close_connections(broker, chat.name)
        wait_until(lambda: chat.reconnects == 1 and chat.state == "connected", 15, "it is connected again")
        assert list(bob.receive(timeout=2)) == [], "both are in hand"
        held[1].ack()
        assert chat.flush(10)
    with chatlib.connect(broker) as chat:
        assert [message.content for message in chat.user(bob.name).receive(timeout=2) if not message.ack()] == ["foreign"]


def test_a_deleted_queue_comes_back_and_sending_works_again(chat: Chat, broker: LocalBroker, unique: Unique) -> None:
    """Inbox and receipts of an online user, with their bindings and memberships."""
    group = "#" + unique("team")
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    bob.join(group)
    got: list[str] = []
    bob.on_message(lambda message: got.append(message.content))
    ann.send(bob.address, "before").wait(30)
    wait_until(lambda: got == ["before"], 5, "it works")
    with raw(broker.url) as stranger:
        for queue in (inbox_queue(bob.name), receipts_queue(ann.name)):
            stranger.channel.queue_delete(queue)

        def again() -> bool:
            sent = ann.send(group, "after")
            with contextlib.suppress(chatlib.Unroutable):
                return sent.wait(30).state == "confirmed"
            return False

        wait_until(again, 10, "the inbox is back, and a member")
        ann.send(bob.address, "direct").wait(30)
        wait_until(lambda: "direct" in got and "after" in got, 5, "he gets everything again")
        # her queue of receipts may come back after his inbox, and a receipt that found none is gone: one for each attempt, then
        told: list[chatlib.SentMessage] = []

        def receipt() -> bool:
            told.append(ann.send(bob.address, "with a receipt").wait(30))
            wait_until(lambda: "with a receipt" in got, 5, "he gets it")
            return any(sent.receipts == {bob.name: "delivered"} for sent in told)

        wait_until(receipt, 10, "the receipts are back, too", poll=0.2)
    assert chat.reconnects == 0


def test_the_deleted_queue_of_an_absent_user_comes_back_with_him(chat: Chat, broker: LocalBroker, unique: Unique) -> None:
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    bob.go_offline()
    with raw(broker.url) as stranger:
        stranger.channel.queue_delete(inbox_queue(bob.name))
    sent = ann.send(bob.address, "nobody there")
    with pytest.raises(chatlib.Unroutable):
        sent.wait(30)
    bob.go_online()
    wait_until(lambda: chat.state == "connected" and bob.waiting == 0, 15, "his inbox is there again")
    ann.send(bob.address, "welcome back").wait(10)
    assert [message.content for message in bob.receive(limit=1, timeout=5)] == ["welcome back"]


def test_a_queue_with_other_settings_is_refused_for_that_user_only(broker: LocalBroker, unique: Unique) -> None:
    name = unique("bob")
    with chatlib.connect(broker) as first, chatlib.connect(broker, settings=Settings(inbox_limit=7)) as other:
        first.user(name)
        with pytest.raises(TopologyMismatch, match=rf"x-max-length.*inbox\.{name}.*settings that it was declared with"):
            other.user(name)
        ann = other.user(unique("ann"))
        ann.send("@" + name, "sending to him works").wait(30)
        ann.send(ann.address, "and everything else").wait(30)
        assert [message.content for message in ann.receive(limit=1, timeout=5)] == ["and everything else"]
        assert other.reconnects == 0 and other.state == "connected"


def remake(stranger: Raw, queue: str, **arguments: Any) -> None:
    """Delete a queue and make it anew with other arguments, as somebody with a console would."""
    stranger.channel.queue_delete(queue)
    stranger.channel.queue_declare(queue, durable=True, arguments={"x-" + key.replace("_", "-"): value for key, value in arguments.items()})


def test_what_somebody_changed_behind_our_back_does_not_keep_the_others_from_coming_back(
    broker: LocalBroker, unique: Unique, caplog: pytest.LogCaptureFixture
) -> None:
    """1 cid's inbox is made anew with other arguments while he is away; 2 the link is lost; 3 it comes back for all; 4 the log says it."""
    with Cable(broker.url) as cable, chatlib.connect(cable.url) as chat:
        ann, bob, cid = (chat.user(unique(name)) for name in ("ann", "bob", "cid"))
        cid.go_offline()
        with raw(broker.url) as stranger:
            remake(stranger, inbox_queue(cid.name), max_length=3)
        cable.cut()
        wait_until(lambda: chat.reconnects == 1 and chat.state == "connected", 15, "the link is back")
        ann.send(bob.address, "x").wait(30)
        assert [message.content for message in bob.receive(limit=1, timeout=5)] == ["x"]
        assert any("refuses" in record.getMessage() and inbox_queue(cid.name) in record.getMessage() for record in caplog.records)
        ann.send(cid.address, "y").wait(30)  # his binding was declared again, only the queue is left as it is
        cid.go_online()
        assert [message.content for message in cid.receive(limit=1, timeout=5)] == ["y"]
        before = chat.reconnects
        cable.cut()
        wait_until(lambda: chat.reconnects > before and chat.state == "connected", 15, "and the next time, too")


def test_an_exchange_of_another_kind_is_said_when_connecting(broker: LocalBroker, unique: Unique) -> None:
    """In a virtual host of its own, where somebody uses the name chat.users for something else."""
    vhost = unique("vhost")
    with management(broker) as client:
        client.put(f"vhosts/{vhost}").raise_for_status()
        try:
            client.put(f"permissions/{vhost}/{urlsplit(broker.url).username}", json=dict.fromkeys(("configure", "write", "read"), ".*"))
            client.put(f"exchanges/{vhost}/chat.users", json={"type": "topic", "durable": True}).raise_for_status()
            refused(changed(broker.url, path="/" + vhost), TopologyMismatch, r"'type' for exchange 'chat\.users'", 5, Settings())
        finally:
            client.delete(f"vhosts/{vhost}").raise_for_status()


# alarms


def test_a_memory_alarm_blocks_sending_only_and_loses_nothing(ours: LocalBroker, unique: Unique) -> None:
    """1 the alarm is on: the state is told, sends are accepted and pending, requests and receiving go on; 2 it is off: all confirmed."""
    with chatlib.connect(ours) as chat:
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        states: list[str] = []
        chat.on_state(lambda state, reason: states.append(f"{state} {reason}"))
        waiting = [ann.send(bob.address, f"before {number}") for number in range(20)]
        assert chat.flush(10)
        ours.rabbitmqctl("set_vm_memory_high_watermark", "0.000001")
        try:
            blocked = [ann.send(bob.address, f"during {number}") for number in range(50)]
            wait_until(lambda: chat.state == "blocked", 20, "the link is told")
            assert "memory" in states[-1]
            with pytest.raises(chatlib.OutcomeUnknown):
                blocked[-1].wait(0.3)
            got = [message.content for message in bob.receive(limit=20, timeout=5) if not message.ack()]
            assert got == [f"before {number}" for number in range(20)]
            bob.join("#" + unique("team"))  # requests go over the other connection
            assert {message.state for message in waiting} == {"confirmed"} and blocked[-1].state == "pending"
        finally:
            ours.rabbitmqctl("set_vm_memory_high_watermark", "0.8")
        wait_until(lambda: chat.state == "connected", 20, "the alarm is over")
        assert chat.flush(20) and {message.state for message in blocked} == {"confirmed"}
        got = [message.content for message in bob.receive(limit=50, timeout=5) if not message.ack()]
        assert got == [f"during {number}" for number in range(50)]
        assert chat.reconnects == 0


def test_an_alarm_that_lasts_is_an_unknown_outcome_and_not_a_loss(ours: LocalBroker, unique: Unique) -> None:
    """Beyond blocked_timeout the connection is made anew; a chat that connects under an alarm works as soon as it is over."""
    with chatlib.connect(ours, settings=Settings(blocked_timeout=1.0)) as chat:
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        ours.rabbitmqctl("set_vm_memory_high_watermark", "0.000001")
        try:
            sent = [ann.send(bob.address, str(number)) for number in range(20)]
            wait_until(lambda: chat.reconnects >= 2, 30, "it was made anew, under the alarm")
            assert not any(message.state == "confirmed" for message in sent)
        finally:
            ours.rabbitmqctl("set_vm_memory_high_watermark", "0.8")
        assert chat.flush(20) and {message.state for message in sent} == {"confirmed"}
        got = [message.content for message in bob.receive(limit=20, timeout=10) if not message.ack()]
        assert got == [str(number) for number in range(20)]
        assert [message.content for message in bob.receive(timeout=0.5)] == []
