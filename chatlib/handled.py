"""Which messages were handled: what makes "at least once" on the wire "once" for a handler."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from chatlib.store import Store

__all__ = ["DONE", "Handled"]

DONE: Final = 1 << 30
"""Larger than any attempt number: the message was handled, or is in the dead letters, whatever attempt comes again."""


class Handled:
    """The ids that were settled, by user, with the highest attempt that was; the oldest are forgotten beyond `limit`.

    A retry is a copy with a higher attempt number under the same id, so it passes; a redelivery of what was settled does not.
    With a `store`, ids are on disk when `add` returns and are known again after a restart.
    """

    def __init__(self, limit: int, store: Store | None = None) -> None:
        self._limit = limit
        self._store = store
        self._lock = threading.Lock()
        self._attempts: dict[tuple[str, str], int] = {}
        self._added = 0
        for user, message_id, attempt in store.handled(limit) if store else ():
            self._remember((user, message_id), attempt)

    def _remember(self, key: tuple[str, str], attempt: int) -> None:
        self._attempts[key] = max(attempt, self._attempts.pop(key, 0))

    def __len__(self) -> int:
        return len(self._attempts)

    def seen(self, user: str, message_id: str, attempt: int) -> bool:
        """Whether `user` was done with this message at this or a later attempt."""
        return self._attempts.get((user, message_id), 0) >= attempt

    def add(self, user: str, message_id: str, attempt: int = DONE, receipts: Sequence[tuple[str, str, bytes]] = ()) -> None:
        """`user` is done with this attempt (by default with the message). Raises OutboxError if the disk refuses.

        receipts: what is to be told of it (`Store.add_receipts`), stored with the id or not at all.
        """
        with self._lock:  # first, so that this process at least does not show it again if the disk refuses
            self._remember((user, message_id), attempt)
            while len(self._attempts) > self._limit:
                self._attempts.pop(next(iter(self._attempts)))
            self._added += 1
            trim = self._added % self._limit == 0
        if self._store:
            self._store.add_handled(user, message_id, attempt, receipts)
            if trim:
                self._store.trim_handled(self._limit)
