"""What has its outcome, until it is taken out of the store: many at a time, on a thread of chatlib."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from chatlib.errors import OutboxError
from chatlib.workers import Workers

__all__ = ["Settled"]

_log = logging.getLogger("chatlib.outbox")
MOST: Final = 1000  # in one transaction


class Settled:
    """remove(ids): takes them out of the store, all or none. what: for the log, when it cannot."""

    def __init__(self, remove: Callable[[Sequence[str]], None], workers: Workers, what: str) -> None:
        self._remove = remove
        self._what = what
        self._ids: deque[str] = deque()
        self._step = workers.serial(self._some)
        self._failed = False

    def add(self, message_id: str) -> None:
        """It has its outcome. From any thread, at once."""
        self._ids.append(message_id)
        self._step.wake()

    def finish(self) -> None:
        """Take out all that is left, here and now: the workers are gone."""
        while self._some():
            pass

    def _some(self) -> bool:
        """Take out some; whether there is more. What the disk refuses is tried again at the next outcome, and that is said once.

        A process that opens the store before then would send it again.
        """
        ids: list[str] = []
        while self._ids and len(ids) < MOST:
            ids.append(self._ids.popleft())
        if not ids:
            return False
        try:
            self._remove(ids)
        except OutboxError as exc:
            self._ids.extendleft(reversed(ids))
            if not self._failed:
                _log.error("%s that have their outcome cannot be taken out of the store, and are tried again: %s", self._what, exc)
            self._failed = True
            return False
        self._failed = False
        return bool(self._ids)
