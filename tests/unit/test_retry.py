"""When a failed message comes back: within the formula, on the grid, bounded in number and in time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatlib.retry import GRID, RetryPolicy, backoff, on_grid

seconds = st.floats(0.001, 100_000)


@given(st.integers(1, 5000), seconds, st.floats(1, 1e9), seconds, st.integers())
def test_backoff_is_full_jitter_under_its_cap(failures: int, base: float, factor: float, cap: float, seed: int) -> None:
    wait = backoff(failures, base=base, factor=factor, cap=cap, rng=random.Random(seed))
    assert 0 <= wait <= cap
    if failures == 1:
        assert wait <= base


def test_backoff_uses_the_whole_range_and_grows_by_its_factor() -> None:
    rng = random.Random(7)
    for failures, top in ((1, 1.0), (2, 3.0), (3, 9.0), (4, 10.0), (50, 10.0)):
        waits = [backoff(failures, base=1.0, factor=3.0, cap=10.0, rng=rng) for _ in range(2_000)]
        assert max(waits) > top * 0.98 and max(waits) <= top
        assert min(waits) < top * 0.02
        assert abs(sum(waits) / len(waits) - top / 2) < top * 0.05


@pytest.mark.parametrize("failures", [0, -1])
def test_failures_count_from_one(failures: int) -> None:
    with pytest.raises(ValueError, match="counts from 1"):
        backoff(failures, base=1, factor=2, cap=3, rng=random.Random())


def test_the_grid_goes_from_a_tenth_of_a_second_to_a_day() -> None:
    assert GRID[0] == 100 and GRID[-1] == 86_400_000
    assert list(GRID) == sorted(set(GRID))
    assert len(GRID) < 150  # so many retry queues at most


@given(st.floats(0.1, 86_400))
def test_a_delay_moves_to_the_nearest_step(delay: float) -> None:
    """Steps are at most 15 % apart (130 to 150), so the nearest is at most 7.2 % off."""
    step = on_grid(delay)
    assert step in GRID
    assert abs(step - delay * 1000) == min(abs(other - delay * 1000) for other in GRID)
    assert abs(step / 1000 - delay) <= 0.072 * delay


@pytest.mark.parametrize(
    ("delay", "step"), [(0, 100), (-5, 100), (0.104, 100), (0.106, 110), (1e9, 86_400_000), (float("inf"), 86_400_000)]
)
def test_delays_beyond_the_grid_take_its_ends(delay: float, step: int) -> None:
    assert on_grid(delay) == step


def test_the_attempts_are_counted_with_the_first_delivery() -> None:
    policy = RetryPolicy(attempts=3, base=0.2, cap=5)
    rng = random.Random(1)
    assert policy.delay_ms(1, 0, rng) is not None
    assert policy.delay_ms(2, 0, rng) is not None
    assert policy.delay_ms(3, 0, rng) is None
    assert RetryPolicy(attempts=1).delay_ms(1, 0, rng) is None


def test_without_jitter_the_waits_are_the_formula() -> None:
    policy = RetryPolicy(attempts=10, base=1, factor=2, cap=20, jitter=False)
    assert [policy.delay_ms(attempt, 0, random.Random()) for attempt in range(1, 8)] == [1000, 2000, 3900, 8200, 16000, 20000, 20000]


@given(st.integers(1, 4), st.integers(), st.booleans())
def test_the_shortest_delay_holds(attempt: int, seed: int, jitter: bool) -> None:
    policy = RetryPolicy(min_delay=2, base=0.1, cap=10, jitter=jitter)
    wait = policy.delay_ms(attempt, 0, random.Random(seed))
    assert wait is not None and wait >= 2000


def test_the_total_time_ends_it() -> None:
    policy = RetryPolicy(attempts=100, base=10, cap=10, total_time=60, jitter=False)
    assert policy.delay_ms(1, 49, random.Random()) == 10_000
    assert policy.delay_ms(1, 51, random.Random()) is None


@given(st.integers(1, 10_000))
def test_no_number_of_attempts_overflows(attempt: int) -> None:
    for factor in (1.0, 2.0, 1e6, 1e300):
        for jitter in (True, False):
            policy = RetryPolicy(attempts=100_000, factor=factor, jitter=jitter)
            wait = policy.delay_ms(attempt, 0, random.Random(3))
            assert wait is not None and 100 <= wait <= 62_000


@pytest.mark.parametrize(
    "wrong",
    [{"attempts": 0}, {"base": 0}, {"base": 61}, {"factor": 0.5}, {"min_delay": -1}, {"min_delay": 61}, {"base": float("nan")}],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="RetryPolicy"):
        RetryPolicy(**wrong)  # type: ignore[arg-type]


def test_whole_numbers_and_many_attempts_take_no_time() -> None:
    """The exact power of two whole numbers would have as many bits as there are attempts."""
    policy = RetryPolicy(attempts=10**15, base=1, factor=2, cap=60, jitter=False)
    assert policy.delay_ms(10**14, 0, random.Random()) == on_grid(60)
    assert policy.steps()[-1] == on_grid(60)
