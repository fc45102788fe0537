"""The model of a chat room, and how it looks: nothing here needs a broker, a widget or a browser."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from chatlib.errors import AccessRefused, InboxFull, Unroutable
from chatlib.lab.widgets import room_model
from chatlib.lab.widgets.room_model import RoomModel
from chatlib.lab.widgets.room_presenter import LONGEST, hue, pane, record, still, words
from chatlib.lab.widgets.room_state import Message
from chatlib.link import LinkState
from chatlib.messages import ReadStatus, SendMessage, compose, new_message_id
from chatlib.names import parse_address
from chatlib.received import ReceivedMessage
from chatlib.sent import SentMessage, SentState

NOWHERE: Any = None  # no inbox and no delivery: nothing here is settled


def sent(sender: str, to: str, content: str = "hello") -> SentMessage:
    return SentMessage(compose(new_message_id(), sender, parse_address(to), content, time.time()), lambda _: None)


def received(message: SentMessage) -> ReceivedMessage:
    return ReceivedMessage(message._message, 1, (), NOWHERE, NOWHERE)


def foreign(sender: str, to: str, number: int) -> ReceivedMessage:
    address = parse_address(to)
    group, person = (address.name, None) if address.is_group else (None, address.name)
    return ReceivedMessage(SendMessage(f"{number:026}", sender, group, person, "x", datetime.now(UTC)), 1, (), NOWHERE, NOWHERE)


def said(model: RoomModel, name: str, address: str) -> list[str]:
    """The contents of a conversation in a pane, in their order there."""
    index = model.names.index(name)
    here = [each for each in model.messages() if index in each.places]
    mine = [each for each in here if address == (each.to if each.is_group or each.sender == name else f"@{each.sender}")]
    return [each.content for each in sorted(mine, key=lambda each: each.places[index])]


def unread(model: RoomModel, name: str) -> dict[str, int]:
    now = model.now().panes[model.names.index(name)]
    return {each.address: each.unread for each in now.conversations if each.unread}


def tells(model: RoomModel, message: SentMessage) -> str:
    return words(next(each for each in model.messages() if each.message_id == message.message_id)).text


# ---- who has what in front of him --------------------------------------------------------------------------------------------


def test_a_message_is_in_the_pane_of_its_sender_at_once_and_in_others_when_they_have_it() -> None:
    model = RoomModel(["alice", "bob"], ["#team"])
    one = sent("alice", "#team", "one")
    model.say(one)
    model.say(one)  # an event and a click may both tell
    assert (said(model, "alice", "#team"), said(model, "bob", "#team")) == (["one"], [])
    model.hear("bob", received(one))
    model.hear("bob", received(one))  # an ack was lost
    assert (said(model, "alice", "#team"), said(model, "bob", "#team")) == (["one"], ["one"])


def test_what_is_heard_before_its_sender_is_known_to_have_said_it_is_one_message() -> None:
    model = RoomModel(["alice", "bob"])
    quick = sent("alice", "@bob", "quick")
    model.hear("bob", received(quick))
    model.say(quick)
    assert len(model.messages()) == 1
    assert (said(model, "alice", "@bob"), said(model, "bob", "@alice")) == (["quick"], ["quick"])


def test_each_pane_keeps_its_own_order() -> None:
    model = RoomModel(["alice", "bob"], ["#team"])
    first, second = sent("alice", "#team", "first"), sent("bob", "#team", "second")
    model.say(first)
    model.say(second)
    model.hear("alice", received(second))
    model.hear("bob", received(first))
    assert said(model, "alice", "#team") == ["first", "second"]
    assert said(model, "bob", "#team") == ["second", "first"]


def test_unread_is_what_came_while_its_conversation_was_not_open_and_the_last_message_stands_for_all() -> None:
    model = RoomModel(["bob", "alice"], ["#team"])
    messages = [sent("alice", "@bob", str(number)) for number in range(3)]
    for message in messages:
        model.hear("bob", received(message))
    assert unread(model, "bob") == {"@alice": 3}
    assert model.to_read() == []  # the group is open
    model.open("bob", "@alice")
    assert [each.message_id for each in model.to_read()] == [messages[-1].message_id]
    assert unread(model, "bob") == {}
    assert model.to_read() == []
    model.open("bob", "")
    model.hear("bob", received(sent("alice", "@bob")))
    assert unread(model, "bob") == {"@alice": 1}


def test_a_stranger_opens_a_conversation_of_his_own() -> None:
    model = RoomModel(["bob"])
    model.hear("bob", foreign("Mötley|{}[]^", "@bob", 1))
    model.hear("bob", foreign("🦊", "#שלום", 2))
    assert [each.address for each in model.now().panes[0].conversations] == ["@Mötley|{}[]^", "#שלום"]
    model.say(sent("stranger", "@bob"))  # nobody of the room: not ours to tick
    assert len(model.messages()) == 2


def test_words_to_oneself_are_one_line() -> None:
    model = RoomModel(["alice"])
    note = sent("alice", "@alice", "note")
    model.say(note)
    model.hear("alice", received(note))
    assert said(model, "alice", "@alice") == ["note"]


def test_of_each_conversation_only_the_last_are_kept_and_nothing_of_the_others() -> None:
    model = RoomModel(["alice", "bob"], ["#team"], limit=5)
    messages = [sent("alice", "#team", str(number)) for number in range(20)]
    for message in messages:
        model.say(message)
    for message in messages[:12]:
        model.hear("bob", received(message))
    assert said(model, "alice", "#team") == ["15", "16", "17", "18", "19"]
    assert said(model, "bob", "#team") == ["7", "8", "9", "10", "11"]
    assert len(model.messages()) == len(model._messages) == 10
    for message in messages:
        message._settle(SentState.CONFIRMED, None)  # also of what is gone
    assert model.now().pending == 0 and len(model._uncounted) <= 10


# ---- changes ---------------------------------------------------------------------------------------------------------------------


def test_a_look_sees_what_has_changed_since_the_last() -> None:
    model = RoomModel(["alice", "bob"])
    one, two = sent("alice", "@bob", "one"), sent("alice", "@bob", "two")
    model.say(one)
    model.say(two)
    taken = model.take()
    assert [each.content for each in taken.changed] == ["one", "two"] and taken.pending == 2
    assert model.take().changed == ()
    one._settle(SentState.CONFIRMED, None)
    taken = model.take()
    assert [each.content for each in taken.changed] == ["one"] and taken.pending == 1
    one._receipt("bob", "delivered")
    assert [dict(each.receipts) for each in model.take().changed] == [{"bob": "delivered"}]


def test_what_was_settled_before_the_room_saw_it_is_shown_as_it_is() -> None:
    model = RoomModel(["alice"])
    quick = sent("alice", "@bob")
    quick._settle(SentState.CONFIRMED, None)
    quick._receipt("bob", "read")
    model.say(quick)
    assert tells(model, quick) == "read" and model.now().pending == 0


def test_a_refused_click_is_answered_with_the_reason() -> None:
    model = RoomModel(["alice"])
    model.begin("alice", "joining #a")
    assert pane(model.now().panes[0], model.names)["status"] == "joining #a…"
    model.answer("alice", "7", "the broker is away", "joining #a")
    now = pane(model.now().panes[0], model.names)
    assert (now["answers"], now["notice"], now["busy"]) == ([["7", "the broker is away"]], "the broker is away", False)
    model.answer("alice", "8")
    assert pane(model.now().panes[0], model.names)["notice"] == ""


def test_threads_that_say_hear_and_look_at_once_lose_nothing() -> None:
    model = RoomModel(["alice", "bob"], ["#team"], limit=1000)
    messages = [sent("alice", "#team", str(number)) for number in range(400)]
    seen: dict[str, Message] = {}
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.update({each.message_id: each for each in model.take().changed})

    def settle() -> None:
        for message in messages:
            message._settle(SentState.CONFIRMED, None)
            message._receipt("bob", "delivered")

    def each_of(act: Any) -> threading.Thread:
        return threading.Thread(target=act)

    looker = each_of(look)
    workers = [
        each_of(lambda: [model.say(each) for each in messages]),
        each_of(lambda: [model.hear("bob", received(each)) for each in messages]),
        each_of(settle),
        each_of(lambda: [model.set_members("#team", ["alice", "bob"]) for _ in range(50)]),
    ]
    looker.start()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    done.set()
    looker.join(20)
    seen.update({each.message_id: each for each in model.take().changed})
    assert {each.message_id for each in messages} == set(seen)
    assert all(each.state == "confirmed" and each.receipts == {"bob": "delivered"} and set(each.places) == {0, 1} for each in seen.values())
    assert model.now().pending == 0


# ---- n of m ----------------------------------------------------------------------------------------------------------------------


def test_of_how_many_is_asked_after_the_confirm_and_until_then_nobody_claims_that_all_have_it() -> None:
    model = RoomModel(["alice", "bob", "carol"], ["#team"])
    assert model.take_stale() == ["#team"] and not model.has_stale
    message = sent("alice", "#team")
    model.say(message)
    assert tells(model, message) == "pending"
    message._settle(SentState.CONFIRMED, None)
    message._receipt("bob", "delivered")
    now = words(model.messages()[0])
    assert (now.text, now.kind) == ("delivered to 1", "confirmed")
    assert model.take_stale() == ["#team"]
    model.set_members("#team", ["alice", "bob", "carol"])
    assert tells(model, message) == "delivered to 1 of 2"
    message._receipt("carol", "read")
    assert words(model.messages()[0]) == ("delivered to 2 of 2, read by 1", "delivered")
    message._receipt("bob", "read")
    assert words(model.messages()[0]) == ("read by 2 of 2", "read")


def test_a_fresh_answer_serves_for_the_next_messages_until_somebody_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    model = RoomModel(["alice", "bob"], ["#team"])
    model.take_stale()
    model.set_members("#team", ["alice", "bob"])
    message = sent("alice", "#team")
    model.say(message)
    message._settle(SentState.CONFIRMED, None)
    assert not model.has_stale and model.messages()[0].audience == 1
    model.set_member("dave", "#team", True)
    assert model.take_stale() == ["#team"]
    model.set_members("#team", ["alice", "bob", "dave"])
    monkeypatch.setattr(room_model, "FRESH", 0.0)
    later = sent("alice", "#team")
    model.say(later)
    assert model.messages()[1].audience == 2
    later._settle(SentState.CONFIRMED, None)
    assert model.take_stale() == ["#team"]


def test_who_comes_or_goes_after_the_confirm_does_not_change_for_how_many_it_was() -> None:
    model = RoomModel(["alice", "bob"], ["#team"])
    message = sent("alice", "#team")
    model.say(message)
    model.set_member("carol", "#team", True)
    message._settle(SentState.CONFIRMED, None)
    model.set_member("dave", "#team", True)
    model.set_member("bob", "#team", False)
    model.take_stale()
    model.set_members("#team", ["alice", "carol", "dave"])
    assert model.messages()[0].audience == 2  # bob and carol


def test_where_nobody_can_tell_who_is_in_a_group_the_count_stands_alone_and_is_asked_again() -> None:
    model = RoomModel(["alice"], ["#team"])
    model.take_stale()
    message = sent("alice", "#team")
    model.say(message)
    message._settle(SentState.CONFIRMED, None)
    message._receipt("bob", "delivered")
    model.take_stale()
    model.again("#team")
    assert model.has_stale
    assert words(model.messages()[0]) == ("delivered to 1", "delivered")


def test_after_a_reconnect_all_groups_are_asked_for_again() -> None:
    model = RoomModel(["alice"], ["#team"])
    model.take_stale()
    model.set_members("#team", ["alice"])
    model.set_link(LinkState.RECOVERING, "", 0)
    assert not model.has_stale
    model.set_link(LinkState.CONNECTED, "", 1)
    assert model.take_stale() == ["#team"]


# ---- how it looks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "state", "error", "receipts", "text", "kind"),
    [
        ("@bob", SentState.PENDING, None, {}, "pending", "pending"),
        ("@bob", SentState.CONFIRMED, None, {}, "confirmed", "confirmed"),
        ("@bob", SentState.PENDING, None, {"bob": "delivered"}, "delivered", "delivered"),
        ("@bob", SentState.CONFIRMED, None, {"bob": "read"}, "read", "read"),
        ("@nobody", SentState.RETURNED, Unroutable("x"), {}, "returned: there is no user @nobody", "failed"),
        ("#empty", SentState.RETURNED, Unroutable("x"), {}, "returned: nobody is in #empty", "failed"),
        ("@bob", SentState.REJECTED, InboxFull("x", ("bob",)), {}, "rejected: the inbox of bob is full", "failed"),
        ("#team", SentState.REJECTED, InboxFull("x"), {}, "rejected: the inbox of somebody is full", "failed"),
        ("#team", SentState.REJECTED, AccessRefused("x"), {}, "rejected: no permission to send this", "failed"),
    ],
)
def test_what_became_of_a_message_in_words(
    to: str, state: SentState, error: Any, receipts: dict[str, ReadStatus], text: str, kind: str
) -> None:
    message = Message("1", "alice", to, "x", 0.0, {0: 1}, state, error, receipts, None, False)
    assert words(message) == (text, kind)
    assert words(replace(message, state=None)) == ("", "")


def test_people_of_the_room_have_colours_of_their_own_and_a_stranger_always_the_same() -> None:
    names = [f"user-{number}" for number in range(6)]
    assert len({hue(name, names) for name in names}) == 6
    assert hue("stranger", names) == hue("stranger", [])


def test_a_huge_message_is_cut_for_the_screen_with_its_length() -> None:
    message = Message("1", "alice", "@bob", "x" * 60_000, 0.0, {0: 1}, None, None, {}, None, False)
    shown = record(message, ["alice"])["text"]
    assert len(shown) < LONGEST + 30 and shown.endswith("… (60,000 characters)")


def test_what_waits_for_somebody_away_is_told_and_forgotten_when_he_is_back() -> None:
    model = RoomModel(["bob"])
    model.set_online("bob", True)
    assert pane(model.now().panes[0], model.names)["status"] == "online"
    model.set_online("bob", False)
    assert pane(model.now().panes[0], model.names)["status"] == "away"
    model.set_waiting("bob", 3)
    assert pane(model.now().panes[0], model.names)["status"] == "away: 3 messages in the inbox"
    model.set_online("bob", True, deaf=True)
    now = pane(model.now().panes[0], model.names)
    assert (now["status"], now["waiting"]) == ("other code takes the messages", None)


def test_the_picture_holds_what_is_in_front_of_people_and_nothing_of_it_is_code() -> None:
    model = RoomModel(["<b>al</b>", "bob"], ["#<i>"])
    message = sent("<b>al</b>", "#<i>", "<script>alert(1)</script>")
    model.say(message)
    model.hear("bob", received(message))
    model.say(sent("bob", "@<b>al</b>", "not open, not pictured"))
    picture = still(model.now(), model.messages())
    assert picture.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2
    assert "pending" in picture and "not pictured" not in picture
    assert not any(tag in picture for tag in ("<script", "<i>", "<b>al"))
