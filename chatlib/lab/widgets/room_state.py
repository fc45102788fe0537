"""A chat room at one moment, as its model gives it and its presenter takes it: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chatlib.errors import ChatError
from chatlib.link import LinkState
from chatlib.sent import SentState

__all__ = ["Conversation", "Message", "Pane", "Snapshot"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message now. places: by pane, where it comes there. state: None if it was not sent from this room.

    audience: how many people a group's message is for, None where nobody knows (yet: `counting`).
    """

    message_id: str
    sender: str
    to: str
    content: str
    at: float
    places: Mapping[int, int]
    state: SentState | None
    error: ChatError | None
    receipts: Mapping[str, str]
    audience: int | None
    counting: bool

    @property
    def is_group(self) -> bool:
        """Whether it was said in a group."""
        return self.to.startswith("#")


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation of a pane now. member: whether he is in the group; members: who is, sorted, or None if unknown."""

    address: str
    unread: int
    member: bool
    members: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Pane:
    """What one person has in front of him now.

    deaf: other code takes his messages. waiting: messages in his inbox on the broker, as far as known. busy: what is being done for
    him. notice: what went wrong last. answers: (number of a click, why it was refused or "").
    """

    name: str
    online: bool
    deaf: bool
    waiting: int | None
    open: str
    conversations: tuple[Conversation, ...]
    busy: str
    notice: str
    answers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of the room. changed: the messages that are new or different since the last `take`."""

    changed: tuple[Message, ...]
    panes: tuple[Pane, ...]
    link: LinkState
    reason: str
    reconnects: int
    pending: int
