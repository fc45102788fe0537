"""The map without a broker and without a browser: who plays which part, who stands where, what travels, and what is told."""

from __future__ import annotations

import re
import threading
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatlib import events as hops
from chatlib.events import Event
from chatlib.lab.widgets import map_svg
from chatlib.lab.widgets.map_layout import WIDTH, Box, Places, allot, arrange, boxes_of, folded_of, heads_of, height_of, natural, short
from chatlib.lab.widgets.map_lines import lines_of
from chatlib.lab.widgets.map_model import Binding, QueueFacts, Scene, Structure, label_of, scene_of
from chatlib.lab.widgets.map_traffic import BUDGET, COPIES, Traffic
from chatlib.lab.widgets.map_words import about, depth_words, figures_of, known, members_of, summary
from chatlib.lab.widgets.topology_map import GONE, WAITING, TopologyMap
from chatlib.names import escape, history_queue, inbox_queue, receipts_queue, retries_queue, retry_queue
from chatlib.topology import Exchange, Queue, base, mark_of_retries, membership, of_history, of_retries, of_retry, of_user
from tests.support import wait_until

SVG = "{http://www.w3.org/2000/svg}"
NOWHERE = "http://guest:guest@127.0.0.1:9/"  # nothing listens there


def structure(*declarations: Any, consumers: dict[str, int] | None = None) -> Structure:
    """What a broker would tell of these declarations of chatlib."""
    made = [*base(), *declarations]
    queues = [each for each in made if isinstance(each, Queue)]
    bindings = [Binding(each.source, each.key, each.queue) for each in made if not isinstance(each, Queue | Exchange)]
    return Structure(
        {"": "direct", "amq.topic": "topic"} | {each.name: each.kind for each in made if isinstance(each, Exchange)},
        {each.name: QueueFacts(each.name, arguments=tuple((key, str(value)) for key, value in each.arguments)) for each in queues},
        tuple(sorted([*bindings, *(Binding("", each.name, each.name) for each in queues)])),
        consumers or {},
    )


def chat_of(*users: str, groups: dict[str, Sequence[str]] | None = None, online: Sequence[str] = (), more: Sequence[Any] = ()) -> Scene:
    """The scene of a chat with these users."""
    declared = [each for user in users for each in of_user(user, inbox_limit=100)]
    members = [membership(user, group) for group, names in (groups or {}).items() for user in names]
    return scene_of(structure(*declared, *members, *more, consumers={inbox_queue(user): 1 for user in online}))


def many(count: int) -> Scene:
    users = [f"user{number}" for number in range(1, count + 1)]
    return chat_of(*users, groups={"team": users}, online=users[:5])


def drawn(scene: Scene, places: Places | None = None, senders: Sequence[str] = ()) -> tuple[Places, dict[str, Box]]:
    found = arrange(places or Places(), scene, senders=senders)
    return found, boxes_of(scene, found)


# parts


def test_a_chat_is_sorted_into_its_parts() -> None:
    scene = chat_of(
        "ann",
        "bob",
        groups={"team": ["ann", "bob"]},
        more=[*of_retries("bob"), *of_retry(500), *of_history("team", max_age="7D", max_bytes=10**6)],
    )
    assert scene.exchanges == ("chat.users", "chat.groups")
    assert scene.queues == ("history.team", "inbox.ann", "inbox.bob")
    assert scene.hubs == {("chat.groups", "team"): ("history.team", "inbox.ann", "inbox.bob")}
    assert [each[1:3] for each in scene.direct] == [("ann", "inbox.ann"), ("bob", "inbox.bob")]
    assert scene.sides["receipts"].queues == ("receipts.ann", "receipts.bob")
    assert scene.sides["dead"].exchanges == ("chat.dead",)
    assert scene.sides["wait"].queues == ("retry.500",)
    assert scene.sides["again"].queues == ("retries.bob",)
    assert scene.users == {"inbox.ann": "ann", "inbox.bob": "bob"}


