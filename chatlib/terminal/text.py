"""What may be written on a terminal: other people's text without what would command the terminal, times, stable colours. Pure."""

from __future__ import annotations

import unicodedata
import zlib
from datetime import datetime
from typing import Final

__all__ = ["COLORS", "clock", "color_number", "counted", "excerpt", "safe"]

COLORS: Final = 12
"""How many colours people have; `prompt.STYLE` says which."""

# Format characters that writing needs: joiners (emoji families, Persian, Indic scripts) and the marks of direction, which
# move no other text. The overrides, embeddings and isolates (U+202A-E, U+2066-9) can show a line in another order: escaped.
_NEEDED: Final = frozenset("\u200c\u200d\u200e\u200f\u061c")
_REFUSED: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def safe(text: str, *, lines: bool = False) -> str:
    r"""`text` fit for a terminal: what is not visible text is written as an escape, so that `ESC [2J` is seen and not obeyed.

    Escaped (as `\x1b`, `\u202e`) are control and format characters, half surrogates, separators, private and unassigned code
    points. lines: keep line ends (the caller must mark where a line goes on); else they become `\n`. A tab is one space.
    """
    if text.isascii() and text.isprintable():
        return text
    if lines:
        text = text.replace("\r\n", "\n")
    return "".join(character if _is_plain(character, lines) else _escaped(character) for character in text.replace("\t", " "))


def _is_plain(character: str, lines: bool) -> bool:
    if character == "\n":
        return lines
    return unicodedata.category(character) not in _REFUSED or character in _NEEDED


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def excerpt(text: str, limit: int = 40) -> str:
    """The beginning of `text`, safe, on one line, of at most `limit` characters."""
    text = safe(text[: 2 * limit])
    return text if len(text) <= limit else text[: limit - 1] + "…"


def clock(moment: datetime, now: datetime) -> str:
    """`moment` for a reader at `now` (both aware, in the reader's zone): "12:03", with the date if that is not today's."""
    return moment.strftime("%H:%M" if moment.date() == now.date() else "%Y-%m-%d %H:%M")


def color_number(name: str) -> int:
    """The colour of a user, 0 to `COLORS` - 1: the same on every machine and at every start (CRC-32 of the name)."""
    return zlib.crc32(name.encode("utf-8", "surrogatepass")) % COLORS


def counted(number: int, what: str) -> str:
    """A number of things, in words: "1 message", "2,000 messages"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
