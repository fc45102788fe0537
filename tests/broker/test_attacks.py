"""What an attacker found: foreign headers that stop everybody, Ctrl-C in the middle, calls that give up halfway."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pika
import psutil
import pytest

import chatlib
from chatlib import BrokerUnavailable, Chat, ChatError, ReceivedMessage, RetryPolicy, Settings
from chatlib.brokers import LocalBroker
from chatlib.names import inbox_queue
from tests.support import unique_name, wait_until

Unique = Callable[[str], str]
QUICK = Settings(retry=RetryPolicy(attempts=2, base=0.1, cap=0.1), prefetch=1)


@pytest.fixture
def chat(broker: LocalBroker) -> Iterator[Chat]:
    with chatlib.connect(broker, settings=QUICK) as chat:
        chat.dead_letters.purge()
        yield chat


def body(message_id: str, sender: str, to: str, content: str) -> bytes:
    """A message as any client of ours would write it."""
    from chatlib.messages import compose
    from chatlib.names import parse_address

    return compose(message_id, sender, parse_address(to), content, time.time()).encode()


def put(broker: Any, user: str, content: bytes, message_id: str | None = "foreign-1", **properties: Any) -> None:
    """What a foreign client may publish."""
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish("", inbox_queue(user), content, pika.BasicProperties(message_id=message_id, delivery_mode=2, **properties))
    connection.close()


@pytest.mark.parametrize(
    "headers",
    [{"x-chat-first-failure": 2**63 - 1}, {"x-chat-first-attempt": 10**6}, {"x-chat-attempt": 2**63 - 1}, {"x-chat-first-failure": -5}],
    ids=str,
)
def test_headers_out_of_all_bounds_stop_nobody(broker: LocalBroker, chat: Chat, unique: Unique, headers: dict[str, int]) -> None:
    """1 its handler fails, it is retried and ends in the dead letters; 2 what is behind it comes; 3 a replay of it, too, stops nobody."""
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    bob.go_offline()
    put(broker, bob.name, body("foreign-1", ann.name, bob.address, "bad"), headers=headers)
    ann.send(bob.address, "good").wait(10)
    got: list[str] = []

    def handler(message: ReceivedMessage) -> None:
        got.append(message.content)
        if message.content == "bad":
            raise ValueError("bad")

    bob.on_message(handler)
    bob.go_online()
    wait_until(lambda: "good" in got and len(chat.dead_letters) == 1, 20, "both are done with")
    assert got.count("bad") in (1, 2)
    chat.dead_letters.replay()
    wait_until(lambda: len(chat.dead_letters) == 1 and got.count("bad") >= 2, 20, "it is dead again")
    ann.send(bob.address, "still there").wait(10)
    assert chat.reconnects == 0


def test_a_header_nested_two_thousand_deep_reaches_its_receiver(broker: LocalBroker, chat: Chat, unique: Unique) -> None:
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    table = b""
    for _ in range(2_000):
        table = b"\x01aF" + len(table).to_bytes(4, "big") + table

    class Deep(pika.BasicProperties):
        def encode(self) -> list[bytes]:
            """Flags: only headers; pika's own encoder would not go so deep."""
            return [(1 << 13).to_bytes(2, "big"), len(table).to_bytes(4, "big") + table]

    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish("", inbox_queue(bob.name), body("foreign-1", ann.name, bob.address, "deep"), Deep())
    connection.close()
    assert [message.content for message in bob.receive(limit=1, timeout=10) if not message.ack()] == ["deep"]
    assert chat.reconnects == 0


def test_an_id_that_is_no_text_gets_to_the_dead_letters(broker: LocalBroker, chat: Chat, unique: Unique) -> None:
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    put(broker, bob.name, b"no message", message_id=b"\xff" * 255)  # type: ignore[arg-type]
    ann.send(bob.address, "behind it").wait(10)
    assert [message.content for message in bob.receive(limit=1, timeout=10) if not message.ack()] == ["behind it"]
    assert [letter.body for letter in chat.dead_letters] == [b"no message"]


def test_a_message_without_the_property_is_not_lost_by_a_reconnect(broker: LocalBroker, unique: Unique) -> None:
    """Shown and unsettled when the connection breaks, it is handed out again, and nobody may take that for a duplicate and ack it."""
    name = unique("bob")
    with chatlib.connect(broker) as chat:
        bob = chat.user(name)
        put(broker, name, body("foreign-1", unique("ann"), f"@{name}", "once"), message_id=None)
        shown = next(bob.receive(timeout=10))
        chatlib.faults.close_connections(broker, chat)
        wait_until(lambda: chat.reconnects > 0, 20, "it is back")
        assert list(bob.receive(timeout=1)) == []
        assert shown.content == "once"  # and not settled: its receiver dies
    with chatlib.connect(broker) as chat:
        assert [message.content for message in chat.user(name).receive(limit=1, timeout=10) if not message.ack()] == ["once"]