def test_what_is_of_no_interest_is_hidden_unless_it_is_asked_for() -> None:
    there = structure(mark_of_retries(0, 500), *of_history("team", max_age="7D", max_bytes=10**6))
    hidden = {"", "amq.topic", "chat.histories", "ready.history.team", "retry.settled.0.500"}
    assert not hidden & set(scene_of(there).exchanges)
    assert "histories" not in scene_of(there).queues
    shown = scene_of(there, everything=True)
    assert hidden <= set(shown.exchanges)
    assert "histories" in shown.queues


def test_other_peoples_exchanges_and_queues_are_drawn_with_their_keys() -> None:
    strange = Structure(
        {"orders": "topic", "audit": "fanout"},
        {name: QueueFacts(name) for name in ("a", "b", "c", "retry.log", "inbox.")},
        (
            Binding("orders", "eu.#", "a"),
            Binding("orders", "eu.#", "b"),
            Binding("orders", "us", "c"),
            Binding("orders", "", "audit", True),
        ),
        {"a": 2},
    )
    scene = scene_of(strange)
    _, boxes = drawn(scene)
    assert scene.hubs == {("orders", "eu.#"): ("a", "b")}
    assert set(scene.queues) == {"a", "b", "c", "retry.log", "inbox."}
    assert scene.between == (Binding("orders", "", "audit", True),)
    assert (boxes["u:a"].label, boxes["u:b"].label) == ("consumers", "nobody")
    lines = {line.id: line for line in lines_of(scene, Places(), boxes)}
    assert lines["x:orders>q:c"].label == "us"
    assert "x:orders>x:audit" in lines


def test_people_read_words_and_not_names_of_queues() -> None:
    users = {inbox_queue("b.o#b"): "b.o#b"}
    assert label_of(inbox_queue("b.o#b"), users) == "b.o#b"
    assert label_of(history_queue("a/b")) == "history of #a/b"
    assert [label_of(name) for name in ("chat.users", "chat.groups", "", "orders")] == ["users", "groups", "(default)", "orders"]


# places


names = st.lists(st.sampled_from("abcdefghij"), unique=True)


@given(st.lists(names), st.integers(1, 5))
def test_who_has_a_place_keeps_it_for_as_long_as_he_exists(rounds: list[list[str]], places: int) -> None:
    before: dict[str, int] = {}
    for wanted in rounds:
        now = allot(before, wanted, places)
        assert {name: now.get(name) for name in before if name in wanted} == {name: before[name] for name in before if name in wanted}
        assert len(set(now.values())) == len(now) == min(len(wanted), places)
        assert set(now) <= set(wanted)
        assert all(0 <= place < places for place in now.values())
        before = now


def test_a_queue_that_idles_gives_its_place_to_one_with_much_to_do_one_at_a_time() -> None:
    busy: dict[str, tuple[float, float]] = {"c": (9, 9), "d": (5, 5)}
    worth = lambda name: busy.get(name, (0.0, 0.0))  # noqa: E731
    first = allot({"a": 0, "b": 1}, ["c", "d", "a", "b"], 2, worth=worth)
    assert first == {"c": 0, "b": 1}
    assert allot(first, ["c", "d", "b"], 2, worth=worth) == {"c": 0, "d": 1}


@pytest.mark.parametrize("sitting", [(0.0, 3.0), (3.0, 3.0)])
def test_it_keeps_its_place_if_it_was_busy_lately_or_if_the_other_has_little_more(sitting: tuple[float, float]) -> None:
    worth = {"a": sitting, "b": (6.0, 6.0)}.__getitem__
    assert allot({"a": 0}, ["b", "a"], 1, worth=worth) == {"a": 0}


