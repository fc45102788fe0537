"""The colours of the terminal chat."""

from __future__ import annotations

from typing import Final

from prompt_toolkit.styles import Style

from chatlib.terminal.text import COLORS

__all__ = ["STYLE"]

# Names in middle tones, to be read on light and on dark; the others in the terminal's own colours.
_NAMES = [
    "#e0556a",
    "#3fa34d",
    "#c58a1b",
    "#4f8ff7",
    "#b06fd8",
    "#2aa5a5",
    "#e07a3a",
    "#8aa530",
    "#7f7fe8",
    "#d8609f",
    "#2fa583",
    "#a08060",
]
STYLE: Final = Style.from_dict(
    {
        **{f"name-{number}": f"{color} bold" for number, color in enumerate(_NAMES)},
        "time": "ansibrightblack",
        "group": "ansicyan",
        "own": "bold",
        "old": "ansibrightblack",
        "gutter": "ansibrightblack",
        "note": "ansibrightblack",
        "error": "ansired",
        "tick-pending": "ansiyellow",
        "tick-confirmed": "ansibrightblack",
        "tick-delivered": "ansibrightblack bold",
        "tick-read": "ansibrightcyan bold",
        "tick-failed": "ansired bold",
        "prompt": "bold",
        "bottom-toolbar": "noreverse ansibrightblack",
        "bottom-toolbar good": "ansigreen",
        "bottom-toolbar bad": "ansired bold",
        "bottom-toolbar news": "ansibrightcyan bold",
    }
)
assert len(_NAMES) == COLORS
