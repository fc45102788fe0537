"""How many people a message to a group was for: asked of the management API, in the background, since it may take a while."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from chatlib.errors import ChatError

if TYPE_CHECKING:
    from chatlib.chat import Chat
    from chatlib.terminal.line import Own

__all__ = ["Audience"]

_log = logging.getLogger("chatlib.terminal")

FRESH: Final = 5.0  # seconds that an answer serves for the messages after it
PATIENCE: Final = 30.0  # seconds before a broker without a management API is asked again


class Audience:
    """The members of groups, as seen by `user`. Thread-safe."""

    def __init__(self, chat: Chat, user: str) -> None:
        self._chat = chat
        self._user = user
        self._known: dict[str, tuple[float, frozenset[str]]] = {}
        self._not_before = 0.0
        self._wanted: SimpleQueue[tuple[Own, Callable[[Own], None]] | None] = SimpleQueue()
        threading.Thread(target=self._serve, name="terminal audience", daemon=True).start()

    def members(self, group: str) -> frozenset[str]:
        """The user names of the members of "#team" now. Raises ManagementUnreachable or ManagementError."""
        members = frozenset(self._chat.members(group))
        self._known[group] = (time.monotonic(), members)
        return members

    def forget(self, group: str) -> None:
        """It has changed."""
        self._known.pop(group, None)

    def ask_again(self) -> None:
        """A broker that did not answer may be back."""
        self._not_before = 0.0

    def find(self, own: Own, found: Callable[[Own], None]) -> None:
        """Set `own.audience`, where anybody can tell, and call `found(own)`: later, on another thread."""
        self._wanted.put((own, found))

    def close(self) -> None:
        """Find nothing more."""
        self._wanted.put(None)

    def _serve(self) -> None:
        while (item := self._wanted.get()) is not None:
            own, found = item
            try:
                members = self._recent(own.sent.to)
                own.audience = None if members is None else len(members - {self._user})
            except ChatError as error:
                _log.info("the members of %s are unknown: %s", own.sent.to, error)
                self._not_before = time.monotonic() + PATIENCE
            own.counting = False
            found(own)

    def _recent(self, group: str) -> frozenset[str] | None:
        now = time.monotonic()
        at, members = self._known.get(group, (-FRESH, frozenset()))
        if now - at < FRESH:
            return members
        return self.members(group) if now >= self._not_before else None
