"""A group of a chat: who is in it, and what was said there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from chatlib.history import History
from chatlib.messages import SendMessage
from chatlib.topology import registration

if TYPE_CHECKING:
    from chatlib.chat import Chat

__all__ = ["ChatGroup"]


class ChatGroup:
    """Made by `Chat.group`. A group needs no making: it exists as soon as somebody joins it."""

    def __init__(self, chat: Chat, name: str) -> None:
        self.name = name
        self._chat = chat

    @property
    def address(self) -> str:
        """Where to write: "#name"."""
        return f"#{self.name}"

    @property
    def members(self) -> frozenset[str]:
        """The names of its members. Raises ManagementUnreachable where the broker has no management API."""
        return self._chat.members(self.address)

    def history(self, *, last: int | None = None, since: datetime | float | None = None) -> Iterator[SendMessage]:
        """What was said since its history is kept, oldest first; ends with what is there now.

        last: only that many. since: only from this moment on (aware datetime or Unix seconds).
        Raises ChatError if no history is kept, BrokerUnavailable.
        """
        return History(self._chat._link, self.name).read(last=last, since=since)

    def delete_history(self) -> None:
        """Delete what was kept, for good, and keep nothing more. Raises BrokerUnavailable."""
        queues = self._chat._link.queues
        queues.unbind(registration(self.name))  # first, so that nobody waits for a stream that is gone
        queues.delete(History(self._chat._link, self.name).queue)

    def __repr__(self) -> str:
        return f"<ChatGroup {self.address}>"
