"""What became of a message, as a sequence: who took part, and one row for each thing that happened. Pure functions over a history."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Final

from chatlib import events
from chatlib.errors import HistoryError
from chatlib.events import Event
from chatlib.messages import RECEIVE_MESSAGE

__all__ = ["BROKER", "Band", "Row", "Trace", "message_ids", "trace_of", "trace_run"]

BROKER: Final = "the broker"  # no user can be called so, for the space
GAP: Final = 0.25  # seconds without an event that are shown as a gap
PEOPLE: Final = 8  # lifelines of users
ROWS: Final = 120
OF_MESSAGE: Final = {
    *(events.STORED, events.SENT, events.CONFIRMED, events.RETURNED, events.NACKED, events.UNKNOWN, events.DELIVERED, events.DROPPED),
    *(events.HANDLED, events.ACKED, events.RETRIED, events.DEAD, events.RECEIPT, events.REPLAYED),
}
BY_SENDER: Final = {events.STORED, events.SENT, events.CONFIRMED, events.RETURNED, events.NACKED, events.UNKNOWN}
RECEIPT_ID: Final = re.compile(":(delivered|read):")  # between the id of a message and a name, see ReceiveMessage.receipt_id
UP = ("connected", "blocked", "closed")  # a closed one waits for nothing any more
LINK_WORDS: Final = {
    "recovering": "the link is lost: chatlib reconnects",
    "connected": "the link is up",
    "blocked": "the link is up, an alarm stops publishing",
    "closed": "the chat is closed",
    "connecting": "the chat connects",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that happened. From `start` to `end` (lifelines) if something went over the network, else at `start`.

    kind: sent, unsure (sent, and nobody knows whether it came), confirmed, bad (returned, refused, dead), delivered, ack, retry, receipt,
    note (something happened there), drop, link or fault. at: seconds since the first event of the message; gap: seconds before it, 0 if
    there was none worth showing.
    """

    hop: str
    kind: str
    at: float
    start: str
    end: str = ""
    words: str = ""
    gap: float = 0.0
    message_id: str = ""


@dataclass(frozen=True, slots=True)
class Band:
    """Something that lasted from row `first` to row `last`: a fault, the time without a link, or (at the broker) the wait of a retry."""

    kind: str  # fault, link or wait
    words: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Trace:
    """A sequence to draw. lifelines: from left to right; rows: in the order of events; left_out: what does not fit, in words."""

    title: str
    lifelines: tuple[str, ...]
    rows: tuple[Row, ...]
    bands: tuple[Band, ...] = ()
    left_out: str = ""


def message_ids(history: Iterable[Event]) -> list[str]:
    """The ids of the messages in a history, in the order in which they first appear."""
    found = (
        str(event["message_id"])
        for event in history
        if event.get("hop") in OF_MESSAGE and event.get("message_id") and not _is_receipt(event)
    )
    return list(dict.fromkeys(found))


def trace_of(history: Iterable[Event], message_id: str) -> Trace:
    """The way of one message through every hop, resend and fault.

    Raises HistoryError for a history in which there is no message, or none with this id; it names those that are like it.
    """
    found = _in_time(history)
    known = message_ids(found)
    _refuse_empty(known)
    if message_id not in known:
        raise HistoryError(f"no message {message_id!r} among the {len(known):,} of this history; {_near(message_id, known)}")
    mine = _about(found, {message_id})
    sender, to = _sender_of(mine), next((str(event["to"]) for event in mine if event.get("to")), "")
    title = f"{_or_somebody(sender)} to {to or 'somebody'}: message {message_id}"
    return _trace(title, mine, found, {message_id: 0})


