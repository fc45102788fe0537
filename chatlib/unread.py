"""What a user has received and not yet read, by conversation: the base of cumulative read receipts."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from chatlib.received import ReceivedMessage

__all__ = ["Unread"]

LIMIT: Final = 10_000
"""Messages remembered for each conversation; an older one can be marked read by itself only."""


class Unread:
    """Received messages in order of arrival, until they are marked read. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._conversations: dict[str, dict[str, str]] = {}  # conversation -> message id -> sender, in order

    def add(self, received: ReceivedMessage) -> None:
        """`received` was handled and not yet read."""
        with self._lock:
            messages = self._conversations.setdefault(received.conversation, {})
            messages.setdefault(received.message_id, received.sender_id)
            if len(messages) > LIMIT:
                messages.pop(next(iter(messages)))

    def up_to(self, received: ReceivedMessage) -> dict[str, str]:
        """Of `received` and all before it in its conversation, for each sender the last: {sender: message id}."""
        with self._lock:
            messages = self._conversations.get(received.conversation, {})
            if received.message_id not in messages:
                return {received.sender_id: received.message_id}
            last: dict[str, str] = {}
            for message_id, sender in messages.items():
                last[sender] = message_id
                if message_id == received.message_id:
                    break
            return last

    def drop_up_to(self, received: ReceivedMessage) -> None:
        """These were marked read."""
        with self._lock:
            messages = self._conversations.get(received.conversation, {})
            for message_id in list(messages) if received.message_id in messages else ():
                del messages[message_id]
                if message_id == received.message_id:
                    return

    def count(self, conversation: str) -> int:
        """How many are unread in "#group" or "@sender"."""
        return len(self._conversations.get(conversation, ()))
