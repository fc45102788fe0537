"""What a chat room knows: who said what to whom, what became of it, and what each person has in front of him. Thread-safe; no widget.

Every message is there once, and has a place in each pane in which it was said or heard. What has changed since the last look is remembered,
so that a look costs what has changed and not what is there.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from chatlib.lab.widgets.room_state import Conversation, Message, Pane, Snapshot
from chatlib.link import LinkState
from chatlib.received import ReceivedMessage
from chatlib.sent import SentMessage, SentState

__all__ = ["RoomModel"]

LIMIT: Final = 200
"""Messages kept of each conversation in each pane; the oldest go first."""

FRESH: Final = 10.0
"""Seconds that an answer to "who is in this group" serves, unless somebody of this chat joins or leaves."""

ANSWERS: Final = 64
"""Answers to what was typed and clicked that a pane still knows."""


@dataclass(slots=True)
class _Message:
    message_id: str
    sender: str
    to: str
    content: str
    at: float
    sent: SentMessage | None = None
    audience: int | None = None
    confirmed: float = 0.0  # when, monotonic
    places: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Conversation:
    ids: deque[str] = field(default_factory=deque)
    unread: int = 0
    last: ReceivedMessage | None = None  # the last that is not marked read; it stands for all before it


@dataclass(slots=True)
class _Pane:
    name: str
    online: bool = False
    deaf: bool = False
    waiting: int | None = None
    open: str = ""
    conversations: dict[str, _Conversation] = field(default_factory=dict)
    groups: set[str] = field(default_factory=set)
    busy: list[str] = field(default_factory=list)
    notice: str = ""
    answers: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=ANSWERS))


class RoomModel:
    """names: of the people, in the order of their panes. groups: addresses; each pane begins with these and with the other people.

    limit: messages kept of each conversation in each pane.
    """

    def __init__(self, names: Sequence[str], groups: Sequence[str] = (), *, limit: int = LIMIT) -> None:
        self.names = tuple(names)
        self._limit = limit
        self._lock = threading.RLock()
        self._messages: dict[str, _Message] = {}
        self._panes = [_Pane(name) for name in names]
        self._index = {name: index for index, name in enumerate(names)}
        self._place = 0
        self._changed: dict[str, None] = {}
        self._pending: set[str] = set()
        self._members: dict[str, frozenset[str]] = {}
        self._asked: dict[str, float] = {}  # when, of each group
        self._moved: dict[str, dict[str, tuple[float, bool]]] = {}  # by group and name: when somebody came or went, and which
        self._stale: dict[str, None] = dict.fromkeys(groups)  # groups whose members have to be asked for
        self._uncounted: dict[str, bool] = {}  # messages that were confirmed, for how many is not known; whether it will be known soon
        self._link, self._reason, self._reconnects = LinkState.CONNECTED, "", 0
        for pane in self._panes:
            addresses = [*groups, *(f"@{name}" for name in names if name != pane.name)]
            pane.conversations = {address: _Conversation() for address in addresses}
            pane.open = addresses[0] if addresses else ""

    # ---- messages: from any thread ---------------------------------------------------------------------------------------------

    def say(self, sent: SentMessage) -> None:
        """Somebody of the room has sent this; once is enough, and twice is no harm."""
        index = self._index.get(sent.sender_id)
        if index is None:
            return
        with self._lock:
            message = self._known(sent.message_id, sent.sender_id, sent.to, sent.content, sent.timestamp.timestamp())
            if message.sent is not None:
                return
            message.sent = sent
            self._pending.add(sent.message_id)
            members = self._members.get(sent.to)
            message.audience = None if members is None else len(members - {sent.sender_id})
            self._put(index, sent.to, message)
            sent.on_change(self._on_change)
            self._on_change(sent)  # it may have changed before it was watched

    def _on_change(self, sent: SentMessage) -> None:
        """On a thread of chatlib."""
        with self._lock:
            message = self._messages.get(sent.message_id)
            if message is None:
                return
            self._changed[sent.message_id] = None
            if sent.state is not SentState.PENDING and sent.message_id in self._pending:
                self._pending.discard(sent.message_id)
                if sent.state is SentState.CONFIRMED and sent.to.startswith("#"):  # who was a member a moment ago has it
                    self._count(message)

    def _count(self, message: _Message) -> None:
        message.confirmed = time.monotonic()
        if message.to not in self._stale and message.confirmed - self._asked.get(message.to, -FRESH) < FRESH:
            message.audience = len(self._members[message.to] - {message.sender})
        else:
            self._stale[message.to] = None
            self._uncounted[message.message_id] = True

    def hear(self, name: str, received: ReceivedMessage) -> None:
        """`received` came out of the inbox of `name`; it is unread until its conversation is open there, and `to_read` was asked."""
        index = self._index[name]
        to = f"#{received.group_id}" if received.group_id is not None else f"@{received.recipient_id}"
        with self._lock:
            message = self._known(received.message_id, received.sender_id, to, received.content, received.timestamp.timestamp())
            conversation = self._panes[index].conversations.setdefault(received.conversation, _Conversation())
            conversation.last = received
            if index not in message.places:
                conversation.unread += 1
                self._put(index, received.conversation, message)

    def _known(self, message_id: str, sender: str, to: str, content: str, at: float) -> _Message:
        message = self._messages.get(message_id)
        if message is None:
            message = self._messages[message_id] = _Message(message_id, sender, to, content, at)
        return message

    def _put(self, index: int, address: str, message: _Message) -> None:
        if index in message.places:  # to himself
            return
        self._place += 1
        message.places[index] = self._place
        self._changed[message.message_id] = None
        ids = self._panes[index].conversations.setdefault(address, _Conversation()).ids
        ids.append(message.message_id)
        while len(ids) > self._limit:
            self._forget(index, ids.popleft())

    def _forget(self, index: int, message_id: str) -> None:
        old = self._messages.get(message_id)
        if old is None:
            return
        old.places.pop(index, None)
        self._changed[message_id] = None
        if not old.places:
            for known in (self._messages, self._changed, self._uncounted):
                known.pop(message_id, None)
            self._pending.discard(message_id)

    # ---- what people have in front of them -------------------------------------------------------------------------------------

    def open(self, name: str, address: str) -> None:
        """`name` looks at this conversation ("@user", "#group"; "" for none) from now on."""
        with self._lock:
            pane = self._panes[self._index[name]]
            pane.open = address
            if address:
                pane.conversations.setdefault(address, _Conversation())
                if address.startswith("#") and address not in self._members:
                    self._stale[address] = None

    def to_read(self) -> list[ReceivedMessage]:
        """What is read now because it is open, the last of each conversation: to be marked read, which covers all before it."""
        read: list[ReceivedMessage] = []
        with self._lock:
            for pane in self._panes:
                conversation = pane.conversations.get(pane.open)
                if conversation is not None and conversation.last is not None:
                    read.append(conversation.last)
                    conversation.last, conversation.unread = None, 0
        return read

    def begin(self, name: str, what: str) -> None:
        """Something that takes a while is being done for `name`."""
        with self._lock:
            self._panes[self._index[name]].busy.append(what)

    def answer(self, name: str, number: str, why: str = "", what: str = "") -> None:
        """What was typed or clicked under `number` is done, or refused: `why`. what: as in `begin`."""
        with self._lock:
            pane = self._panes[self._index[name]]
            pane.answers.append((number, why))
            pane.notice = why
            self.end(name, what)

    def end(self, name: str, what: str) -> None:
        """What was begun is over."""
        with self._lock:
            busy = self._panes[self._index[name]].busy
            if what in busy:
                busy.remove(what)

    def set_online(self, name: str, online: bool, *, deaf: bool = False) -> None:
        """Whether his inbox is being emptied. deaf: other code does it, and the room sees nothing of it."""
        with self._lock:
            pane = self._panes[self._index[name]]
            pane.deaf = deaf
            if online and not pane.online:
                pane.waiting = None
            pane.online = online

    def set_waiting(self, name: str, waiting: int) -> None:
        """How many messages wait in the inbox of `name`."""
        with self._lock:
            self._panes[self._index[name]].waiting = waiting

    @property
    def away(self) -> list[str]:
        """The names of those who are offline."""
        with self._lock:
            return [pane.name for pane in self._panes if not pane.online]

    # ---- groups and the link ---------------------------------------------------------------------------------------------------

    def set_member(self, name: str, group: str, member: bool) -> None:
        """`name` (of the room or not) has joined or left `group`."""
        with self._lock:
            self._stale[group] = None
            self._moved.setdefault(group, {})[name] = time.monotonic(), member
            if (index := self._index.get(name)) is not None:
                pane = self._panes[index]
                (pane.groups.add if member else pane.groups.discard)(group)
                if member:
                    pane.conversations.setdefault(group, _Conversation())

    def set_members(self, group: str, members: Iterable[str]) -> None:
        """Who is in `group`, as the broker has it."""
        with self._lock:
            names = self._members[group] = frozenset(members)
            self._asked[group] = time.monotonic()
            for pane in self._panes:
                (pane.groups.add if pane.name in names else pane.groups.discard)(group)
            for message_id in [each for each in self._uncounted if self._messages[each].to == group]:
                del self._uncounted[message_id]
                message = self._messages[message_id]
                message.audience = self._count_then(message, names)
                self._changed[message_id] = None

    def _count_then(self, message: _Message, names: frozenset[str]) -> int:
        """How many it was for when it was confirmed: `names` are those of now, less who came since, and with who went."""
        then = set(names)
        for name, (at, member) in self._moved.get(message.to, {}).items():
            if at > message.confirmed:
                (then.discard if member else then.add)(name)
        return len(then - {message.sender})

    def again(self, group: str) -> None:
        """Nobody could tell who is in `group`: it has to be asked again."""
        with self._lock:
            self._stale[group] = None
            for message_id in self._uncounted:
                if self._messages[message_id].to == group:
                    self._uncounted[message_id] = False
                    self._changed[message_id] = None

    @property
    def has_stale(self) -> bool:
        """Whether there are groups whose members have to be asked for."""
        return bool(self._stale)

    def take_stale(self) -> list[str]:
        """These groups; each is named once."""
        with self._lock:
            stale, self._stale = list(self._stale), {}
        return stale

    def set_link(self, state: LinkState, reason: str, reconnects: int) -> None:
        """What the link to the broker is doing. After a reconnect all groups may have changed."""
        with self._lock:
            if reconnects != self._reconnects:
                self._stale |= dict.fromkeys(self._members)
            self._link, self._reason, self._reconnects = state, reason, reconnects

    # ---- out -------------------------------------------------------------------------------------------------------------------

    def take(self) -> Snapshot:
        """The room now, with the messages that have changed since the last call."""
        with self._lock:
            changed = tuple(self._now(self._messages[each]) for each in self._changed if each in self._messages)
            self._changed = {}
            return self._snapshot(changed)

    def now(self) -> Snapshot:
        """The room now, without its messages."""
        with self._lock:
            return self._snapshot(())

    def _snapshot(self, changed: tuple[Message, ...]) -> Snapshot:
        return Snapshot(changed, tuple(map(self._pane, self._panes)), self._link, self._reason, self._reconnects, len(self._pending))

    def messages(self) -> list[Message]:
        """All messages that are kept, in the order in which they came."""
        with self._lock:
            return [self._now(message) for message in self._messages.values()]

    @staticmethod
    def _receipts(sent: SentMessage | None) -> dict[str, str]:
        return {} if sent is None else {name: str(status) for name, status in sent.receipts.items()}

    def _now(self, message: _Message) -> Message:
        sent = message.sent
        return Message(
            message.message_id,
            message.sender,
            message.to,
            message.content,
            message.at,
            dict(message.places),
            sent.state if sent else None,
            sent.error if sent else None,
            self._receipts(sent),
            message.audience,
            message.audience is None and self._uncounted.get(message.message_id, False),
        )

    def _pane(self, pane: _Pane) -> Pane:
        conversations = tuple(
            Conversation(address, each.unread, address in pane.groups, self._sorted(address))
            for address, each in pane.conversations.items()
        )
        busy = pane.busy[-1] if pane.busy else ""
        return Pane(pane.name, pane.online, pane.deaf, pane.waiting, pane.open, conversations, busy, pane.notice, tuple(pane.answers))

    def _sorted(self, address: str) -> tuple[str, ...] | None:
        members = self._members.get(address)
        return None if members is None else tuple(sorted(members))
