"""What a live chart of queues shows, worked out of its lines: pure functions, no widget."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from chatlib.lab.marks import Mark, Span, placed
from chatlib.lab.tracks import RATES, Line, Points, Tracks

__all__ = ["ALL", "WINDOWS", "View", "axis", "counted_by", "left_out", "logarithmic", "short", "status", "ticks", "top", "view_of"]

ALL: Final = "all"
WINDOWS: Final[Mapping[str, float]] = {"30 s": 30.0, "2 min": 120.0, ALL: math.inf}
STEPS: Final[Mapping[float, float]] = {30.0: 5.0, 120.0: 20.0}  # the axis moves on by so much: at rest in between, it can be read
LENGTHS: Final = (30, 60, 120, 180, 300, 600, 900, 1200, 1800, 2700, 3600)  # seconds that "all" shows; then full hours
NAMED: Final = 6  # of the queues that are left out
SILENT: Final = 6.0  # seconds without any sample: there is nothing to sample
NAME: Final = 22  # letters in the legend


@dataclass(frozen=True)
class View:
    """lines: for each trace its points, in seconds since the first sample: ready of each place, unacked of each, `RATES`, consumers.

    names: of the places, "" for a free one. x and tops: where the axis of time begins and ends, and the heights of the three panels.
    """

    names: tuple[str, ...]
    lines: tuple[Points, ...]
    x: tuple[float, float]
    tops: tuple[float, float, float]
    marks: tuple[Mark, ...]


def view_of(
    tracks: Tracks,
    faults: Sequence[Span],
    places: Sequence[str],
    *,
    window: str,
    now: float,
    log: bool,
    tops: tuple[float, float, float] = (0, 0, 0),
) -> View:
    """Everything to draw. places: the queues shown, `Tracks.busiest`. now: Unix seconds. tops: the heights of the last view."""
    with tracks.lock:
        zero = tracks.first if tracks.first is not None else now
        begin, end = axis(now - zero, WINDOWS[window])
        since = zero + begin if begin > 0 else -math.inf

        def points(line: Line | None, *, scaled: bool = False) -> Points:
            if line is None:
                return [], []
            times, values = line.since(since)
            seen = bisect_right(times, now)  # a paused chart does not show what came later
            times, values = times[:seen], values[:seen]
            scale = logarithmic if log and scaled else lambda value: round(value, 1)
            return [round(at - zero, 2) for at in times], [None if value is None else scale(value) for value in values]

        found = [tracks.queues.get(name) for name in places]
        lines = (
            *(points(track.ready if track else None, scaled=True) for track in found),
            *(points(track.unacked if track else None, scaled=True) for track in found),
            *(points(tracks.rates[name]) for name in RATES),
            points(tracks.consumers),
        )
    depth, rates = lines[: 2 * len(places)], lines[2 * len(places) : -1]
    heights = (top(_highest(depth), tops[0], log=log), top(_highest(rates), tops[1]), top(_highest(lines[-1:]), tops[2], least=2))
    begun = [(name, began, ended if ended is None or ended <= now else None) for name, began, ended in faults if began <= now]
    marks = placed(begun, zero, begin, end, now=now)
    return View(tuple(places), lines, (begin, end), heights, tuple(marks))


def axis(elapsed: float, length: float) -> tuple[float, float]:
    """Where the axis of time begins and ends, in seconds since the first sample: it grows or moves on in steps."""
    if length == math.inf:
        return 0.0, float(next((each for each in LENGTHS if elapsed <= each), math.ceil(elapsed / 3600) * 3600))
    step = STEPS[length]
    end = max(length, math.ceil(elapsed / step) * step)
    return end - length, end


def top(highest: float, last: float, *, least: float = 5.0, log: bool = False) -> float:
    """How high a panel is for these values: round numbers, at least `least`, and lower than the last only if it was far too high."""
    if log:
        wanted = max(1.05, math.ceil((highest + 0.05) * 2) / 2)
        return last if wanted <= last <= wanted + 1 else wanted
    needed = max(highest * 1.05, least)
    power = 10 ** math.floor(math.log10(needed))
    wanted = next(step * power for step in (1, 2, 3, 5, 10) if step * power >= needed)
    return last if wanted <= last <= 3 * wanted else wanted


def _highest(lines: Sequence[Points]) -> float:
    return max((value for _, values in lines for value in values if value is not None), default=0.0)


def logarithmic(value: float) -> float:
    """Where a number stands on the logarithmic axis, which has a place for 0."""
    return round(math.log10(1 + max(value, 0.0)), 7)


def counted_by(place: float) -> int:
    """The number that stands at this place of the logarithmic axis; up to a million it is exact."""
    return round(10**place - 1)


def ticks(height: float) -> tuple[list[float], list[str]]:
    """Where the logarithmic axis has its numbers, and these."""
    numbers = [0, 1, 3, *(factor * 10**power for power in range(1, 9) for factor in (1, 3))]
    shown = [number for number in numbers if logarithmic(number) <= height + 0.001]  # 10,000 stands a hair above 4
    if len(shown) > 7:
        shown = [number for number in shown if number in (0, 1) or str(number)[0] == "1"]
    return [logarithmic(number) for number in shown], [f"{number:,}" for number in shown]


def short(name: str) -> str:
    """A name for the legend, as long as it has room; plotly takes it for HTML."""
    return escape(name if len(name) <= NAME else f"{name[: NAME - 8]}…{name[-7:]}", quote=False)


def status(tracks: Tracks, now: float, *, paused_at: str = "", hz: float = 4.0) -> tuple[str, str]:
    """How it stands: (a sign and words for people, which of "live", "paused", "away" and "waiting" it is)."""
    with tracks.lock:
        away, last, present = tracks.away_since, tracks.last, tracks.present
    if paused_at:
        tail = f" The broker has not answered for {seconds(now - away)}." if away is not None else ""
        return f"‖ Paused at {paused_at}. Samples are still taken.{tail}", "paused"
    if last is None:
        return "… Waiting for the first sample.", "waiting"
    if away is not None:
        return f"▲ The broker does not answer, for {seconds(now - away)} now: the lines have a gap.", "away"
    if now - last > SILENT or not present:
        return "… There is no queue to show.", "waiting"
    return f"● Live, {hz:g} samples a second.", "live"


def seconds(duration: float) -> str:
    """A duration for people, in full seconds."""
    whole = max(int(duration), 0)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60:02} s"


def left_out(queues: Sequence[str], places: Sequence[str]) -> tuple[str, str]:
    """Which queues the chart does not show: (a line for people, all the names); empty if it shows all."""
    missing = sorted(set(queues) - set(places))
    if not missing:
        return "", ""
    some = ", ".join(missing[:NAMED]) + (", …" if len(missing) > NAMED else "")
    shown = sum(map(bool, places))
    return f"The {shown} busiest of {shown + len(missing)} queues. Left out: {len(missing)} ({some}).", ", ".join(missing)
