"""The lines of a map, and the ways along them: pure functions from boxes to the paths of SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final

from chatlib.lab.widgets.map_layout import Box, Places, short
from chatlib.lab.widgets.map_model import Scene
from chatlib.names import unescape
from chatlib.topology import USERS

__all__ = ["Line", "along", "aside", "back", "box_of_queue", "home", "lines_of", "rise", "up"]

OUT: Final = 826  # the line on which everybody's failures and receipts leave
BACK: Final = 814  # the one on which retries come back
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the map. d: a path of SVG; kind: sends, binding, consumes, absent, bus, back or dlx; ends: the boxes that it joins.

    label: a binding's key, which stands at (lx, ly) and ends there.
    """

    id: str
    kind: str
    d: str
    ends: tuple[str, ...]
    label: str = ""
    lx: float = 0.0
    ly: float = 0.0
    tint: int = 0
    arrow: bool = True

    def trait(self) -> dict[str, Any]:
        """As it goes to the browser."""
        return {**asdict(self), "ends": list(self.ends)}


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _path(*parts: str | Point) -> str:
    return " ".join(part if isinstance(part, str) else f"{_number(part[0])},{_number(part[1])}" for part in parts)


def _bend(start: Point, end: Point) -> str:
    """The rest of a path that goes from `start` to `end`, level at both."""
    reach = max(26.0, abs(end[0] - start[0]) * 0.5)
    return _path("C", (start[0] + reach, start[1]), (end[0] - reach, end[1]), end)


def _curve(start: Point, end: Point) -> str:
    return f"{_path('M', start)} {_bend(start, end)}"


def box_of_queue(boxes: Mapping[str, Box], queue: str) -> Box | None:
    """The box in which `queue` is drawn: its own, or that of what is folded."""
    return boxes.get(f"q:{queue}") or boxes.get("q:more")


def lines_of(scene: Scene, places: Places, boxes: Mapping[str, Box], sent: Iterable[tuple[str, str]] = ()) -> list[Line]:
    """Every line between these boxes. sent: (sender, exchange), seen so far."""
    found: dict[str, Line] = {}
    for line in (
        *_sends(boxes, sent),
        *_between(scene, boxes),
        *_bindings(scene, boxes),
        *_consumers(boxes),
        *_dead_letters(scene, boxes),
        *_aside(boxes),
    ):
        found.setdefault(line.id, line)
    return list(found.values())


def _sends(boxes: Mapping[str, Box], sent: Iterable[tuple[str, str]]) -> Iterable[Line]:
    for sender, exchange in sorted(sent):
        a, b = boxes.get(f"s:{sender}"), boxes.get(f"x:{exchange}")
        if a and b:
            yield Line(f"{a.id}>{b.id}", "sends", _curve(a.right, b.left), (a.id, b.id))


def _between(scene: Scene, boxes: Mapping[str, Box]) -> Iterable[Line]:
    for source, key, destination, _ in scene.between:
        a, b = boxes.get(f"x:{source}"), boxes.get(f"x:{destination}")
        if a and b and a is not b:
            (ax, ay), (bx, by) = a.right, b.right
            d = _path("M", (ax, ay), "C", (ax + 40, ay), (bx + 40, by), (bx, by))
            yield Line(f"{a.id}>{b.id}", "binding", d, (a.id, b.id), short(key, 10), ax + 36, (ay + by) / 2)


def _bindings(scene: Scene, boxes: Mapping[str, Box]) -> Iterable[Line]:
    for (exchange, key), queues in scene.hubs.items():
        source, hub = boxes.get(f"x:{exchange}"), boxes.get(f"k:{exchange}:{key}") or boxes.get("k:more")
        if source is None or hub is None:
            continue
        yield Line(f"{source.id}>{hub.id}", "binding", _curve(source.right, hub.left), (source.id, hub.id), tint=hub.tint)
        for queue in queues:
            if (box := box_of_queue(boxes, queue)) is not None:
                yield Line(f"{hub.id}>{box.id}", "binding", _curve(hub.right, box.left), (hub.id, box.id, source.id), tint=hub.tint)
    for binding in scene.direct:
        source, box = boxes.get(f"x:{binding.source}"), box_of_queue(boxes, binding.destination)
        if source is None or box is None:
            continue
        key = unescape(binding.key) if binding.source == USERS.name else binding.key
        label = "" if box.kind == "more" else short(key, 9)
        x, y = box.left
        yield Line(f"{source.id}>{box.id}", "binding", _curve(source.right, box.left), (source.id, box.id), label, x - 12, y - 4)


def _consumers(boxes: Mapping[str, Box]) -> Iterable[Line]:
    for box in boxes.values():
        queue = boxes.get(f"q:{box.id[2:]}") if box.kind == "consumer" else None
        if queue is not None:
            kind = "consumes" if box.state == "online" else "absent"
            yield Line(f"{queue.id}>{box.id}", kind, _path("M", queue.right, "L", box.left), (queue.id, box.id), arrow=kind == "consumes")


