"""The checks of the exercises, one module for each lesson."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from chatlib.lab import lesson
from chatlib.lab.exercises import NotYet, Result, judge

__all__ = ["check"]


def check(exercise: str, *answer: Any) -> Result:
    """Judge the answer to an exercise, "1.3", on the broker of the lesson that is open.

    Raises ValueError for an exercise that does not exist.
    """
    number, _, part = exercise.partition(".")
    try:
        module = importlib.import_module(f"chatlib.lab.checks.lesson{int(number):02}")
        judged: Callable[..., str] = module.CHECKS[part]
    except (ImportError, KeyError, ValueError) as exc:
        raise ValueError(f"there is no exercise {exercise!r}") from exc

    def run() -> str:
        current = lesson.current()
        if current is None:
            raise NotYet("the lesson is closed: run the setup cell at the top first")
        current.section(lesson.EXERCISES)
        return judged(current, *answer)

    return judge(exercise, run)
