"""The two message types on the wire, and their ids.

`SEND_MESSAGE` says something to a user or a group; `RECEIVE_MESSAGE` tells its sender that it was delivered or read.
Both are JSON objects in UTF-8 with the keys of the dataclasses below, plus `type` and `version`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Literal

from chatlib.errors import ChatError, DecodeError, InvalidContent
from chatlib.names import Address, check_group_name, check_user_name

__all__ = [
    "CONTENT_TYPE",
    "MARK",
    "RECEIVE_MESSAGE",
    "SEND_MESSAGE",
    "VERSION",
    "ReadStatus",
    "ReceiveMessage",
    "SendMessage",
    "check_content",
    "compose",
    "decode",
    "new_message_id",
]

SEND_MESSAGE: Final = "SEND_MESSAGE"
RECEIVE_MESSAGE: Final = "RECEIVE_MESSAGE"
MARK: Final = "HISTORY_MARK"  #: AMQP type of the marks in a history: empty bodies, shown to nobody
VERSION: Final = 1
CONTENT_TYPE: Final = "application/json"

MAX_PROPERTY_BYTES: Final = 255
"""AMQP 0-9-1: the longest short string, the type of the property `message_id`."""

_ID = re.compile(r"[!-~]{1,64}")
"""Message ids that we take from others: visible ASCII, short enough for a receipt's id. Ours are ULIDs."""

