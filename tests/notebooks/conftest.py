"""One lesson for the tests of what lessons stand on: a broker takes seconds to start."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from chatlib.lab import start_lesson
from chatlib.lab.lesson import Lesson, current


@pytest.fixture(scope="session")
def open_lesson() -> Iterator[Callable[[], Lesson]]:
    """Returns the lesson of this run; a new one if there is none, or if a test has closed it."""
    opened: list[Lesson] = []

    def ask() -> Lesson:
        if not opened or current() is not opened[-1]:
            opened.append(start_lesson("01"))
        return opened[-1]

    yield ask
    for lesson in opened:
        lesson.close()


@pytest.fixture(scope="module")
def lesson(open_lesson: Callable[[], Lesson]) -> Lesson:
    """An open lesson. The last test of a module that asks for it may close it."""
    return open_lesson()