@pytest.mark.parametrize("limits", [{"max_age": "nonsense"}, {"max_age": "7"}, {"max_bytes": 0}, {"max_bytes": 2**70}], ids=str)
def test_limits_of_a_history_that_the_broker_would_close_the_connection_for(chat: Chat, unique: Unique, limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="max_"):
        chat.group("#" + unique("team"), history=True, **limits)
    assert chat.reconnects == 0


@pytest.mark.parametrize("direction", ["off", "on"])
def test_who_gives_up_going_is_in_one_state(new_broker: Callable[[], Any], direction: str) -> None:
    """go_offline() or go_online() of a frozen broker raises; after the thaw he is offline, without consumer, and can go online."""
    with new_broker() as broker, chatlib.connect(broker, settings=Settings(request_timeout=1)) as chat:
        ann, bob = chat.user("ann"), chat.user("bob")
        got: list[str] = []
        bob.on_message(lambda message: got.append(message.content))
        if direction == "on":
            bob.go_offline()
        broker.freeze()
        with pytest.raises(BrokerUnavailable):
            bob.go_offline() if direction == "off" else bob.go_online()
        broker.thaw()
        assert not bob.is_online
        inbox = chat._link.queues
        wait_until(lambda: inbox.depth(inbox_queue("bob"))[1] == 0, 20, "he has no consumer")
        ann.send("@bob", "kept").wait(20)
        assert got == []
        bob.go_online()
        wait_until(lambda: got == ["kept"], 20, "what was kept is handled")
        assert inbox.depth(inbox_queue("bob"))[1] == 1


def test_a_listener_that_ends_the_program_ends_nothing(chat: Chat, unique: Unique) -> None:
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))

    def exits(*_: Any) -> None:
        sys.exit(3)

    chat.on_event(exits)
    chat.on_state(exits)
    first = ann.send(bob.address, "1")
    first.on_change(exits)
    first.wait(10)
    ann.send(bob.address, "2").wait(10)


def test_a_listener_may_send(chat: Chat, unique: Unique) -> None:
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    sent: list[chatlib.SentMessage] = []

    def echo(event: dict[str, Any]) -> None:
        if event["hop"] == "outbox.stored" and not sent:
            sent.append(ann.send(bob.address, "said by the listener"))

    chat.on_event(echo)  # type: ignore[arg-type]
    ann.send(bob.address, "said").wait(10)
    sent[0].wait(10)


def test_ctrl_c_while_sending_leaves_a_chat_that_sends(broker: LocalBroker, unique: Unique, tmp_path: Path) -> None:
    """Ten times, at any place of `send` with a data_dir."""
    name, rounds = unique("bob"), 10
    with chatlib.connect(broker, data_dir=tmp_path) as chat:
        ann = chat.user(unique("ann"))
        chat.user(name)
        interrupted = 0
        for _ in range(rounds):
            timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            try:
                while True:
                    ann.send(f"@{name}", unique_name("word"))
            except KeyboardInterrupt:
                interrupted += 1
            timer.join()
            ann.send(f"@{name}", "after").wait(20)
        assert interrupted == rounds


def test_ctrl_c_while_closing_closes_all_the_same(new_broker: Callable[[], Any], tmp_path: Path) -> None:
    with new_broker() as broker:
        chat = chatlib.connect(broker, data_dir=tmp_path)
        ann = chat.user("ann")
        broker.freeze()
        sent = ann.send("@ann", "kept")
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            chat.close(timeout=30)
        timer.join()
        broker.thaw()
        with chatlib.connect(broker, data_dir=tmp_path) as again:  # not locked
            assert [message.message_id for message in again.user("ann").receive(limit=1, timeout=20)] == [sent.message_id]


def test_a_closed_chat_keeps_no_socket_though_the_broker_did_not_answer(new_broker: Callable[[], Any]) -> None:
    """Else the broker, thawed, would go on handing out messages to nobody, until somebody collects the garbage."""

    def sockets() -> int:
        port = urlsplit(broker.url).port
        return sum(bool(each.raddr) and each.raddr.port == port for each in psutil.Process().net_connections("tcp"))

    with new_broker() as broker:
        gc.disable()
        try:
            chat = chatlib.connect(broker)
            chat.user("ann")
            assert sockets() == 2
            broker.freeze()
            chat.close(timeout=0)
            assert sockets() == 0
        finally:
            gc.enable()
            broker.thaw()
        with chatlib.connect(broker) as again:
            again.user("bob").send("@ann", "hello").wait(20)
            assert [message.content for message in again.user("ann").receive(limit=1, timeout=20)] == ["hello"]


def test_a_sign_up_that_waits_holds_nobody_up(new_broker: Callable[[], Any]) -> None:
    """While a new user waits for a frozen broker, those who are there are found at once, and close() keeps to its time."""
    with new_broker() as broker:
        chat = chatlib.connect(broker)
        ann = chat.user("ann")
        broker.freeze()
        failed: list[BaseException] = []

        def sign_up() -> None:
            try:
                chat.user("bob")
            except ChatError as error:
                failed.append(error)

        thread = threading.Thread(target=sign_up)
        thread.start()
        wait_until(lambda: chat._link._admin._busy is not None, 10, "it waits for the broker")
        began = time.monotonic()
        assert chat.user("ann") is ann
        chat.close(timeout=1)
        assert time.monotonic() - began < 8
        thread.join(20)
        assert failed
        broker.thaw()


