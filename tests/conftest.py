"""Fixtures and rules for all tiers.

`broker`: one private RabbitMQ node for the whole run (a start takes seconds); tests keep apart by fresh names.
In CI nothing is skipped: a test that would skip, because a component is missing, fails there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import IN_CI, ROOT, unique_name

if TYPE_CHECKING:
    from chatlib.brokers import LocalBroker

TIERS = ("unit", "broker", "faults", "notebooks", "browser")


def tier_of(path: Path) -> str | None:
    """Return the tier that a file belongs to by its folder (lessons belong to "notebooks"), or None."""
    try:
        parts = path.resolve().relative_to(ROOT).parts
    except ValueError:
        return None
    folder = parts[1] if parts[0] == "tests" and len(parts) > 2 else parts[0]
    return folder if folder in TIERS else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the marker of its folder, and run the quick tiers first."""
    tiers = {id(item): tier_of(item.path) for item in items}
    for item in items:
        tier = tiers[id(item)]
        if tier is not None:
            item.add_marker(tier)
    items.sort(key=lambda item: TIERS.index(tier) if (tier := tiers[id(item)]) else 0)


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"nothing is skipped in CI, and this would have been: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """In CI a skipped test is a failed test."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """In CI a skipped file is a failed file."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.fixture(scope="session")
def broker() -> Iterator[LocalBroker]:
    """One private RabbitMQ node for the run. Do not stop or break it: a test that does starts its own."""
    from chatlib.brokers import LocalBroker
    from chatlib.errors import BrokerNotInstalled

    try:
        with LocalBroker() as node:
            yield node
    except BrokerNotInstalled as error:
        pytest.skip(str(error))


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Return a factory of fresh names: `unique("bob")` is "bob-" and ten hexadecimal digits."""
    return unique_name
