"""How long the broker was away for those who use it, read from a lesson's history."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING

from chatlib.events import CONFIRMED, HANDLED, Event

if TYPE_CHECKING:
    from pandas import DataFrame

    from chatlib.lab.lesson import Lesson

__all__ = ["outages", "silence"]

LEAST = 1.0  # seconds: no broker is back sooner, and no burst pauses for so long


def outages(lesson: Lesson, name: str = "kill") -> DataFrame:
    """One row for each fault of this name, in seconds: how long the process was away, nothing was confirmed, nothing was handled."""
    import pandas as pd

    history = lesson.history
    rows = [
        {
            "no broker": fault.ended - fault.began,
            "no confirm": silence(history, CONFIRMED, fault.began),
            "no delivery": silence(history, HANDLED, fault.began),
        }
        for fault in lesson.faults
        if fault.name == name and fault.ended is not None
    ]
    return pd.DataFrame(rows, index=[f"{name} {number}" for number in range(1, len(rows) + 1)], dtype=float).round(1)


def silence(history: Iterable[Event], hop: str, began: float) -> float:
    """The first time of more than a second without a record of `hop` after `began`, in seconds; NaN if there is none.

    Not simply from the fault to the next record: what was on its way when the broker died may still be recorded after `began`.
    """
    moments = sorted(event["at"] for event in history if event["hop"] == hop and event["at"] > began)
    return next((b - a for a, b in pairwise([began, *moments]) if b - a > LEAST), math.nan)
