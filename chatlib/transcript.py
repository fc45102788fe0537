"""Transcripts of real chat: the JSON Lines format that `chatlib replay` plays through a broker.

One JSON object a line, UTF-8, in the order in which things happened::

    {"id": 3, "ts": "2005-02-08T11:42:00.000Z", "group": "#ubuntu", "sender": "ann", "text": "hello", "mentions": []}
    {"id": 4, "ts": "2005-02-08T11:42:00.000Z", "group": "#ubuntu", "event": "join", "sender": "bob"}

A line with `event` (join, part, quit or nick, the last with `new`) is an event, any other a message.
Optional: `mentions reply_to action notice reason src`; further keys are ignored, blank lines too.
Names must be names of chatlib (no spaces), and come in its form (Unicode NFC); a group is an address: "#ubuntu", "#FreeCodeCamp/ruby".
The lines' order counts, since many clocks in chat logs show minutes only; `ts` is for the pace of a replay.

`chatlib.membership` turns the records into who is a member of which group and who is online.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from chatlib.errors import ChatError
from chatlib.membership import Change, Membership
from chatlib.messages import check_content
from chatlib.names import check_group_name, check_user_name

__all__ = [
    "Change",
    "Membership",
    "Record",
    "Transcript",
    "TranscriptError",
    "TranscriptEvent",
    "TranscriptMessage",
    "TranscriptSummary",
    "group_address",
    "parse_transcript",
    "read_transcript",
    "small_transcript",
]

EventKind = Literal["join", "part", "quit", "nick"]
EVENTS: Final[tuple[EventKind, ...]] = ("join", "part", "quit", "nick")


class TranscriptError(ChatError, ValueError):
    """A transcript that cannot be read. `line`: the number of the bad line, 1 for the first, 0 when it is the file itself."""

    def __init__(self, message: str, *, source: str = "transcript", line: int = 0) -> None:
        self.source = source
        self.line = line
        super().__init__(f"{source}, line {line}: {message}" if line else f"{source}: {message}")


@dataclass(frozen=True, slots=True)
class TranscriptMessage:
    """Somebody wrote `text` to `group`, an address such as "#ubuntu". `at`: Unix seconds, as the log's clock had it."""

    event: ClassVar[Literal["message"]] = "message"  #: what tells it from a `TranscriptEvent`
    id: int
    at: float
    group: str
    sender: str
    text: str
    mentions: tuple[str, ...] = ()
    reply_to: tuple[int, ...] = ()
    action: bool = False
    notice: bool = False


@dataclass(frozen=True, slots=True)
class TranscriptEvent:
    """Somebody came, went or changed the name. `event`: join, part, quit or nick; `new`: the new name, of a nick only."""

    id: int
    at: float
    group: str
    event: EventKind
    sender: str
    new: str = ""
    reason: str = ""


Record = TranscriptMessage | TranscriptEvent


@dataclass(frozen=True, slots=True)
class TranscriptSummary:
    """A transcript in numbers.

    messages, events: records of each kind. senders: users who wrote. users: all names, those who only came and went too.
    deliveries: (message, recipient) pairs to expect of a replay, by the rules of `chatlib.membership.Membership`;
    by_group: the same per "#group", most first. largest: the most members that one group ever had; largest_group: which.
    """

    messages: int
    events: int
    senders: int
    users: int
    groups: int
    deliveries: int
    by_group: Mapping[str, int]
    largest: int
    largest_group: str

    def __str__(self) -> str:
        return (
            f"{self.messages:,} messages by {self.senders:,} of {self.users:,} users in {self.groups:,} groups, "
            f"{self.events:,} events, {self.deliveries:,} deliveries to expect; "
            f"the largest group is {self.largest_group or 'none'} with {self.largest:,} members"
        )


@dataclass(frozen=True, slots=True)
class Transcript:
    """The records of a transcript in order. Iterate over it, or use `records`; `source` says where it was read."""

    records: tuple[Record, ...]
    source: str = "transcript"

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __repr__(self) -> str:
        return f"<Transcript {self.source}: {len(self.records):,} records>"

    @property
    def messages(self) -> tuple[TranscriptMessage, ...]:
        """The messages alone, in order."""
        return tuple(record for record in self.records if isinstance(record, TranscriptMessage))

    @property
    def groups(self) -> tuple[str, ...]:
        """The addresses of all groups, sorted."""
        return tuple(sorted({record.group for record in self.records}))

    @property
    def users(self) -> tuple[str, ...]:
        """All names that occur as a sender or as the new name of a nick, sorted."""
        names = {record.sender for record in self.records}
        return tuple(sorted(names | {record.new for record in self.records if isinstance(record, TranscriptEvent) and record.new}))

    def summary(self, *, gap: float | None = None) -> TranscriptSummary:
        """Count it, in one pass over the records. gap: seconds, as `chatlib.membership.Membership` takes it."""
        membership = Membership(gap=gap)
        by_group: Counter[str] = Counter(dict.fromkeys(self.groups, 0))
        largest, largest_group = 0, ""
        for record in self.records:
            change = membership.step(record)
            by_group[record.group] += len(change.recipients)
            for _, group in change.joined:
                if len(membership.groups[group]) > largest:
                    largest, largest_group = len(membership.groups[group]), group
        messages = self.messages
        return TranscriptSummary(
            messages=len(messages),
            events=len(self.records) - len(messages),
            senders=len({message.sender for message in messages}),
            users=len(self.users),
            groups=len(by_group),
            deliveries=by_group.total(),
            by_group=dict(sorted(by_group.items(), key=lambda item: (-item[1], item[0]))),
            largest=largest,
            largest_group=largest_group,
        )


