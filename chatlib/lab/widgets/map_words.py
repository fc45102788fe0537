"""What a map says: how full the boxes are, and what is told about each of them. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from chatlib.lab.widgets.map_layout import Box, Places, folded_of, natural, short
from chatlib.lab.widgets.map_lines import box_of_queue
from chatlib.lab.widgets.map_model import Scene, label_of
from chatlib.names import unescape
from chatlib.topology import GROUPS, USERS

__all__ = ["about", "depth_words", "figures_of", "known", "members_of", "summary"]

Figures = Mapping[str, Sequence[float]]

LISTED: Final = 12  # names in one line of details
LIMITS: Final = {
    "x-max-length": "at most {} messages",
    "x-max-length-bytes": "at most {} bytes",
    "x-message-ttl": "each stays {} ms",
    "x-max-age": "keeps {}",
    "x-dead-letter-exchange": "what it gives up goes to {}",
    "x-overflow": "when full: {}",
}
SIDE_STORY: Final = {
    "receipts": "RECEIVE_MESSAGE: who got a message tells its sender, through a queue for each sender",
    "dead": "what failed for good or could not be read; chat.dead_letters lists and replays it",
    "wait": "what failed waits here, in a queue for each delay, and then comes back",
    "again": "what has waited comes back to its user here, not through the inbox, which may be full",
}


def depth_words(first: float, second: float, box: Box | None = None) -> str:
    """How full a queue is (ready, unacked), or what somebody has sent (messages, not confirmed). Of a stream nothing is ever taken out."""
    if box is not None and box.kind == "sender":
        return f"{_round(second)} pending" if second else f"{_round(first)} sent"
    if box is not None and box.state == "history":
        return f"{_round(first)} kept"
    words = [f"{_round(first)} ready"] if first else []
    if second:
        words.append(f"{_round(second)} unacked")
    return " · ".join(words) or "empty"


def _round(number: float) -> str:
    """As much of a number as fits into a box."""
    return f"{number / 1000:,.1f}k" if number >= 10_000 else f"{number:,.0f}"


def known(now: Mapping[str, Mapping[str, float]], before: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """(ready, unacked) of each queue; what a queue does not tell while it starts (NaN) is as it was before."""
    found = {}
    for name, each in now.items():
        pair = each["ready"], each["unacked"]
        found[name] = before.get(name, (0.0, 0.0)) if any(map(math.isnan, pair)) else pair
    return found


def figures_of(scene: Scene, boxes: Mapping[str, Box], found: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Two figures of queues (ready and unacked, or in and out) for each box, and each that is folded, where one is not 0; summed up where
    a box stands for several queues.
    """
    sides = {name: f"side:{side}" for side, each in scene.sides.items() for name in each.queues}
    figures: dict[str, list[float]] = {}
    for name, (first, second) in found.items():
        if not first and not second:
            continue
        box = boxes.get(sides[name]) if name in sides else box_of_queue(boxes, name) if name in scene.structure.queues else None
        if box is None:
            continue
        if box.id == "q:more":
            figures[f"q:{name}"] = [first, second]
        so_far = figures.setdefault(box.id, [0, 0])
        so_far[0] += first
        so_far[1] += second
    return figures


def members_of(scene: Scene, places: Places) -> list[dict[str, Any]]:
    """What is folded, as the browser draws it when it is unfolded."""
    return [
        {
            "id": f"q:{name}",
            "label": short(label_of(name, scene.users), 12),
            "state": "online" if scene.consumers(name) else "offline",
            "about": _of_queue(scene, name),
        }
        for name in folded_of(scene, places)
    ]


def summary(scene: Scene) -> str:
    """The map in one sentence, for screen readers."""
    here = sum(scene.consumers(name) > 0 for name in scene.users)
    parts = [_count(len(scene.structure.exchanges), "exchange"), _count(len(scene.structure.queues), "queue")]
    if scene.users:
        parts.append(f"{_count(len(scene.users), 'user')}, {here} online")
    return "Map of the broker: " + ", ".join(parts)


# ---- details ---------------------------------------------------------------------------------------------------------------


