"""What tests of every tier share: waiting for a condition, fresh names, looking at processes."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import TypeVar

import psutil

__all__ = ["IN_CI", "ROOT", "SHARED", "process_runs", "unique_name", "wait_until"]

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
"""The project's folder."""

SHARED = ROOT.parent / "shared"
"""Data and tools beside the project, where there are any."""

IN_CI = os.environ.get("CI", "").lower() not in {"", "0", "false"}
"""Whether this is a run of continuous integration: then a missing component is a failure, not a reason to skip."""


def wait_until(condition: Callable[[], T], timeout: float = 10.0, what: str = "the condition", *, poll: float = 0.02) -> T:
    """Call `condition` until it returns something true, and return that.

    timeout: seconds until the test fails; the failure names `what` and the last value seen.
    poll: seconds between two calls.
    An AssertionError or a LookupError of `condition` counts as "not yet"; any other exception goes through.
    """
    pause = Event()
    deadline = time.monotonic() + timeout
    while True:
        last: object
        try:
            value = condition()
            if value:
                return value
            last = value
        except (AssertionError, LookupError) as error:
            last = error
        if time.monotonic() > deadline:
            message = f"not within {timeout:g} s: {what}; last seen: {last!r}"
            raise AssertionError(message)
        pause.wait(poll)


def unique_name(prefix: str = "name") -> str:
    """Return a name that no other test of this or any other run uses, with letters, digits and one hyphen."""
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


def process_runs(pid: int) -> bool:
    """Whether process `pid` is there and has not ended (a zombie has)."""
    try:
        return psutil.Process(pid).status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    except psutil.NoSuchProcess:
        return False
