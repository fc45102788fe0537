"""The way to a group's history, with the broker's answers given by hand: a real one is silent only after some kills of RabbitMQ 3.10."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chatlib.envelope import CONFIRMED, LOST, RETURNED, Outgoing
from chatlib.gate import PAUSE, SILENCE, Gate
from chatlib.topology import GROUPS, HISTORIES

SAID = Outgoing(GROUPS.name, "team", b"x", "1", "SEND_MESSAGE", 0, lambda *_: None)
LATER = Outgoing(GROUPS.name, "team", b"x", "2", "SEND_MESSAGE", 0, lambda *_: None)


class Channel:
    """What was written to it, what is to be called later, and how often it was found silent."""

    def __init__(self) -> None:
        self.written: list[Outgoing] = []
        self.calls: list[tuple[float, Callable[[], None]]] = []
        self.found_silent = 0
        self.released: list[Outgoing] = []
        self.gate = Gate(self.written.append, lambda seconds, call: self.calls.append((seconds, call)), self.released.extend, self.silent)

    def silent(self) -> None:
        self.found_silent += 1

    def answer(self, outcome: str) -> None:
        """The broker's answer to the last that was written."""
        last = self.written[-1]
        last.on_outcome(last, outcome, "")

    def after(self, seconds: float) -> None:
        """So long has passed: all that was to be called then is."""
        due, self.calls = [call for when, call in self.calls if when <= seconds], [each for each in self.calls if each[0] > seconds]
        for call in due:
            call()


@pytest.fixture
def channel() -> Channel:
    """One that has asked for the group, which keeps a history; its mark is on the way."""
    made = Channel()
    made.gate.hold(SAID)
    assert [probe.exchange for probe in made.written] == [HISTORIES.name] and not made.gate.lets(SAID)
    made.answer(CONFIRMED)
    assert [probe.key for probe in made.written[1:]] == ["history.team"] and not made.gate.lets(SAID)
    return made


def test_a_group_without_a_history_waits_for_one_answer() -> None:
    channel = Channel()
    channel.gate.hold(SAID)
    channel.gate.hold(LATER)
    assert len(channel.gate) == 2
    channel.answer(RETURNED)
    assert channel.gate.lets(SAID) and len(channel.written) == 1
    assert channel.released == [SAID, LATER] and not len(channel.gate)


def test_a_mark_is_written_until_the_stream_takes_it(channel: Channel) -> None:
    channel.answer(RETURNED)
    channel.after(PAUSE)
    assert len(channel.written) == 3 and not channel.gate.lets(SAID)
    channel.answer(CONFIRMED)
    assert channel.gate.lets(SAID) and channel.released == [SAID]
    channel.after(SILENCE)
    assert not channel.found_silent, "each mark had its answer"


def test_a_mark_without_an_answer_needs_another_channel(channel: Channel) -> None:
    channel.after(SILENCE)
    assert channel.found_silent == 1 and not channel.gate.lets(SAID)
    for said in channel.gate.drain():
        channel.gate.hold(said)
    channel.answer(CONFIRMED)
    channel.after(SILENCE)
    assert channel.found_silent == 1, "it has more time now"
    channel.after(2 * SILENCE)
    assert channel.found_silent == 2


def test_what_belongs_to_an_earlier_channel_means_nothing(channel: Channel) -> None:
    assert channel.gate.drain() == [SAID]
    channel.answer(LOST)
    channel.after(SILENCE)
    assert not channel.found_silent and not channel.gate.lets(SAID) and not channel.released
    channel.gate.hold(SAID)
    assert len(channel.written) == 3, "it asks anew"
