"""The chat room on a real broker, without a browser: what is clicked is done, and what the browser is to show is in the traits."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import chatlib
from chatlib.brokers import LocalBroker
from chatlib.chat import Chat
from chatlib.errors import InvalidAddress, InvalidName
from chatlib.lab.widgets.room import NEWS, Room
from tests.support import wait_until

HARD = ["Mötley|{}[]^", "🦊", "<b>al</b>", "שלום"]
numbers = itertools.count()


@pytest.fixture(scope="module")
def chat(broker: LocalBroker) -> Iterator[Chat]:
    with chatlib.connect(broker) as opened:
        yield opened


@pytest.fixture
def make(chat: Chat) -> Iterator[Callable[..., Room]]:
    """Makes rooms in the chat of this module; they are closed at the end."""
    rooms: list[Room] = []

    def room(*arguments: Any) -> Room:
        rooms.append(Room(chat, *arguments))
        return rooms[-1]

    yield room
    for each in rooms:
        each.close()


def click(room: Room, pane: int, do: str, **content: Any) -> str:
    """As the browser says it; returns the number of the click."""
    number = str(next(numbers))
    room._on_click(room, {"do": do, "pane": pane, "number": number, **content}, [])
    return number


def answer(room: Room, pane: int, number: str) -> str:
    """Wait for the answer to a click."""
    return str(wait_until(lambda: [why or "done" for known, why in room.panes[pane]["answers"] if known == number], 30, "an answer")[0])


def shown(room: Room, pane: int) -> dict[str, dict[str, Any]]:
    """What a pane shows, by content, in its order."""
    latest = {each["id"]: each for each in [*room.kept, *room.news]}
    here = [each for each in latest.values() if str(pane) in each["places"]]
    return {each["text"]: each for each in sorted(here, key=lambda each: each["places"][str(pane)])}


def becomes(room: Room, pane: int, text: str, words: str) -> None:
    def now() -> str:
        seen = shown(room, pane)[text]["words"]
        assert seen == words
        return str(seen)

    wait_until(now, 30, f"{text!r} is {words}")


def unread(room: Room, pane: int) -> dict[str, int]:
    return {each["address"]: each["unread"] for each in room.panes[pane]["conversations"] if each["unread"]}


# ---- talking -----------------------------------------------------------------------------------------------------------------------


def test_what_alice_types_bob_has_with_its_ticks_and_reads_when_he_opens_it(
    make: Callable[..., Room], unique: Callable[[str], str]
) -> None:
    alice, bob, carol, group = unique("alice"), unique("bob"), unique("carol"), f"#{unique('team')}"
    room = make([alice, bob, carol], [group])
    assert answer(room, 0, click(room, 0, "send", to=f"@{bob}", text="psst")) == "done"
    becomes(room, 0, "psst", "delivered")  # his open conversation is the group
    wait_until(lambda: unread(room, 1) == {f"@{alice}": 1}, 10, "it is unread")
    click(room, 1, "open", to=f"@{alice}")
    becomes(room, 0, "psst", "read")
    wait_until(lambda: unread(room, 1) == {}, 10, "nothing is unread")
    click(room, 0, "send", to=group, text="hello")
    becomes(room, 0, "hello", "delivered to 2 of 2, read by 1")
    room.open_conversation(bob, group)
    becomes(room, 0, "hello", "read by 2 of 2")


def test_what_a_cell_sends_is_shown_even_if_nobody_keeps_it(make: Callable[..., Room], chat: Chat, unique: Callable[[str], str]) -> None:
    alice, bob = unique("alice"), unique("bob")
    room = make([alice, bob])
    for number in range(20):
        chat.user(alice).send(f"@{bob}", str(number))
    becomes(room, 0, "19", "read")
    assert list(shown(room, 0)) == [str(number) for number in range(20)]
    assert {each["words"] for each in shown(room, 0).values()} == {"read"}
    wait_until(lambda: len(shown(room, 1)) == 20, 10, "bob has them")


def test_who_is_switched_off_collects_in_his_inbox(make: Callable[..., Room], unique: Callable[[str], str]) -> None:
    alice, bob = unique("alice"), unique("bob")
    room = make([alice, bob])
    assert answer(room, 1, click(room, 1, "online", on=False)) == "done"
    for number in range(3):
        click(room, 0, "send", to=f"@{bob}", text=f"for later {number}")
    becomes(room, 0, "for later 2", "confirmed")
    wait_until(lambda: room.panes[1]["status"] == "away: 3 messages in the inbox", 20, "the broker was asked")
    assert not room.panes[1]["online"] and shown(room, 1) == {}
    click(room, 1, "online", on=True)
    becomes(room, 0, "for later 2", "read")
    assert list(shown(room, 1)) == ["for later 0", "for later 1", "for later 2"]
    assert room.panes[1]["status"] == "online"


def test_joining_and_leaving_change_who_gets_it(make: Callable[..., Room], unique: Callable[[str], str]) -> None:
    alice, bob, group = unique("alice"), unique("bob"), f"#{unique('team')}"
    room = make([alice, bob], {group: []})
    click(room, 0, "send", to=group, text="anybody?")
    becomes(room, 0, "anybody?", f"returned: nobody is in {group}")
    assert "join first" in shown(room, 0)["anybody?"]["why"]
    assert answer(room, 1, click(room, 1, "join", group=group)) == "done"
    assert room.panes[1]["open"] == group
    click(room, 0, "send", to=group, text="now?")
    becomes(room, 0, "now?", "read by 1 of 1")
    wait_until(lambda: room.panes[0]["conversations"][0]["about"] == f"1 member: {bob}", 20, "who is in it is known")
    assert answer(room, 1, click(room, 1, "leave", group=group)) == "done"
    wait_until(lambda: not room.panes[1]["conversations"][0]["member"], 10, "he is out")


def test_what_is_refused_says_why_and_harms_nobody(make: Callable[..., Room], unique: Callable[[str], str]) -> None:
    alice, stranger = unique("alice"), unique("nobody")
    room = make([alice])
    assert "65,536 bytes" in answer(room, 0, click(room, 0, "send", to=f"@{alice}", text="x" * 70_000))
    assert "an address is" in answer(room, 0, click(room, 0, "send", to="bob", text="x"))
    assert "spaces" in answer(room, 0, click(room, 0, "open", to="@a b"))
    assert "only groups" in answer(room, 0, click(room, 0, "join", group="@bob"))
    for nonsense in (
        None,
        [],
        {},
        {"do": "send"},
        {"do": "open", "pane": 9, "to": "#a"},
        {"do": "x", "pane": 0},
        {"do": "open", "pane": 0, "to": "x"},
    ):
        room._on_click(room, nonsense, [])
    click(room, 0, "send", to=f"@{stranger}", text="hello?")
    becomes(room, 0, "hello?", f"returned: there is no user @{stranger}")
    assert room.error == "" and room.panes[0]["notice"] == ""


def test_names_of_every_kind_talk(make: Callable[..., Room], unique: Callable[[str], str]) -> None:
    names = [f"{name}-{unique('x')}" for name in HARD]
    group = f"#{unique('x')}-<i>|{{}}^🦊-שלום"
    room = make(names, [group])
    assert room.names == names
    click(room, 3, "send", to=group, text="<script>alert(1)</script>")
    becomes(room, 3, "<script>alert(1)</script>", "read by 3 of 3")
    assert "<script" not in room.still()["text/html"]


def test_a_flood_is_bounded_and_its_end_is_there(make: Callable[..., Room], chat: Chat, unique: Callable[[str], str]) -> None:
    alice, bob = unique("alice"), unique("bob")
    room = make([alice, bob])
    chat.user(alice).send_many((f"@{bob}", str(number)) for number in range(1000))
    becomes(room, 0, "999", "read")
    wait_until(lambda: "999" in shown(room, 1), 10, "bob has the last")
    assert len(room._model.messages()) <= 2 * room.limit
    assert len(room.news) <= NEWS


# ---- manners -----------------------------------------------------------------------------------------------------------------------


def test_a_room_shows_one_to_six_people_with_proper_names(chat: Chat) -> None:
    for users in ([], [f"user-{number}" for number in range(7)]):
        with pytest.raises(ValueError, match="1 to 6"):
            Room(chat, users)
    with pytest.raises(InvalidName):
        Room(chat, ["a b"])
    with pytest.raises(InvalidAddress):
        Room(chat, ["alice"], ["team"])
    with pytest.raises(ValueError, match="dave"):
        Room(chat, ["alice"], {"#team": ["dave"]})


def test_the_handlers_come_back_when_the_room_is_closed(make: Callable[..., Room], chat: Chat, unique: Callable[[str], str]) -> None:
    name = unique("bob")
    user, heard = chat.user(name), []
    user.on_message(lambda message: heard.append(message.content), pause_after=3, pause_for=7.0)
    mine = user._handler
    first = make([name])
    second = make([name])
    wait_until(lambda: first.panes[0]["status"] == "other code takes the messages", 10, "the first room knows")
    first.close()
    first.close()
    second.close()
    assert (user._handler, user._pause_after, user._pause_for) == (mine, 3, 7.0)
    user.send(f"@{name}", "to the handler")
    wait_until(lambda: heard == ["to the handler"], 10, "the handler has it")
    third = make([name])
    user.on_message(None)  # a cell takes the messages while the room is open: what it does counts
    third.close()
    assert user._handler is None


def test_a_room_can_be_stopped_started_and_closed_any_number_of_times(make: Callable[..., Room], unique: Callable[[str], str]) -> None:
    alice = unique("alice")
    room = make([alice])
    room.stop()
    room.stop()
    click(room, 0, "send", to=f"@{alice}", text="meanwhile")
    assert not room.is_running
    room.start().start()
    wait_until(lambda: "meanwhile" in shown(room, 0), 10, "it is shown")
    assert repr(room) == "<Room>"
    room.close()
    room.close()
    assert not any(thread.name.startswith("lab-Room") for thread in threading.enumerate())
    with pytest.raises(RuntimeError, match="closed"):
        room.start()
    click(room, 0, "send", to=f"@{alice}", text="too late")


def test_an_answer_never_stands_above_its_question(chat: Chat, unique: Callable[[str], str]) -> None:
    """Cells say ten things in turns, each when the one before has come, faster than the room looks."""
    a, b = unique("alice"), unique("bob")
    room = Room(chat, [a, b])
    try:
        for number in range(10):
            sent = chat.user((a, b)[number % 2]).send("@" + (b, a)[number % 2], f"turn {number}")
            wait_until(lambda sent=sent: sent.receipts, 20, "it has come")  # type: ignore[misc]
        room.open_conversation(a, f"@{b}")
        wait_until(lambda: len(shown(room, 0)) == 10, 10, "all are shown")
        assert list(shown(room, 0)) == [f"turn {number}" for number in range(10)]
    finally:
        room.close()


def test_a_closed_room_is_let_go(chat: Chat, unique: Callable[[str], str]) -> None:
    room = Room(chat, [unique("alice")])
    model = weakref.ref(room._model)
    room.close()
    del room
    wait_until(lambda: (gc.collect(), model() is None)[1], 10, "nothing holds the model")


# ---- the broker falls --------------------------------------------------------------------------------------------------------------


def test_what_is_typed_while_the_broker_is_dead_is_pending_and_arrives(new_broker: Callable[[], LocalBroker]) -> None:
    """1 the broker is killed: the lamp says so; 2 what alice types, and what a cell sends, is pending; 3 a room can be made now, too;
    4 the broker is back: both arrive, and the second room signs its people up.
    """
    with new_broker() as broker, chatlib.connect(broker) as chat:
        room = Room(chat, ["alice", "bob"], ["#team"])
        broker.kill()
        # 1
        wait_until(lambda: room.head["state"] == "recovering", 30, "the loss is seen")
        assert "reconnecting" in room.head["text"]
        # 2
        click(room, 0, "send", to="#team", text="typed")
        chat.user("bob").send("#team", "from a cell")
        wait_until(lambda: room.head["note"] == "2 pending", 10, "both are shown")
        assert shown(room, 0)["typed"]["words"] == shown(room, 1)["from a cell"]["words"] == "pending"
        # 3
        late = Room(chat, ["carol"], ["#late"])
        assert "not signed up yet" in answer(late, 0, click(late, 0, "send", to="#team", text="x"))
        assert late.panes[0]["status"] == "waiting for the broker to sign up…"
        # 4
        broker.start()
        becomes(room, 0, "typed", "read by 1 of 1")
        becomes(room, 1, "from a cell", "read by 1 of 1")
        wait_until(lambda: room.head["state"] == "connected", 10, "the lamp")
        assert room.head["note"] == "1 reconnect"
        wait_until(lambda: late.panes[0]["online"], 30, "carol is signed up")
        assert answer(late, 0, click(late, 0, "join", group="#team")) == "done"
        click(room, 0, "send", to="#team", text="all three")
        becomes(room, 0, "all three", "read by 2 of 2")
        for each in (room, late):
            assert each.error == ""
            each.close()
