"""Waiting for something to become true, with a deadline: what a lesson does instead of sleeping."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from chatlib.waiting import until

__all__ = ["NotInTime", "wait_until"]

T = TypeVar("T")


class NotInTime(AssertionError):
    """What a lesson waited for did not happen in time. Shown in a notebook as one line, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"✘ {self}"]


def wait_until(condition: Callable[[], T], timeout: float = 20.0, what: str = "the condition") -> T:
    """Call `condition` every 20 ms until it returns something true, and return that.

    timeout: seconds. Raises NotInTime, naming `what` and the last value seen.
    """
    value = until(condition, timeout)
    if not value:
        raise NotInTime(f"not within {timeout:g} s: {what}; last seen: {value!r}. Run the notebook again from its setup cell.")
    return value