@pytest.mark.parametrize(
    "wrong",
    [{"prefetch": 1.5}, {"prefetch": 70_000}, {"heartbeat": 70_000}, {"inbox_limit": 2**70}, {"retry": None}]
    + [{"send_timeout": -1}, {"send_timeout": float("nan")}, {"send_timeout": "10"}, {"request_timeout": "5"}, {"prefetch": True}]
    + [{"connect_timeout": float("inf")}, {"request_timeout": float("nan")}, {"outbox_limit": float("nan")}],
    ids=str,
)
def test_settings_that_would_fail_later_fail_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Settings(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"attempts": 2.5}, {"attempts": 0}, {"attempts": True}, {"total_time": 0}, {"total_time": float("nan")}, {"base": "1"}, {"cap": None}],
    ids=str,
)
def test_a_retry_policy_that_makes_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RetryPolicy(**wrong)


def test_a_handler_that_is_none(chat: Chat, unique: Unique) -> None:
    with pytest.raises(TypeError, match="on_message takes a function"):
        chat.user(unique("ann")).on_message(5)  # type: ignore[arg-type]


def test_for_ever_is_a_timeout(chat: Chat, unique: Unique) -> None:
    ann = chat.user(unique("ann"))
    ann.send(ann.address, "hello").wait(float("inf"))
    assert chat.flush(float("inf"))
    assert [message.content for message in ann.receive(limit=1, timeout=float("inf")) if not message.ack()] == ["hello"]


def test_an_error_that_cannot_be_told_is_retried_all_the_same(chat: Chat, unique: Unique) -> None:
    """Its text is made by code that ends the program: the message must not stay in nobody's hands."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise SystemExit

    def handler(message: ReceivedMessage) -> None:
        raise Mute

    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    bob.on_message(handler)
    ann.send(bob.address, "bad").wait(10)
    wait_until(lambda: len(chat.dead_letters) == 1, 20, "it is dead")
    assert chat.dead_letters.list()[0].reason == "Mute"


@pytest.mark.parametrize(
    "messages", [None, 5, "@bob", [("@bob",)], [("@bob", "a", "b")], [None], {"@bob": "x"}, [(["@bob"], "x")]], ids=repr
)
def test_what_are_no_messages_is_said_and_nothing_is_sent(chat: Chat, unique: Unique, messages: Any) -> None:
    with pytest.raises(chatlib.InvalidAddress, match=r"such as|an address is"):
        chat.user(unique("ann")).send_many(messages)
    assert chat.unconfirmed == 0


def test_times_that_are_none_are_refused_at_the_call(chat: Chat, unique: Unique) -> None:
    ann = chat.user(unique("ann"))
    with pytest.raises(TypeError, match="timeout"):
        ann.receive(timeout=None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="limit"):
        ann.receive(limit="3")  # type: ignore[arg-type]
    sent = ann.send(ann.address, "hello")
    for taker in (sent.wait, chat.flush, lambda timeout: ann.receive(timeout=timeout)):
        with pytest.raises(TypeError, match="must be a number of seconds, got None"):
            taker(None)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="must be a number of seconds, got nan"):
            taker(float("nan"))


def test_a_close_that_is_refused_closes_nothing_and_the_next_one_closes(broker: LocalBroker, unique: Unique) -> None:
    chat = chatlib.connect(broker)
    ann = chat.user(unique("ann"))
    for wrong, error in ((None, TypeError), ("5", TypeError), (float("nan"), ValueError)):
        with pytest.raises(error, match=r"the timeout of close\(\) must be a number of seconds"):
            chat.close(wrong)  # type: ignore[arg-type]
    ann.send(ann.address, "hello").wait(20)
    assert chat.state == "connected" and ann.is_online
    chat.close()
    assert chat.state == "closed"


def test_a_closed_chat_says_so_at_once(broker: LocalBroker, unique: Unique) -> None:
    """Not after a request's patience, and not that the broker does not answer."""
    with chatlib.connect(broker, settings=Settings(request_timeout=60)) as chat:
        ann, group = chat.user(unique("ann")), chat.group("#" + unique("team"), history=True)
    began = time.monotonic()
    with pytest.raises(chatlib.ChatClosed):
        list(group.history(last=1))
    with pytest.raises(chatlib.ChatClosed):
        ann.on_message(print)
    assert time.monotonic() - began < 30


def test_who_reads_a_history_while_the_chat_closes_is_told(new_broker: Callable[[], Any]) -> None:
    with new_broker() as broker:
        chat = chatlib.connect(broker, settings=Settings(request_timeout=60))
        group = chat.group("#team", history=True)
        broker.freeze()
        errors: list[BaseException] = []

        def read() -> None:
            try:
                list(group.history())
            except ChatError as error:
                errors.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        wait_until(lambda: chat.unconfirmed == 1, 20, "its mark is under way")
        chat.close(timeout=0)
        reader.join(30)
        broker.thaw()
        assert [type(error) for error in errors] == [chatlib.ChatClosed]
