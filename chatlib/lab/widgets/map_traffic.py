"""Messages that travel over a map: a sample of the hops of a chat, each with its path and its time."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from chatlib import events
from chatlib.events import Event
from chatlib.lab.widgets import map_lines
from chatlib.lab.widgets.map_layout import Box
from chatlib.lab.widgets.map_model import Scene
from chatlib.messages import SEND_MESSAGE
from chatlib.names import escape, inbox_queue
from chatlib.topology import GROUPS, USERS

__all__ = ["Flight", "Traffic"]

WANTED: Final = {
    *(events.STORED, events.SENT, events.CONFIRMED, events.RETURNED, events.NACKED),
    *(events.DELIVERED, events.RETRIED, events.DEAD, events.RECEIPT),
    *(events.JOINED, events.LEFT, events.LINK),
}
BUDGET: Final = 24.0  # dots a second, and at once: some 10 messages, few of them to many
COPIES: Final = 4  # of one message to a group
REMEMBERED: Final = 500  # messages that are followed
BEHIND: Final = 2000  # hops that wait to be looked at
SENDERS: Final = 8
LEG: Final = 420  # milliseconds from one box to the next
LONG: Final = 700  # and to what is beside the way


@dataclass(frozen=True, slots=True)
class Flight:
    """One dot. d: its path; kind: message, receipt, retry, again, dead or returned; delay: milliseconds until it starts; ms: under way."""

    d: str
    kind: str
    delay: int
    ms: int

    def trait(self) -> dict[str, Any]:
        """As it goes to the browser."""
        return {"d": self.d, "kind": self.kind, "delay": self.delay, "ms": self.ms}


@dataclass(slots=True)
class _Sender:
    """What somebody has sent: through which exchanges, how many messages, and those that the broker has not confirmed."""

    exchanges: set[str] = field(default_factory=set)
    count: int = 0
    pending: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Followed:
    """A message that is shown on all its way: who sent it, and when its dot will have arrived at whom ("" for the inboxes)."""

    sender: str
    there: dict[str, float]


class Traffic:
    """Give it to `Chat.on_event`; `flights` takes what came since. Called from any thread, it only remembers.

    senders: the last who sent, the latest first. sent: (sender, exchange), of these. stirred: whether users came or went.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._events: deque[Event] = deque(maxlen=BEHIND)
        self._followed: OrderedDict[str, _Followed] = OrderedDict()
        self._budget, self._looked = BUDGET, clock()
        self._senders: OrderedDict[str, _Sender] = OrderedDict()
        self.stirred = False

    def __call__(self, event: Event) -> None:
        """Remember this hop, if it is of any use."""
        if event["hop"] in WANTED:
            self._events.append(event)

    @property
    def senders(self) -> list[str]:
        """The last who sent, the latest first."""
        return list(reversed(self._senders))

    @property
    def sent(self) -> frozenset[tuple[str, str]]:
        """(sender, exchange) of what was sent."""
        return frozenset((name, exchange) for name, sender in self._senders.items() for exchange in sender.exchanges)

    def figures(self) -> dict[str, list[float]]:
        """How many messages each of the senders has sent, and how many of them are not confirmed, by the id of his box."""
        return {f"s:{name}": [sender.count, len(sender.pending)] for name, sender in self._senders.items()}

    def drain(self) -> list[Event]:
        """The hops since the last call; notes who sent, so that they have a place before their dots start."""
        found = [self._events.popleft() for _ in range(len(self._events))]
        for event in found:
            hop, user, to = event["hop"], str(event.get("user") or ""), str(event.get("to") or "")
            if hop in (events.JOINED, events.LEFT, events.LINK):
                self.stirred = True
            elif hop in (events.STORED, events.SENT) and user and to and event.get("kind", SEND_MESSAGE) == SEND_MESSAGE:
                sender = self._note(user)
                sender.exchanges.add(_exchange(to))
                if hop == events.STORED:
                    sender.count += 1
                    sender.pending.add(event["message_id"])
            elif hop in (events.CONFIRMED, events.RETURNED, events.NACKED) and user in self._senders:
                self._senders[user].pending.discard(event["message_id"])
        return found

    def _note(self, name: str) -> _Sender:
        sender = self._senders.setdefault(name, _Sender())
        self._senders.move_to_end(name)
        if len(self._senders) > SENDERS:
            self._senders.popitem(last=False)
        return sender

    def flights(self, hops: list[Event], scene: Scene, boxes: Mapping[str, Box]) -> list[Flight]:
        """The dots for a sample of `hops`, of which each keeps the time it had, and starts when the one before it has arrived."""
        now, since = self._clock(), self._looked
        self._looked = now
        self._budget = min(BUDGET, self._budget + (now - since) * BUDGET)
        found: list[Flight] = []
        for event in hops:
            if self._budget < 1:
                break
            made = self._dots(event, scene, boxes, max(0.0, min(event["at"] - since, now - since)), now)
            self._budget -= len(made)
            found += made
        return found

    def _dots(self, event: Event, scene: Scene, boxes: Mapping[str, Box], delay: float, now: float) -> list[Flight]:
        hop, message_id, user = event["hop"], event.get("message_id", ""), str(event.get("user", ""))
        if hop == events.SENT:
            return self._sent(event, scene, boxes, delay, now)
        known = self._followed.get(message_id)
        if known is None:
            if hop != events.DELIVERED or self._budget < BUDGET / 2:
                return []  # it was not in the sample
            known = self._follow(message_id, str(event.get("sender", "")))
        start = max(delay, known.there.get(user, known.there.get("", 0.0)) - now)
        if hop == events.RETURNED:
            d = map_lines.home(boxes.get("x:" + _exchange(str(event.get("to", "")))), boxes.get(f"s:{known.sender}"))
            return [_flight(d, "returned", start, LEG)] if d else []
        person = boxes.get(f"u:{inbox_queue(user)}") or boxes.get("u:more")
        if person is None:
            return []
        if hop == events.RECEIPT:
            told = map_lines.rise(boxes.get(f"s:{known.sender}"))
            legs = [(map_lines.aside(person, boxes, "receipts"), "receipt", LONG), (told, "receipt", LONG)]
        elif hop == events.RETRIED:
            legs = [(map_lines.aside(person, boxes, "wait"), "retry", LONG)]
        elif hop == events.DEAD:
            legs = [(map_lines.aside(person, boxes, "dead"), "dead", LONG)]
        elif str(event.get("queue", "")).startswith("retries."):
            legs = [(map_lines.up(boxes), "again", LEG), (map_lines.back(person, boxes), "again", LONG)]
        else:
            legs = [(map_lines.along(*filter(None, [map_lines.box_of_queue(boxes, inbox_queue(user)), person])), "message", LEG)]
        found = []
        for d, kind, ms in legs:
            if d:
                found.append(_flight(d, kind, start, ms))
                start += ms / 1000
        if hop != events.RECEIPT:
            known.there[user] = now + start
        return found

    def _sent(self, event: Event, scene: Scene, boxes: Mapping[str, Box], delay: float, now: float) -> list[Flight]:
        user, to, message_id = str(event.get("user", "")), str(event.get("to", "")), event.get("message_id", "")
        if event.get("kind", SEND_MESSAGE) != SEND_MESSAGE or not to or self._budget < COPIES:
            return []
        sender, exchange, key = boxes.get(f"s:{user}"), boxes.get("x:" + _exchange(to)), escape(to[1:])
        if sender is None or exchange is None:
            return []
        stops, queues = [sender, exchange], [inbox_queue(to[1:])]
        if to.startswith("#"):
            queues = list(scene.hubs.get((GROUPS.name, key), ()))
            stops += filter(None, [boxes.get(f"k:{GROUPS.name}:{key}")])
        found = [map_lines.box_of_queue(boxes, queue) for queue in queues if queue in scene.structure.queues]
        targets = {box.id: box for box in found if box is not None}
        ms = LEG * (len(stops) - 1)
        there = delay + ms / 1000
        self._follow(message_id, user).there[""] = now + there + LEG / 1000
        copies = [_flight(map_lines.along(stops[-1], box), "message", there, LEG) for box in [*targets.values()][:COPIES]]
        return [_flight(map_lines.along(*stops), "message", delay, ms), *copies]

    def _follow(self, message_id: str, sender: str) -> _Followed:
        found = self._followed.setdefault(message_id, _Followed(sender, {}))
        if len(self._followed) > REMEMBERED:
            self._followed.popitem(last=False)
        return found


def _flight(d: str, kind: str, start: float, ms: int) -> Flight:
    return Flight(d, kind, max(0, round(start * 1000)), ms)


def _exchange(to: str) -> str:
    """The exchange for this address."""
    return GROUPS.name if to.startswith("#") else USERS.name
