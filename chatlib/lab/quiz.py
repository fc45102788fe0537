"""The questions at the end of a lesson; they come with the package, and are asked and answered without a network."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

__all__ = ["Quiz", "quiz"]

COLOURS = {
    "--jq-multiple-choice-bg": "#3d5a80",
    "--jq-many-choice-bg": "#3d5a80",
    "--jq-numeric-bg": "#3d5a80",
    "--jq-incorrect-color": "#c62828",
    "--jq-correct-color": "#2e7d46",
}


class Quiz:
    """The questions of one lesson, in jupyterquiz's form. Shown in a notebook they can be answered; `questions` is the list."""

    def __init__(self, lesson: str) -> None:
        path = resources.files("chatlib.lab") / "quizzes" / f"{lesson}.json"
        self.lesson = lesson
        self.questions: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))

    def __len__(self) -> int:
        return len(self.questions)

    def __repr__(self) -> str:
        return f"Quiz of lesson {self.lesson}: {len(self)} questions. Run this cell to answer them."

    def _ipython_display_(self) -> None:
        from jupyterquiz import display_quiz

        display_quiz(self.questions, colors=COLOURS, shuffle_answers=False, max_width=760, border_radius=6)


def quiz(lesson: str) -> Quiz:
    """The quiz of a lesson, by its number as in the file's name, "01"."""
    return Quiz(lesson)