def group_address(name: str) -> str:
    """The chatlib address of a transcript's group: "#ubuntu" stays, "FreeCodeCamp/ruby" becomes "#FreeCodeCamp/ruby".

    Raises InvalidName for what no group can be called.
    """
    return f"#{check_group_name(name.removeprefix('#'))}"


def read_transcript(path: str | PathLike[str]) -> Transcript:
    """Read the transcript at `path`. Raises TranscriptError with the line's number for the first bad line."""
    try:
        data = Path(path).read_bytes()
    except OSError as exc:
        raise TranscriptError(f"cannot be read: {exc.strerror or exc}; give the path of a JSON Lines file", source=str(path)) from exc
    return parse_transcript(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), source=Path(path).name)


def small_transcript() -> Transcript:
    """The short transcript that comes with chatlib: an afternoon of eight people in three groups."""
    data = (resources.files("chatlib") / "data" / "small-chat.jsonl").read_bytes()
    return parse_transcript(data.split(b"\n"), source="small-chat.jsonl")


def parse_transcript(lines: Iterable[str | bytes], *, source: str = "transcript") -> Transcript:
    """Parse `lines` of JSON; `source` names them in errors. Raises TranscriptError for the first bad line."""
    records: list[Record] = []
    seen: dict[int, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = _record(json.loads(line))
        except UnicodeDecodeError as exc:
            raise TranscriptError("is not UTF-8; convert the file", source=source, line=number) from exc
        except json.JSONDecodeError as exc:
            raise TranscriptError(f"is not JSON ({exc.msg} at column {exc.colno})", source=source, line=number) from exc
        except (ValueError, RecursionError) as exc:
            raise TranscriptError(str(exc), source=source, line=number) from exc
        if record.id in seen:
            raise TranscriptError(f"id {record.id} was used in line {seen[record.id]} already", source=source, line=number)
        seen[record.id] = number
        records.append(record)
    return Transcript(tuple(records), source)


def _record(found: Any) -> Record:
    if not isinstance(found, dict):
        raise ValueError(f"must be a JSON object, not {type(found).__name__}")  # noqa: TRY004 - a bad line is bad input, not a wrong call
    number, sender = _field(found, "id", int), check_user_name(_field(found, "sender", str))
    at, group = _time(_field(found, "ts", str)), group_address(_field(found, "group", str))
    if "event" not in found:
        return TranscriptMessage(
            number,
            at,
            group,
            sender,
            check_content(_field(found, "text", str), sys.maxsize),  # how long a text may be is for the chat to say
            _many(found, "mentions", str),
            _many(found, "reply_to", int),
            _field(found, "action", bool, False),
            _field(found, "notice", bool, False),
        )
    event = _field(found, "event", str)
    if event not in EVENTS:
        raise ValueError(f"event {event!r} is not known; the events are {', '.join(EVENTS)}")
    new = check_user_name(_field(found, "new", str)) if event == "nick" else ""
    return TranscriptEvent(number, at, group, event, sender, new, _field(found, "reason", str, ""))


def _field(found: dict[str, Any], key: str, kind: type, default: Any = None) -> Any:
    """found[key], of type `kind` and, where it is required (no default) and a text, not empty."""
    value = found.get(key)
    if value is None:
        value = default
    if value is None:
        raise ValueError(f"{key} is missing")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{key} must be {kind.__name__}, not {type(value).__name__}")
    if value == "" and default is None:
        raise ValueError(f"{key} is empty")
    return value


def _many(found: dict[str, Any], key: str, kind: type) -> tuple[Any, ...]:
    values = _field(found, key, list, [])
    if not all(isinstance(value, kind) and not isinstance(value, bool) for value in values):
        raise ValueError(f"{key} must be a list of {kind.__name__}")
    return tuple(values)


def _time(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"ts {text!r} is not an ISO 8601 time such as 2005-02-08T11:40:00Z") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
