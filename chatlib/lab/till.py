"""The shop's till: serves customers one after the other, and writes down what each was told and how long it took."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from chatlib import events
from chatlib.events import Events
from chatlib.sent import SentMessage

if TYPE_CHECKING:
    from pandas import DataFrame

    from chatlib.lab.lesson import Lesson

__all__ = ["Served", "Till"]

Pay = Callable[[str, int], Any]


@dataclass(frozen=True, slots=True)
class Served:
    """One customer. told: "paid", "accepted", "refused" (nobody answered the door) or "no answer" (in time). seconds: at the till."""

    section: str
    order: str
    amount: int
    told: str
    seconds: float


class Till:
    """`serve(pay, count)` lets `count` customers pay with `pay(order, amount)`; orders are numbered A001, A002 ..."""

    def __init__(self, lesson: Lesson) -> None:
        self.served: list[Served] = []
        self._lesson = lesson
        self._hops = Events()
        self._hops.listen(lesson.recorder)

    def serve(self, pay: Pay, count: int) -> DataFrame:
        """One row for each thing that customers were told, with how many were told it."""
        import pandas as pd

        served = [self._one(pay, f"A{len(self.served) + 1:03}") for _ in range(count)]
        told = Counter(each.told for each in served)
        return pd.DataFrame({"customers": list(told.values())}, index=list(told))

    def _one(self, pay: Pay, order: str) -> Served:
        amount = 10 + len(self.served) % 7
        hop: str | None = None
        began = time.monotonic()
        try:
            answer = pay(order, amount)
        except httpx.ConnectError:
            told, hop = "refused", events.NACKED
        except httpx.TimeoutException:
            told, hop = "no answer", events.UNKNOWN
        else:
            if isinstance(answer, SentMessage):
                told = "accepted"
            else:
                told, hop = "paid", events.CONFIRMED
        seconds = time.monotonic() - began
        if hop is not None:  # a call without a queue leaves no records of its own: these are the same hops
            self._hops.emit(events.SENT, order, user="shop", to="@bank")
            self._hops.emit(hop, order, user="shop", to="@bank")
        self.served.append(Served(self._lesson.section_name, order, amount, told, seconds))
        return self.served[-1]
