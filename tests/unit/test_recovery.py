"""When a link tries again: how long it waits, and not over what is still being closed."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from chatlib import recovery
from chatlib.recovery import CLOSING, MOMENT, Recovery
from chatlib.settings import Settings


class Loop:
    """Notes what is to be called later, and calls it when told to."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def later(self, seconds: float, function: Callable[[], None]) -> Callable[[], None]:
        timer = (seconds, function)
        self.timers.append(timer)
        return lambda: self.timers.remove(timer) if timer in self.timers else None

    def pass_time(self) -> float:
        seconds, function = self.timers.pop(0)
        function()
        return seconds


def made(loop: Any, **settings: float) -> Recovery:
    return Recovery(loop, Settings(**settings), random.Random(7))  # type: ignore[arg-type]


def test_the_waits_grow_by_factors_of_two_up_to_the_cap_and_are_random_below() -> None:
    """Full jitter: thousands of clients that lost the same broker must not come back at the same moment."""
    loop = Loop()
    again = made(loop, recovery_base=0.05, recovery_cap=1.0)
    for failures, most in ((1, 0.05), (2, 0.1), (3, 0.2), (4, 0.4), (5, 0.8), (6, 1.0), (20, 1.0)):
        waits = []
        for _ in range(300):
            again.attempts = failures
            again.schedule(lambda: None, None)
            waits.append(loop.pass_time())
        assert max(waits) <= most and max(waits) > 0.9 * most and min(waits) < 0.1 * most
        assert abs(sum(waits) / len(waits) - most / 2) < 0.1 * most


def test_a_cancelled_attempt_is_not_made() -> None:
    loop, made_attempts = Loop(), []
    again = made(loop)
    again.schedule(lambda: made_attempts.append(1), None)
    again.cancel()
    assert not loop.timers and not made_attempts


def test_it_waits_until_the_old_connections_are_closed_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, made_attempts, now = Loop(), [], [100.0]
    monkeypatch.setattr(recovery, "time", SimpleNamespace(monotonic=lambda: now[0]))
    old: Any = SimpleNamespace(is_closed=False)
    again = made(loop)
    again.schedule(lambda: made_attempts.append("first"), old)
    loop.pass_time()
    assert not made_attempts and loop.timers[0][0] == MOMENT
    old.is_closed = True
    loop.pass_time()
    assert made_attempts == ["first"] and not loop.timers
    old.is_closed = False
    again.schedule(lambda: made_attempts.append("second"), old)
    loop.pass_time()
    now[0] += CLOSING
    loop.pass_time()
    assert made_attempts == ["first", "second"]
