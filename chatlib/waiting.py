"""Waiting for a fact, with a deadline: for what nobody tells and one has to look at, such as another process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["until"]

T = TypeVar("T")


def until(condition: Callable[[], T], timeout: float, poll: float = 0.02) -> T:
    """Call `condition` until it returns something true, for at most `timeout` seconds; what it returned last. It is called at least once.

    poll: seconds between two calls.
    """
    deadline, pause = time.monotonic() + timeout, threading.Event()
    while not (value := condition()) and time.monotonic() <= deadline:
        pause.wait(poll)
    return value
