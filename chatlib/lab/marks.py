"""Faults in charts: which there were, where they are between two moments, and how they look; the same in every chart, live or saved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chatlib.events import FAULT_BEGAN, FAULT_ENDED, Event
from chatlib.sampler import Marked

__all__ = ["FAULT", "RED", "Mark", "Span", "notes", "placed", "shapes", "spans", "spans_of"]

Span = tuple[str, float, float | None]
"""A fault: name, when it began and ended in Unix seconds; None: it goes on."""

FAULT: Final = "rgba(214, 39, 40, 0.14)"
EDGE: Final = "rgba(214, 39, 40, 0.4)"
RED: Final = "#a11"
ROWS: Final = 3  # heights at which names stand
ROW: Final = 15  # pixels between them
LETTER: Final = 6.8  # pixels, at 12 pixels of height


@dataclass(frozen=True, slots=True)
class Mark:
    """A fault in a chart: from `begin` to `end` on its axis, its name at height `row` (0 is the lowest) above it."""

    name: str
    begin: float
    end: float
    row: int


def spans(history: Iterable[Event]) -> list[Span]:
    """The faults in a history, in the order in which they began."""
    found: list[Span] = []
    for event in history:
        if event["hop"] == FAULT_BEGAN:
            found.append((event["name"], event["at"], None))
        elif event["hop"] == FAULT_ENDED:
            for number in range(len(found) - 1, -1, -1):
                if found[number][0] == event["name"] and found[number][2] is None:
                    found[number] = (found[number][0], found[number][1], event["at"])
                    break
    return found


def spans_of(faults: Iterable[Marked]) -> list[Span]:
    """The same of fault objects."""
    return [(fault.name, fault.began, fault.ended) for fault in faults]


def placed(found: Iterable[Span], zero: float, begin: float, end: float, *, now: float | None = None, width: float = 680) -> list[Mark]:
    """The marks of an axis from `begin` to `end`, in seconds since `zero`, that is `width` pixels wide.

    now: how far those reach that go on, by default to the end. A name takes the lowest row in which it covers no other.
    """
    marks: list[Mark] = []
    free = [begin] * ROWS  # from where on each row has room
    letter = LETTER * (end - begin) / width
    for name, began, ended in found:
        first = max(began - zero, begin)
        last = min(ended - zero if ended is not None else (end if now is None else now - zero), end)
        if first > end or (ended is not None and ended - zero < begin):
            continue
        row = next((row for row in range(ROWS) if free[row] <= first), min(range(ROWS), key=free.__getitem__))
        free[row] = first + (len(name) + 1) * letter
        marks.append(Mark(name.replace("_", " "), first, max(first, last), row))
    return marks


def shapes(marks: Sequence[Mark]) -> list[dict[str, Any]]:
    """The shaded spans, as plotly's shapes: over all panels, below the lines. One without a duration is a stroke."""
    return [
        {"type": "rect", "xref": "x", "yref": "paper", "x0": mark.begin, "x1": mark.end, "y0": 0, "y1": 1, "layer": "below",
         "fillcolor": FAULT, "line": {"width": 1, "color": EDGE}}
        for mark in marks
    ]  # fmt: skip


def notes(marks: Sequence[Mark]) -> list[dict[str, Any]]:
    """Their names, as plotly's annotations: above the chart, where each begins."""
    return [
        {"x": mark.begin, "y": 1, "xref": "x", "yref": "paper", "xanchor": "left", "yanchor": "bottom", "yshift": 2 + ROW * mark.row,
         "showarrow": False, "text": mark.name, "font": {"size": 12, "color": RED}}
        for mark in marks
    ]  # fmt: skip
