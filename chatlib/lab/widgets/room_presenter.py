"""How a chat room looks: from the values of one moment to what the browser draws, and to a picture. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

from chatlib.errors import AccessRefused
from chatlib.lab.widgets.room_state import Conversation, Message, Pane, Snapshot
from chatlib.link import LinkState
from chatlib.sent import SentState
from chatlib.terminal.text import clock, color_number, counted
from chatlib.terminal.ticks import Tick, tick

__all__ = ["head", "pane", "record", "still", "words"]

Values = dict[str, Any]

LONGEST: Final = 2000  # characters of a message that are shown
NAMED: Final = 8  # members of a group that are named
PICTURED: Final = 6  # messages of each pane in the picture
SHORT: Final = 200  # characters of each there

HUES: Final = (212, 28, 150, 275, 338, 180)

LAMPS: Final = {
    LinkState.CONNECTING: "connecting",
    LinkState.CONNECTED: "connected",
    LinkState.RECOVERING: "the broker is gone: reconnecting. What you type is kept, and sent when it is back",
    LinkState.BLOCKED: "the broker takes no messages for now{reason}. What you type is kept, and sent when it does",
    LinkState.CLOSED: "the chat is closed",
}


def words(message: Message) -> Tick:
    """What became of a message that was sent from this room, in words; its kind is that of `chatlib.terminal.ticks`, "" for others'."""
    if message.state is None:
        return Tick("", "")
    reached, read = len(message.receipts), sum(status == "read" for status in message.receipts.values())
    audience = None if message.audience is None else max(message.audience, reached)
    kind = tick(message.state, {} if message.counting else message.receipts, group=message.is_group, audience=audience).kind
    if message.state is SentState.RETURNED:
        return Tick(f"returned: {'nobody is in' if message.is_group else 'there is no user'} {message.to}", kind)
    if isinstance(message.error, AccessRefused):
        return Tick("rejected: no permission to send this", kind)
    if message.state is SentState.REJECTED:
        who = ", ".join(getattr(message.error, "who", ())) or ("somebody" if message.is_group else message.to)
        return Tick(f"rejected: the inbox of {who} is full", kind)
    if not message.is_group or not reached:
        return Tick(kind, kind)
    of = "" if audience is None else f" of {audience}"
    if read == reached:
        return Tick(f"read by {read}{of}", kind)
    return Tick(f"delivered to {reached}{of}" + (f", read by {read}" if read else ""), kind)


def record(message: Message, names: Sequence[str]) -> Values:
    """One message for the browser. names: of the people of the room. places: by number of the pane, as text, as JSON wants it."""
    tells, kind = words(message)
    return {
        "id": message.message_id,
        "from": message.sender,
        "to": message.to,
        "text": cut(message.content, LONGEST),
        "at": int(message.at * 1000),
        "hue": hue(message.sender, names),
        "kind": kind,
        "words": tells,
        "why": str(message.error or "") or ", ".join(f"{name}: {status}" for name, status in sorted(message.receipts.items())),
        "places": {str(index): place for index, place in message.places.items()},
    }


