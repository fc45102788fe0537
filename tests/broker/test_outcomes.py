"""Outcomes over a real broker: each is told, each error says whether it is certain, and no call waits for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import chatlib
from chatlib import Chat, ChatError, InboxFull, NoAnswer, OutboxFull, OutcomeUnknown, SentMessage, Settings, Unroutable
from chatlib.brokers import LocalBroker
from tests.support import wait_until
from tests.wire import Cable

Unique = Callable[[str], str]
SHORT = 0.7  # seconds that a request may take here
SLACK = 2.5  # seconds on a busy machine


@pytest.fixture
def chat(broker: LocalBroker) -> Iterator[Chat]:
    with chatlib.connect(broker, settings=Settings(inbox_limit=3)) as chat:
        yield chat


def outcome(sent: SentMessage, timeout: float = 10.0) -> ChatError | None:
    try:
        sent.wait(timeout)
    except ChatError as exc:
        return exc
    return None


def test_each_outcome_has_its_state_its_error_and_its_word_on_certainty(chat: Chat, unique: Unique) -> None:
    """1 all four outcomes; 2 asked again, the same answer at once, from any thread; 3 each was told once, by the hook."""
    ann, bob, full = (chat.user(unique(name)) for name in ("ann", "bob", "full"))
    full.go_offline()
    for number in range(3):
        ann.send(full.address, str(number)).wait(5)
    told: list[tuple[str, str]] = []
    # 1
    expected: list[tuple[str, str, type[ChatError] | None, bool]] = [
        (bob.address, "confirmed", None, True),
        ("@" + unique("nobody"), "returned", Unroutable, True),
        ("#" + unique("nobody"), "returned", Unroutable, True),
        (full.address, "rejected", InboxFull, False),
    ]
    sent = []
    for to, _, _, _ in expected:
        message = ann.send(to, "x")
        message.on_change(lambda message: told.append((message.to, message.state.value)))
        sent.append(message)
    for message, (_, state, kind, definite) in zip(sent, expected, strict=True):
        error = outcome(message)
        assert message.state == state
        assert error is None if kind is None else type(error) is kind and error.definite is definite
        # 2
        answers: list[ChatError | None] = []
        threads = [threading.Thread(target=lambda message=message, answers=answers: answers.append(outcome(message, 0))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
        assert answers == [error] * 4 and message.error is error
    assert all(chat.sent(message.message_id) is message for message in sent) and chat.sent("another") is None
    # 3
    for message in bob.receive(limit=1, timeout=5):
        message.ack()
    wait_until(lambda: sent[0].receipts, 5, "the receipt")
    states = [(to, state) for to, state in told if to != bob.address]
    assert sorted(states) == sorted((to, state) for to, state, _, _ in expected[1:])


def test_a_confirm_wakes_all_who_wait_for_it(broker: LocalBroker, unique: Unique) -> None:
    """Not by polling: the slowest of ten knows it a moment after the broker has answered."""
    with Cable(broker.url) as cable, chatlib.connect(cable.url) as chat:
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        assert chat.flush(10)
        cable.hold(*cable.alive)
        sent = ann.send(bob.address, "x")
        woken: list[float] = []
        threads = [threading.Thread(target=lambda: (sent.wait(20), woken.append(time.monotonic()))) for _ in range(10)]
        for thread in threads:
            thread.start()
        assert outcome(sent, 0.3) is not None and not woken and sent.state == "pending"
        released = time.monotonic()
        cable.release()
        for thread in threads:
            thread.join(10)
        assert len(woken) == 10 and max(woken) - released < SLACK


def test_no_call_waits_for_ever(broker: LocalBroker, unique: Unique) -> None:
    """The broker takes everything and answers nothing: each call ends by its own deadline, with a typed error or an answer; when the
    broker speaks again, so does everything, and what was sent meanwhile is there.
    """
    settings = Settings(request_timeout=SHORT, send_timeout=SHORT, outbox_limit=2, heartbeat=60)
    with Cable(broker.url) as cable, chatlib.connect(cable.url, settings=settings) as chat:
        ann, bob, cid = (chat.user(unique(name)) for name in ("ann", "bob", "cid"))
        cid.go_offline()
        group = "#" + unique("team")
        ann.send(bob.address, "before").wait(5)
        (held,) = bob.receive(limit=1, timeout=5)
        cable.hold(*cable.alive)
        first, second = ann.send(bob.address, "1"), ann.send(bob.address, "2")
        refusals: list[tuple[str, float, type[ChatError], Callable[[], Any]]] = [
            ("wait", SHORT, OutcomeUnknown, lambda: first.wait(SHORT)),
            ("send to a full outbox", SHORT, OutboxFull, lambda: ann.send(bob.address, "3")),
            ("join", SHORT, NoAnswer, lambda: bob.join(group)),
            ("leave", SHORT, NoAnswer, lambda: bob.leave(group)),
            ("sign-up", SHORT, NoAnswer, lambda: chat.user(unique("new"))),
            ("waiting", SHORT, NoAnswer, lambda: bob.waiting),
            ("go_online", SHORT, NoAnswer, cid.go_online),
            ("dead letters", SHORT, NoAnswer, chat.dead_letters.list),
            ("their number", SHORT, NoAnswer, lambda: len(chat.dead_letters)),
            ("purge", SHORT, NoAnswer, chat.dead_letters.purge),
            ("history", 2 * SHORT, ChatError, lambda: list(chat.group(group).history())),
            ("begin a history", 3 * SHORT, NoAnswer, lambda: chat.group(group, history=True)),
        ]
        for what, limit, kind, call in refusals:
            began = time.monotonic()
            with pytest.raises(kind) as caught:
                call()
            took = time.monotonic() - began
            assert took < limit + SLACK, f"{what} took {took:.1f} s"
            assert str(caught.value), what
        for what, limit, answer in (
            ("flush", SHORT, lambda: chat.flush(SHORT) is False),
            ("receive", SHORT, lambda: list(bob.receive(timeout=SHORT)) == []),
            ("receive at once", 0.0, lambda: list(bob.receive(timeout=0)) == []),
            ("ack", 0.0, lambda: held.ack() is None),
            ("mark_read", 0.0, lambda: held.mark_read() is None),
            ("progress", 0.0, lambda: first.progress.of == 1),
            ("a handler", 0.0, lambda: bob.on_message(print) is None),
            ("state", 0.0, lambda: chat.state == "connected"),
        ):
            began = time.monotonic()
            assert answer(), what
            assert time.monotonic() - began < limit + SLACK, what
        bob.on_message(None)
        cable.release()
        for sent in (first, second):
            sent.wait(20)
        wait_until(lambda: ann.send(bob.address, "4"), 10, "sending goes on")
        assert [message.content for message in bob.receive(limit=3, timeout=10) if not message.ack()] == ["1", "2", "4"]
        bob.join(group)


def test_who_looks_at_queues_is_told_that_the_chat_is_closed(broker: LocalBroker) -> None:
    with chatlib.connect(broker) as chat, chat._link.session() as session, ThreadPoolExecutor() as pool:
        waiting = pool.submit(session.next, 60)
        chat.close(0)
        with pytest.raises(chatlib.ChatClosed):
            waiting.result(10)


def test_closing_on_a_silent_broker_takes_no_longer_than_it_may(broker: LocalBroker, unique: Unique) -> None:
    """And who waits for a message then is told that the chat is closed, not left waiting."""
    with Cable(broker.url) as cable:
        chat = chatlib.connect(cable.url, settings=Settings(request_timeout=SHORT))
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        assert chat.flush(10)
        cable.hold(*cable.alive)
        sent = ann.send(bob.address, "x")
        told: list[ChatError | None] = []
        waiter = threading.Thread(target=lambda: told.append(outcome(sent, 60)))
        waiter.start()
        began = time.monotonic()
        chat.close(timeout=1.0)
        waiter.join(5)
        assert time.monotonic() - began < 1.0 + SLACK
        assert isinstance(told[0], chatlib.ChatClosed) and sent.state == "pending"


def test_refused_while_the_chat_closes_is_still_refused(broker: LocalBroker, unique: Unique) -> None:
    """To say whose inbox is full takes a question to the broker; a close that comes first must not turn "refused" into "not known"."""
    for _ in range(5):
        chat = chatlib.connect(broker, settings=Settings(inbox_limit=1))
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        bob.go_offline()
        sent = [ann.send(bob.address, str(number)) for number in range(200)]
        chat.close()
        assert [message.state.value for message in sent] == ["confirmed", *["rejected"] * 199]
        assert all(isinstance(message.error, InboxFull) for message in sent[1:])