def test_nothing_moves_while_users_come_and_go_and_retries_and_senders_appear() -> None:
    steps = [
        chat_of("ann", "bob"),
        chat_of("ann", "bob", "cat", groups={"team": ["cat"]}),
        chat_of("bob", "cat", "dan", groups={"ops": ["cat"], "team": ["cat"]}, online=["bob"]),
        chat_of("bob", "cat", "dan", "eve", groups={"ops": ["cat"]}, more=[*of_retries("bob"), *of_retry(100)]),
        chat_of("bob", "eve", more=[*of_retry(100), *of_retry(200)]),
    ]
    places, seen = Places(), dict[str, tuple[float, float]]()
    for number, scene in enumerate(steps):
        places, boxes = drawn(scene, places, senders=["bob", "cat", "ann"][: number + 1])
        for box in boxes.values():
            assert seen.setdefault(box.id, (box.x, box.y)) == (box.x, box.y), box.id


def test_of_many_senders_the_last_have_a_place_and_nobody_else_moves() -> None:
    scene = chat_of("ann")
    places, _ = drawn(scene, senders=[f"user{number}" for number in range(8)])
    later = arrange(places, scene, senders=["new", *(f"user{number}" for number in range(8))])
    assert later.sender == {**{name: place for name, place in places.sender.items() if name != "user7"}, "new": places.sender["user7"]}


@pytest.mark.parametrize("count", [0, 1, 10, 11, 50, 500])
def test_no_two_boxes_overlap_and_all_are_on_the_map(count: int) -> None:
    extra = [each for number in range(12) for each in of_retry(100 + number)] + [*of_retries("user1")]
    users = [f"user{number}" for number in range(1, count + 1)]
    groups = {f"group{number}": users for number in range(12 if count else 0)}
    _, boxes = drawn(chat_of(*users, groups=groups, more=extra), senders=users)
    for a, b in combinations(boxes.values(), 2):
        apart = a.x + a.w <= b.x or b.x + b.w <= a.x or a.y + a.h <= b.y or b.y + b.h <= a.y
        assert apart, (a.id, b.id)
    assert all(box.x >= 0 and box.x + box.w <= WIDTH and box.y >= 30 for box in boxes.values())
    assert height_of(boxes.values()) > max(box.y + box.h for box in boxes.values())
    assert height_of(boxes.values()) < 600


def test_of_fifty_users_ten_are_drawn_and_the_others_folded_into_one_box_with_their_sum() -> None:
    scene = many(50)
    places, boxes = drawn(scene)
    folded = folded_of(scene, places)
    assert len(places.queue) == 10
    assert len(folded) == 40
    assert {"inbox.user1", "inbox.user5"} <= set(places.queue), "who is online comes first"
    assert (boxes["q:more"].label, boxes["u:more"].label, boxes["u:more"].sub) == ("and 40 more", "40 users", "0 online")
    figures = figures_of(scene, boxes, {folded[0]: (5, 1), folded[1]: (7, 0), "inbox.user1": (2, 0), folded[2]: (0, 0)})
    assert figures["q:more"] == [12, 1]
    assert figures[f"q:{folded[1]}"] == [7, 0]
    assert figures["q:inbox.user1"] == [2, 0]
    assert len(figures) == 4
    assert [member["id"] for member in members_of(scene, places)] == [f"q:{name}" for name in folded]


def test_names_are_in_the_order_people_expect() -> None:
    assert sorted(["user10", "user2", "ann", "user1b", "3"], key=natural) == ["3", "ann", "user1b", "user2", "user10"]


@pytest.mark.parametrize(
    ("text", "cells", "expected"), [("bob", 3, "bob"), ("robert", 4, "rob…"), ("🦊🦊🦊", 5, "🦊🦊…"), ("漢字漢字", 4, "漢…")]
)
def test_long_names_are_cut_to_the_width_they_take(text: str, cells: int, expected: str) -> None:
    assert short(text, cells) == expected


# lines


def test_every_binding_between_what_is_drawn_is_a_line_between_boxes_that_are_there() -> None:
    scene = many(50)
    places, boxes = drawn(scene, senders=["user1"])
    lines = lines_of(scene, places, boxes, {("user1", "chat.groups"), ("gone", "chat.users")})
    assert len({line.id for line in lines}) == len(lines)
    assert {end for line in lines for end in line.ends} <= set(boxes)
    found = {line.id for line in lines}
    for name in places.queue:
        assert {f"x:chat.users>q:{name}", f"k:chat.groups:team>q:{name}", f"q:{name}>u:{name}"} <= found
    assert {"s:user1>x:chat.groups", "x:chat.groups>k:chat.groups:team", "k:chat.groups:team>q:more", "x:chat.users>q:more"} <= found


