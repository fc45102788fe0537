"""Whether this machine has what the lessons need, as a table in a notebook: the findings of `chatlib.doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatlib.lab.tables import words

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

__all__ = ["machine"]

MARKS = {"ok": "✔", "warning": "!", "problem": "✘"}


def machine() -> Styler:
    """One row for each thing that was looked at: ✔ right, ! stops a part of the course, ✘ stops all of it; and then what to do."""
    import pandas as pd

    from chatlib.doctor import examine

    rows = [(each.check, MARKS[each.state], "" if each.state == "ok" else f"{each.found}. {each.fix}") for each in examine()]
    return words(pd.DataFrame(rows, columns=["what", "state", "what to do"]))
