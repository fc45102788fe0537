"""What users, groups, queues and exchanges are called: pure functions, all in one place.

A *name* is what people call a user or a group: `bob`, `Mötley|away`, `🦊`, `FreeCodeCamp/ruby`.
An *address* is a sigil and a name: `@bob`, `#team`.
A *queue name* is a kind and an escaped name: `inbox.bob`, `receipts.bob`.

Escaping is percent-encoding of the few characters that mean something to AMQP or to people reading
routing keys; it is reversible and collision-free, so `Bob` and `bob` are two users.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, NamedTuple

from chatlib.errors import InvalidAddress, InvalidName

__all__ = [
    "DEAD_LETTERS",
    "Address",
    "check_chat_name",
    "check_group_name",
    "check_size",
    "check_user_name",
    "escape",
    "history_queue",
    "inbox_queue",
    "parse_address",
    "receipts_queue",
    "retries_queue",
    "retry_queue",
    "unescape",
    "user_of_queue",
]

MAX_ESCAPED_BYTES: Final = 240
"""AMQP 0-9-1 allows 255 bytes for a queue name or routing key (short string); 15 are kept for prefixes."""

MAX_CHAT_NAME_BYTES: Final = 255
"""Of the name of a chat, which the management UI shows; enough for a user's name and some words."""

DEAD_LETTERS: Final = "dead-letters"

# '.', '*' and '#' are special in topic keys, '/' in URLs, '%' is the escape itself; '|' and the like pass as they are.
_ESCAPED = re.compile(r"[%.*#/]")
_ESCAPE_MARK = re.compile(r"%([0-9A-F]{2})")
_JOINERS = "\u200c\u200d"  # needed inside emoji families and in Persian and Indic scripts
_SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef\u180b-\u180d\u180f"  # choose a form: of an emoji, a Han or a Mongolian letter
# Nothing of these is to be seen, though they count as letters, marks or symbols: fillers, blanks, and what Unicode keeps for others of that
# kind (its property Default_Ignorable_Code_Point, version 15).
_BLANKS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u2065\u2800\u3164\uffa0\ufff0-\ufff8\U00013441\U00013442\U00016fe4\U0001d159"
    "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff]"
)
# Joiners and selectors where they change nothing that is to be seen: first, behind each other, or behind ASCII; except in keycaps (1️⃣).
_LOOSE = re.compile(f"(?<![^\0-\x7f{_JOINERS}{_SELECTORS}])[{_SELECTORS}](?!\u20e3)|(?<![^\0-\x7f{_JOINERS}])[{_JOINERS}]")
_REFUSED_CATEGORIES = {
    "Cc": "control characters",
    "Cs": "half a surrogate pair",
    "Zl": "line separators",
    "Zp": "paragraph separators",
    "Zs": "spaces",
    "Cf": "invisible formatting characters (they make two names look alike)",
}


class Address(NamedTuple):
    """Where a message goes: `sigil` is "@" (a user) or "#" (a group), `name` the bare name."""

    sigil: str
    name: str

    @property
    def is_group(self) -> bool:
        """True for a group, False for a user."""
        return self.sigil == "#"

    def __str__(self) -> str:
        return self.sigil + self.name


def check_user_name(name: str) -> str:
    """The user name in Unicode form NFC, or `InvalidName` with the rule that it breaks.

    Allowed is what people use in chats: letters of every script, digits, punctuation, emoji.
    Refused: empty, spaces, control and invisible characters (a joiner or variation selector is let in behind a character that it may
    change, as in emoji, Persian and Indic scripts), a leading "@" (that is the sigil of an address),
    and names longer than 240 bytes once escaped (UTF-8; `. * # / %` count three).
    """
    name = _check(name, "user")
    if name.startswith("@"):
        raise InvalidName(f"a user name must not begin with '@', the sigil of addresses: write {name.lstrip('@') or 'bob'!r}, got {name!r}")
    return name


def check_group_name(name: str) -> str:
    """The bare group name (without the "#" sigil) in Unicode form NFC, or `InvalidName` with the rule that it breaks.

    The same rules as for users, except that "@" and "#" may lead: IRC's ``##c`` is the group ``#c``, at the address ``##c``.
    """
    return _check(name, "group")


