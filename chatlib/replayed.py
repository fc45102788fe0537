"""What a replay tells: how far it is, and what came of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from chatlib.verdict import Verdict

__all__ = ["Progress", "ReplayResult"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay is. phase: "signing up", "playing", "draining", "judging". records, total: lines of the transcript.

    expected: deliveries to expect of what was sent so far; handled: those that arrived. online: users that are.
    """

    phase: str
    records: int
    total: int
    sent: int
    expected: int
    handled: int
    online: int


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What came of a replay. `verdict` is the checker's; `clean` says whether everything was as it must be.

    messages, expected: what the transcript asks for: messages, and pairs of message and recipient. seconds: from the first line
    to the last delivery; sign_up_seconds and check_seconds come before and after. reconnects: how often the link was made anew.
    """

    source: str
    messages: int
    expected: int
    users: int
    senders: int
    groups: int
    verdict: Verdict
    seconds: float
    sign_up_seconds: float
    check_seconds: float
    reconnects: int

    @property
    def clean(self) -> bool:
        """Every message was sent and confirmed, and arrived once, in order, at each of its recipients and nowhere else."""
        verdict = self.verdict
        return (
            verdict.valid
            and verdict.confirmed == verdict.attempted == self.messages
            and verdict.expected == verdict.handled == self.expected
        )

    @property
    def messages_per_second(self) -> float:
        """Messages confirmed, by `seconds`."""
        return self.verdict.confirmed / self.seconds if self.seconds else 0.0

    @property
    def deliveries_per_second(self) -> float:
        """Deliveries, by `seconds`."""
        return self.verdict.delivered / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON types: the fields, clean, both rates, and the counts of the verdict (`attempted`, `lost` ...) beside them."""
        fields = {name: value for name, value in asdict(self).items() if name != "verdict"}
        rates = {name: round(getattr(self, name), 1) for name in ("messages_per_second", "deliveries_per_second")}
        return {"clean": self.clean, **fields, **rates, **self.verdict.to_dict()}
