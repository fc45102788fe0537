"""A consumer that fails for every message pauses itself, instead of using up the attempts of all of them."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

import chatlib
from chatlib import Chat, ReceivedMessage, RetryPolicy, Settings
from chatlib.brokers import LocalBroker
from chatlib.events import DEAD, PAUSED, Event
from tests.support import wait_until

Unique = Callable[[str], str]
FEW = Settings(retry=RetryPolicy(attempts=3, base=0.1, cap=0.1))
COUNT = 60


@pytest.fixture
def chat(broker: LocalBroker) -> Iterator[Chat]:
    with chatlib.connect(broker, settings=FEW) as chat:
        yield chat


class Printer:
    """What every message needs; broken at first."""

    def __init__(self, chat: Chat) -> None:
        self.works = threading.Event()
        self.attempts: Counter[str] = Counter()
        self.printed: Counter[str] = Counter()
        self.paused: list[Event] = []
        self.dead: list[Event] = []
        chat.on_event(self._note)

    def _note(self, event: Event) -> None:
        if event["hop"] in (PAUSED, DEAD):
            (self.paused if event["hop"] == PAUSED else self.dead).append(event)

    def __call__(self, message: ReceivedMessage) -> None:
        self.attempts[message.content] += 1
        if not self.works.is_set():
            raise OSError("the printer is off")
        self.printed[message.content] += 1


def test_while_what_all_need_is_down_few_attempts_are_used_and_nobody_dies(chat: Chat, unique: Unique) -> None:
    """1 sixty messages, three attempts each, and nothing works; 2 after some pauses it does; 3 each was printed once, none is dead."""
    ann, bob, printer = chat.user(unique("ann")), chat.user(unique("bob")), Printer(chat)
    bob.on_message(printer, pause_after=3, pause_for=0.3)
    # 1
    for number in range(COUNT):
        ann.send(bob.address, str(number))
    wait_until(lambda: len(printer.paused) >= 4, 20, "it has paused four times")
    assert all(event["user"] == bob.name and event["seconds"] == 0.3 and "printer is off" in event["reason"] for event in printer.paused)
    # one attempt for each pause after the first three
    assert sum(printer.attempts.values()) <= 3 + len(printer.paused)
    # 2
    printer.works.set()
    # 3
    wait_until(lambda: len(printer.printed) == COUNT, 30, "all are printed")
    assert set(printer.printed.values()) == {1} and not printer.dead
    assert not bob.is_paused


def test_without_a_pause_the_same_outage_kills_them_all(chat: Chat, unique: Unique) -> None:
    """The other side of it: what the pause is for."""
    ann, bob, printer = chat.user(unique("ann")), chat.user(unique("bob")), Printer(chat)
    bob.on_message(printer)
    for number in range(COUNT):
        ann.send(bob.address, str(number))
    wait_until(lambda: len(printer.dead) == COUNT, 30, "all are dead")
    assert set(printer.attempts.values()) == {3} and not printer.printed and not printer.paused


def test_paused_means_left_alone(chat: Chat, unique: Unique) -> None:
    """For as long as it was said, and only this user."""
    ann, bob, cid, printer = chat.user(unique("ann")), chat.user(unique("bob")), chat.user(unique("cid")), Printer(chat)
    got: list[str] = []
    cid.on_message(lambda message: got.append(message.content))
    bob.on_message(printer, pause_after=1, pause_for=1.5)
    ann.send(bob.address, "0")
    paused = wait_until(lambda: printer.paused, 10, "it pauses")[0]
    assert bob.is_paused and not cid.is_paused
    for number in range(1, 10):
        ann.send(bob.address, str(number))
        ann.send(cid.address, str(number))
    wait_until(lambda: len(got) == 9, 5, "the other one is not paused")
    assert sum(printer.attempts.values()) == 1
    printer.works.set()
    seen: list[float] = []
    chat.on_event(lambda event: seen.append(event["at"]) if event["hop"] == "handled" and event["user"] == bob.name else None)
    wait_until(lambda: len(printer.printed) == 10, 20, "all are printed")
    assert seen[0] - paused["at"] >= 1.45


def test_a_success_in_between_starts_the_count_again(chat: Chat, unique: Unique) -> None:
    """Every second message fails: not a dependency that is down, and no reason to pause."""
    ann, bob, printer = chat.user(unique("ann")), chat.user(unique("bob")), Printer(chat)
    failed: set[str] = set()

    def handler(message: ReceivedMessage) -> None:
        if int(message.content) % 2 and message.content not in failed:
            failed.add(message.content)
            raise RuntimeError("every second one, once")
        printer.printed[message.content] += 1

    bob.on_message(handler, pause_after=2, pause_for=30)
    for number in range(20):
        ann.send(bob.address, str(number))
    wait_until(lambda: len(printer.printed) == 20, 20, "all are handled")
    assert not printer.paused and len(failed) == 10


def test_another_handler_is_not_paused_for_the_first_ones_failures(chat: Chat, unique: Unique) -> None:
    ann, bob, printer = chat.user(unique("ann")), chat.user(unique("bob")), Printer(chat)
    bob.on_message(printer, pause_after=1, pause_for=60)
    ann.send(bob.address, "0")
    wait_until(lambda: printer.paused, 10, "it pauses")
    got: list[str] = []
    bob.on_message(lambda message: got.append(message.content))
    ann.send(bob.address, "1")
    wait_until(lambda: sorted(got) == ["0", "1"], 10, "the new one takes both")
    assert not bob.is_paused


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_pause_after_nothing_is_refused(chat: Chat, unique: Unique, wrong: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        chat.user(unique("bob")).on_message(print, pause_after=wrong)


@pytest.mark.parametrize(("wrong", "error"), [(math.nan, ValueError), (None, TypeError), ("5", TypeError)])
def test_a_pause_for_no_time_is_refused_and_the_handler_stays(chat: Chat, unique: Unique, wrong: float, error: type[Exception]) -> None:
    bob, got = chat.user(unique("bob")), []
    bob.on_message(lambda message: got.append(message.content))
    with pytest.raises(error, match="pause_for must be a number of seconds"):
        bob.on_message(print, pause_after=1, pause_for=wrong)
    bob.send(bob.address, "0")
    wait_until(lambda: got == ["0"], 10, "the first one has it")


def timers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_a_pause_for_ever_lasts_until_there_is_another_handler(chat: Chat, unique: Unique) -> None:
    bob, printer, got = chat.user(unique("bob")), Printer(chat), []
    bob.on_message(printer, pause_after=1, pause_for=math.inf)
    bob.send(bob.address, "0")
    wait_until(lambda: printer.paused and timers(), 10, "it pauses")
    assert bob.is_paused
    bob.on_message(lambda message: got.append(message.content))
    wait_until(lambda: got == ["0"] and not timers(), 10, "the other one has it, and nobody waits for the end of the pause")
    assert not bob.is_paused


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_closed_chat_waits_for_the_end_of_no_pause(broker: LocalBroker, unique: Unique, when: str) -> None:
    """Whether the handler failed before the chat was closed, or is at it meanwhile."""
    inside, gate = threading.Event(), threading.Event()

    def handler(message: ReceivedMessage) -> None:
        inside.set()
        gate.wait(20)
        raise OSError("the printer is off")

    chat = chatlib.connect(broker, settings=FEW)
    bob, paused = chat.user(unique("bob")), Printer(chat).paused
    bob.on_message(handler, pause_after=1, pause_for=600)
    bob.send(bob.address, "0")
    assert inside.wait(10)
    if when == "before":
        gate.set()
        wait_until(lambda: paused and timers(), 10, "it pauses")
        chat.close()
    else:
        closing = threading.Thread(target=chat.close)
        closing.start()
        wait_until(lambda: bob._inbox._closed, 10, "it is closing")
        gate.set()
        closing.join(20)
        assert paused and not closing.is_alive()
    wait_until(lambda: not timers(), 5, "no timer is left")
