"""One lesson for the tests of what lessons stand on: a broker takes seconds to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chatlib.lab import start_lesson
from chatlib.lab.lesson import Lesson


@pytest.fixture(scope="session")
def lesson() -> Iterator[Lesson]:
    """An open lesson. The last test that asks for it may close it."""
    with start_lesson("01") as opened:
        yield opened