def _dead_letters(scene: Scene, boxes: Mapping[str, Box]) -> Iterable[Line]:
    """From a queue that is not chatlib's to the exchange that takes what it gives up."""
    for name, facts in scene.structure.queues.items():
        target = dict(facts.arguments).get("x-dead-letter-exchange", "")
        a, b = boxes.get(f"q:{name}"), boxes.get(f"x:{target}")
        if a and b:
            start, end = (a.x, a.y + a.h - 6), (b.x + b.w, b.y + b.h - 6)
            d = _path("M", start, "C", (start[0] - 60, start[1] + 30), (end[0] + 60, end[1] + 30), end)
            yield Line(f"{a.id}>{b.id} dead", "dlx", d, (a.id, b.id))


def _entry(boxes: Mapping[str, Box], side: str) -> Box | None:
    """Where a message goes in: the exchange, or where there is none, the queue."""
    return boxes.get(f"x:{side}") or boxes.get(f"side:{side}")


def _aside(boxes: Mapping[str, Box]) -> Iterable[Line]:
    """What is beside the way: everybody's receipts, failures and dead letters leave on one line, retries come back on another."""
    people = [box for box in boxes.values() if box.kind == "consumer" and _is_person(boxes, box)]
    entries = [(side, box) for side in ("receipts", "dead", "wait") if (box := _entry(boxes, side)) is not None]
    for side in ("receipts", "dead", "wait"):
        pill, queue = boxes.get(f"x:{side}"), boxes.get(f"side:{side}")
        if pill and queue:
            d = _path("M", (pill.x + 20, pill.y + pill.h), "L", (queue.x + 20, queue.y))
            yield Line(f"{pill.id}>{queue.id}", "bus", d, (pill.id, queue.id))
    again, wait = boxes.get("side:again"), boxes.get("side:wait")
    if again and wait:
        yield Line(f"{wait.id}>{again.id}", "bus", up(boxes), (wait.id, again.id))
    if not people:
        return
    if entries:
        heights = [box.right[1] - 6 for box in people] + [box.left[1] for _, box in entries]
        stubs = " ".join(_path("M", (box.x + box.w, box.right[1] - 6), "H", _number(OUT)) for box in people)
        trunk = _path("M", (OUT, min(heights)), "V", _number(max(heights)))
        yield Line("out", "bus", f"{stubs} {trunk}", (), arrow=False)
        for side, box in entries:
            yield Line(f"out>{side}", "bus", _path("M", (OUT, box.left[1]), "L", box.left), (box.id,))
    if again:
        heights = [box.right[1] + 8 for box in people] + [again.left[1]]
        trunk = _path("M", again.left, "H", _number(BACK), "M", (BACK, min(heights)), "V", _number(max(heights)))
        yield Line("back", "back", trunk, (again.id,), arrow=False)
        for box in people:
            y = box.right[1] + 8
            yield Line(f"back>{box.id}", "back", _path("M", (BACK, y), "L", (box.x + box.w, y)), (again.id, box.id))


def _is_person(boxes: Mapping[str, Box], consumer: Box) -> bool:
    queue = boxes.get(f"q:{consumer.id[2:]}")
    return queue is not None and queue.state == "inbox"


# ---- ways ------------------------------------------------------------------------------------------------------------------


def along(*stops: Box) -> str:
    """The path of a message through these boxes, from the right of the first to the left of the last; "" if there are less than two."""
    if len(stops) < 2:
        return ""
    parts = [_path("M", stops[0].right)]
    for number, (a, b) in enumerate(pairwise(stops)):
        if number:
            parts.append(_path("L", a.right))  # through the box
        parts.append(_bend(a.right, b.left))
    return " ".join(parts)


def aside(person: Box, boxes: Mapping[str, Box], side: str) -> str:
    """The path from a person to what is beside the way."""
    entry = _entry(boxes, side)
    if entry is None:
        return ""
    y = person.right[1] - 6
    return _path("M", (person.x + person.w, y), "H", _number(OUT), "V", _number(entry.left[1]), "H", _number(entry.x))


def back(person: Box, boxes: Mapping[str, Box]) -> str:
    """The path from where retries come back to a person."""
    again = boxes.get("side:again")
    if again is None:
        return ""
    y = person.right[1] + 8
    return _path("M", again.left, "H", _number(BACK), "V", _number(y), "H", _number(person.x + person.w))


def up(boxes: Mapping[str, Box]) -> str:
    """The path from where retries wait to where they come back."""
    wait, again = boxes.get("x:wait") or boxes.get("side:wait"), boxes.get("side:again")
    return (
        "" if wait is None or again is None else _path("M", (wait.x + wait.w - 20, wait.y), "L", (wait.x + wait.w - 20, again.y + again.h))
    )


def home(exchange: Box | None, sender: Box | None) -> str:
    """The path of what comes back from an exchange to its sender."""
    if exchange is None or sender is None:
        return ""
    (ax, ay), (bx, by) = exchange.left, sender.right
    return _path("M", (ax, ay), "C", (ax - 26, ay + 16), (bx + 26, by + 16), (bx, by))


def rise(sender: Box | None) -> str:
    """The path of what a sender gets to know: up from his box."""
    return "" if sender is None else _path("M", (sender.x + sender.w - 12, sender.y + 10), "v -18")
