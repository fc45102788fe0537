"""When a message whose handler failed comes back: a pure policy.

The waiting is done by the broker, in one durable queue for each delay (`topology.of_retry`), so it survives the
death of the consumer and of the broker. Delays are therefore taken from a fixed grid: the jittered delay is rounded
to the nearest step, each about 10 % above the one before (15 % at most).
"""

from __future__ import annotations

import random
from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

__all__ = ["GRID", "RetryPolicy", "backoff", "on_grid"]

MIN_DELAY: Final = 0.1
"""Seconds: the shortest delay that the broker keeps with a useful precision."""


def _grid() -> tuple[int, ...]:
    # 24 steps for every factor of ten (the E24 preferred numbers of IEC 60063): 100 ms to 1 day in 144 steps.
    steps = [100, 110, 120, 130, 150, 160, 180, 200, 220, 240, 270, 300, 330, 360, 390, 430, 470, 510, 560, 620, 680, 750, 820, 910]
    day = 86_400_000
    return tuple(step * 10**power for power in range(7) for step in steps if step * 10**power < day) + (day,)


GRID: Final = _grid()
"""The delays that exist, in milliseconds, ascending: 100 ms to 1 day."""


def on_grid(seconds: float) -> int:
    """The milliseconds of the grid nearest to `seconds` (at least 100 ms, at most one day; off by 7.2 % at most in between)."""
    wanted = seconds * 1000
    above = min(bisect_left(GRID, wanted), len(GRID) - 1)
    below = max(above - 1, 0)
    return GRID[above] if GRID[above] - wanted <= wanted - GRID[below] else GRID[below]


def backoff(failures: int, *, base: float, factor: float, cap: float, rng: random.Random) -> float:
    """Seconds to wait after that many failures (1 = the first), exponential with full jitter.

    base, cap: seconds. Returns a value in [0, min(cap, base * factor**(failures - 1))].
    Raises ValueError if failures < 1.
    Source: AWS Architecture Blog, Exponential Backoff and Jitter.
    """
    if failures < 1:
        raise ValueError(f"failures counts from 1, got {failures}")
    return rng.uniform(0, _full_wait(failures, base, factor, cap))


def _full_wait(failures: int, base: float, factor: float, cap: float) -> float:
    """The exponential wait without jitter, in seconds."""
    try:
        return min(cap, base * float(factor) ** (failures - 1))  # of whole numbers it would be exact, and as long as memory
    except OverflowError:  # beyond what a float holds is beyond any cap
        return cap


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter: attempt n+1 comes after [min_delay, min(cap, base * factor**(n-1))] seconds.

    base, cap, min_delay: seconds. factor: growth from one wait to the next. attempts: deliveries in all, the first included;
    1 means no retry. total_time: seconds since the first failure after which it is given up, or None.
    jitter: False waits the full time, for showing what a thundering herd looks like.
    """

    attempts: int = 5
    base: float = 0.5
    factor: float = 2.0
    cap: float = 60.0
    min_delay: float = MIN_DELAY
    total_time: float | None = None
    jitter: bool = True

    def __post_init__(self) -> None:
        attempts: object = self.attempts  # whatever was given
        if not isinstance(attempts, int) or isinstance(attempts, bool) or attempts < 1:
            raise ValueError(f"RetryPolicy.attempts counts the first delivery: a whole number, at least 1, got {self.attempts!r}")
        for name in ("base", "factor", "cap", "min_delay", "total_time"):
            value: object = getattr(self, name)
            if not isinstance(value, int | float) and not (name == "total_time" and value is None):
                raise ValueError(f"RetryPolicy.{name} must be a number, got {value!r}")
        if self.total_time is not None and not self.total_time > 0:
            raise ValueError(f"RetryPolicy.total_time is more than 0 seconds, or None, got {self.total_time!r}")
        if not (0 < self.base <= self.cap and self.factor >= 1 and 0 <= self.min_delay <= self.cap):
            raise ValueError(f"RetryPolicy needs 0 < base <= cap, factor >= 1 and 0 <= min_delay <= cap, got {self}")

    def steps(self) -> tuple[int, ...]:
        """The milliseconds that `delay_ms` can give, and all shorter ones of the grid, ascending."""
        longest = _full_wait(max(1, self.attempts - 1), self.base, self.factor, self.cap)
        last = on_grid(max(longest, self.min_delay))
        return tuple(step for step in GRID if step <= last)

    def delay_ms(self, attempt: int, age: float, rng: random.Random) -> int | None:
        """Milliseconds of the grid to wait after attempt number `attempt` (1 = the first delivery) failed, or None: give up.

        age: seconds since its first failure. rng: injected, so that tests repeat.
        """
        if attempt >= self.attempts:
            return None
        if self.jitter:
            wait = backoff(attempt, base=self.base, factor=self.factor, cap=self.cap, rng=rng)
        else:
            wait = _full_wait(attempt, self.base, self.factor, self.cap)
        wait = max(wait, self.min_delay)
        if self.total_time is not None and age + wait > self.total_time:
            return None
        return on_grid(wait)
