"""Settings: sensible as they stand, refused by name where they make no sense, immutable."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
from pathlib import Path
from typing import Any

import pytest

from chatlib import settings
from chatlib.messages import compose, new_message_id
from chatlib.names import parse_address
from chatlib.settings import Settings

COUNTS = ["prefetch", "window", "heartbeat", "outbox_limit", "inbox_limit", "max_content_bytes", "handler_threads", "handled_limit"]
DURATIONS = ["blocked_timeout", "connect_timeout", "attempt_timeout", "request_timeout", "recovery_base", "recovery_cap", "handled_age"]


def test_the_defaults_are_those_that_the_sources_advise() -> None:
    """Heartbeat 15-20 s, a window of 500-1,000, recovery capped at 1-2 s."""
    default = Settings()
    assert 15 <= default.heartbeat <= 20
    assert 500 <= default.window <= 1000
    assert 1 <= default.recovery_cap <= 2
    assert default.receipts


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [0, -1])
def test_counts_are_at_least_one(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"Settings\.{name} must be a whole number from 1 to .*, got {value}"):
        Settings(**{name: value})


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [1.5, 100.0, True, "100", None, 2**31])
def test_counts_are_whole_numbers_that_the_broker_takes(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"Settings\.{name} must be a whole number from 1 to "):
        Settings(**{name: value})


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("value", [0, -0.5, float("nan")])
def test_durations_are_more_than_nothing(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"Settings\.{name} must be more than 0"):
        Settings(**{name: value})


def test_prefetch_fits_into_its_field_of_the_protocol() -> None:
    assert Settings(prefetch=65_535).prefetch == 65_535
    with pytest.raises(ValueError, match="65,535"):
        Settings(prefetch=65_536)


def test_a_content_fits_into_a_message_of_rabbitmq_4_whatever_is_in_it() -> None:
    """A larger message ends the connection, and would do so again after each recovery."""
    largest = Settings(max_content_bytes=2**21)
    worst = compose(new_message_id(), "ann", parse_address("@bob"), "\x01" * largest.max_content_bytes, 0.0).encode()
    assert len(worst) < 16 * 2**20
    with pytest.raises(ValueError, match="2,097,152"):
        Settings(max_content_bytes=2**21 + 1)


def test_settings_do_not_change_under_a_running_chat() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().prefetch = 5  # type: ignore[misc]


def test_every_setting_says_what_it_is_for() -> None:
    """Each field is followed by its docstring, with the unit and the reason."""
    tree = ast.parse(Path(inspect.getfile(settings)).read_text(encoding="utf-8"))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings").body
    for field, after in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant), ast.unparse(field)
            assert len(str(after.value.value)) > 20
