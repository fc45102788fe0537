"""A run as the people in it saw it: who heard what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import count

from chatlib import events
from chatlib.checker import check
from chatlib.events import Event
from chatlib.verdict import Verdict

__all__ = ["heard_by", "people_verdict"]


def people_verdict(said: Sequence[str], got: Mapping[str, Iterable[str]], sender: str = "alice") -> Verdict:
    """The checker's verdict when everybody in `got` was meant to hear everything that was `said`.

    said: the contents, in order, each another one. got: listener -> the contents that came to him. It does not ask what queues there were.
    """
    clock = count()
    history: list[Event] = []
    for content in said:
        about = {"message_id": content, "user": sender, "to": "#room", "recipients": sorted(got)}
        history += [{"hop": hop, "at": float(next(clock)), **about} for hop in (events.STORED, events.CONFIRMED)]
    for listener in sorted(got):
        for content in got[listener]:
            history += [
                {"hop": hop, "at": float(next(clock)), "message_id": content, "user": listener, "attempt": 1}
                for hop in (events.DELIVERED, events.HANDLED)
            ]
    return check(history)


def heard_by(history: Iterable[Event]) -> dict[tuple[str, str], int]:
    """How many messages each listener handled, by sender: (sender, listener) -> count."""
    sender: dict[str, str] = {}
    handled: list[tuple[str, str]] = []
    for event in history:
        if event["hop"] in (events.STORED, events.SENT):
            sender[event["message_id"]] = event["user"]
        elif event["hop"] == events.HANDLED:
            handled.append((event["message_id"], event["user"]))
    return dict(Counter((sender[message_id], listener) for message_id, listener in handled if message_id in sender))
