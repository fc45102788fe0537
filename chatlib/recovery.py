"""When a link tries again to reach the broker: after a growing, random time, and not over the remains of the last connections."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from chatlib.connection import IOThread
from chatlib.pair import Pair
from chatlib.retry import backoff
from chatlib.settings import Settings

__all__ = ["CLOSING", "Recovery"]

CLOSING = 2.0  # seconds for the broker's answer to "close", after which it has every ack; a frozen one gives none
MOMENT = 0.01  # seconds between two looks whether the old connections are closed


class Recovery:
    """Exponential backoff with full jitter, by the settings. On the I/O thread only.

    attempts: how many were made since the link was up.
    """

    def __init__(self, io: IOThread, settings: Settings, rng: random.Random) -> None:
        self.attempts = 0
        self._io = io
        self._settings = settings
        self._rng = rng
        self._cancel: Callable[[], None] = lambda: None

    def schedule(self, attempt: Callable[[], None], old: Pair | None) -> None:
        """Make an `attempt` in a while, but not before the broker has closed `old` (or does not within `CLOSING` seconds).

        Until then it keeps what it handed out there, and would hand out later messages on the new connection first.
        """
        base, cap = self._settings.recovery_base, self._settings.recovery_cap
        wait = backoff(max(1, self.attempts), base=base, factor=2.0, cap=cap, rng=self._rng)
        deadline = time.monotonic() + CLOSING
        self._cancel()  # there is only ever one

        def due() -> None:
            if old is None or old.is_closed or time.monotonic() >= deadline:
                attempt()
            else:
                self._cancel = self._io.later(MOMENT, due)

        self._cancel = self._io.later(wait, due)

    def cancel(self) -> None:
        """Make no attempt any more."""
        self._cancel()
