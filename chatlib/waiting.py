"""Waiting, with a deadline: how long that may be, and waiting for what nobody tells and one has to look at, such as another process."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

__all__ = ["seconds", "until"]

T = TypeVar("T")
LONGEST: Final = threading.TIMEOUT_MAX / 2  # seconds; half, so that what is left until a deadline fits, however it was rounded


def seconds(timeout: float, what: str) -> float:
    """`timeout` as seconds that can be waited: 0 for less than that, and a hundred years for `math.inf`.

    what: whose number it is, for the error. Raises TypeError for what is no number, ValueError for NaN.
    """
    if not isinstance(timeout, int | float):
        raise TypeError(f"{what} must be a number of seconds, got {timeout!r}; math.inf is for ever")
    bounded = max(min(timeout, LONGEST), 0.0)  # NaN comes through, and whole numbers too large for a float do not
    if math.isnan(bounded):  # no moment is later than a deadline that is none
        raise ValueError(f"{what} must be a number of seconds, got nan; math.inf is for ever")
    return bounded


def until(condition: Callable[[], T], timeout: float, poll: float = 0.02) -> T:
    """Call `condition` until it returns something true, for at most `timeout` seconds; what it returned last. It is called at least once.

    poll: seconds between two calls. Raises as `seconds`.
    """
    deadline, pause = time.monotonic() + seconds(timeout, "the timeout"), threading.Event()
    while not (value := condition()) and time.monotonic() <= deadline:
        pause.wait(poll)
    return value
