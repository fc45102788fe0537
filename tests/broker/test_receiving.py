"""Receiving over a real broker: settled never comes again, unsettled does; handlers in order, apart from each other, off the I/O thread."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import chatlib
from chatlib import Chat, ChatUser, ReceivedMessage, RetryPolicy, Settings
from chatlib.brokers import LocalBroker
from chatlib.events import DROPPED, STORED, Event
from chatlib.names import inbox_queue
from tests.support import wait_until
from tests.wire import Cable, raw

Unique = Callable[[str], str]
QUICK = RetryPolicy(attempts=5, base=0.1, cap=0.1)


@pytest.fixture
def cable(broker: LocalBroker) -> Iterator[Cable]:
    """Between the chat and the broker, to be cut."""
    with Cable(broker.url) as cable:
        yield cable


@pytest.fixture
def chat(cable: Cable) -> Iterator[Chat]:
    with chatlib.connect(cable.url, settings=Settings(retry=QUICK)) as chat:
        yield chat


@pytest.fixture
def ann(chat: Chat, unique: Unique) -> ChatUser:
    return chat.user(unique("ann"))


@pytest.fixture
def bob(chat: Chat, unique: Unique) -> ChatUser:
    return chat.user(unique("bob"))


def send(sender: ChatUser, to: ChatUser, count: int) -> list[str]:
    """Send the numbers from 0 on, wait for all confirms; the contents."""
    contents = [str(number) for number in range(count)]
    for content in contents:
        sender.send(to.address, content)
    assert sender._chat.flush(30)
    return contents


def reconnect(chat: Chat, cable: Cable) -> None:
    """Cut both connections, and wait until they are made anew."""
    before = chat.reconnects
    cable.cut()
    wait_until(lambda: chat.reconnects > before and chat.state == "connected", 15, "the link is back")


# settled and not


def test_what_was_not_settled_comes_to_the_next_chat_and_what_was_does_not(broker: LocalBroker, unique: Unique) -> None:
    name = unique("bob")
    with chatlib.connect(broker) as chat:
        bob = chat.user(name)
        send(chat.user(unique("ann")), bob, 10)
        for message in bob.receive(limit=10, timeout=5):
            if int(message.content) % 2:
                message.ack()
                message.ack()  # a second one is nothing
    with chatlib.connect(broker) as chat:
        bob = chat.user(name)
        again = list(bob.receive(timeout=1))
        assert [message.content for message in again] == ["0", "2", "4", "6", "8"]
        for message in again:
            message.ack()
    with raw(broker.url) as observer:
        wait_until(lambda: observer.depth(inbox_queue(name)) == 0, 5, "the inbox is empty")


def test_what_is_in_hand_at_a_reconnect_is_not_shown_twice_and_can_still_be_acked(
    chat: Chat, cable: Cable, broker: LocalBroker, ann: ChatUser, bob: ChatUser
) -> None:
    """1 ten in hand; 2 both connections are lost; 3 nothing is shown again; 4 the acks hold."""
    send(ann, bob, 10)
    held = list(bob.receive(limit=10, timeout=5))
    reconnect(chat, cable)
    assert list(bob.receive(timeout=0.5)) == []
    assert bob.waiting == 0
    for message in held:
        message.ack()
    assert chat.flush(5)
    reconnect(chat, cable)
    assert list(bob.receive(timeout=0.5)) == []
    with raw(broker.url) as observer:
        assert observer.depth(inbox_queue(bob.name)) == 0


def test_what_was_acked_while_the_link_was_down_is_dropped_when_it_comes_again(
    chat: Chat, cable: Cable, broker: LocalBroker, ann: ChatUser, bob: ChatUser
) -> None:
    """The ack is lost with the connection; the message comes again on the wire and is not shown."""
    dropped: list[Event] = []
    chat.on_event(lambda event: dropped.append(event) if event["hop"] == DROPPED else None)
    send(ann, bob, 20)
    held = list(bob.receive(limit=20, timeout=5))
    down = threading.Event()
    chat.on_state(lambda state, _: down.set() if state == "recovering" else None)

    def ack_at_once(state: chatlib.LinkState, _: str) -> None:
        if state == "recovering":
            for message in held:
                message.ack()

    chat.on_state(ack_at_once)
    reconnect(chat, cable)
    assert down.is_set()
    assert list(bob.receive(timeout=0.5)) == []
    assert {event["message_id"] for event in dropped} == {message.message_id for message in held}
    with raw(broker.url) as observer:
        wait_until(lambda: observer.depth(inbox_queue(bob.name)) == 0 and bob.waiting == 0, 5, "nothing is left")


def test_a_copy_of_a_message_is_shown_once_whether_handled_in_hand_or_waiting(
    chat: Chat, broker: LocalBroker, ann: ChatUser, bob: ChatUser
) -> None:
    """A sender's resend is a second copy under the same id. Given 30 messages in hand, three copies of each are put into the inbox:
    nothing is shown again, nothing keeps a place of the prefetch, and all is gone at the end.
    """
    bob.go_offline()
    send(ann, bob, 30)
    with raw(broker.url) as observer:
        originals = observer.take(inbox_queue(bob.name), 30)
        for _ in range(3):
            for properties, body in originals:
                observer.channel.basic_publish("", inbox_queue(bob.name), body, properties)
        bob.go_online()
        shown = list(bob.receive(timeout=0.5))
        assert [message.content for message in shown] == [str(number) for number in range(30)]
        for message in shown:
            message.ack()
        for properties, body in originals:
            observer.channel.basic_publish("", inbox_queue(bob.name), body, properties)
        assert list(bob.receive(timeout=0.5)) == []
        send(ann, bob, 200)  # more than the prefetch: places that were lost would show here
        assert len([message.ack() for message in bob.receive(timeout=1)]) == 200
        bob.go_offline()
        wait_until(lambda: observer.depth(inbox_queue(bob.name)) == 0, 5, "nothing is left")


def test_no_more_than_the_prefetch_is_handed_out_unsettled(broker: LocalBroker, unique: Unique) -> None:
    with chatlib.connect(broker, settings=Settings(prefetch=7)) as chat:
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        send(ann, bob, 50)
        held = list(bob.receive(timeout=0.5))
        assert len(held) == 7 and bob.waiting == 43
        for message in held:
            message.ack()
        assert [int(message.content) for message in bob.receive(limit=7, timeout=5)] == list(range(7, 14))


def test_receive_ends_when_nothing_came_for_its_timeout(chat: Chat, ann: ChatUser, bob: ChatUser) -> None:
    began = time.monotonic()
    assert list(bob.receive(timeout=0.3)) == []
    assert 0.25 < time.monotonic() - began < 3
    send(ann, bob, 3)
    assert [message.content for message in bob.receive(limit=2, timeout=5)] == ["0", "1"]
    assert [message.content for message in bob.receive(limit=1, timeout=5)] == ["2"]


# handlers


def test_a_handler_gets_everything_in_order_once_and_acks_by_returning(
    chat: Chat, broker: LocalBroker, ann: ChatUser, bob: ChatUser
) -> None:
    got: list[str] = []
    bob.on_message(lambda message: got.append(message.content))
    expected = send(ann, bob, 1_000)
    wait_until(lambda: len(got) >= 1_000, 20, "everything is handled")
    assert got == expected
    bob.go_offline()
    with raw(broker.url) as observer:
        wait_until(lambda: observer.depth(inbox_queue(bob.name)) == 0, 5, "everything is acked")


def test_a_handler_that_raises_gets_the_message_again_and_the_others_are_not_held_up(chat: Chat, ann: ChatUser, bob: ChatUser) -> None:
    got: list[tuple[str, int]] = []

    def handler(message: ReceivedMessage) -> None:
        got.append((message.content, message.attempt))
        if message.content == "1" and message.attempt < 3:
            raise RuntimeError(f"not now {message.attempt}")
        if message.content == "1":
            assert message.failures == ("RuntimeError: not now 1", "RuntimeError: not now 2")

    bob.on_message(handler)
    send(ann, bob, 4)
    wait_until(lambda: ("1", 3) in got, 10, "the third attempt")
    assert got == [("0", 1), ("1", 1), ("2", 1), ("3", 1), ("1", 2), ("1", 3)]


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_no_exception_of_a_handler_silences_its_user(chat: Chat, ann: ChatUser, bob: ChatUser, error: BaseException) -> None:
    got: list[tuple[str, int]] = []

    def handler(message: ReceivedMessage) -> None:
        got.append((message.content, message.attempt))
        if message.attempt == 1 and message.content == "0":
            raise error

    bob.on_message(handler)
    send(ann, bob, 3)
    wait_until(lambda: len(got) == 4, 10, "the others, and the second attempt")
    assert got[:3] == [("0", 1), ("1", 1), ("2", 1)] and got[3] == ("0", 2)


def test_handlers_run_on_threads_of_the_pool_never_on_the_io_thread(chat: Chat, ann: ChatUser, unique: Unique) -> None:
    threads: set[str] = set()
    io: set[str] = set()
    chat.on_event(lambda event: io.add(threading.current_thread().name) if event["hop"] == "publish.confirmed" else None)
    users = [chat.user(unique("user")) for _ in range(12)]
    for user in users:
        user.on_message(lambda message: threads.add(threading.current_thread().name))
        ann.send(user.address, "x")
    wait_until(lambda: len(threads) >= 1 and chat.unconfirmed == 0 and all(user.waiting == 0 for user in users), 10, "all handled")
    assert len(io) == 1 and not io & threads
    assert threading.main_thread().name not in threads
    assert len(threads) <= chat.settings.handler_threads


def test_a_handler_that_blocks_holds_up_neither_others_nor_the_link(chat: Chat, cable: Cable, ann: ChatUser, unique: Unique) -> None:
    """While bob's handler hangs: cid's messages are handled, confirms come, requests are answered, and a reconnect works."""
    gate, inside, handled = threading.Event(), threading.Event(), []
    bob, cid = chat.user(unique("bob")), chat.user(unique("cid"))

    def hang(message: ReceivedMessage) -> None:
        inside.set()
        assert gate.wait(60)
        handled.append(message.content)

    try:
        bob.on_message(hang)
        bobs = send(ann, bob, 3)
        assert inside.wait(30)
        got: list[str] = []
        cid.on_message(lambda message: got.append(message.content))
        expected = send(ann, cid, 100)
        wait_until(lambda: got == expected, 10, "cid's are handled")
        ann.join("#" + unique("team"))
        reconnect(chat, cable)
        ann.send(cid.address, "after").wait(30)
        wait_until(lambda: got[-1] == "after", 10, "and so are those after a reconnect")
        assert handled == []
    finally:
        gate.set()
    wait_until(lambda: handled == bobs, 10, "bob's handler goes on, in order, each once")


def test_a_handler_may_settle_by_itself_send_and_change(chat: Chat, ann: ChatUser, bob: ChatUser) -> None:
    second: list[str] = []

    def first(message: ReceivedMessage) -> None:
        message.ack()
        bob.send(message.conversation, "echo " + message.content)
        bob.on_message(lambda later: second.append(later.content))

    bob.on_message(first)
    send(ann, bob, 1)
    (echo,) = ann.receive(limit=1, timeout=5)
    assert echo.content == "echo 0"
    ann.send(bob.address, "for the second")
    wait_until(lambda: second == ["for the second"], 5, "the second handler has it")


def test_a_handler_set_late_gets_what_waited_and_removed_gets_nothing_more(chat: Chat, ann: ChatUser, bob: ChatUser) -> None:
    expected = send(ann, bob, 20)
    got: list[str] = []
    bob.on_message(lambda message: got.append(message.content))
    wait_until(lambda: got == expected, 5, "what waited")
    bob.on_message(None)
    ann.send(bob.address, "later").wait(30)
    (later,) = bob.receive(limit=1, timeout=5)
    assert later.content == "later" and got == expected


@pytest.mark.parametrize("timeout", [5.0, math.inf])
def test_closing_waits_for_the_handler_that_runs_and_its_ack_counts(broker: LocalBroker, unique: Unique, timeout: float) -> None:
    """Otherwise every graceful end would show a message twice."""
    name, inside, gate = unique("bob"), threading.Event(), threading.Event()
    got: list[str] = []
    chat = chatlib.connect(broker)
    bob = chat.user(name)

    def slow(message: ReceivedMessage) -> None:
        inside.set()
        gate.wait(10)
        got.append(message.content)

    bob.on_message(slow)
    send(chat.user(unique("ann")), bob, 3)
    assert inside.wait(30)
    closing = threading.Thread(target=chat.close, args=(timeout,))
    closing.start()
    wait_until(lambda: bob._inbox._closed, 10, "it is closing")
    assert not got
    gate.set()
    closing.join(10)
    assert got == ["0"] and not closing.is_alive()
    with chatlib.connect(broker) as again:
        assert [message.content for message in again.user(name).receive(limit=2, timeout=5)] == ["1", "2"]


def test_closing_in_front_of_a_full_inbox_shows_nothing_more_and_the_rest_comes_in_order(
    broker: LocalBroker, unique: Unique, tmp_path: Path
) -> None:
    """1 a handler is at the first of 300, and more were handed out; 2 the chat is closed meanwhile: the ack of the first
    makes the broker hand out a later one, which must not come ahead of what close() threw away; 3 the next chat gets the rest in order.
    """
    name, inside, gate = unique("bob"), threading.Event(), threading.Event()
    got: list[str] = []

    def slow(message: ReceivedMessage) -> None:
        inside.set()
        gate.wait(10)
        got.append(message.content)

    with chatlib.connect(broker) as sender:
        sender.users([name], online=False)
        ann = sender.user(unique("ann"))
        for sent in ann.send_many((f"@{name}", str(number)) for number in range(300)):
            sent.wait(20)
    # 1
    chat = chatlib.connect(broker, data_dir=tmp_path)
    bob = chat.user(name)
    bob.on_message(slow)
    assert inside.wait(30)
    wait_until(lambda: len(bob._inbox._arrived) == chat.settings.prefetch - 1, 10, "the prefetch is used up")
    # 2
    closing = threading.Thread(target=chat.close)
    closing.start()
    wait_until(lambda: bob._inbox._closed, 10, "it is closing")
    gate.set()
    closing.join(20)
    assert got == ["0"] and not closing.is_alive()
    # 3
    with chatlib.connect(broker, data_dir=tmp_path) as again:
        rest = [message.content for message in again.user(name).receive(limit=299, timeout=10) if not message.ack()]
        assert rest == [str(number) for number in range(1, 300)]
        assert list(again.user(name).receive(timeout=0.5)) == []


def test_a_handler_may_close_the_chat(broker: LocalBroker, unique: Unique) -> None:
    name, closed = unique("bob"), threading.Event()
    chat = chatlib.connect(broker)
    bob = chat.user(name)

    def close(message: ReceivedMessage) -> None:
        message.ack()
        chat.close()
        closed.set()

    bob.on_message(close)
    send(chat.user(unique("ann")), bob, 1)
    assert closed.wait(10)
    with chatlib.connect(broker) as again:
        assert list(again.user(name).receive(timeout=0.5)) == []


class Closing:
    """A chat that another thread closes, with 20 s for it, and whose handler is held up at a message until `gate` is open."""

    def __init__(self, broker: LocalBroker, unique: Unique, data_dir: Path) -> None:
        self.gate, inside = threading.Event(), threading.Event()
        self.chat = chatlib.connect(broker, data_dir=data_dir)
        bob = self.chat.user(unique("bob"))

        def handler(message: ReceivedMessage) -> None:
            inside.set()
            self.gate.wait(20)

        bob.on_message(handler)
        send(self.chat.user(unique("ann")), bob, 1)
        assert inside.wait(10)
        self.thread = threading.Thread(target=self.chat.close, args=(20,))
        self.thread.start()
        wait_until(lambda: bob._inbox._closed, 10, "it is closing")


def test_who_closes_while_another_does_waits_for_him_and_may_connect_again(broker: LocalBroker, unique: Unique, tmp_path: Path) -> None:
    closing, states = Closing(broker, unique, tmp_path), []

    def close_and_connect() -> None:
        closing.chat.close()
        states.append(closing.chat.state)
        with chatlib.connect(broker, data_dir=tmp_path) as again:  # not locked
            states.append(again.state)

    second = threading.Thread(target=close_and_connect)
    second.start()
    second.join(0.3)
    assert second.is_alive() and not states
    closing.gate.set()
    second.join(20)
    assert states == ["closed", "connected"]
    closing.thread.join(20)
    began = time.monotonic()
    closing.chat.close()
    assert time.monotonic() - began < 1


def test_who_closes_while_another_does_waits_no_longer_than_he_wants(
    broker: LocalBroker, unique: Unique, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatlib.chat.CLOSING", 0.2)
    closing, began = Closing(broker, unique, tmp_path), time.monotonic()
    closing.chat.close(0.1)
    assert 0.2 < time.monotonic() - began < 5 and closing.thread.is_alive()
    closing.gate.set()
    closing.thread.join(20)


def test_a_signal_handler_may_close_what_its_own_thread_is_closing(broker: LocalBroker, unique: Unique) -> None:
    """It runs in the middle of close(), which cannot go on before it has ended."""
    chat, took = chatlib.connect(broker), []
    bob, inside, gate = chat.user(unique("bob")), threading.Event(), threading.Event()

    def handler(message: ReceivedMessage) -> None:
        inside.set()
        wait_until(lambda: bob._inbox._closed, 10, "it is closing")
        os.kill(os.getpid(), signal.SIGUSR1)
        gate.wait(20)

    def on_signal(*_: object) -> None:
        began = time.monotonic()
        chat.close()
        took.append(time.monotonic() - began)
        gate.set()

    before = signal.signal(signal.SIGUSR1, on_signal)
    try:
        bob.on_message(handler)
        send(chat.user(unique("ann")), bob, 1)
        assert inside.wait(10)
        chat.close()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert took and took[0] < 3


@pytest.mark.parametrize("where", ["handler", "on_event", "on_state", "on_change"])
def test_code_that_the_chat_calls_may_close_it_while_another_thread_does(
    broker: LocalBroker, unique: Unique, tmp_path: Path, where: str
) -> None:
    """The one that closes may be waiting for that code: for the handler, for the I/O thread, or for a lock that `send` holds."""
    chat = chatlib.connect(broker, data_dir=tmp_path)
    ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
    inside, took = threading.Event(), []

    def close() -> None:
        inside.set()
        wait_until(lambda: chat._closed, 10, "another thread is closing it")
        began = time.monotonic()
        chat.close()
        took.append(time.monotonic() - began)

    sender = threading.Thread(target=ann.send, args=(bob.address, "x"))
    if where == "handler":
        bob.on_message(lambda _: close())
    elif where == "on_event":  # on the thread of the sender
        chat.on_event(lambda event: close() if event["hop"] == STORED else None)
    elif where == "on_state":
        chat.on_state(lambda state, _: close() if state == "closed" else None)
    else:
        sent = ann.send(bob.address, "0").wait(10)
        sent.on_change(lambda _: close())
        bob.on_message(lambda _: None)
    sender.start()
    if where != "on_state":
        assert inside.wait(10)
    else:
        sender.join(10)
    began = time.monotonic()
    chat.close()
    wait_until(lambda: took, 20, "it has returned there, too")
    assert time.monotonic() - began < 4 and took[0] < 3
    sender.join(10)
    chatlib.connect(broker, data_dir=tmp_path).close()


# once per handler, over restarts of the chat


def test_with_a_data_dir_a_message_is_handled_once_though_its_ack_never_reached_the_broker(
    broker: LocalBroker, cable: Cable, unique: Unique, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """1 handled and stored, and the link is cut before the ack is written; 2 a new chat with the same folder gets it on the wire, and
    drops it; 3 one without the folder shows it: the message was really there.
    """
    folder, name = tmp_path_factory.mktemp("bob"), unique("bob")
    with chatlib.connect(broker) as other:
        ann = other.user(unique("ann"))
        other.user(name).go_offline()
        for shows in (False, True):
            ann.send("@" + name, "pay 5").wait(30)
            chat = chatlib.connect(cable.url, data_dir=folder, settings=Settings(retry=QUICK))
            (message,) = chat.user(name).receive(limit=1, timeout=5)
            cable.refusing = True
            cable.cut()
            wait_until(lambda chat=chat: chat.state == "recovering", 10, "the link is down")
            message.ack()  # known, stored, and not written: the connection is gone
            chat.close(timeout=0)
            cable.refusing = False
            with chatlib.connect(broker, data_dir=None if shows else folder) as again:
                drops: list[Event] = []
                again.on_event(lambda event, drops=drops: drops.append(event) if event["hop"] == DROPPED else None)
                seen = [found.content for found in again.user(name).receive(timeout=0.7) if not found.ack()]
                assert (seen, len(drops)) == ((["pay 5"], 0) if shows else ([], 1))


def test_own_words_in_a_group_are_not_shown_and_leave_no_trace(chat: Chat, broker: LocalBroker, bob: ChatUser, unique: Unique) -> None:
    group = "#" + unique("team")
    bob.join(group)
    bob.send(group, "do I hear myself?").wait(30)
    assert list(bob.receive(timeout=0.3)) == []
    bob.send(bob.address, "note to self").wait(30)
    (note,) = bob.receive(limit=1, timeout=5)
    assert note.content == "note to self"
    note.ack()
    bob.go_offline()
    with raw(broker.url) as observer:
        wait_until(lambda: observer.depth(inbox_queue(bob.name)) == 0, 5, "nothing is left")
