"""Tables of words: to the left, without row numbers, the same HTML each time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame
    from pandas.io.formats.style import Styler

    from chatlib.transcript import Transcript

__all__ = ["first_lines", "words"]

LONGEST = 60  # characters of a line that are shown


def words(frame: DataFrame) -> Styler:
    """`frame` as a table of words; `.data` is the frame. pandas would align to the right and number the rows."""
    styler = frame.style.hide(axis="index").set_uuid("words").set_properties(**{"text-align": "left"})
    return styler.set_table_styles([{"selector": "th", "props": "text-align: left"}])


def first_lines(transcript: Transcript, count: int) -> Styler:
    """The first `count` messages of a transcript: group, sender, text."""
    import pandas as pd

    lines = [(each.group, each.sender, each.text[:LONGEST]) for each in transcript.messages[:count]]
    return words(pd.DataFrame(lines, columns=["group", "sender", "text"]))
