"""The questions at the end of a lesson: plain HTML that unfolds, so they can be answered without a network, a script or a kernel.

Not jupyterquiz: in JupyterLab its 2.9.6 loads MathJax from another machine (show_questions.js), and what it saves is a script of
40 kB that shows nothing where there is no kernel.
"""

from __future__ import annotations

import json
from html import escape
from importlib import resources
from typing import Any

__all__ = ["Quiz", "quiz"]

RIGHT, WRONG = "#2da44e", "#e5534b"


class Quiz:
    """The questions of one lesson. Shown in a notebook each answer unfolds to say whether it is right, and why.

    questions: a list of {"question": text, "answers": [{"answer": text, "correct": bool, "feedback": text}, ...]}.
    """

    def __init__(self, lesson: str) -> None:
        folder = resources.files("chatlib.lab") / "quizzes"
        known = sorted(each.name.removesuffix(".json") for each in folder.iterdir() if each.name.endswith(".json"))
        if lesson not in known:
            raise ValueError(f"there is no quiz {lesson!r}; there are {', '.join(known)}")
        path = folder / f"{lesson}.json"
        self.lesson = lesson
        self.questions: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))

    def __len__(self) -> int:
        return len(self.questions)

    def __repr__(self) -> str:
        return f"Quiz of lesson {self.lesson}: {len(self)} questions"

    def _repr_html_(self) -> str:
        asked = "".join(_question(number, question) for number, question in enumerate(self.questions, 1))
        return f'<div style="max-width:760px">Click on the answer that you think is right.{asked}</div>'


def quiz(lesson: str) -> Quiz:
    """The quiz of a lesson, by its number as in the file's name, "01". Raises ValueError for one that does not exist."""
    return Quiz(lesson)


def _question(number: int, question: dict[str, Any]) -> str:
    answers = "".join(_answer(answer) for answer in question["answers"])
    return f'<p style="margin:14px 0 4px"><b>{number}. {_text(question["question"])}</b></p>{answers}'


def _answer(answer: dict[str, Any]) -> str:
    colour, mark = (RIGHT, "✔") if answer["correct"] else (WRONG, "✘")
    return (
        f'<details style="margin:2px 0 2px 18px"><summary style="cursor:pointer">{_text(answer["answer"])}</summary>'
        f'<div style="border-left:4px solid {colour};margin:2px 0 6px 14px;padding:2px 10px">'
        f'<b style="color:{colour}">{mark}</b> {_text(answer["feedback"])}</div></details>'
    )


def _text(text: str) -> str:
    """Escaped, with `code` as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))
