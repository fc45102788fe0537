"""What a link is doing now, for those who ask, who watch and who wait."""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Callable

from chatlib import events
from chatlib.callbacks import callback
from chatlib.events import Events

__all__ = ["LinkState", "StateBoard"]

_log = logging.getLogger("chatlib.link")


class LinkState(enum.StrEnum):
    """What the link is doing now."""

    CONNECTING = "connecting"  #: the first connection is being made
    CONNECTED = "connected"  #: up
    BLOCKED = "blocked"  #: up, but an alarm on the broker stops publishing; receiving goes on
    RECOVERING = "recovering"  #: lost; a background task is making it anew
    CLOSED = "closed"  #: closed by the user


class StateBoard:
    """Holds the state; once closed it stays closed. Thread-safe."""

    def __init__(self, hops: Events) -> None:
        self.now = LinkState.CONNECTING
        self._hops = hops
        self._changed = threading.Condition()
        self._awaited: list[Callable[[], bool]] = []  # what threads wait for
        self._watchers: list[Callable[[LinkState, str], None]] = []

    @property
    def is_up(self) -> bool:
        """Whether the broker is reachable now."""
        return self.now in (LinkState.CONNECTED, LinkState.BLOCKED)

    @property
    def is_closed(self) -> bool:
        """Whether the link was closed, for good."""
        return self.now is LinkState.CLOSED

    def become(self, state: LinkState, reason: str = "") -> None:
        """Change to `state`, tell those who wait and who watch, here and now. Nothing happens once closed."""
        with self._changed:
            if self.now in (state, LinkState.CLOSED):
                return
            self.now = state
            self._changed.notify_all()
        self._hops.emit(events.LINK, state=state.value, reason=reason)
        for watcher in tuple(self._watchers):
            try:
                with callback:
                    watcher(state, reason)
            except (Exception, SystemExit):  # noqa: BLE001  somebody else's code must not end the I/O thread
                _log.exception("a watcher of the link state failed")

    def watch(self, watcher: Callable[[LinkState, str], None]) -> Callable[[], None]:
        """Call `watcher(state, reason)` at every change; returns what stops it."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None

    def tell_waiters(self) -> None:
        """There was progress: wake those who wait, if it is enough for one. To wake them at each confirm would cost half the rate."""
        if self._awaited and any(condition() for condition in tuple(self._awaited)):
            with self._changed:
                self._changed.notify_all()

    def wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until `condition()`, the end of the link, or for `timeout` seconds; whether the condition holds then."""
        with self._changed:
            self._awaited.append(condition)
            try:
                self._changed.wait_for(lambda: condition() or self.is_closed, min(timeout, threading.TIMEOUT_MAX))
                return condition()
            finally:
                self._awaited.remove(condition)

    def rest(self, seconds: float) -> None:
        """Wait, unless the link is closed meanwhile."""
        self.wait_until(lambda: False, seconds)
