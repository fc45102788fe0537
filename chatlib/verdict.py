"""What `chatlib.checker.check` says about a run: counts, one sentence, examples, and a table with the same columns everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["COLUMNS", "Example", "Verdict"]

COLUMNS: Final = ("attempted", "confirmed", "delivered", "lost", "duplicated", "unexpected", "recovered", "out_of_order")
"""The columns of `Verdict.table`, the same in every lesson."""

DEFECTS: Final = ("lost", "duplicated", "unexpected", "out_of_order")
"""What makes a verdict not valid."""


@dataclass(frozen=True, slots=True)
class Example:
    """One defect: which message, whose, to whom, what is the last that was seen of it (`last_hop`, `last_at` in Unix seconds) and why."""

    defect: str
    message_id: str
    sender: str
    to: str
    recipient: str
    last_hop: str
    last_at: float
    why: str

    def __str__(self) -> str:
        moment = datetime.fromtimestamp(self.last_at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        route = f"from {self.sender} to {self.to}, " if self.to else ""
        return f"{self.defect}: {self.message_id} {route}for {self.recipient}: {self.why}; last seen: {self.last_hop} at {moment} UTC"


@dataclass(frozen=True, repr=False)
class Verdict:
    """The verdict on a history; `chatlib.checker` defines every count. Show it, print it, or ask `valid`.

    Messages: attempted = confirmed + returned + rejected + unknown; unjudged: of whose recipients the history says nothing.
    Pairs of message and recipient: expected (confirmed, must arrive), delivered, handled, vouched (dropped as handled, the record of it
    is missing), lost, unexpected, recovered, out_of_order, dead.
    Repetitions: duplicated (for the application), duplicated_on_wire, retried. receipts: receipts that reached a sender.
    examples: defect -> the first few, in the order of attempts; defects that did not occur are not in it.
    """

    attempted: int = 0
    confirmed: int = 0
    returned: int = 0
    rejected: int = 0
    unknown: int = 0
    expected: int = 0
    delivered: int = 0
    handled: int = 0
    vouched: int = 0
    lost: int = 0
    duplicated: int = 0
    duplicated_on_wire: int = 0
    unexpected: int = 0
    recovered: int = 0
    out_of_order: int = 0
    dead: int = 0
    retried: int = 0
    receipts: int = 0
    unjudged: int = 0
    examples: Mapping[str, tuple[Example, ...]] = field(default_factory=dict, hash=False)

    @classmethod
    def counts(cls) -> tuple[str, ...]:
        """The names of all counts, in order."""
        return tuple(each.name for each in fields(cls) if each.name != "examples")

    @property
    def acknowledged(self) -> int:
        """The same as `confirmed`, in Jepsen's word."""
        return self.confirmed

    @property
    def valid(self) -> bool:
        """Whether every guarantee was kept: nothing lost, duplicated, unexpected or out of order."""
        return not any(getattr(self, name) for name in DEFECTS)

    @property
    def sentence(self) -> str:
        """The verdict in one line, such as "3 attempted, all confirmed, 6 deliveries: nothing lost, ..."."""
        if not self.attempted and self.valid:
            return "nothing was attempted: there is nothing to judge"
        parts = [f"{self.attempted:,} attempted"]
        if self.confirmed == self.attempted:
            parts.append("all confirmed")
        else:
            parts += [f"{getattr(self, name):,} {name}" for name in ("confirmed", "returned", "rejected", "unknown") if getattr(self, name)]
        parts.append(f"{self.delivered:,} {'delivery' if self.delivered == 1 else 'deliveries'}")
        if self.valid:
            found = "nothing lost, nothing duplicated, nothing unexpected, all in order"
        else:
            found = ", ".join(f"{getattr(self, name):,} {name.replace('_', ' ')}" for name in DEFECTS if getattr(self, name))
        notes = {
            "recovered": "recovered",
            "retried": "retried",
            "dead": "in the dead letters",
            "vouched": "known to be handled only by their being dropped",
            "duplicated_on_wire": "duplicated on the wire",
            "unjudged": "to groups of unknown members",
        }
        more = ", ".join(f"{getattr(self, name):,} {words}" for name, words in notes.items() if getattr(self, name))
        return f"{', '.join(parts)}: {found}{f' ({more})' if more else ''}"

    @property
    def table(self) -> DataFrame:
        """A pandas DataFrame of one row with the columns `COLUMNS`, all integers."""
        import pandas as pd  # only here: it takes longer to import than all of chatlib

        return pd.DataFrame([[getattr(self, name) for name in COLUMNS]], columns=list(COLUMNS))

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON types: valid, sentence, all counts, `acknowledged`, and examples (defect -> list of objects)."""
        return {
            "valid": self.valid,
            "sentence": self.sentence,
            **{name: getattr(self, name) for name in self.counts()},
            "acknowledged": self.acknowledged,
            "examples": {defect: [asdict(example) for example in found] for defect, found in self.examples.items()},
        }

    def __str__(self) -> str:
        widths = [max(len(name), len(f"{getattr(self, name):,}")) for name in COLUMNS]
        head = "  ".join(f"{name:>{width}}" for name, width in zip(COLUMNS, widths, strict=True))
        row = "  ".join(f"{getattr(self, name):>{width},}" for name, width in zip(COLUMNS, widths, strict=True))
        lines = [f"{self._word()}: {self.sentence}", head, row]
        return "\n".join([*lines, *(f"  {example}" for found in self.examples.values() for example in found)])

    def __repr__(self) -> str:
        return f"<Verdict {self._word()}: {self.sentence}>"

    def _word(self) -> str:
        return "✔ valid" if self.valid else "✘ NOT VALID"

    def _repr_html_(self) -> str:
        colour = "#2da44e" if self.valid else "#e5534b"  # legible on white and on black
        cell = "padding:2px 10px;text-align:right;border:1px solid #8888"
        bad = f"{cell};font-weight:bold;color:{colour}"
        head = "".join(f'<th style="{cell}">{escape(name.replace("_", " "))}</th>' for name in COLUMNS)
        row = "".join(
            f'<td style="{bad if name in DEFECTS and getattr(self, name) else cell}">{getattr(self, name):,}</td>' for name in COLUMNS
        )
        items = "".join(f"<li>{escape(str(example))}</li>" for found in self.examples.values() for example in found)
        return (
            f'<div><p><b style="color:{colour}">{self._word()}</b>: {escape(self.sentence)}</p>'
            f'<table style="border-collapse:collapse"><thead><tr>{head}</tr></thead><tbody><tr>{row}</tr></tbody></table>'
            f"{f'<ul>{items}</ul>' if items else ''}</div>"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Both forms for notebooks: HTML, and for readers without it, text. The same for equal verdicts."""
        return {"text/plain": str(self), "text/html": self._repr_html_()}