def about(scene: Scene, places: Places, box: Box, sent: Iterable[tuple[str, str]] = ()) -> list[list[str]]:
    """What is told about a box: pairs of a word and what it means here; the first is its name in full."""
    kind, _, name = box.id.partition(":")
    if kind == "s":
        to = sorted(exchange for sender, exchange in sent if sender == name)
        return [["user", name], ["sends through", _listed(to) or "nothing yet"], ["has the inbox", f"inbox.{name}"]]
    if kind == "k" and name != "more":
        return _of_hub(scene, *name.split(":", 1))
    if kind == "q" and name != "more":
        return _of_queue(scene, name)
    if kind == "u" and name != "more":
        return _of_consumer(scene, name)
    if kind == "side" or box.kind == "pill":
        return _of_side(scene, name)
    if kind == "x" and name != "more":
        return _of_exchange(scene, name)
    return _of_more(scene, places, kind)


def _of_exchange(scene: Scene, name: str) -> list[list[str]]:
    bindings = [each for each in scene.structure.bindings if each.source == name]
    keys = sorted({unescape(each.key) for each in bindings if each.key}, key=natural)
    story = {USERS.name: "a message to @bob has the key bob", GROUPS.name: "a message to #team has the key team; membership is a binding"}
    return [
        ["exchange", name or "(the default exchange: its keys are names of queues)"],
        ["type", scene.structure.exchanges.get(name, "")],
        ["bindings", f"{len(bindings)}" + (f", keys {_listed(keys)}" if keys else "")],
        *([["note", story[name]]] if name in story else []),
    ]


def _of_hub(scene: Scene, exchange: str, key: str) -> list[list[str]]:
    queues = scene.hubs.get((exchange, key), ())
    return [
        ["binding key", key],
        ["of exchange", exchange],
        ["goes to", f"{_count(len(queues), 'queue')}: {_listed(sorted(queues, key=natural))}"],
    ]


def _of_queue(scene: Scene, name: str) -> list[list[str]]:
    facts = scene.structure.queues.get(name)
    if facts is None:
        return [["queue", name]]
    arguments = dict(facts.arguments)
    limits = [LIMITS[key].format(value) for key, value in arguments.items() if key in LIMITS]
    state = "" if facts.state in ("", "running", "idle") else f", {facts.state}"
    bindings = [f"{each.source} ▸ {unescape(each.key) or 'all'}" for each in scene.bindings_to(name)]
    return [
        ["queue", name],
        ["type", f"{facts.type}, {'durable' if facts.durable else 'gone with its broker'}{state}"],
        ["bound to", _listed(bindings) or "the default exchange only"],
        ["consumers", str(scene.consumers(name)) if scene.consumers(name) else "none"],
        *([["limits", "; ".join(limits)]] if limits else []),
    ]


def _of_consumer(scene: Scene, queue: str) -> list[list[str]]:
    count = scene.consumers(queue)
    user = scene.users.get(queue)
    if user is None:
        return [["consumers", f"{_count(count, 'consumer')} of {queue}" if count else f"none of {queue}: what comes stays there"]]
    groups = sorted((f"#{unescape(each.key)}" for each in scene.bindings_to(queue) if each.source == GROUPS.name), key=natural)
    return [
        ["user", user],
        ["is", f"online, {_count(count, 'consumer')}" if count else "offline: the inbox keeps what comes"],
        ["member of", _listed(groups) or "no group"],
        ["inbox", queue],
    ]


def _of_side(scene: Scene, side: str) -> list[list[str]]:
    each = scene.sides.get(side)
    if each is None:
        return []
    found = [["about", SIDE_STORY[side]]]
    if each.exchanges:
        found.append(["exchange" if len(each.exchanges) == 1 else "exchanges", _listed(sorted(each.exchanges, key=natural))])
    if each.queues:
        found.append(["queue" if len(each.queues) == 1 else "queues", _listed(sorted(each.queues, key=natural))])
    return found


def _of_more(scene: Scene, places: Places, kind: str) -> list[list[str]]:
    if kind == "x":
        return [["exchanges", _listed([name for name in scene.exchanges if name not in places.exchange])]]
    if kind == "k":
        return [["keys", _listed(sorted(unescape(key) for exchange, key in scene.hubs if (exchange, key) not in places.hub))]]
    names = folded_of(scene, places)
    here = [scene.users.get(name, name) for name in names if scene.consumers(name)]
    found = [
        ["folded", f"{_count(len(names), 'queue')} with less to do"],
        ["queues", _listed(names)],
        ["online", _listed(here) or "nobody"],
    ]
    return found if kind == "u" else [*found, ["open it", "click, or Enter"]]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:LISTED])
    return shown + (f" and {len(names) - LISTED:,} more" if len(names) > LISTED else "")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