def trace_run(history: Iterable[Event], *, first: int = 0, limit: int = 10) -> Trace:
    """Everything that became of `limit` messages, from number `first` of the history on (0 is the first that was sent).

    Raises ValueError for a negative first or a limit below 1, HistoryError where there is no such message.
    """
    if first < 0 or limit < 1:
        raise ValueError(f"first is a message's number from 0 on, and limit how many, at least 1; got first={first!r}, limit={limit!r}")
    found = _in_time(history)
    known = message_ids(found)
    _refuse_empty(known)
    if first >= len(known):
        raise HistoryError(f"there is no message number {first:,}: this history has {len(known):,}, the last is number {len(known) - 1:,}")
    chosen = {each: number for number, each in enumerate(known[first : first + limit], first)}
    mine = _about(found, chosen)
    last = first + len(chosen) - 1
    which = f"message #{first}" if last == first else f"messages #{first} to #{last}"
    return _trace(f"{which}, of {len(known):,} from #0 on", mine, found, chosen, numbered=True)


def _refuse_empty(known: Sequence[str]) -> None:
    if not known:
        raise HistoryError("there is no message in this history: record one with chat.on_event(recorder), or take lesson.history")


def _near(message_id: str, known: Sequence[str]) -> str:
    like = (
        get_close_matches(message_id, known, 3, 0.5)
        or ([each for each in known if message_id and each.startswith(message_id)] or known)[:3]
    )
    return f"near it are: {', '.join(like)}" if len(known) > 3 else f"there are: {', '.join(known)}"


def _when(event: Event) -> float:
    if not isinstance(event["hop"], str) or not math.isfinite(at := float(event["at"])):
        raise ValueError(event)
    return at


def _in_time(history: Iterable[Event]) -> list[Event]:
    try:
        return sorted(history, key=_when)  # stable: equal times keep their order
    except (KeyError, TypeError, ValueError) as exc:
        raise HistoryError(f"a record of a history has a hop and a time, see chatlib.events; this one has not: {exc!r}") from exc


def _is_receipt(event: Event) -> bool:
    return bool(event.get("kind") == RECEIVE_MESSAGE)


def _message_of(event: Event) -> str:
    """The message that an event is about; a receipt has an id of its own, which begins with that of its message."""
    message_id = str(event.get("message_id") or "")
    return RECEIPT_ID.split(message_id)[0] if _is_receipt(event) else message_id


def _about(history: Sequence[Event], chosen: Collection[str]) -> list[Event]:
    """The events of these messages, and the sending of their receipts."""
    hops = OF_MESSAGE - {events.CONFIRMED}
    return [event for event in history if _message_of(event) in chosen and event["hop"] in (hops if _is_receipt(event) else OF_MESSAGE)]


def _sender_of(mine: Sequence[Event]) -> str:
    own = (event.get("user") for event in mine if event["hop"] in BY_SENDER and event.get("to") and not _is_receipt(event))
    return str(next(own, None) or next((event["sender"] for event in mine if event.get("sender")), ""))


def _or_somebody(name: str) -> str:
    return name or "somebody"


# ---- rows ------------------------------------------------------------------------------------------------------------------


def _trace(title: str, mine: Sequence[Event], history: Sequence[Event], numbers: Mapping[str, int], *, numbered: bool = False) -> Trace:
    """The trace of these events, and of the faults and losses of the link that fell into their time."""
    of: dict[str, list[Event]] = {each: [] for each in numbers}
    for event in mine:
        of[_message_of(event)].append(event)
    senders = {each: _sender_of(its) for each, its in of.items()}
    lifelines, absent = _lifelines(mine, senders)
    shown = [event for event in mine if _actor(event, senders) not in absent]
    beyond, shown = len(shown) - ROWS, shown[:ROWS]
    began, ended = float(shown[0]["at"]), float(shown[-1]["at"])
    around = _around(history, began, ended)
    sequence = sorted([*shown, *around], key=lambda event: float(event["at"]))
    rows: list[Row] = []
    attempts: dict[str, int] = {}
    for event in sequence:
        row = _row(event, senders, attempts, sequence)
        at = float(event["at"]) - began
        gap = at - rows[-1].at if rows else 0.0
        mark = f"#{numbers[row.message_id]} " if numbered and row.message_id in numbers else ""
        rows.append(replace(row, at=at, gap=gap if gap >= GAP else 0.0, words=mark + row.words))
    faults, losses = _bands("fault", sequence, _faults, _faults_end, _name), _bands("link", sequence, _down, _up, _no_name)
    bands = [*faults, *(replace(band, words="no link") for band in losses), *_waits(sequence)]
    notes = [f"{len(absent):,} more users: {', '.join(sorted(absent)[:5])}{' …' if len(absent) > 5 else ''}"] if absent else []
    notes += [f"{beyond:,} more events"] if beyond > 0 else []
    return Trace(title, lifelines, tuple(rows), tuple(bands), "; ".join(notes))


