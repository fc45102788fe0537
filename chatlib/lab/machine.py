"""Whether this machine has what the lessons need, as a table in a notebook: the findings of `chatlib.doctor`."""

from __future__ import annotations

from chatlib.lab.tables import Words

__all__ = ["machine"]

MARKS = {"ok": "✔", "warning": "!", "problem": "✘"}


def machine() -> Words:
    """One row for each thing that was looked at: ✔ right, ! stops a part of the course, ✘ stops all of it; and then what to do."""
    import pandas as pd

    from chatlib.doctor import examine

    rows = [(each.check, MARKS[each.state], "" if each.state == "ok" else f"{each.found}. {each.fix}") for each in examine()]
    return Words(pd.DataFrame(rows, columns=["what", "state", "what to do"]))
