"""Tables of words: to the left, without row numbers, the same HTML each time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame

    from chatlib.transcript import Transcript

__all__ = ["Words", "first_lines"]

LONGEST = 60  # characters of a line that are shown


class Words:
    """`data`, a DataFrame, as a table of words. pandas would align it to the right, number the rows and call it by its address."""

    def __init__(self, data: DataFrame) -> None:
        self.data = data

    def __repr__(self) -> str:
        return self.data.to_string(index=False)

    def _repr_html_(self) -> str:
        styler = self.data.style.hide(axis="index").set_uuid("words")
        return str(styler.set_table_styles([{"selector": "th, td", "props": "text-align: left"}]).to_html())


def first_lines(transcript: Transcript, count: int) -> Words:
    """The first `count` messages of a transcript: group, sender, text."""
    import pandas as pd

    lines = [(each.group, each.sender, each.text[:LONGEST]) for each in transcript.messages[:count]]
    return Words(pd.DataFrame(lines, columns=["group", "sender", "text"]))
