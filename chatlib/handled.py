"""Which messages were handled: what makes "at least once" on the wire "once" for a handler."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from chatlib.store import Store

__all__ = ["DONE", "Handled"]

DONE: Final = 1 << 30
"""Larger than any attempt number: the message was handled, or is in the dead letters, whatever attempt comes again."""


class Handled:
    """The ids that were settled, by user, with the highest attempt that was; forgotten beyond the last `limit`, and after `age` seconds.

    A retry is a copy with a higher attempt number under the same id, so it passes; a redelivery of what was settled does not.
    With a `store`, ids are on disk when `add` returns and are known again after a restart.
    """

    def __init__(self, limit: int, store: Store | None = None, *, age: float = math.inf, clock: Callable[[], float] = time.time) -> None:
        self._limit = limit
        self._age = age
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._attempts: dict[tuple[str, str], tuple[int, float]] = {}  # the highest attempt, and when (Unix seconds); oldest first
        self._added = 0
        for user, message_id, attempt, at in store.handled(limit, clock() - age) if store else ():
            self._note((user, message_id), attempt, at)

    def _note(self, key: tuple[str, str], attempt: int, at: float) -> None:
        known, _ = self._attempts.pop(key, (0, 0.0))
        self._attempts[key] = max(attempt, known), at

    def _forget(self, before: float) -> None:
        """Those beyond the limit, and those that were settled `before` (Unix seconds)."""
        while self._attempts:
            oldest = next(iter(self._attempts))
            if len(self._attempts) <= self._limit and self._attempts[oldest][1] >= before:
                return
            del self._attempts[oldest]

    def __len__(self) -> int:
        return len(self._attempts)

    def seen(self, user: str, message_id: str, attempt: int) -> bool:
        """Whether `user` was done with this message at this or a later attempt."""
        known = self._attempts.get((user, message_id))
        return known is not None and known[0] >= attempt

    def add(self, user: str, message_id: str, attempt: int = DONE, receipts: Sequence[tuple[str, str, bytes]] = ()) -> None:
        """`user` is done with this attempt (by default with the message). Raises OutboxError if the disk refuses.

        receipts: what is to be told of it (`Store.add_receipts`), stored with the id or not at all.
        If the disk refuses, it is not noted: see `remember`.
        """
        now = self._clock()
        if self._store:
            self._store.add_handled(user, message_id, attempt, now, receipts)
        self.remember(user, message_id, attempt)
        if self._store:
            with self._lock:
                self._added += 1
                trim = self._added % self._limit == 0
            if trim:
                self._store.trim_handled(self._limit, now - self._age)

    def remember(self, user: str, message_id: str, attempt: int = DONE) -> None:
        """As `add`, in this process only."""
        now = self._clock()
        with self._lock:
            self._note((user, message_id), attempt, now)
            self._forget(now - self._age)
