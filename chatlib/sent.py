"""What `send` returns: a message on its way, what became of it, and who has received it."""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from chatlib.callbacks import callback
from chatlib.errors import ChatClosed, ChatError, OutcomeUnknown
from chatlib.messages import ReadStatus, SendMessage
from chatlib.waiting import seconds

__all__ = ["Progress", "SentMessage", "SentState"]


_log = logging.getLogger("chatlib.sent")
_adding = threading.Lock()  # for all: rarely taken, and a lock for each would cost every message


class Progress(NamedTuple):
    """How far a message has come: `delivered` and `read` of `of` people; `read` counts among `delivered`.

    of: None where nobody can say who is in the group (no management API).
    """

    delivered: int
    read: int
    of: int | None

    def __str__(self) -> str:
        of = "?" if self.of is None else self.of
        return f"{self.delivered} of {of} delivered, {self.read} read"


class SentState(enum.StrEnum):
    """What is known of a sent message; equal to the plain strings."""

    PENDING = "pending"  #: accepted; no confirm yet, it is sent again as often as it takes
    CONFIRMED = "confirmed"  #: the broker has it on disk, in every inbox it is for
    RETURNED = "returned"  #: nobody there: no such user, or a group without members
    REJECTED = "rejected"  #: the broker refused it: an inbox is full, or nobody may write there with this chat's password


class SentMessage:
    """A message that was accepted by `send`; all attributes are live. Thread-safe."""

    __slots__ = ("__weakref__", "_closed", "_count_members", "_error", "_events", "_message", "_receipts", "_state", "_watchers")

    def __init__(self, message: SendMessage, count_members: Callable[[SentMessage], int | None]) -> None:
        self._message = message
        self._count_members = count_members
        self._state = SentState.PENDING
        self._error: ChatError | None = None
        self._closed = False
        self._receipts: dict[str, ReadStatus] | None = None  # these three are made when needed: most messages have none of them
        self._events: tuple[threading.Event, ...] = ()
        self._watchers: tuple[Callable[[SentMessage], None], ...] = ()

    @property
    def message_id(self) -> str:
        """The id under which it is known everywhere, and resent: 26 characters."""
        return self._message.message_id

    @property
    def sender_id(self) -> str:
        """The user who sent it."""
        return self._message.sender_id

    @property
    def to(self) -> str:
        """The address: "@user" or "#group"."""
        return self._message.to

    @property
    def content(self) -> str:
        """What was said."""
        return self._message.content

    @property
    def timestamp(self) -> datetime:
        """When it was sent (aware, UTC)."""
        return self._message.timestamp

    @property
    def state(self) -> SentState:
        """What is known now: pending, confirmed, returned or rejected."""
        return self._state

    @property
    def error(self) -> ChatError | None:
        """Why it was returned or rejected, as `wait` would raise it; None while pending and when confirmed."""
        return self._error

    @property
    def receipts(self) -> dict[str, ReadStatus]:
        """Who has received it, and how far: {"bob": "read"}. A copy; ask again for news."""
        return dict(self._receipts or ())

    @property
    def progress(self) -> Progress:
        """Delivered and read, of how many: counted over those who are members now. Asks the broker about a group, so not for hot paths."""
        receipts = self.receipts
        read = sum(status == "read" for status in receipts.values())
        of = 1 if self.to.startswith("@") else self._count_members(self)
        return Progress(len(receipts), read, of)

    def wait(self, timeout: float = 30.0) -> SentMessage:
        """Return itself when the broker has the message on disk.

        timeout: seconds. Raises Unroutable (returned), InboxFull or AccessRefused (rejected), and OutcomeUnknown when
        nothing is known in time: the message is then still in the outbox and will be sent again under the same id.
        TypeError or ValueError for what is no number of seconds.
        """
        timeout = seconds(timeout, "the timeout of wait()")
        if self._state is SentState.PENDING and not self._closed:
            event = threading.Event()
            with _adding:
                self._events = (*self._events, event)
            try:
                if self.state is SentState.PENDING and not self._closed:  # look again: it may have been settled in between
                    event.wait(timeout)
            finally:
                with _adding:
                    self._events = tuple(other for other in self._events if other is not event)
        if self._error is not None:
            raise self._error
        if self._state is SentState.CONFIRMED:
            return self
        if self._closed:
            raise ChatClosed(f"the chat was closed before {self.message_id} was confirmed: with a data_dir it is sent at the next connect")
        raise OutcomeUnknown(
            f"no confirm for {self.message_id} within {timeout:g} s; it is kept and sent again under the same id: wait again"
        )

    def on_change(self, watcher: Callable[[SentMessage], None]) -> None:
        """Call `watcher(self)` at each change of state or receipts, on a thread of chatlib; it must be quick."""
        with _adding:
            self._watchers = (*self._watchers, watcher)

    def __repr__(self) -> str:
        return f"<SentMessage {self.message_id} {self.sender_id} -> {self.to} {self._state.value}>"

    # Called by the chat:

    def _settle(self, state: SentState, error: ChatError | None) -> None:
        self._error = error
        self._state = state
        self._end_waits()
        self._tell()

    def _close(self) -> None:
        self._closed = True
        self._end_waits()
        self._tell()

    def _receipt(self, user: str, status: ReadStatus) -> bool:
        """Whether that was news: a status only ever rises from delivered to read."""
        receipts = self._receipts
        if receipts is None:
            receipts = self._receipts = {}
        known = receipts.get(user)
        if known == "read" or known == status:
            return False
        receipts[user] = status
        self._tell()
        return True

    def _never_reached(self, user: str) -> bool:
        """Whether it is known that he cannot have it: it came back, or his inbox was full."""
        if self._state is SentState.REJECTED:
            return self.to.startswith("@") or user in getattr(self._error, "who", ())
        return self._state is SentState.RETURNED

    def _end_waits(self) -> None:
        """Not at a receipt: a quick receiver's may be here before the broker's confirm."""
        for event in self._events:
            event.set()

    def _tell(self) -> None:
        for watcher in self._watchers:
            try:
                with callback:
                    watcher(self)
            except (Exception, SystemExit):  # noqa: BLE001  somebody else's code must not keep the outcome from the others
                _log.exception("a watcher of message_id=%s failed", self.message_id)
