"""A history in 18 bytes a record, for runs with millions of records: what `chatlib replay` judges.

A `Recorder` keeps each record as the dict that it is, about 0.4 kB: three for each of 700,000 deliveries would take almost a
gigabyte. Here the records of recipients are packed, and made into dicts again one at a time when they are read.
"""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from chatlib import events
from chatlib.events import Event

__all__ = ["CompactHistory"]

_PACKED: Final = (events.DELIVERED, events.DROPPED, events.HANDLED, events.RETRIED)
_CODES: Final = {hop: code for code, hop in enumerate(_PACKED)}
_HANDLED: Final = _CODES[events.HANDLED]
_PUBLISH: Final = frozenset({events.SENT, events.CONFIRMED, events.RETURNED, events.NACKED, events.UNKNOWN})
_LAYOUT: Final = struct.Struct("<dIIBB")  # at, message, user, hop, attempt


class CompactHistory:
    """The records of one run among `users`; give it to `Chat.on_event`. Any thread may call it.

    The run's messages are those that this object's thread sends while `recipients` says who has to get them. What others send, and
    what others than `users` receive, is passed over; so are acks and receipts, on which no verdict hangs. Iterating gives the
    records, for `chatlib.checker.check`: first those of senders and groups, as they came, then those of recipients.
    """

    def __init__(self, users: Collection[str]) -> None:
        self.recipients: frozenset[str] | None = None  #: of the message that is sent next
        self.handled = 0  #: how many of the run's messages were handled, by all recipients together
        self.receipts = 0  #: how many receipts reached senders
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._plain: list[Event] = []
        self._packed = bytearray()
        self._users = {user: number for number, user in enumerate(users)}
        self._ids: dict[str, int] = {}
        self._ours: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Take one event."""
        hop = event["hop"]
        code = _CODES.get(hop)
        if code is not None:
            self._received(event, code)
        elif hop == events.STORED:
            if self.recipients is not None and threading.get_ident() == self._thread:
                self._ours.add(event["message_id"])
                self._plain.append({**event, "recipients": self.recipients})
        elif hop in _PUBLISH:
            if event["message_id"] in self._ours:
                self._plain.append(event)
        elif hop == events.RECEIPT:
            if event["message_id"] in self._ours:
                with self._lock:
                    self.receipts += 1
        elif hop != events.ACKED and event.get("user") in self._users:
            self._plain.append(event)

    def _received(self, event: Event, code: int) -> None:
        who = self._users.get(event["user"])
        if who is None:
            return
        message_id = event["message_id"]
        with self._lock:  # so that a record is whole, and none is counted twice
            number = self._ids.setdefault(message_id, len(self._ids))
            self._packed += _LAYOUT.pack(event["at"], number, who, code, min(event.get("attempt", 1), 255))
            if code == _HANDLED and message_id in self._ours:
                self.handled += 1

    def __len__(self) -> int:
        return len(self._plain) + len(self._packed) // _LAYOUT.size

    def __iter__(self) -> Iterator[Event]:
        yield from self._plain
        users, ids = list(self._users), list(self._ids)
        for at, number, who, code, attempt in _LAYOUT.iter_unpack(self._packed):
            yield {"hop": _PACKED[code], "at": at, "message_id": ids[number], "user": users[who], "attempt": attempt}

    def write(self, path: Path) -> None:
        """Write the records as JSON Lines, for `chatlib.recorder.stream`; what was at `path` is replaced. Raises OSError."""
        draft = path.with_name(path.name + ".part")
        with draft.open("w", encoding="utf-8") as file:
            for event in self:
                file.write(_encode(event) + "\n")
        draft.replace(path)


_encode = json.JSONEncoder(separators=(",", ":"), default=sorted).encode  # sorted: `recipients` is a set