def _actor(event: Event, senders: Mapping[str, str]) -> str:
    """The lifeline, beside the broker's, at which an event happened."""
    user = str(event.get("user") or "")
    return user or _or_somebody(senders[_message_of(event)]) if event["hop"] in BY_SENDER else user


def _lifelines(mine: Sequence[Event], senders: Mapping[str, str]) -> tuple[tuple[str, ...], set[str]]:
    """Who has a lifeline, from left to right, and who has none: those to whom the least happened, where there are too many."""
    left = list(dict.fromkeys(_or_somebody(name) for name in senders.values()))
    people: dict[str, int] = {}
    for event in mine:
        if (name := _actor(event, senders)) and name not in left:
            people[name] = people.get(name, 0) + 1
        to = str(event.get("to") or "") if event["hop"] in BY_SENDER and not _is_receipt(event) else ""
        if to.startswith("@") and to[1:] and to[1:] not in left:
            people.setdefault(to[1:], 1)  # he has a lifeline, even if nothing ever reached him
    if not people and len(left) > 1:
        left, people = left[: (len(left) + 1) // 2], dict.fromkeys(left[(len(left) + 1) // 2 :], 1)
    busiest = sorted(people, key=lambda name: -people[name])[: max(1, PEOPLE - len(left))]
    right = [name for name in people if name in busiest]
    return (*left[: PEOPLE - 1], BROKER, *right), (set(people) - set(right)) | set(left[PEOPLE - 1 :])


def _row(event: Event, senders: Mapping[str, str], attempts: dict[str, int], sequence: Sequence[Event]) -> Row:
    hop, message_id, user = event["hop"], _message_of(event), str(event.get("user") or "")
    sender = _or_somebody(senders.get(message_id, ""))
    actor = user or sender
    reason, attempt = str(event.get("reason") or ""), event.get("attempt", 1)
    because = f": {reason}" if reason else ""

    def row(kind: str, start: str, end: str = "", words: str = "") -> Row:
        return Row(hop, kind, 0.0, start, end, words, message_id=message_id)

    if hop == events.SENT:
        key = f"{event.get('message_id')} {user}"
        attempts[key] = number = attempts.get(key, 0) + 1
        again = " again" if number > 1 else ""
        if _is_receipt(event):  # also told again when a duplicate comes
            status = RECEIPT_ID.search(str(event["message_id"]))
            return row("receipt", actor, BROKER, f"RECEIVE_MESSAGE {status[1] if status else ''}{again}")
        kind = "unsure" if _is_unsure(event, sequence) else "sent"
        return row(kind, actor, BROKER, f"publish{'' if event.get('to') else ' a copy'}{again}")
    if hop == events.DELIVERED:
        words = "deliver" + (f", attempt {attempt}" if attempt != 1 else "") + (", redelivered" if event.get("redelivered") else "")
        return row("delivered", BROKER, user, words)
    if hop == events.RETRIED:
        delay = event.get("delay")
        return row("retry", user, "", f"retry in {delay:g} s{because}" if isinstance(delay, int | float) else f"retry{because}")
    if hop == events.RECEIPT:
        return row("receipt", BROKER, sender, f"receipt: {user} {event.get('state', '')}".rstrip())
    if hop == events.LINK:
        return row("link", "", "", LINK_WORDS.get(str(event.get("state")), f"link {event.get('state')}"))
    if hop in (events.FAULT_BEGAN, events.FAULT_ENDED):
        what = " ".join(filter(None, [str(event.get("name") or "fault"), str(event.get("target") or "")]))
        return row("fault", "", "", what if hop == events.FAULT_BEGAN else f"end of {what}")
    plain: dict[str, tuple[str, str, str, str]] = {
        events.STORED: ("note", actor, "", "kept in the outbox"),
        events.CONFIRMED: ("confirmed", BROKER, actor, "confirm"),
        events.RETURNED: ("bad", BROKER, actor, "returned: no queue took it"),
        events.NACKED: ("bad", BROKER, actor, f"refused{because}"),
        events.UNKNOWN: ("drop", actor, "", "no confirm came: it will be sent again"),
        events.DROPPED: ("drop", user, "", "duplicate, dropped"),
        events.HANDLED: ("note", user, "", "handled"),
        events.ACKED: ("ack", user, BROKER, "ack"),
        events.DEAD: ("bad", user, "", f"dead letter{because}"),
        events.REPLAYED: ("note", BROKER, "", f"replayed from the dead letters to {user}"),
    }
    return row(*plain[hop])


def _is_unsure(sent: Event, sequence: Sequence[Event]) -> bool:
    """Whether this sending was followed by a loss of the link, before any answer."""
    place = next(number for number, event in enumerate(sequence) if event is sent)
    for event in sequence[place + 1 :]:
        same = event.get("message_id") == sent["message_id"] and event.get("user") == sent.get("user")
        if same and event["hop"] in BY_SENDER:
            return bool(event["hop"] in (events.UNKNOWN, events.SENT))
    return False


# ---- what lasted -----------------------------------------------------------------------------------------------------------


def _around(history: Sequence[Event], began: float, ended: float) -> list[Event]:
    """Beginnings and ends of faults and losses of the link that touch this time, each pair as a whole; and chats closed in it."""
    found = [event for event in history if event["hop"] == events.LINK and event.get("state") == "closed" and began <= event["at"] <= ended]
    for opens, closes, name in (_faults, _faults_end, _name), (_down, _up, _no_name):
        begun: dict[str, Event] = {}
        for event in history:
            if opens(event):
                begun.setdefault(name(event), event)
            elif closes(event) and (start := begun.pop(name(event), None)) is not None and event["at"] >= began and start["at"] <= ended:
                found += [start] if event in found else [start, event]
        found += [start for start in begun.values() if start["at"] <= ended]
    return found


def _name(event: Event) -> str:
    return f"{event.get('name', '')} {event.get('target', '')}"


def _no_name(_: Event) -> str:
    return ""


def _faults(event: Event) -> bool:
    return bool(event["hop"] == events.FAULT_BEGAN)


def _faults_end(event: Event) -> bool:
    return bool(event["hop"] == events.FAULT_ENDED)


def _down(event: Event) -> bool:
    return event["hop"] == events.LINK and event.get("state") == "recovering"


def _up(event: Event) -> bool:
    return event["hop"] == events.LINK and event.get("state") in UP


def _bands(
    kind: str, sequence: Sequence[Event], opens: Callable[[Event], bool], closes: Callable[[Event], bool], name: Callable[[Event], str]
) -> list[Band]:
    begun: dict[str, int] = {}
    found = []
    for number, event in enumerate(sequence):
        if opens(event):
            begun.setdefault(name(event), number)
        elif closes(event) and name(event) in begun:
            found.append(Band(kind, name(event).strip(), begun.pop(name(event)), number))
    return found + [Band(kind, each.strip(), first, len(sequence) - 1) for each, first in begun.items()]


def _waits(sequence: Sequence[Event]) -> list[Band]:
    """From a retry to the next delivery of the same message to the same user, at the broker."""
    begun: dict[tuple[str, str], int] = {}
    found = []
    for number, event in enumerate(sequence):
        key = (_message_of(event), str(event.get("user") or ""))
        if event["hop"] == events.RETRIED:
            begun[key] = number
        elif event["hop"] == events.DELIVERED and key in begun:
            found.append(Band("wait", "waits", begun.pop(key), number))
    return found + [Band("wait", "waits", first, len(sequence) - 1) for first in begun.values()]
