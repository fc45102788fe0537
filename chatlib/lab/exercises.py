"""Exercises: what the learner wrote is run against the real broker, and the answer says what is wrong and why.

A check is a generator of facts, or a function that raises `Wrong` with a counter-example from the learner's own run.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from types import EllipsisType
from typing import Any

from chatlib.errors import ChatError
from chatlib.lab.waiting import NotInTime

__all__ = ["NotYet", "Result", "Wrong", "judge", "require_answer"]

COLOURS = {"right": "#2da44e", "wrong": "#e5534b", "not yet": "#bf8700"}
MARKS = {"right": "✔", "wrong": "✘", "not yet": "…"}


class NotYet(Exception):
    """There is nothing to judge: the stub is as it was."""


class Wrong(Exception):
    """What was written is not right. The message says why; `evidence` is what happened in the learner's own run."""

    def __init__(self, why: str, evidence: str = "") -> None:
        super().__init__(why)
        self.evidence = evidence


class Result:
    """What a check found. `state`: "right", "wrong" or "not yet"; `why`, `evidence`: text. Shown in a notebook as a coloured line."""

    def __init__(self, exercise: str, state: str, why: str, evidence: str = "") -> None:
        self.exercise = exercise
        self.state = state
        self.why = why
        self.evidence = evidence

    def __bool__(self) -> bool:
        return self.state == "right"

    def __repr__(self) -> str:
        seen = f"\n  What your run did: {self.evidence}" if self.evidence else ""
        return f"{MARKS[self.state]} Exercise {self.exercise}, {self.state}: {self.why}{seen}"

    def _repr_html_(self) -> str:
        colour = COLOURS[self.state]
        seen = f"<br>What your run did: {escape(self.evidence)}" if self.evidence else ""
        return (
            f'<div style="border-left:4px solid {colour};padding:4px 12px"><b style="color:{colour}">{MARKS[self.state]} '
            f"Exercise {escape(self.exercise)}, {self.state}</b>: {escape(self.why)}{seen}</div>"
        )


def require_answer(answer: Any, what: str = "...") -> Any:
    """`answer` itself; raises NotYet while it is the `...` of the stub (or None)."""
    if answer is None or isinstance(answer, EllipsisType):
        raise NotYet(f"put your answer in the place of {what}, run that cell, then this one")
    return answer


def judge(exercise: str, check: Callable[[], str]) -> Result:
    """Run `check`, which returns why the answer is right or raises NotYet or Wrong. An error of the learner's code is a wrong answer."""
    try:
        return Result(exercise, "right", check())
    except NotYet as exc:
        return Result(exercise, "not yet", str(exc))
    except Wrong as exc:
        return Result(exercise, "wrong", str(exc), exc.evidence)
    except (ChatError, NotInTime) as exc:
        return Result(exercise, "wrong", "the library refused what your code did, and says what to do", f"{type(exc).__name__}: {exc}")
    except Exception as exc:  # noqa: BLE001  the learner's code may raise anything, and the answer is for him
        return Result(exercise, "wrong", "your code raised an exception", f"{type(exc).__name__}: {exc}")
