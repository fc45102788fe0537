"""What became of messages that were tried more than once, from the records: the story of one, and a table of all."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from chatlib import events
from chatlib.lab.tables import Words
from chatlib.lab.waiting import wait_until

if TYPE_CHECKING:
    from pandas import DataFrame

    from chatlib.events import Event
    from chatlib.lab.lesson import Lesson
    from chatlib.sent import SentMessage

__all__ = ["attempts", "story", "wait_settled"]

ENDS = (events.HANDLED, events.DEAD)


def wait_settled(lesson: Lesson, section: str | None = None, timeout: float = 30.0) -> None:
    """Wait until every message of this experiment (without a name: of the one that is under way) was handled or is a dead letter."""
    name = lesson.section_name if section is None else section
    first, beyond = lesson._range(name)

    def settled() -> bool:  # in one pass, since it is asked fifty times a second beside what it waits for
        history = lesson.history
        sent = {event["message_id"] for event in history[first:beyond] if event["hop"] == events.STORED}
        return sent <= {event["message_id"] for event in history[first:] if event["hop"] in ENDS}

    wait_until(settled, timeout, f"every message of {name!r} is handled or dead")


def attempts(lesson: Lesson, *sections: str) -> DataFrame:
    """One row for each experiment: how many messages were handled at attempt 1, 2, ... and how many ended in the dead letters."""
    import pandas as pd

    rows: dict[str, dict[str, int]] = {}
    for section in sections:
        records = lesson.records(section)
        handled = {event["message_id"]: event["attempt"] for event in records if event["hop"] == events.HANDLED}
        dead = {event["message_id"] for event in records if event["hop"] == events.DEAD} - handled.keys()
        counts = Counter(handled.values())
        rows[section] = {f"at attempt {number}": counts[number] for number in sorted(counts)} | {"dead": len(dead)}
    columns = sorted({name for row in rows.values() for name in row} - {"dead"}, key=lambda name: int(name.split()[-1]))
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*columns, "dead"]).fillna(0).astype(int)


def story(lesson: Lesson, sent: SentMessage) -> Words:
    """Every attempt at one message: what happened, and after how many seconds it comes again, or where it went."""
    import pandas as pd

    rows = [
        _row(event) for event in lesson.history if event.get("message_id") == sent.message_id and event["hop"] in (events.RETRIED, *ENDS)
    ]
    return Words(pd.DataFrame(rows, columns=["attempt", "what happened", "what then"]))


def _row(event: Event) -> tuple[int, str, str]:
    attempt = event["attempt"]
    if event["hop"] == events.RETRIED:
        return attempt, event["reason"], f"again in {event['delay']:.2g} s"
    return (attempt, "handled", "") if event["hop"] == events.HANDLED else (attempt, event["reason"], "to the dead letters")