def test_a_binding_stands_with_its_key_and_who_is_away_has_no_arrow() -> None:
    scene = chat_of("b.b", "ann", online=["ann"])
    places, boxes = drawn(scene)
    lines = {line.id: line for line in lines_of(scene, places, boxes)}
    assert lines["x:chat.users>q:inbox.b%2Eb"].label == "b.b"
    assert (lines["q:inbox.ann>u:inbox.ann"].kind, lines["q:inbox.ann>u:inbox.ann"].arrow) == ("consumes", True)
    assert (lines["q:inbox.b%2Eb>u:inbox.b%2Eb"].kind, lines["q:inbox.b%2Eb>u:inbox.b%2Eb"].arrow) == ("absent", False)


def test_what_a_strangers_queue_gives_up_has_its_line() -> None:
    facts = QueueFacts("work", arguments=(("x-dead-letter-exchange", "dlx"),))
    scene = scene_of(Structure({"dlx": "fanout"}, {"work": facts}))
    places, boxes = drawn(scene)
    assert [line.kind for line in lines_of(scene, places, boxes)] == ["absent", "dlx"]


# words


def test_depths_are_told_in_words() -> None:
    assert [depth_words(*each) for each in ((0, 0), (12, 0), (0, 3), (1200, 3))] == [
        "empty",
        "12 ready",
        "3 unacked",
        "1,200 ready · 3 unacked",
    ]


def test_what_a_queue_does_not_tell_while_it_starts_is_as_it_was_before() -> None:
    unknown = {"ready": float("nan"), "unacked": float("nan")}
    now = {"a": unknown, "b": unknown, "c": {"ready": 2.0, "unacked": 1.0}}
    assert known(now, {"a": (7.0, 0.0), "gone": (1.0, 0.0)}) == {"a": (7.0, 0.0), "b": (0.0, 0.0), "c": (2.0, 1.0)}


def test_details_give_the_name_in_full_what_it_is_and_its_bindings() -> None:
    name = "x" * 200
    scene = chat_of(name, "ann", groups={"team": [name]}, online=["ann"])
    places, boxes = drawn(scene)
    told = dict(map(tuple, about(scene, places, boxes[f"q:{inbox_queue(name)}"])))
    assert told["queue"] == f"inbox.{name}"
    assert told["type"] == "classic, durable"
    assert told["bound to"] == f"chat.groups ▸ team, chat.users ▸ {name}"
    assert told["consumers"] == "none"
    assert "at most 100 messages" in told["limits"]
    user = dict(map(tuple, about(scene, places, boxes["u:inbox.ann"])))
    assert user == {"user": "ann", "is": "online, 1 consumer", "member of": "no group", "inbox": "inbox.ann"}


def test_every_box_has_details_and_the_map_a_sentence_for_who_hears_it() -> None:
    scene = many(50)
    places, boxes = drawn(scene, senders=["user1"])
    for box in boxes.values():
        found = about(scene, places, box, {("user1", "chat.groups")})
        assert found, box.id
        assert all(len(pair) == 2 and all(pair) for pair in found), box.id
    assert summary(scene) == "Map of the broker: 7 exchanges, 102 queues, 50 users, 5 online"


# what travels


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def hop(name: str, message_id: str = "m1", **fields: Any) -> Event:
    return {"hop": name, "at": 100.0, "message_id": message_id, **fields}


def travel(traffic: Traffic, scene: Scene, *events: Event) -> list[Any]:
    for event in events:
        traffic(event)
    found = traffic.drain()
    _, boxes = drawn(scene, senders=traffic.senders)
    return traffic.flights(found, scene, boxes)


def ends(d: str) -> list[tuple[float, ...]]:
    points = [tuple(map(float, pair)) for pair in re.findall(r"(-?[\d.]+),(-?[\d.]+)", d)]
    return [points[0], points[-1]]


