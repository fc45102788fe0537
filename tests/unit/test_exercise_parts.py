"""Predictions and quizzes with what learners and writers of lessons may give them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from chatlib.lab import predict, quiz


@pytest.mark.parametrize("answer", [np.array([1, 2]), pd.DataFrame({"a": [1, 2]}), [1, 2], {"a": {1}}])
def test_an_answer_may_be_anything(answer: Any) -> None:
    given = predict("How many?", answer, choices=(each for each in (1, answer)))
    assert "Now run the next cells" in repr(given) and given.compare(answer).hit
    missed = given.compare(pd.DataFrame({"b": [3]}))
    assert not missed.hit and "a wrong guess teaches most" in repr(missed)


@pytest.mark.parametrize("lesson", ["zz", 1, None, "../quizzes/01", "x" * 300, "\0", ""])
def test_a_quiz_that_does_not_exist_is_told_with_those_that_do(lesson: Any) -> None:
    with pytest.raises(ValueError, match=r"there is no quiz .*; there are 00, 01"):
        quiz(lesson)
