"""Tidy tables out of JSON that may lack things: fixed columns and types, also where there is no row and no field.

pandas is imported here, when the first table is asked for: it takes longer to import than all of chatlib.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from chatlib.errors import ExtraMissing

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Column", "flag", "found", "moment", "number", "pandas", "row", "table", "text"]

Kind = Literal["text", "number", "flag", "moment"]
DTYPES: Final[Mapping[Kind, str]] = {"text": "object", "number": "float64", "flag": "boolean", "moment": "datetime64[ns, UTC]"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its kind, and where in an answer its value is (keys, outermost first). scale: numbers are multiplied by it.

    What is missing, or of another type, is "" (text), NaN (number), <NA> (flag) or NaT (moment).
    """

    kind: Kind
    path: tuple[str, ...]
    scale: float = 1.0

    def value(self, answer: Mapping[str, Any]) -> Any:
        """The value of this column in `answer`."""
        value = found(answer, *self.path)
        if self.kind == "text":
            return value if isinstance(value, str) else ""
        if self.kind == "flag":
            return value if isinstance(value, bool) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return math.nan if self.kind == "number" else None
        return value * self.scale


def text(*path: str) -> Column:
    """A column of words."""
    return Column("text", path)


def number(*path: str, scale: float = 1.0) -> Column:
    """A column of numbers (float64)."""
    return Column("number", path, scale)


def flag(*path: str) -> Column:
    """A column of True, False and unknown."""
    return Column("flag", path)


def moment(*path: str) -> Column:
    """A column of times: milliseconds since 1970 in the answer, datetime64[ns, UTC] in the table."""
    return Column("moment", path)


def found(answer: Any, *path: str) -> Any:
    """What lies at `path` in nested dicts, or None."""
    for key in path:
        if not isinstance(answer, Mapping):
            return None
        answer = answer.get(key)
    return answer


def row(answer: Mapping[str, Any], columns: Mapping[str, Column]) -> dict[str, Any]:
    """One row of a table out of one object of an answer."""
    return {name: column.value(answer) for name, column in columns.items()}


def table(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Column]) -> DataFrame:
    """A DataFrame with exactly these columns and their types. Raises ExtraMissing without pandas."""
    pd = pandas()
    listed: Sequence[Mapping[str, Any]] = list(rows)
    data = {}
    for name, column in columns.items():
        values = [each[name] for each in listed]
        if column.kind == "moment":
            data[name] = pd.to_datetime(pd.Series(values, dtype="float64"), unit="ms", utc=True).astype(DTYPES["moment"])
        else:
            data[name] = pd.Series(values, dtype=DTYPES[column.kind])
    return pd.DataFrame(data, columns=list(columns))  # type: ignore[no-any-return]


def pandas() -> Any:
    """The module pandas. Raises ExtraMissing, naming the extra to install, where it is not there."""
    try:
        return importlib.import_module("pandas")
    except ImportError as exc:
        raise ExtraMissing("tables need pandas, which is not installed: pip install 'chatlib[lab]'") from exc