def test_a_message_travels_from_its_sender_through_the_exchange_to_the_inbox_and_then_to_the_user() -> None:
    scene, traffic = chat_of("ann", "bob", online=["bob"]), Traffic(Clock())
    about_it = {"user": "ann", "to": "@bob"}
    first = travel(traffic, scene, hop(hops.STORED, **about_it), hop(hops.SENT, **about_it, kind="SEND_MESSAGE"))
    _, boxes = drawn(scene, senders=["ann"])
    assert [ends(each.d) for each in first] == [
        [boxes["s:ann"].right, boxes["x:chat.users"].left],
        [boxes["x:chat.users"].right, boxes["q:inbox.bob"].left],
    ]
    assert first[1].delay == first[0].delay + first[0].ms
    then = travel(traffic, scene, hop(hops.DELIVERED, user="bob", sender="ann", to="@bob", queue="inbox.bob", attempt=1))
    assert [ends(each.d) for each in then] == [[boxes["q:inbox.bob"].right, boxes["u:inbox.bob"].left]]
    assert then[0].delay == first[1].delay + first[1].ms, "not before it has come to the inbox"


def test_receipts_retries_dead_letters_and_what_is_returned_take_ways_of_their_own() -> None:
    scene = chat_of("ann", "bob", more=[*of_retries("bob"), *of_retry(100)])
    traffic = Traffic(Clock())
    travel(traffic, scene, hop(hops.SENT, user="ann", to="@bob", kind="SEND_MESSAGE"))
    kinds = {
        hops.RETRIED: ["retry"],
        hops.DEAD: ["dead"],
        hops.RECEIPT: ["receipt", "receipt"],
        hops.RETURNED: ["returned"],
    }
    for name, expected in kinds.items():
        fields = {"user": "ann", "to": "@bob"} if name == hops.RETURNED else {"user": "bob"}
        assert [each.kind for each in travel(traffic, scene, hop(name, **fields))] == expected, name
    again = travel(traffic, scene, hop(hops.DELIVERED, user="bob", sender="ann", to="@bob", queue=retries_queue("bob"), attempt=2))
    assert [each.kind for each in again] == ["again", "again"]


def test_what_is_no_message_does_not_travel_and_makes_no_sender() -> None:
    scene, traffic = chat_of("ann", "bob"), Traffic(Clock())
    receipt = hop(hops.SENT, "m1:delivered:bob", user="bob", to="@ann", kind="RECEIVE_MESSAGE")
    copy = hop(hops.SENT, user="bob", to="", kind="SEND_MESSAGE")
    assert travel(traffic, scene, receipt, copy) == []
    assert traffic.senders == []


def test_a_flood_is_sampled_and_each_message_that_is_shown_is_shown_on_all_its_way() -> None:
    scene, clock = many(50), Clock()
    traffic = Traffic(clock)
    flood = [hop(hops.SENT, f"m{number}", user="user1", to="#team", kind="SEND_MESSAGE") for number in range(1000)]
    first = travel(traffic, scene, *flood)
    assert 0 < len(first) <= BUDGET + COPIES
    clock.now += 0.25
    assert len(travel(traffic, scene, *flood)) <= BUDGET / 4 + COPIES + 1
    clock.now += 10
    came = [hop(hops.DELIVERED, f"m{number}", user="user1", sender="user1", to="#team", queue="inbox.user1") for number in range(3)]
    assert len(travel(traffic, scene, *came)) == 3


def test_what_is_sent_and_not_confirmed_is_counted_as_pending() -> None:
    traffic = Traffic(Clock())
    for number in range(3):
        traffic(hop(hops.STORED, f"m{number}", user="ann", to="#team"))
    traffic(hop(hops.CONFIRMED, "m0", user="ann", to="#team"))
    traffic(hop(hops.RETURNED, "m1", user="ann", to="#team"))
    traffic.drain()
    assert traffic.figures() == {"s:ann": [3, 1]}
    assert traffic.sent == {("ann", "chat.groups")}