def cut(text: str, limit: int) -> str:
    """`text`, or its beginning with its length."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text):,} characters)"


def hue(name: str, names: Sequence[str]) -> int:
    """The colour of a person, degrees: the people of the room (`names`) have different ones, a stranger the same everywhere."""
    return HUES[names.index(name) % len(HUES)] if name in names else color_number(name) * 30


def status(now: Pane) -> str:
    """What somebody is doing, in a few words."""
    if now.busy:
        return f"{now.busy}…"
    if now.deaf:
        return "other code takes the messages"
    if now.online:
        return "online"
    return "away" if now.waiting is None else f"away: {counted(now.waiting, 'message')} in the inbox"


def about(conversation: Conversation, name: str) -> str:
    """Who is in it, in a few words, as `name` sees it."""
    if not conversation.address.startswith("#"):
        return f"{name} and {conversation.address[1:]}"
    if conversation.members is None:
        return "a group"
    if not conversation.members:
        return "nobody is in it"
    named, more = conversation.members[:NAMED], len(conversation.members) - NAMED
    return f"{counted(len(conversation.members), 'member')}: {', '.join(named)}" + (f" and {more:,} more" if more > 0 else "")


def pane(now: Pane, names: Sequence[str]) -> Values:
    """One pane for the browser, without its messages."""
    return {
        "name": now.name,
        "hue": hue(now.name, names),
        "online": now.online,
        "waiting": None if now.online else now.waiting,
        "status": status(now),
        "open": now.open,
        "busy": bool(now.busy),
        "notice": now.notice,
        "answers": [list(answer) for answer in now.answers],
        "conversations": [
            {"address": each.address, "unread": each.unread, "member": each.member, "about": about(each, now.name)}
            for each in now.conversations
        ],
    }


def head(now: Snapshot) -> Values:
    """The lamp: its state, and what to know."""
    text = LAMPS[now.link].format(reason=f" ({now.reason})" if now.reason else "")
    notes = [counted(now.reconnects, "reconnect")] if now.reconnects else []
    notes += [f"{now.pending:,} pending"] if now.pending else []
    return {"state": now.link.value, "text": text, "note": " · ".join(notes)}


# ---- the picture that a saved notebook keeps -----------------------------------------------------------------------------------

_CARD: Final = "font:13px/1.4 system-ui,sans-serif;color:#1f1f1f;background:#fff;border:1px solid #c4c4c4;border-radius:10px;padding:10px"
_SOFT: Final = "color:#5f5f5f;font-size:11px"
_MARKS: Final = {"": "", "pending": "◷ ", "confirmed": "✓ ", "delivered": "✓✓ ", "read": "✓✓ ", "failed": "✗ "}


def still(now: Snapshot, messages: Iterable[Message]) -> str:
    """The room as HTML with its looks in it."""
    everything = list(messages)
    names = [each.name for each in now.panes]
    panes = "".join(_still_pane(each, _of(index, each, everything), names) for index, each in enumerate(now.panes))
    line = head(now)
    tells = escape(" · ".join(filter(None, (line["text"], line["note"]))))
    columns = f"repeat({min(3, max(1, len(now.panes)))},minmax(0,1fr))"
    return (
        f'<div style="{_CARD}"><div style="margin-bottom:8px"><b>Chat room</b> <span style="{_SOFT}">{tells}</span></div>'
        f'<div style="display:grid;gap:8px;grid-template-columns:{columns}">{panes}</div></div>'
    )


def _of(index: int, now: Pane, messages: Sequence[Message]) -> list[Message]:
    """The messages of the open conversation of a pane, in their order there."""
    mine = [
        each
        for each in messages
        if index in each.places and now.open == (each.to if each.is_group or each.sender == now.name else f"@{each.sender}")
    ]
    return sorted(mine, key=lambda each: each.places[index])


def _still_pane(now: Pane, messages: Sequence[Message], names: Sequence[str]) -> str:
    bubbles = "".join(_still_bubble(now.name, each, names) for each in messages[-PICTURED:])
    name = f'<b style="color:hsl({hue(now.name, names)} 50% 38%)"><bdi>{escape(now.name)}</bdi></b>'
    line = "border-bottom:1px solid #eee;margin-bottom:6px;white-space:nowrap;overflow:hidden;text-overflow:ellipsis"
    return (
        '<div style="border:1px solid #ddd;border-radius:8px;padding:8px;overflow:hidden">'
        f'<div style="{line}">{name} <span style="{_SOFT}">{escape(status(now))} · <bdi>{escape(now.open)}</bdi></span></div>'
        f"{bubbles or f'<div style={_SOFT!r}>nothing yet</div>'}</div>"
    )


def _still_bubble(name: str, message: Message, names: Sequence[str]) -> str:
    own = message.sender == name
    looks = "margin-left:auto;background:#dcebfa" if own else "background:#f1f1f1"
    tells, kind = words(message) if own else Tick("", "")
    when = datetime.fromtimestamp(message.at, UTC).astimezone()
    who = "" if own else f'<b style="color:hsl({hue(message.sender, names)} 50% 38%)"><bdi>{escape(message.sender)}</bdi></b><br>'
    return (
        f'<div style="{looks};border-radius:8px;padding:3px 8px;margin-bottom:4px;width:fit-content;max-width:88%;overflow-wrap:anywhere">'
        f'{who}<span dir="auto">{escape(cut(message.content, SHORT))}</span>'
        f'<div style="{_SOFT}">{clock(when, datetime.now(UTC).astimezone())} {_MARKS[kind]}{escape(tells)}</div></div>'
    )
