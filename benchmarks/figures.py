"""The statistics: medians, percentiles, and ratios taken round by round."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Spread", "latencies", "percentile", "ratios", "spread"]


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, smallest and largest of some values, and how many they were."""

    median: float
    low: float
    high: float
    rounds: int


def spread(values: Sequence[float]) -> Spread | None:
    """Return the spread of `values`; None where there are none."""
    if not values:
        return None
    return Spread(statistics.median(values), min(values), max(values), len(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of `values` that at least `percent` (above 0, up to 100) of them do not exceed.

    Nearest rank: always a value that was measured. Raises ValueError for no values or another percentage.
    """
    if not values or not 0 < percent <= 100:
        raise ValueError(f"a percentile needs values and a percentage in (0, 100], not {len(values)} values and {percent!r}")
    # Multiplied first: 99.9 / 100 * 1000 is 999.0000000000001 in binary, and its ceiling one rank too high.
    return sorted(values)[math.ceil(round(len(values) * percent, 6) / 100) - 1]


def ratios(of: Sequence[float | None], to: Sequence[float | None]) -> list[float]:
    """Return `of / to` round by round; a round in which one of the two failed (None) is left out.

    Two values of one round were measured within seconds of each other, so what slows the whole machine mostly cancels.
    """
    return [a / b for a, b in zip(of, to, strict=True) if a is not None and b]


def latencies(began: float, rate: float, arrived: Sequence[float], *, skip: int = 0) -> list[float]:
    """Return seconds from when each message was *due* to when it arrived; the first `skip` messages are warm-up.

    Message i was due at `began + i / rate`, whether or not the sender managed to send it then: a sender that falls behind
    cannot hide that (coordinated omission). Raises ValueError if one has not arrived (0).
    """
    missing = [number for number, at in enumerate(arrived) if not at]
    if missing:
        raise ValueError(f"{len(missing)} of {len(arrived)} messages did not arrive, the first of them number {missing[0]}")
    return [at - began - number / rate for number, at in enumerate(arrived) if number >= skip]
