"""The headers in which the story of a message travels: how often it was tried, why it failed. Anybody may have written them."""

from __future__ import annotations

import time
from typing import Any, Final

from chatlib.envelope import Delivery
from chatlib.handled import DONE

__all__ = [
    "ATTEMPT",
    "DEAD_AT",
    "FAILURES",
    "FIRST_ATTEMPT",
    "FIRST_FAILURE",
    "MAX_FAILURES",
    "MAX_REASON",
    "QUEUE",
    "REASON",
    "count_in",
    "failures_of",
    "first_failure_of",
    "headers_of_death",
    "reason_of",
]

ATTEMPT: Final = "x-chat-attempt"  #: header: the number of the delivery to come, or of the last one
FIRST_ATTEMPT: Final = "x-chat-first-attempt"  #: header: the attempt at which the retry policy begins to count (after a replay)
FAILURES: Final = "x-chat-failures"  #: header: why each earlier attempt failed, oldest first
FIRST_FAILURE: Final = "x-chat-first-failure"  #: header: when the first attempt failed, Unix milliseconds (pika has no floats)
REASON: Final = "x-chat-reason"  #: header: why it is dead
QUEUE: Final = "x-chat-queue"  #: header: the queue that it came from
DEAD_AT: Final = "x-chat-dead-at"  #: header: when it was given up, Unix milliseconds


MAX_FAILURES: Final = 20  # reasons that travel with a message; enough for a story, bounded for the header
MAX_REASON: Final = 300  # characters of each reason
LATEST: Final = 1 << 45  # Unix milliseconds, a thousand years from now: what claims to be later is a foreigner's nonsense


def reason_of(value: object) -> str:
    """Text that fits into a header: bounded, and without the halves of surrogate pairs that UTF-8 cannot take."""
    return str(value)[:MAX_REASON].encode(errors="replace").decode()


def failures_of(delivery: Delivery) -> tuple[str, ...]:
    """The reasons that came with it, oldest first, bounded: anybody may have written the header."""
    failures = delivery.headers.get(FAILURES)
    return tuple(map(reason_of, failures[-MAX_FAILURES:])) if isinstance(failures, list) else ()


def count_in(delivery: Delivery, header: str) -> int:
    """The number of an attempt in a header that anybody may have written: below `DONE`, and 1 for nonsense."""
    value = delivery.headers.get(header, 1)
    return int(value) if isinstance(value, int) and 1 <= value < DONE else 1


def first_failure_of(delivery: Delivery) -> float:
    """When its first attempt failed, Unix seconds: now, if this was the first."""
    value = delivery.headers.get(FIRST_FAILURE)
    return value / 1000 if isinstance(value, int) and 0 < value < LATEST else time.time()


def headers_of_death(*, queue: str, attempt: int, failures: list[str], first_failure: float, now: float) -> dict[str, Any]:
    """The headers with which a message goes to the dead letters. first_failure, now: Unix seconds."""
    reason, first, last = failures[-1] if failures else "rejected", int(first_failure * 1000), int(now * 1000)
    return {ATTEMPT: attempt, FAILURES: failures, REASON: reason, QUEUE: queue, FIRST_FAILURE: first, DEAD_AT: last}
