"""A message that came out of an inbox, with what its receiver can do about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from chatlib.envelope import Delivery
from chatlib.messages import SendMessage

if TYPE_CHECKING:
    from chatlib.inbox import Inbox

__all__ = ["ReceivedMessage"]


@dataclass(eq=False, slots=True)
class ReceivedMessage:
    """One message for one user. Settle it once: `ack` or `retry`; what is never settled comes again to the next Chat.

    attempt: 1 for the first delivery, one more for each `retry`.
    """

    message: SendMessage
    attempt: int
    failures: tuple[str, ...]
    """Why the earlier attempts failed, oldest first."""
    _inbox: Inbox
    _delivery: Delivery
    _settled: bool = False

    @property
    def message_id(self) -> str:
        """The id under which its sender sent it."""
        return self.message.message_id

    @property
    def sender_id(self) -> str:
        """Who said it."""
        return self.message.sender_id

    @property
    def group_id(self) -> str | None:
        """The group it was said in (bare name), or None."""
        return self.message.group_id

    @property
    def recipient_id(self) -> str | None:
        """The user it was said to, or None for a group message."""
        return self.message.recipient_id

    @property
    def content(self) -> str:
        """What was said."""
        return self.message.content

    @property
    def timestamp(self) -> datetime:
        """When it was sent (aware, UTC)."""
        return self.message.timestamp

    @property
    def conversation(self) -> str:
        """Where to answer: "#group", or "@sender" for a message to one user."""
        return f"#{self.group_id}" if self.group_id is not None else f"@{self.sender_id}"

    @property
    def redelivered(self) -> bool:
        """The broker has handed it out before, perhaps to somebody who died. A hint, not a count."""
        return self._delivery.redelivered

    def ack(self) -> None:
        """It is handled: never shown to this user again; its sender gets "delivered". A second call does nothing.

        Raises OutboxError if the `data_dir` cannot take the id: then it is not acked, and comes again.
        """
        self._inbox.ack(self)

    def retry(self, reason: str = "") -> None:
        """It could not be handled now: it comes again later, after `Settings.retry`; after the last attempt it goes to the dead letters.

        reason: travels with it. The messages behind it are not held up.
        """
        self._inbox.retry(self, reason)

    def reject(self, reason: str = "") -> None:
        """It can never be handled: straight to the dead letters, with the reason."""
        self._inbox.reject(self, reason)

    def mark_read(self) -> None:
        """Tell the senders that this message, and all before it in the conversation, were read."""
        self._inbox.mark_read(self)

    def __repr__(self) -> str:
        again = f" attempt {self.attempt}" if self.attempt > 1 else ""
        return f"<ReceivedMessage {self.message_id} {self.sender_id} in {self.conversation}{again}: {self.content[:40]!r}>"
