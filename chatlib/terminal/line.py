"""A line of the conversation: what is shown, as pieces of text with styles; one that was sent changes while it is there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from chatlib.received import ReceivedMessage
from chatlib.sent import SentMessage, SentState
from chatlib.terminal.text import clock, color_number, excerpt, safe
from chatlib.terminal.ticks import Tick, tick

__all__ = ["Fragments", "Heard", "Line", "Note", "Own", "fit", "plain"]

Fragments = list[tuple[str, str]]
"""Pieces of text, each with the name of its style, as prompt_toolkit takes them: [("class:time", "12:03 "), ...]."""

GUTTER = "  │ "  # before each further line of a content, so that nobody can make a line look like somebody else's


def _now() -> datetime:
    return datetime.now(UTC).astimezone()


def plain(fragments: Fragments) -> str:
    """The text without its styles."""
    return "".join(text for _, text in fragments)


def _content(text: str, one_line: bool) -> Fragments:
    if one_line:
        return [("", safe(text))]
    first, *rest = safe(text, lines=True).split("\n")
    return [("", first), *(piece for line in rest for piece in (("class:gutter", f"\n{GUTTER}"), ("", line)))]


class Line:
    """Something on the screen."""

    def fragments(self, *, one_line: bool) -> Fragments:
        """How it looks now. one_line: line ends inside contents are escaped; else they are marked by a gutter."""
        raise NotImplementedError


class Note(Line):
    """Something that the program says: `kind` is "note" or "error". Quotes of people's names and content are made safe."""

    def __init__(self, text: str, kind: str = "note") -> None:
        self._text = text
        self._kind = kind

    def fragments(self, *, one_line: bool) -> Fragments:
        """The text behind a mark: "*", or "!" for an error."""
        return [(f"class:{self._kind}", f"{'!' if self._kind == 'error' else '*'} {safe(self._text)}")]


class Heard(Line):
    """Something said by `sender`, in "#group" or, with None, to us alone. when: aware. own: what we sent, if it was us."""

    def __init__(self, sender: str, group: str | None, content: str, when: datetime, *, old: bool = False, own: Own | None = None) -> None:
        self.sender, self.group, self.content, self.when = sender, group, content, when
        self._old = old
        self._own = own

    @classmethod
    def of(cls, received: ReceivedMessage) -> Heard:
        """The line of a message out of the inbox."""
        group = None if received.group_id is None else f"#{received.group_id}"
        return cls(received.sender_id, group, received.content, received.timestamp)

    def fragments(self, *, one_line: bool) -> Fragments:
        """12:03 #team bob: hello; what will never arrive says so."""
        return [
            ("class:time", f"{clock(self.when.astimezone(), _now())} "),
            *([("class:group", f"{safe(self.group)} ")] if self.group else []),
            (f"class:name-{color_number(self.sender)}", safe(self.sender)),
            ("", ": "),
            *([("class:old", plain(_content(self.content, one_line)))] if self._old else _content(self.content, one_line)),
            *([("class:tick-failed", f"  {self._own.tick.text}")] if self._own and self._own.is_failed else []),
        ]


class Own(Line):
    """Something that we sent, with its tick. `number` counts what was sent in this session.

    audience: how many people it is for, None where nobody can tell. counting: that is being found out; until then receipts
    are not shown, since "all have it" would be taken back.
    """

    def __init__(self, sent: SentMessage, number: int) -> None:
        self.sent = sent
        self.number = number
        self.audience: int | None = None
        self.counting = sent.to.startswith("#")

    @property
    def tick(self) -> Tick:
        """What is known of it now."""
        receipts = {} if self.counting else self.sent.receipts
        return tick(self.sent.state, receipts, group=self.sent.to.startswith("#"), audience=self.audience, error=self.sent.error)

    @property
    def is_failed(self) -> bool:
        """Whether it will never arrive."""
        return self.sent.state in (SentState.RETURNED, SentState.REJECTED)

    def watch(self, changed: Callable[[Own], None]) -> None:
        """Call `changed(self)` at each change of state or receipts, on a thread of chatlib."""
        self.sent.on_change(lambda _: changed(self))

    def fragments(self, *, one_line: bool) -> Fragments:
        """12:03 → #team: hello  ✓✓ 3/3; on one line its number, too: "[7]"."""
        text, kind = self.tick
        return [
            ("class:time", f"{clock(self.sent.timestamp.astimezone(), _now())} "),
            ("class:own", f"→ {safe(self.sent.to)}: "),
            *_content(self.sent.content, one_line),
            (f"class:tick-{kind}", f"  {text}"),
            *([("class:time", f" [{self.number}]")] if one_line else []),  # a log has it several times: which one is which
        ]

    def late(self, earlier: int) -> Fragments:
        """What became of it after it has scrolled away, and of so many `earlier` ones in the same conversation."""
        text, kind = self.tick
        more = f" (and {earlier} before it)" if earlier else ""
        return [(f"class:tick-{kind}", text), ("class:note", f" → {safe(self.sent.to)}: {excerpt(self.sent.content)}{more}")]


def fit(fragments: Fragments, width: int, char_width: Callable[[str], int]) -> list[Fragments]:
    """`fragments` broken into rows of at most `width` columns, at spaces where that leaves no more than half a row empty.

    char_width: columns of a character.
    """
    rows: list[Fragments] = []
    row: Fragments = []  # character by character
    column = 0
    for style, character in ((style, character) for style, text in fragments for character in text):
        if character == "\n":
            rows.append(row)
            row, column = [], 0
            continue
        column += char_width(character)
        if column > width:
            spaces = [index for index, (_, each) in enumerate(row) if each == " " and index >= len(row) // 2]
            cut = spaces[-1] + 1 if spaces else len(row)
            rows.append(row[:cut])
            row = row[cut:]
            column = char_width(character) + sum(char_width(each) for _, each in row)
        row.append((style, character))
    return [_joined(row) for row in (*rows, row)]


def _joined(row: Fragments) -> Fragments:
    """Neighbours of the same style as one piece."""
    pieces: Fragments = []
    for style, text in row:
        if pieces and pieces[-1][0] == style:
            pieces[-1] = (style, pieces[-1][1] + text)
        else:
            pieces.append((style, text))
    return pieces
