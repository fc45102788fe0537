"""Where everything stands on a map: pure functions from what exists, and who stood where before, to boxes.

Who has a place keeps it as long as he exists; who comes gets a free one. Where there are more queues than places the busiest are
drawn and the others folded into one box; a queue that idles on its place gives it up only to one that has something to do.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeVar

from chatlib.lab.widgets.map_model import Scene, label_of
from chatlib.names import unescape
from chatlib.topology import GROUPS

__all__ = ["HEADS", "WIDTH", "Box", "Places", "allot", "arrange", "boxes_of", "folded_of", "heads_of", "height_of", "natural", "short"]

K = TypeVar("K", bound=Hashable)

WIDTH: Final = 1000
TOP: Final = 34  # below the heads of the columns
PITCH: Final = 46  # from one row to the next
HIGH: Final = 36  # of a box
PILL: Final = 22  # of an exchange beside the main way
LANE: Final = 88  # from one thing beside the main way to the next
X: Final = {"sender": 2, "exchange": 146, "hub": 314, "queue": 478, "consumer": 694, "side": 848}
W: Final = {"sender": 98, "exchange": 110, "hub": 98, "queue": 168, "consumer": 108, "side": 150}
HEADS: Final = {
    "sender": "who sends",
    "exchange": "exchanges",
    "hub": "keys",
    "queue": "queues",
    "consumer": "who receives",
    "side": "afterwards",
}
SIDES: Final = {  # words, and how far down
    "receipts": ("receipts", TOP),
    "dead": ("dead letters", TOP + LANE),
    "again": ("retries return", TOP + 2 * LANE - PILL - 6),  # it has no exchange
    "wait": ("retries wait", TOP + 2 * LANE + HIGH + 26),
}
MOST: Final = {"sender": 8, "exchange": 5, "hub": 8}  # places in these columns
TINTS: Final = 6


@dataclass(frozen=True, slots=True)
class Places:
    """Who stands on which place of each column, counted from the top; of hubs (exchange, key)."""

    sender: Mapping[str, int] = field(default_factory=dict)
    exchange: Mapping[str, int] = field(default_factory=dict)
    hub: Mapping[tuple[str, str], int] = field(default_factory=dict)
    queue: Mapping[str, int] = field(default_factory=dict)
    rows: int = 10  # places for queues


@dataclass(frozen=True, slots=True)
class Box:
    """Something on the map, in units of which the map is `WIDTH` wide; (x, y) is its upper left corner.

    kind: sender, exchange, pill (a small exchange), hub, queue, consumer or more (what is folded). state: of people "online" or
    "offline"; of the others what part they play.
    """

    id: str
    kind: str
    x: float
    y: float
    w: float
    h: float
    label: str
    sub: str = ""
    state: str = ""
    tint: int = 0

    @property
    def left(self) -> tuple[float, float]:
        """The middle of its left side."""
        return self.x, self.y + self.h / 2

    @property
    def right(self) -> tuple[float, float]:
        """The middle of its right side."""
        return self.x + self.w, self.y + self.h / 2

    def trait(self) -> dict[str, Any]:
        """As it goes to the browser."""
        return asdict(self)


# ---- places ----------------------------------------------------------------------------------------------------------------


def allot(
    before: Mapping[K, int],
    wanted: Sequence[K],
    places: int,
    *,
    order: Callable[[K], Any] | None = None,
    worth: Callable[[K], tuple[float, float]] | None = None,
) -> dict[K, int]:
    """Places for as many of `wanted` (the most important first) as there are; who had one and is wanted keeps it.

    order: in which newcomers are seated, by default as wanted. worth(x): (how much it has had to do all the time of late, the most it
    had to do at any time of late): one who waits takes the place of the least busy if he has more than twice as much to do; at most
    one does in a call, so that a reader can follow.
    """
    present = set(wanted)
    found = {each: place for each, place in before.items() if each in present and place < places}
    taken = set(found.values())
    outside = [each for each in wanted if each not in found]
    free = [place for place in range(min(places, len(taken) + len(outside))) if place not in taken]
    newcomers = outside[: len(free)]
    found.update(zip(sorted(newcomers, key=order) if order else newcomers, free, strict=False))
    waiting = outside[len(free) :]
    if waiting and found and worth is not None:
        best, least = max(waiting, key=lambda each: worth(each)[0]), min(found, key=lambda each: worth(each)[1])
        if worth(best)[0] > 2 * worth(least)[1]:
            found[best] = found.pop(least)
    return found


def arrange(
    before: Places, scene: Scene, *, senders: Sequence[str] = (), worth: Callable[[str], tuple[float, float]] = lambda _: (0.0, 0.0)
) -> Places:
    """The places for what is on `scene` now. senders: who sent, the last one first. worth: of a queue, as in `allot`."""
    queues = sorted(scene.queues, key=lambda name: (-worth(name)[0], not scene.consumers(name), natural(name)))
    hubs = sorted(scene.hubs, key=lambda hub: (-len(scene.hubs[hub]), natural(hub[1])))
    return Places(
        _seat_senders(before.sender, senders),
        allot(before.exchange, scene.exchanges, MOST["exchange"]),
        allot(before.hub, hubs, MOST["hub"], order=lambda hub: natural(hub[1])),
        allot(before.queue, queues, before.rows, order=natural, worth=worth),
        before.rows,
    )


def _seat_senders(before: Mapping[str, int], senders: Sequence[str]) -> dict[str, int]:
    """The last who sent; a newcomer takes the place of who has been silent for longest."""
    latest = list(senders[: MOST["sender"]])
    found = {name: place for name, place in before.items() if name in latest}
    free = [place for place in range(MOST["sender"]) if place not in found.values()]
    return found | dict(zip(reversed([name for name in latest if name not in found]), free, strict=False))


def folded_of(scene: Scene, places: Places) -> list[str]:
    """The queues that have no place of their own, in the order of their names."""
    return sorted((name for name in scene.queues if name not in places.queue), key=natural)


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts user2 before user10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


# ---- boxes -----------------------------------------------------------------------------------------------------------------


def boxes_of(scene: Scene, places: Places) -> dict[str, Box]:
    """Every box of the map, by its id."""
    boxes = [*_senders(places), *_exchanges(places, scene), *_hubs(places, scene), *_rows(places, scene), *_sides(scene)]
    return {box.id: box for box in boxes}


def _at(kind: str, place: float, pitch: float = PITCH) -> tuple[float, float, float, float]:
    return X[kind], TOP + place * pitch, W[kind], HIGH


def _senders(places: Places) -> Iterable[Box]:
    for name, place in places.sender.items():
        yield Box(f"s:{name}", "sender", *_at("sender", place), short(name, 8))


def _exchanges(places: Places, scene: Scene) -> Iterable[Box]:
    for name, place in places.exchange.items():
        yield Box(
            f"x:{name}", "exchange", *_at("exchange", place + 0.25, 2 * PITCH), short(label_of(name), 13), scene.structure.exchanges[name]
        )
    if over := len(scene.exchanges) - len(places.exchange):
        yield Box("x:more", "exchange", *_at("exchange", MOST["exchange"] + 0.25, 2 * PITCH), f"and {over} more", "exchanges")


def _hubs(places: Places, scene: Scene) -> Iterable[Box]:
    for (exchange, key), place in places.hub.items():
        of_group = exchange == GROUPS.name
        count = sum(not name.startswith("history.") for name in scene.hubs[exchange, key])
        words = f"{count} {'member' if of_group else 'queue'}{'' if count == 1 else 's'}"
        label = short(f"#{unescape(key)}" if of_group else key, 11)
        yield Box(f"k:{exchange}:{key}", "hub", *_at("hub", place + 1), label, words, tint=place % TINTS + 1)
    if over := len(scene.hubs) - len(places.hub):
        yield Box("k:more", "hub", *_at("hub", MOST["hub"] + 1), f"and {over} more", "keys")


def _rows(places: Places, scene: Scene) -> Iterable[Box]:
    for name, place in places.queue.items():
        part = "inbox" if name in scene.users else "history" if name.startswith("history.") else "queue"
        yield Box(f"q:{name}", "queue", *_at("queue", place), short(label_of(name, scene.users), 17), state=part)
        if part != "history":
            yield _consumer(scene, name, place)
    folded = folded_of(scene, places)
    if folded:
        people, here = [name for name in folded if name in scene.users], sum(scene.consumers(name) > 0 for name in folded)
        state = "online" if here else "offline"
        yield Box("q:more", "more", *_at("queue", places.rows), f"and {len(folded)} more", state="inbox" if people else "queue")
        words = (f"{len(people)} users", f"{here} online")
        if len(people) < len(folded):
            words = (f"{len(folded)} more", f"{here} consumed")
        yield Box("u:more", "consumer", *_at("consumer", places.rows), *words, state)


def _consumer(scene: Scene, name: str, place: int) -> Box:
    count = scene.consumers(name)
    times = f" ×{count}" if count > 1 else ""
    if name in scene.users:
        words = (short(scene.users[name], 9), f"online{times}" if count else "offline")
    else:
        words = ("consumers" if count > 1 else "consumer", f"{count} connected") if count else ("nobody", "no consumer")
    return Box(f"u:{name}", "consumer", *_at("consumer", place), *words, "online" if count else "offline")


def _sides(scene: Scene) -> Iterable[Box]:
    for name, (words, y) in SIDES.items():
        side = scene.sides.get(name)
        if side is None:
            continue
        if side.exchanges:
            pill = side.exchanges[0] if len(side.exchanges) == 1 else f"{len(side.exchanges)} exchanges"
            yield Box(f"x:{name}", "pill", X["side"], y, W["side"], PILL, short(pill, 20))
        yield Box(f"side:{name}", "queue", X["side"], y + PILL + 6, W["side"], HIGH, words, state=name)


def height_of(boxes: Iterable[Box]) -> float:
    """How high the map is with these boxes."""
    return max((box.y + box.h for box in boxes), default=TOP + HIGH) + 10


def heads_of(boxes: Iterable[Box], *, senders: bool) -> list[tuple[str, float, str]]:
    """The heads of the columns in which something stands: kind, x of their middle, words. senders: whether that column is there always."""
    starts = {box.x for box in boxes}
    shown = [kind for kind in HEADS if X[kind] in starts or (senders and kind == "sender")]
    words = HEADS if X["sender"] in starts else {**HEADS, "sender": "no sender seen"}  # before the map was there, others may have
    return [(kind, X[kind] + W[kind] / 2, words[kind]) for kind in shown]


def short(text: str, cells: int) -> str:
    """`text` in at most so many cells of a line (a letter is one, an emoji or an East Asian letter two), with … where it was cut."""
    if sum(map(_cells, text)) <= cells:
        return text
    kept, total = 0, 1  # the …
    while total + _cells(text[kept]) <= cells:
        total += _cells(text[kept])
        kept += 1
    return text[:kept] + "…"


def _cells(character: str) -> int:
    if unicodedata.combining(character) or character == "\u200d":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
