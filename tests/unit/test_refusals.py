"""Refusals: what was refused is held until somebody has looked, and then rejected or sent again, in its order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chatlib import refusals
from chatlib.envelope import Outgoing
from chatlib.refusals import Refusals

Decide = Callable[[bool | None], None]


class Stand:
    """Refusals with everything around them written down."""

    def __init__(self) -> None:
        self.again = 0
        self.rejected: list[str] = []
        self.asked: list[tuple[str, Decide]] = []
        self.timers: list[Callable[[], None]] = []
        self.held = Refusals(lambda _, function: self.timers.append(function), self.go_again, self.reject)
        self.held.judge = lambda outgoing, decide: self.asked.append((outgoing.message_id, decide))

    def go_again(self) -> None:
        self.again += 1

    def reject(self, those: list[Outgoing]) -> None:
        self.rejected += [outgoing.message_id for outgoing in those]

    def time_passes(self) -> None:
        timers, self.timers = self.timers, []
        for timer in timers:
            timer()


def message(message_id: str, key: str = "bob", **options: bool) -> Outgoing:
    return Outgoing("chat.users", key, b"", message_id, "SEND_MESSAGE", 0, lambda *_: None, **options)


@pytest.fixture
def stand() -> Stand:
    return Stand()


def test_a_full_inbox_rejects_all_that_was_held_for_it_and_nothing_else(stand: Stand) -> None:
    assert all(stand.held.takes(message(each)) for each in ("1", "2"))
    assert stand.held.takes(message("3", "cid"))
    assert [asked for asked, _ in stand.asked] == ["1", "3"], "one question for each address"
    assert len(stand.held) == 3 and stand.held.holds(message("4")) and not stand.held.holds(message("5", "dan"))
    stand.asked[0][1](True)
    assert stand.rejected == ["1", "2"] and not stand.held.holds(message("4")) and stand.held.holds(message("6", "cid"))
    stand.time_passes()
    assert stand.again == 0


def test_what_is_not_full_goes_out_again_once_in_its_order(stand: Stand) -> None:
    for number in ("1", "2", "3"):
        stand.held.takes(message(number))
    stand.held.takes(message("4", "cid"))
    for _, decide in stand.asked:
        decide(False)
    assert stand.again == 0 and stand.held.holds(message("5")), "not at once, and nothing overtakes"
    stand.time_passes()
    assert (stand.again, stand.rejected) == (1, [])
    assert [outgoing.message_id for outgoing in stand.held.drain()] == ["1", "2", "3", "4"]
    assert len(stand.held) == 0 and not stand.held.holds(message("5"))


def test_a_word_about_a_channel_that_is_gone_means_nothing(stand: Stand) -> None:
    stand.held.takes(message("1"))
    stand.held.takes(message("2", "cid"))
    stand.asked[1][1](False)
    stand.held.drain()
    stand.asked[0][1](True)
    stand.time_passes()
    assert (stand.again, stand.rejected) == (0, [])


def test_where_nobody_can_tell_it_is_tried_for_a_while(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    stand.held.takes(message("1"))
    stand.asked[0][1](None)
    stand.time_passes()
    assert (stand.again, stand.rejected) == (1, [])
    stand.held.drain()
    monkeypatch.setattr(refusals, "PATIENCE", 0.0)
    stand.held.takes(message("1"))
    stand.asked[1][1](None)
    assert stand.rejected == ["1"]


def test_the_while_begins_anew_when_something_was_accepted(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "PATIENCE", 3600.0)
    stand.held.takes(message("1"))
    since = dict(stand.held._since)
    stand.held.accepted(message("2", "cid"))
    assert stand.held._since == since
    stand.held.accepted(message("0"))
    assert stand.held._since == {}


def test_who_decides_for_himself_is_told_at_once(stand: Stand) -> None:
    """A copy for a retry queue goes elsewhere when it is refused."""
    assert not stand.held.takes(message("1", once=True)) and stand.asked == []


def test_a_probe_that_is_refused_is_nobodys_message_and_another_channel_is_tried(stand: Stand) -> None:
    assert stand.held.takes(message("mark", once=True, silent=True)) and len(stand.held) == 0
    stand.time_passes()
    assert stand.again == 1


def test_without_a_judge_nothing_is_taken(stand: Stand) -> None:
    stand.held.judge = None
    assert not stand.held.takes(message("1")) and not stand.held.holds(message("1"))


def test_of_nobodys_messages_only_those_that_are_not_written_again_are_swallowed(stand: Stand) -> None:
    """Whoever waits for the outcome of a mark hears that it was refused, and writes another one."""
    assert stand.held.takes(message("probe", silent=True, once=True))
    assert not stand.held.takes(message("mark", silent=True))
    stand.time_passes()
    assert stand.again == 1 and stand.asked == [] and len(stand.held) == 0