def test_joining_and_losing_the_link_have_the_map_looked_at_again() -> None:
    for name in (hops.JOINED, hops.LEFT, hops.LINK):
        traffic = Traffic(Clock())
        traffic(hop(name, "", user="ann", to="#team"))
        assert not traffic.stirred
        traffic.drain()
        assert traffic.stirred


# the picture


def test_the_picture_shows_every_box_and_line_and_nothing_in_it_stands_outside() -> None:
    scene = many(50)
    places, boxes = drawn(scene, senders=["user1"])
    frame = {
        "left": 0,
        "width": WIDTH,
        "height": height_of(boxes.values()),
        "heads": heads_of(boxes.values(), senders=True),
        "summary": "map",
    }
    lines = lines_of(scene, places, boxes)
    root = parsed(map_svg.svg(boxes.values(), lines, {"q:inbox.user1": [12, 3]}, frame, note=GONE))
    assert {each.attrib["data-id"] for each in root.iter(f"{SVG}g") if "data-id" in each.attrib} == set(boxes)
    texts = [each.text or "" for each in root.iter(f"{SVG}text")]
    assert {"12 ready · 3 unacked", "and 40 more", "#team", "offline", f"■ {GONE}"} <= set(texts)
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    assert left <= 0 and left + width >= WIDTH
    assert top <= -26 and top + height >= frame["height"]
    assert not re.search(r"(?:href|src)=|url\(|<script", map_svg.svg(boxes.values(), lines, {}, frame))


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314  it is ours


@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30))
def test_whatever_things_are_called_the_picture_is_well_formed(queue: str, key: str) -> None:
    scene = scene_of(
        Structure({key: "topic"}, {queue: QueueFacts(queue), "b": QueueFacts("b")}, (Binding(key, key, queue), Binding(key, key, "b")))
    )
    places, boxes = drawn(scene, senders=[queue])
    frame = {"left": 0, "width": WIDTH, "height": 100.0, "heads": [], "summary": summary(scene)}
    assert parsed(map_svg.svg(boxes.values(), lines_of(scene, places, boxes), {}, frame)) is not None
    assert all(about(scene, places, box) for box in boxes.values())


def test_names_of_this_file_are_those_of_chatlib() -> None:
    """The builders above lean on chatlib's own names: this fails where one of them changes."""
    assert (inbox_queue("a"), receipts_queue("a"), retries_queue("a"), retry_queue(5), escape("a.b")) == (
        "inbox.a",
        "receipts.a",
        "retries.a",
        "retry.5",
        "a%2Eb",
    )


# the widget


def test_without_a_broker_it_says_so_and_ends_when_it_is_told_to_any_number_of_times() -> None:
    the_map = TopologyMap(NOWHERE)
    wait_until(lambda: the_map.is_running, what="it looks")
    assert the_map.note == WAITING
    assert the_map.error == ""
    assert repr(the_map) == "<TopologyMap>"
    assert parsed(the_map.svg()) is not None
    the_map.stop()
    the_map.stop()
    assert not the_map.is_running
    the_map.start()
    assert the_map.start() is the_map
    the_map.close()
    the_map.close()
    assert not [thread for thread in threading.enumerate() if "TopologyMap" in thread.name]
    with pytest.raises(RuntimeError, match="run its cell again"):
        the_map.start()


@pytest.mark.parametrize(
    ("wrong", "why"), [({"hz": 0}, "hz is looks a second"), ({"hz": 5}, "hz is looks"), ({"rows": 0}, "rows is how many")]
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        TopologyMap(NOWHERE, **wrong)


def test_it_listens_to_several_chats_and_stops_when_it_is_closed() -> None:
    class Talk:
        listeners = 0

        def on_event(self, _: Any) -> Any:
            self.listeners += 1

            def stop() -> None:
                self.listeners -= 1

            return stop

    talks = [Talk(), Talk()]
    the_map = TopologyMap(NOWHERE, talks)
    assert [each.listeners for each in talks] == [1, 1]
    the_map.close()
    assert [each.listeners for each in talks] == [0, 0]