def check_chat_name(name: str) -> str:
    """What a chat calls its connections, or `InvalidName` with the rule that it breaks: any text of at most 255 bytes in UTF-8."""
    given: object = name  # whatever was given
    if not isinstance(given, str):
        raise InvalidName(f"the name of a chat must be text (str), got {type(given).__name__}")
    try:
        size = len(given.encode())
    except UnicodeEncodeError as exc:
        raise InvalidName(f"the name of a chat must not contain {_REFUSED_CATEGORIES['Cs']}, got {given[:60]!r}") from exc
    if size > MAX_CHAT_NAME_BYTES:
        raise InvalidName(f"the name of a chat must fit in {MAX_CHAT_NAME_BYTES} bytes (UTF-8); this one has {size}: {given[:20]!r}…")
    return given


def _check(name: str, kind: str) -> str:
    if not isinstance(name, str):
        raise InvalidName(f"a {kind} name must be text (str), got {type(name).__name__}")
    if not name:
        raise InvalidName(f"a {kind} name must not be empty")
    if not name.isascii() or not name.isprintable() or " " in name:
        for character in name:
            reason = "invisible characters" if _BLANKS.match(character) else _REFUSED_CATEGORIES.get(unicodedata.category(character))
            if reason and character not in _JOINERS:
                raise InvalidName(f"a {kind} name must not contain {reason}: found U+{ord(character):04X} in {name!r}")
        name = unicodedata.normalize("NFC", name)
        if loose := _LOOSE.search(name):
            raise InvalidName(
                f"a {kind} name must not contain an invisible joiner or variation selector, except behind a visible character that it "
                f"may change: found U+{ord(loose.group()):04X} in {name!r}"
            )
    check_size(name, f"a {kind} name", MAX_ESCAPED_BYTES)
    return name


def check_size(name: str, what: str, room: int) -> None:
    """Raise InvalidName if `name`, escaped, takes more than `room` bytes. what: whose name it is, for the error."""
    size = len(escape(name).encode())
    if size > room:
        raise InvalidName(
            f"{what} must fit in {room} bytes once escaped (UTF-8; each of . * # / % counts three); this one has {size}: {name[:20]!r}…"
        )


def parse_address(address: str) -> Address:
    """Split "@bob" or "#team" into sigil and checked name.

    Raises InvalidAddress without a sigil, InvalidName for a name that breaks a rule.
    """
    if str(address)[:1] not in ("@", "#") or not isinstance(address, str):
        raise InvalidAddress(f"an address is '@user' or '#group', got {address!r}: say which by its first character")
    sigil, name = address[0], address[1:]
    return Address(sigil, check_group_name(name) if sigil == "#" else check_user_name(name))


def escape(name: str) -> str:
    """`name` with ``% . * # /`` percent-encoded: fit for a routing key, a topic pattern and a queue name."""
    return _ESCAPED.sub(lambda match: f"%{ord(match.group()):02X}", name)


def unescape(escaped: str) -> str:
    """The inverse of `escape`."""
    return _ESCAPE_MARK.sub(lambda match: chr(int(match.group(1), 16)), escaped)


def inbox_queue(user: str) -> str:
    """The queue with the SEND_MESSAGEs for `user`: "inbox.<escaped name>"."""
    return "inbox." + escape(user)


def receipts_queue(user: str) -> str:
    """The queue with the RECEIVE_MESSAGEs for `user` as a sender: "receipts.<escaped name>"."""
    return "receipts." + escape(user)


def history_queue(group: str) -> str:
    """The stream that keeps what was said in `group` (bare name): "history.<escaped name>"."""
    return "history." + escape(group)


def retries_queue(user: str) -> str:
    """The queue to which messages for `user` come back after a retry's wait: "retries.<escaped name>"."""
    return "retries." + escape(user)


def retry_queue(milliseconds: int, number: int = 0) -> str:
    """The queue (and the exchange in front of it) in which a message waits that long: "retry.<ms>"; number: of its set."""
    return f"retry.{milliseconds}.{number}" if number else f"retry.{milliseconds}"


def user_of_queue(queue: str) -> str | None:
    """The user whose inbox, receipts or retries `queue` holds, or None for a queue of another kind."""
    kind, _, escaped = queue.partition(".")
    return unescape(escaped) if kind in ("inbox", "receipts", "retries") and escaped else None
