"""What a sampler saw, as lines: one step line for each queue and figure, bounded, and quick to add to and to cut a window from.

Knows no widget and no pandas. Threads may add and read at once.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

__all__ = ["RATES", "Line", "Track", "Tracks", "pick"]

MOST: Final = 4_000  # points of a line that are kept: 17 minutes in which every sample differs
INBOX: Final = "inbox."
SHOWN: Final = 400  # points of a line that are drawn: a chart is some 700 pixels wide
HOLE: Final = 6.0  # seconds without a sample: it was stopped; a frozen broker costs one sample at most 2 seconds for each question
LEADS: Final = 1.5  # how much busier another queue must be to take the place of one that is shown
RATES: Final = ("publish_rate", "deliver_rate", "ack_rate")

Points = tuple[list[float], list[float | None]]


class Line:
    """Values over time, each valid until the next; None: nothing is known. Of a level only its two ends are kept."""

    __slots__ = ("times", "values")

    def __init__(self) -> None:
        self.times: list[float] = []
        self.values: list[float | None] = []

    def add(self, at: float, value: float | None) -> None:
        """Add a value; NaN is None. A time before the last one (an age is only nearly right) counts as the last one."""
        if value is not None and math.isnan(value):
            value = None
        times, values = self.times, self.values
        if times:
            at = max(at, times[-1])
            if values[-1] == value and (value is None or (len(values) > 1 and values[-2] == value)):
                if value is not None:
                    times[-1] = at
                return
        elif value is None:
            return
        times.append(at)
        values.append(value)
        if len(times) > MOST:
            self.times, self.values = thinned(times, values, MOST // 2)

    def since(self, start: float = -math.inf) -> Points:
        """The points from `start` on, with the value that held at `start`, at most about `SHOWN`."""
        first = bisect_left(self.times, start)
        times, values = self.times[first:], self.values[first:]
        if first and (held := self.values[first - 1]) is not None:
            times, values = [start, *times], [held, *values]
        return thinned(times, values, SHOWN)

    def at(self, moments: Iterable[float]) -> list[float | None]:
        """The values that held at these moments; None before the first."""
        return [self.values[found - 1] if (found := bisect_right(self.times, moment)) else None for moment in moments]

    def peak(self, start: float = -math.inf) -> float:
        """The highest value since `start`, 0 where there is none."""
        first = max(bisect_right(self.times, start) - 1, 0)
        return max((value for value in self.values[first:] if value is not None), default=0.0)

    def area(self, start: float = -math.inf) -> float:
        """Values times seconds since `start`: of a rate, how much came in that time."""
        times, values = self.times, self.values
        first = max(bisect_right(times, start) - 1, 0)
        return sum((values[n] or 0.0) * (times[n + 1] - max(times[n], start)) for n in range(first, len(times) - 1))


def thinned(times: list[float], values: list[float | None], most: int) -> Points:
    """About `most` of these points: of each stretch of them its lowest, its highest, and a gap if there is one."""
    if len(times) <= most:
        return times, values
    size = math.ceil(2 * len(times) / most)
    kept = {0, len(times) - 1}
    for begin in range(0, len(times), size):
        part = range(begin, min(begin + size, len(times)))
        kept.update([n for n in part if values[n] is None][:1])
        known = [n for n in part if values[n] is not None]
        if known:
            kept |= {min(known, key=lambda n: values[n] or 0.0), max(known, key=lambda n: values[n] or 0.0)}
    chosen = sorted(kept)
    return [times[n] for n in chosen], [values[n] for n in chosen]


class Track:
    """The lines of one queue: `ready`, `unacked`, and `moved`, messages in and out a second."""

    __slots__ = ("moved", "ready", "unacked")

    def __init__(self) -> None:
        self.ready, self.unacked, self.moved = Line(), Line(), Line()

    def busy(self, start: float) -> float:
        """How busy it was since `start`, in messages: the most that it held, and those that went through."""
        return self.ready.peak(start) + self.unacked.peak(start) + self.moved.area(start)


class Tracks:
    """All lines of a run: by queue, and of all queues together the `rates` (by `RATES`) and the `consumers`."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.lock = threading.RLock()
        self.queues: dict[str, Track] = {}  # in the order in which they were seen
        self.rates = {name: Line() for name in RATES}
        self.consumers = Line()
        self.first: float | None = None  #: Unix seconds of the first sample
        self.last: float | None = None  #: and of the last
        self.away_since: float | None = None  #: of the first of the samples without an answer, if the last was one
        self.present: tuple[str, ...] = ()  #: the queues that there were in the last sample with an answer
        self.add(rows)

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows of a `Sampler`, one sample or several, oldest first."""
        with self.lock:
            for at, sample in groupby(rows, key=itemgetter("at")):
                self._sample(float(at), list(sample))

    def _sample(self, at: float, rows: Sequence[Mapping[str, Any]]) -> None:
        self.first = at if self.first is None else self.first
        if self.last is not None and at - self.last > HOLE:
            self._gap_everywhere(self.last)
        self.last = at
        if not rows[0]["up"]:
            self.away_since = at if self.away_since is None else self.away_since
            self._gap_everywhere(at)
            return
        self.away_since = None
        rows = [row for row in rows if row["queue"]]  # without a name: there are no queues
        seen = tuple(row["queue"] for row in rows)
        if seen != self.present:
            self._gap(set(self.present) - set(seen), at)
            self.present = seen
        for row in rows:
            track = self.queues.get(row["queue"]) or self.queues.setdefault(row["queue"], Track())
            track.ready.add(at, row["ready"])
            track.unacked.add(at, row["unacked"])
            track.moved.add(at, total(row[name] for name in RATES[:2]))
        age = rows[0]["age"] if rows else 0.0
        counted = at if math.isnan(age) else at - age  # when the broker counted, not when it was asked
        for name, line in self.rates.items():
            line.add(counted, total(row[name] for row in rows))
        self.consumers.add(counted, total(row["consumers"] for row in rows))

    def _gap_everywhere(self, at: float) -> None:
        self._gap(self.queues, at)
        for line in (self.consumers, *self.rates.values()):
            line.add(at, None)

    def _gap(self, queues: Iterable[str], at: float) -> None:
        for name in queues:
            track = self.queues[name]
            for line in (track.ready, track.unacked, track.moved):
                line.add(at, None)

    def busiest(self, shown: Sequence[str], most: int, since: float = -math.inf) -> tuple[str, ...]:
        """The `most` busiest queues since that moment, see `pick`."""
        with self.lock:
            first = sorted(self.queues, key=lambda name: not name.startswith(INBOX))  # where all are idle: of people, not of machinery
            return pick(shown, {name: self.queues[name].busy(since) for name in first}, most)


def total(values: Iterable[float]) -> float | None:
    """The sum of those that are known; None if none is."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) if known else None


def pick(shown: Sequence[str], busy: Mapping[str, float], most: int) -> tuple[str, ...]:
    """Which queues to show: the busiest, each in the place that it has; "" is a free place.

    One that is shown stays until another is `LEADS` times as busy: a chart whose lines change all the time cannot be read.
    """
    chosen = sorted(busy, key=lambda name: -busy[name] * (LEADS if name in shown else 1))[:most]
    places = [name if name in chosen else "" for name in shown][:most]
    newcomers = [name for name in chosen if name not in places]
    for index, name in enumerate(places):
        if not name and newcomers:
            places[index] = newcomers.pop(0)
    return tuple([*places, *newcomers][:most])
