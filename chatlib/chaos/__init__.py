"""Chaos: many users in several processes, a random schedule of faults, and the verdict over the records of all of them.

::

    from chatlib.chaos import draw, play

    result = play(draw(seed=1, faults=20), "runs/one")
    print(result.sentence)

It is what `chatlib chaos` does. The schedule is a pure function of its seed; what the processes do follows their seeds, and only the
moment at which a fault meets them differs from run to run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chatlib.chaos.schedule import Schedule, Step, draw

if TYPE_CHECKING:
    from chatlib.chaos.result import ChaosResult
    from chatlib.chaos.run import Progress, play

__all__ = ["ChaosResult", "Progress", "Schedule", "Step", "draw", "play"]


def __getattr__(name: str) -> Any:
    """What runs processes is loaded when it is asked for: an actor needs none of it."""
    if name in ("Progress", "play"):
        from chatlib.chaos import run

        return getattr(run, name)
    if name == "ChaosResult":
        from chatlib.chaos.result import ChaosResult

        return ChaosResult
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
