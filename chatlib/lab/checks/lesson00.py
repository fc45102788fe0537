"""Start here: one exercise, to see how exercises work."""

from __future__ import annotations

from typing import Any

from chatlib.lab.exercises import Wrong, require_answer
from chatlib.lab.lesson import Lesson
from chatlib.sent import SentState

__all__ = ["CHECKS"]


def word_for_on_disk(lesson: Lesson, word: Any) -> str:
    """The state of a message that the broker has on disk."""
    word = str(require_answer(word)).strip().lower()
    sender = lesson.chat.user("examiner")
    sender.go_offline()
    sent = sender.send("@examiner", "which state am I in?")
    sent.wait()
    if word not in set(SentState):
        raise Wrong(f"{word!r} is no state of a message; the states are {', '.join(SentState)}")
    if word != sent.state:
        raise Wrong(f"a message is not {word!r} when wait() has returned", f"I sent one and waited: its state is {sent.state.value!r}")
    return f"I sent a message and waited: its state is {sent.state.value!r}, and {sender.waiting} message waits for a user who is away"


CHECKS = {"1": word_for_on_disk}