ReadStatus = Literal["delivered", "read"]


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Something said: by `sender_id`, to `group_id` or to `recipient_id` (bare names, exactly one is set).

    message_id: 26 characters, sorts by time (see `new_message_id`).
    timestamp: when `send` was called, an aware datetime in UTC with milliseconds on the wire.
    """

    message_id: str
    sender_id: str
    group_id: str | None
    recipient_id: str | None
    content: str
    timestamp: datetime

    @property
    def to(self) -> str:
        """The address it was sent to: "#group" or "@user"."""
        return f"#{self.group_id}" if self.group_id is not None else f"@{self.recipient_id}"

    def encode(self) -> bytes:
        """The JSON object as UTF-8 bytes."""
        group, recipient = self.group_id, self.recipient_id
        return (  # by hand: json's encoder takes three times as long for a dictionary, and every message passes here
            f'{{"type":"{SEND_MESSAGE}","version":{VERSION},"message_id":{_quote(self.message_id)},"sender_id":{_quote(self.sender_id)},'
            f'"group_id":{"null" if group is None else _quote(group)},"recipient_id":{"null" if recipient is None else _quote(recipient)},'
            f'"content":{_quote(self.content)},"timestamp":"{_iso(self.timestamp)}"}}'
        ).encode()


@dataclass(frozen=True, slots=True)
class ReceiveMessage:
    """A receipt: `recipient_id` has `read_status` ("delivered" or "read") for the message `message_id`.

    "read" is cumulative: it covers this message and all earlier ones of the same sender in the same conversation (as XEP-0333 and
    Matrix receipts do), in a group also those from before he joined; not what is known never to have reached him.
    """

    recipient_id: str
    message_id: str
    read_status: ReadStatus

    @property
    def receipt_id(self) -> str:
        """An id of its own for the AMQP property, made of its parts, so that resending one changes nothing."""
        parts = f"{self.message_id}:{self.read_status}:{self.recipient_id}"
        if len(parts.encode()) <= MAX_PROPERTY_BYTES:
            return parts
        return f"{self.message_id}:{self.read_status}:{hashlib.sha256(self.recipient_id.encode()).hexdigest()}"

    def encode(self) -> bytes:
        """The JSON object as UTF-8 bytes."""
        return (
            f'{{"type":"{RECEIVE_MESSAGE}","version":{VERSION},"recipient_id":{_quote(self.recipient_id)},'
            f'"message_id":{_quote(self.message_id)},"read_status":"{self.read_status}"}}'
        ).encode()


_quote = json.JSONEncoder(ensure_ascii=False).encode  # of a string: what JSON calls a string


def _iso(moment: datetime) -> str:
    return _iso_utc(moment) if moment.tzinfo is UTC else _isoformat(moment)


def _isoformat(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_iso_utc = lru_cache(maxsize=16)(_isoformat)  # in a burst many messages are of one millisecond; equal times of two zones are equal keys


def decode(body: bytes) -> SendMessage | ReceiveMessage:
    """The message in `body`.

    Raises DecodeError, which keeps the bytes, for anything that is not a complete message of a version we know.
    Keys that we do not know are ignored, so that a later version may add some.
    """
    try:
        fields = json.loads(body)
        kind, version = fields["type"], fields["version"]
        if version != VERSION:
            raise DecodeError(f"message format version {version!r} is not {VERSION}: upgrade chatlib", body)
        if kind == SEND_MESSAGE:
            return _send_message(fields)
        if kind == RECEIVE_MESSAGE:
            if fields["read_status"] not in ("delivered", "read"):
                raise DecodeError(f"read_status must be 'delivered' or 'read', got {fields['read_status']!r}", body)
            return ReceiveMessage(check_user_name(fields["recipient_id"]), _id(fields), fields["read_status"])
        raise DecodeError(f"type must be {SEND_MESSAGE} or {RECEIVE_MESSAGE}, got {kind!r}", body)
    except DecodeError as exc:
        exc.body = body
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError, RecursionError, ChatError) as exc:
        raise DecodeError(f"not a chat message: {type(exc).__name__}: {str(exc)[:200]}", body) from exc


def _send_message(fields: dict[str, Any]) -> SendMessage:
    group, recipient = fields.get("group_id"), fields.get("recipient_id")
    if (group is None) == (recipient is None):
        raise DecodeError("exactly one of group_id and recipient_id must be set")
    return SendMessage(
        message_id=_id(fields),
        sender_id=check_user_name(fields["sender_id"]),
        group_id=None if group is None else check_group_name(group),
        recipient_id=None if recipient is None else check_user_name(recipient),
        content=_content(fields["content"]),
        timestamp=_moment(fields["timestamp"]),
    )


def _id(fields: dict[str, Any]) -> str:
    value = fields["message_id"]
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise DecodeError(f"message_id must be 1 to 64 visible ASCII characters, got {value!r:.80}")
    return value


def _content(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise DecodeError(f"content must be a non-empty string, got {value!r:.60}")
    value.encode()  # JSON can escape half a surrogate pair, which is no text: UnicodeEncodeError is a ValueError
    return value


def _moment(value: Any) -> datetime:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise DecodeError(f"timestamp must say its zone (Z or +hh:mm), got {value!r:.60}")
    return moment.astimezone(UTC)


def check_content(content: str, limit: int) -> str:
    """`content` itself, or InvalidContent with the rule: text, not empty, no NUL, at most `limit` bytes in UTF-8."""
    if not isinstance(content, str):
        raise InvalidContent(f"content must be text (str), got {type(content).__name__}: encode binary data, for example with base64")
    if not content:
        raise InvalidContent("content must not be empty")
    if "\x00" in content:
        raise InvalidContent("content must not contain NUL characters: encode binary data, for example with base64")
    try:
        size = len(content) if content.isascii() else len(content.encode())
    except UnicodeEncodeError as exc:
        raise InvalidContent(f"content must be valid Unicode: it holds half a surrogate pair at position {exc.start}") from exc
    if size > limit:
        raise InvalidContent(
            f"content must be at most {limit:,} bytes in UTF-8, this has {size:,}: send a link, or raise Settings.max_content_bytes"
        )
    return content


def compose(message_id: str, sender: str, to: Address, content: str, seconds: float) -> SendMessage:
    """The SEND_MESSAGE from `sender` to `to`; `seconds`: Unix time of the send, kept to the millisecond as on the wire."""
    group, recipient = (to.name, None) if to.is_group else (None, to.name)
    return SendMessage(message_id, sender, group, recipient, content, _moment_of(int(seconds * 1000)))


@lru_cache(maxsize=16)
def _moment_of(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32, as ULIDs use it
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_id_lock = threading.Lock()
_last_id = 0


def new_message_id(now: float | None = None) -> str:
    """A ULID: 48 bits of milliseconds, 80 random bits, 26 characters; later ids of this process always sort later.

    now: Unix seconds, for tests. When the clock stands still or goes back the last id is counted on.
    Source: the ULID specification, monotonic variant.
    """
    global _last_id
    milliseconds = int((time.time() if now is None else now) * 1000)
    with _id_lock:
        if milliseconds > _last_id >> 80:
            # The top random bit stays clear, so that counting on cannot overflow into the time.
            _last_id = milliseconds << 80 | int.from_bytes(os.urandom(10)) >> 1
        else:
            _last_id += 1
        value = _last_id
    return "".join([_PAIRS[value >> shift & 1023] for shift in range(120, -1, -10)])
