"""Answering before running: a prediction is kept, and compared with what happened."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from types import EllipsisType
from typing import Any

__all__ = ["Prediction", "predict"]


class Prediction:
    """Made by `predict`. Shows the question and the answer; `compare` says what happened."""

    def __init__(self, question: str, answer: Any, choices: tuple[Any, ...]) -> None:
        self.question = question
        self.answer = answer
        self.choices = choices

    @property
    def is_open(self) -> bool:
        """Whether there is no answer yet."""
        return isinstance(self.answer, EllipsisType) or self.answer is None

    def compare(self, actual: Any) -> Comparison:
        """What was predicted beside what happened."""
        return Comparison(self, actual)

    def __repr__(self) -> str:
        choices = f" ({' / '.join(map(str, self.choices))})" if self.choices else ""
        if self.is_open:
            state = "No answer yet: put yours in the place of ... and run this cell again, then go on."
        elif self.choices and not any(_same(self.answer, each) for each in self.choices):
            state = f"{self.answer!r} is none of the choices."
        else:
            state = f"Your answer: {self.answer}. Now run the next cells."
        return f"{self.question}{choices}\n→ {state}"

    def _repr_html_(self) -> str:
        return _box("?", "#8b7cf6", repr(self))


class Comparison:
    """A prediction beside what happened."""

    def __init__(self, prediction: Prediction, actual: Any) -> None:
        self.prediction = prediction
        self.actual = actual

    @property
    def hit(self) -> bool:
        """Whether it was foreseen."""
        return not self.prediction.is_open and _same(self.prediction.answer, self.actual)

    def __repr__(self) -> str:
        if self.prediction.is_open:
            said = "You had not answered."
        elif self.hit:
            said = f"You said {self.prediction.answer}: foreseen."
        else:
            said = f"You said {self.prediction.answer}. Look for the reason below; a wrong guess teaches most."
        return f"What happened: {self.actual}. {said}"

    def _repr_html_(self) -> str:
        return _box("!", "#2da44e" if self.hit else "#8b7cf6", repr(self))


def predict(question: str, answer: Any = ..., *, choices: Iterable[Any] = ()) -> Prediction:
    """Keep `answer` to `question`; `...` means: none yet. choices: what can be answered, if that is limited."""
    return Prediction(question, answer, tuple(choices))


def _same(one: Any, other: Any) -> bool:
    """Whether both are equal; an array or a table does not say so with one word, but looks the same."""
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001  the answer is the learner's, and may be anything
        return repr(one) == repr(other)


def _box(mark: str, colour: str, text: str) -> str:
    lines = "<br>".join(escape(line) for line in text.splitlines())
    return f'<div style="border-left:4px solid {colour};padding:4px 12px"><b style="color:{colour}">{mark}</b> {lines}</div>'
