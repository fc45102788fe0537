"""The map on a real broker, without a browser: what is drawn is what exists, and how full it is, is exact. Some 30 s."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

import chatlib
from chatlib import faults
from chatlib.brokers import LocalBroker
from chatlib.lab.widgets.topology_map import GONE, TopologyMap
from chatlib.management import Management
from chatlib.monitor import Monitor
from chatlib.retry import RetryPolicy
from chatlib.settings import Settings
from tests.support import wait_until

TEAM = ["ann", "bob", "cat"]


class Watched(TopologyMap):
    """A map that keeps what it sends to the browser beside its traits."""

    def send(self, content: Any, buffers: Any = None) -> None:
        self.__dict__.setdefault("flights", []).extend(content["flights"])


@dataclass
class Place:
    """A virtual host of a broker, with nothing in it yet: a map shows all that there is."""

    url: str
    management_url: str

    def api(self) -> Management:
        return Management(self.management_url, login=self.url)


@pytest.fixture
def place(broker: LocalBroker, unique: Callable[[str], str]) -> Iterator[Place]:
    account, name = urlsplit(broker.url), unique("map")
    with httpx.Client(base_url=f"{broker.management_url}/api/", auth=(account.username or "", account.password or "")) as api:
        api.put(f"vhosts/{name}").raise_for_status()
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        api.put(f"permissions/{name}/{account.username}", json=everything).raise_for_status()
        yield Place(f"{broker.url.removesuffix('%2F').removesuffix('/')}/{name}", broker.management_url)
        api.delete(f"vhosts/{name}").raise_for_status()


@contextmanager
def shown(place: Any, *sources: Any, **options: Any) -> Iterator[Watched]:
    """A map of it that has been drawn; it must have had no error."""
    with Monitor(place) as monitor:
        the_map = Watched(monitor, list(sources), **options)
        try:
            wait_until(lambda: the_map.boxes, 20, "it is drawn")
            yield the_map
            assert the_map.error == ""
        finally:
            the_map.close()


def boxes(the_map: TopologyMap) -> dict[str, dict[str, Any]]:
    return {each["id"]: each for each in the_map.boxes}


def places(the_map: TopologyMap) -> dict[str, tuple[float, float]]:
    return {each["id"]: (each["x"], each["y"]) for each in the_map.boxes}


def state(the_map: TopologyMap, user: str) -> str:
    return str(boxes(the_map)[f"u:inbox.{user}"]["state"])


def test_what_is_drawn_is_what_exists(place: Place) -> None:
    with chatlib.connect(place) as chat, shown(place, chat, rows=100, everything=True) as the_map:
        for user in chat.users(TEAM):
            user.join("#team")
        chat.group("#team", history=True)
        with place.api() as api:
            there = {kind: {each["name"] for each in api.get(api.in_vhost(kind))} for kind in ("queues", "exchanges")}
            drawn = {"chat.receipts": "x:receipts", "chat.dead": "x:dead", "dead-letters": "side:dead"}
            aside = {"receipts.": "side:receipts", "retries.": "side:again"}

            def missing() -> set[str]:
                ids = set(boxes(the_map))
                own = {drawn.get(name, f"x:{name}") for name in there["exchanges"]}
                for name in there["queues"]:
                    own.add(next((side for start, side in aside.items() if name.startswith(start)), drawn.get(name, f"q:{name}")))
                return own - ids

            wait_until(lambda: all(each.startswith("x:") for each in missing()), what="every queue is drawn")
            wait_until(lambda: boxes(the_map)["k:chat.groups:team"]["sub"] == "3 members", what="three members")
            # more exchanges are there than there are places for
            wait_until(lambda: boxes(the_map)["x:more"]["label"] == f"and {len(missing())} more", what="the rest is counted")
        lines = {each["id"] for each in the_map.lines}
        assert {f"x:chat.users>q:inbox.{user}" for user in TEAM} <= lines
        assert {f"k:chat.groups:team>q:{queue}" for queue in ("inbox.ann", "inbox.bob", "inbox.cat", "history.team")} <= lines
        wait_until(lambda: {state(the_map, user) for user in TEAM} == {"online"}, what="all are online")


def test_who_goes_offline_is_shown_so_and_his_inbox_fills_to_the_message(place: Place) -> None:
    with chatlib.connect(place) as chat, shown(place, chat) as the_map:
        ann, bob, cat = chat.users(TEAM)
        for user in (ann, bob, cat):
            user.join("#team")
        wait_until(lambda: state(the_map, "bob") == "online", what="Bob is online")
        before = places(the_map)
        bob.go_offline()
        wait_until(lambda: state(the_map, "bob") == "offline", what="Bob is offline")
        for number in range(7):
            ann.send("#team", f"message {number}").wait(10)
        wait_until(lambda: the_map.figures.get("q:inbox.bob") == [7, 0], what="seven wait for Bob")
        wait_until(lambda: the_map.figures.get("s:ann") == [7, 0], what="Ann sent seven, all confirmed")
        flights = wait_until(lambda: getattr(the_map, "flights", []), what="messages travel")
        assert {each["kind"] for each in flights} <= {"message", "receipt"}
        assert len(flights) <= 60
        bob.on_message(lambda message: None)
        bob.go_online()
        wait_until(lambda: state(the_map, "bob") == "online", what="Bob is back")
        wait_until(lambda: "q:inbox.bob" not in the_map.figures, what="his inbox is empty")
        after = places(the_map)
        assert {name: after[name] for name in before} == before, "nothing moved"


def test_a_queue_that_is_deleted_disappears_and_the_others_stay_where_they_are(place: Place) -> None:
    with chatlib.connect(place) as chat, shown(place, chat) as the_map:
        chat.users(TEAM, online=False)
        wait_until(lambda: len([each for each in boxes(the_map) if each.startswith("q:")]) == 3, what="three inboxes")
        before = places(the_map)
        with place.api() as api:
            api.delete(api.in_vhost("queues", "inbox.bob"))
        wait_until(lambda: "q:inbox.bob" not in boxes(the_map), what="Bob's inbox is gone")
        assert places(the_map) == {name: at for name, at in before.items() if not name.endswith("inbox.bob")}
        assert not [each for each in the_map.lines if each["id"].endswith("inbox.bob")]
        with chatlib.connect(place) as other:
            other.users(["bob"], online=False)
            wait_until(lambda: places(the_map) == before, what="it is back in its place")


def test_what_fails_makes_the_ways_of_retries_and_dead_letters_appear(place: Place) -> None:
    settings = Settings(retry=RetryPolicy(attempts=2, base=0.1, cap=0.1, jitter=False))
    with chatlib.connect(place, settings=settings) as chat, shown(place, chat) as the_map:
        ann, bob = chat.users(["ann", "bob"])

        def fail(message: chatlib.ReceivedMessage) -> None:
            raise ValueError("no room")

        bob.on_message(fail)
        assert "side:wait" not in boxes(the_map)
        ann.send("@bob", "try me").wait(10)
        wait_until(lambda: the_map.figures.get("side:dead") == [1, 0], 30, "it is among the dead letters")
        wait_until(lambda: {"side:wait", "side:again", "x:wait"} <= set(boxes(the_map)), what="the way of retries is drawn")
        kinds = {"message", "retry", "again", "dead"}
        wait_until(lambda: kinds <= {each["kind"] for each in getattr(the_map, "flights", [])}, what="it travelled all its ways")


def test_of_fifty_users_the_busiest_have_a_place_and_the_others_add_up(place: Place) -> None:
    names = [f"user{number}" for number in range(1, 51)]
    with chatlib.connect(place) as chat, shown(place, chat) as the_map:
        first = chat.user("user1")
        wait_until(lambda: boxes(the_map).get("u:inbox.user1", {}).get("state") == "online", what="the first is there")
        chat.users(names, online=False)
        wait_until(lambda: len(the_map.folded) == 40, what="forty are folded")
        hidden = [each["id"].removeprefix("q:inbox.") for each in the_map.folded]
        for name in hidden[:4]:
            first.send(f"@{name}", "hello")
        assert chat.flush(20)
        wait_until(lambda: {f"q:inbox.{name}" for name in hidden[:4]} <= set(boxes(the_map)), 20, "each of the four has a place of its own")
        wait_until(lambda: the_map.figures.get(f"q:inbox.{hidden[0]}") == [1, 0], what="one waits for him")
        assert "q:more" not in the_map.figures
        shown_now = set(boxes(the_map))
        assert len([each for each in shown_now if each.startswith("q:inbox.")]) == 10
        for name in names:
            first.send(f"@{name}", "hello, all")
        assert chat.flush(20)
        wait_until(lambda: sum(the_map.figures.get("q:more", [])) == 40, what="forty wait in what is folded")
        assert "u:inbox.user1" in boxes(the_map), "who is online keeps his place"
        assert len(the_map.lines) < 80


def test_while_the_broker_is_frozen_it_says_so_and_what_was_there_stays(new_broker: Callable[[], LocalBroker]) -> None:
    with new_broker() as broker, chatlib.connect(broker) as chat, shown(broker, chat) as the_map:
        ann = chat.user("ann")
        wait_until(lambda: "q:inbox.ann" in boxes(the_map), what="it is drawn")
        before = places(the_map)
        with faults.freeze(broker):
            wait_until(lambda: the_map.note == GONE, what="it says that the broker is gone")
            ann.send("@ann", "to myself")
            wait_until(lambda: the_map.figures.get("s:ann") == [1, 1], what="one is pending")
            assert {name: at for name, at in places(the_map).items() if name != "s:ann"} == before
            assert GONE in the_map.svg()
        wait_until(lambda: the_map.note == "", 30, "the broker is back")
        wait_until(lambda: the_map.figures.get("s:ann") == [1, 0], 30, "it is confirmed")
    assert not [thread for thread in threading.enumerate() if "TopologyMap" in thread.name]
