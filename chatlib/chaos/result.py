"""What came out of a chaos run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chatlib.chaos.judge import Judgement
from chatlib.chaos.schedule import Schedule

__all__ = ["ChaosResult"]


@dataclass(frozen=True)
class ChaosResult:
    """folder: where schedule, histories, logs, samples and verdict are. faults: how many of each happened. seconds: from the first
    message to the last. drain: seconds of it from the last fault until nothing moved any more. problems: what went wrong with the run
    itself (a process ended by itself, a fault could not be brought about, the drain took too long); a run with any of them is not valid.
    """

    folder: Path
    schedule: Schedule
    faults: Mapping[str, int]
    seconds: float
    drain: float
    judgement: Judgement
    problems: tuple[str, ...] = ()
    pictures: tuple[Path, ...] = field(default=())

    @property
    def valid(self) -> bool:
        """Whether every promise was kept, and the run was what was asked for."""
        return self.judgement.valid and not self.problems

    @property
    def title(self) -> str:
        """What it was, without the verdict."""
        count = sum(self.faults.values())
        return f"{count:,} {'fault' if count == 1 else 'faults'} in {self.seconds:,.0f} s (seed {self.schedule.seed})"

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        trouble = f" [{len(self.problems)} problems of the run itself]" if self.problems else ""
        return f"{self.title}: {self.judgement.sentence}{trouble}"

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON types."""
        return {
            "valid": self.valid,
            "sentence": self.sentence,
            "folder": str(self.folder),
            **self.schedule.facts,
            "faults": dict(self.faults),
            "fault_count": sum(self.faults.values()),
            "took": round(self.seconds, 1),
            "drain": round(self.drain, 1),
            "problems": list(self.problems),
            "pictures": [str(picture) for picture in self.pictures],
            "verdict": self.judgement.to_dict(),
        }

    def save(self) -> None:
        """Write it beside the rest."""
        (self.folder / "verdict.json").write_text(json.dumps(self.to_dict(), indent=1) + "\n")

    @staticmethod
    def counted(names: list[str]) -> dict[str, int]:
        """How many of each, the most frequent first."""
        return dict(Counter(names).most_common())
