"""The judgement over a chaos run: the checker's verdict, and three promises that the checker does not know of.

- What `send()` accepted has an outcome in the end (`forgotten`: it has none). The checker takes "unknown" for an answer, since a
  history may end in the middle; a run that was drained has no excuse.
- The effect of a handler happens once (`repeated`). The effects are records of the handlers themselves, not of chatlib. The exception
  is the instant between an effect and the moment at which its id is on disk: whoever is killed in it does that one again (`excused`);
  for each user that can only be the last effect of a life.
- Who handled a message told its sender (`untold`: no receipt reached the sender), except where somebody deleted the queue of receipts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from chatlib.chaos.actor import EFFECT
from chatlib.checker import check
from chatlib.events import HANDLED, RECEIPT, Event
from chatlib.verdict import Verdict

__all__ = ["Judgement", "judge"]

EXAMPLES: Final = 5
FOUND: Final = ("forgotten", "repeated", "untold")


@dataclass(frozen=True)
class Judgement:
    """See the module. examples: the first few of each that was found, as texts; those of the verdict are in the verdict."""

    verdict: Verdict
    repeated: int
    excused: int
    untold: int
    examples: Mapping[str, tuple[str, ...]]

    @property
    def forgotten(self) -> int:
        """Messages that were accepted and have no outcome."""
        return self.verdict.unknown

    @property
    def valid(self) -> bool:
        """Whether every promise was kept."""
        return self.verdict.valid and not any(getattr(self, name) for name in FOUND)

    @property
    def defects(self) -> dict[str, int]:
        """What was found, by name: lost, duplicated, unexpected, out_of_order, forgotten, repeated, untold; only those that occurred."""
        verdict = self.verdict
        counts = {name: getattr(verdict, name) for name in ("lost", "duplicated", "unexpected", "out_of_order")}
        counts |= {name: getattr(self, name) for name in FOUND}
        return {name: count for name, count in counts.items() if count}

    @property
    def sentence(self) -> str:
        """The verdict's line, and what else was found."""
        words = {"forgotten": "accepted and forgotten", "repeated": "effects repeated", "untold": "handled and their senders not told"}
        more = [f"{getattr(self, name):,} {words[name]}" for name in FOUND if getattr(self, name)]
        if self.excused:
            more.append(f"{self.excused:,} effects done again by who was killed right after them")
        return "; ".join([self.verdict.sentence, *more])

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON types."""
        own = {name: getattr(self, name) for name in (*FOUND, "excused")}
        return {**self.verdict.to_dict(), **own, "valid": self.valid, "examples_of_chaos": {k: list(v) for k, v in self.examples.items()}}


def judge(history: Iterable[Event], *, deleted: frozenset[str] = frozenset()) -> Judgement:
    """Judge the records of all processes of a run that was drained.

    deleted: senders whose queue of receipts was deleted. Raises HistoryError for a record that is malformed.
    """
    notes = _Notes()
    verdict = check(notes.through(history))
    examples: dict[str, tuple[str, ...]] = {}
    repeated, excused = notes.repetitions()
    if repeated:
        examples["repeated"] = tuple(repeated[:EXAMPLES])
    untold = [key for key in notes.handled if notes.handled[key] not in deleted and key not in notes.receipts]
    if untold:
        examples["untold"] = tuple(
            f"{message_id}: {user} handled it, {notes.handled[message_id, user]} was not told" for message_id, user in untold[:EXAMPLES]
        )
    if verdict.unknown:
        examples["forgotten"] = tuple(list(notes.unsettled)[:EXAMPLES])
    return Judgement(verdict, len(repeated), excused, len(untold), examples)


class _Notes:
    """What is taken down while the checker reads."""

    def __init__(self) -> None:
        self.effects: defaultdict[str, list[tuple[float, int, str]]] = defaultdict(list)
        self.handled: dict[tuple[str, str], str] = {}  # (message, who) -> sender
        self.receipts: set[tuple[str, str]] = set()
        self.unsettled: dict[str, None] = {}

    def through(self, history: Iterable[Event]) -> Iterator[Event]:
        """Hand every record on."""
        for event in history:
            hop = event.get("hop")
            if hop == EFFECT:
                self.effects[event["user"]].append((event["at"], event["life"], event["message_id"]))
            elif hop == HANDLED:
                self.handled[event["message_id"], event["user"]] = event.get("sender", "")
            elif hop == RECEIPT:
                self.receipts.add((event["message_id"], event["user"]))
            elif hop == "outbox.stored":
                self.unsettled[event["message_id"]] = None
            elif hop in ("publish.confirmed", "publish.returned", "publish.nacked"):
                self.unsettled.pop(event["message_id"], None)
            yield event

    def repetitions(self) -> tuple[list[str], int]:
        """The effects that happened again without an excuse, and how many with one."""
        bad, excused = [], 0
        for user, effects in self.effects.items():
            effects.sort()
            last = {life: message_id for _, life, message_id in effects}
            lives: dict[str, int] = {}
            for _, life, message_id in effects:
                before = lives.get(message_id)
                if before is not None:
                    if before < life and last[before] == message_id:
                        excused += 1
                    else:
                        bad.append(f"{message_id}: {user} did it in life {before} and again in life {life}")
                lives[message_id] = life
        return bad, excused
