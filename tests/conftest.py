"""Fixtures and rules for all tiers.

`broker`: one private RabbitMQ for the whole run (a start takes seconds); tests keep apart by fresh names.
`--broker-kind docker` makes it, and what `new_broker` makes, a container of `--broker-image` instead of a local node, and leaves
out the tests that use neither: they are the same for every broker.
In CI nothing is skipped: a test that would skip, because a component is missing, fails there.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from xdist.scheduler import LoadFileScheduling

from tests.support import IN_CI, ROOT, unique_name

if TYPE_CHECKING:
    from chatlib.brokers import DockerBroker, LocalBroker

# CI's cores are shared: how long one example takes says nothing; the timeout of each test stays
hypothesis.settings.register_profile("chatlib", deadline=None)
hypothesis.settings.load_profile("chatlib")

TIERS = ("unit", "broker", "faults", "docker", "notebooks", "browser")
LONG_FIRST = ("docker", "notebooks", "browser", "faults", "broker", "unit")  # for several workers: nobody is left with a long file
OF_EITHER_KIND = {"broker", "new_broker"}  # fixtures


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which RabbitMQ the tests run on."""
    group = parser.getgroup("chatlib")
    group.addoption(
        "--broker-kind",
        choices=("local", "docker"),
        default=os.environ.get("CHATLIB_TEST_BROKER", "local"),
        help="what the fixtures `broker` and `new_broker` are (default: $CHATLIB_TEST_BROKER, else local)",
    )
    group.addoption("--broker-image", default="rabbitmq:4-management", help="the image of --broker-kind docker (default: %(default)s)")


class FailuresAtOnce:
    """Tells each failure when it happens, in one line: the rest may take a quarter of an hour."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test has failed, here or at a worker."""
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal is not None:
            why = getattr(getattr(report.longrepr, "reprcrash", None), "message", "") or str(report.longrepr)
            terminal.write_line(f"\nFAILED {report.when} {report.nodeid}: {why.strip().splitlines()[0] if why.strip() else ''}"[:300])


def pytest_configure(config: pytest.Config) -> None:
    """A shell that starts us in the background has its children ignore Ctrl-C, which tests send to programs that they start."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(FailuresAtOnce(config))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def tier_of(path: Path) -> str | None:
    """Return the tier that a file belongs to by its folder (lessons belong to "notebooks"), or None."""
    try:
        parts = path.resolve().relative_to(ROOT).parts
    except ValueError:
        return None
    folder = parts[1] if parts[0] == "tests" and len(parts) > 2 else parts[0]
    return folder if folder in TIERS else None


class WholeFiles(LoadFileScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Gives each worker whole files, since a lesson's cells belong together, and all of tests/docker to one: there is one engine."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(nodeid.split("::", 1)[0])
        return "tests/docker" if file.startswith("tests/docker/") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """-n auto: one worker more than cores, since a test that breaks a broker waits for it half of the time."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> WholeFiles:
    """Not --dist loadgroup: with pytest 9.2 pytest-xdist 3.8 does not see the groups."""
    return WholeFiles(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each test the marker of its folder, run the quick tiers first (shared out to workers: the long files), leave out what
    --broker-kind changes nothing about.
    """
    order = LONG_FIRST if hasattr(config, "workerinput") else TIERS
    tiers = {id(item): tier_of(item.path) for item in items}
    for item in items:
        tier = tiers[id(item)]
        if tier is not None:
            item.add_marker(tier)
    items.sort(key=lambda item: order.index(tier) if (tier := tiers[id(item)]) else 0)
    if config.getoption("--broker-kind") != "local":
        same = [item for item in items if not OF_EITHER_KIND & set(getattr(item, "fixturenames", ()))]
        config.hook.pytest_deselected(items=same)
        left_out = set(map(id, same))
        items[:] = [item for item in items if id(item) not in left_out]


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"nothing is skipped in CI, and this would have been: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """In CI a skipped test is a failed test. Half a surrogate pair in what a test logged is escaped: pytest-xdist cannot carry it."""
    report = yield
    _refuse_skip(report)
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    """In CI a skipped file is a failed file."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.fixture(scope="session")
def new_broker(pytestconfig: pytest.Config) -> Callable[[], LocalBroker | DockerBroker]:
    """Makes brokers of a test's own, to stop, kill and freeze; each is a context manager, and nothing of it is kept."""
    from chatlib.brokers import DockerBroker, LocalBroker, find_installation
    from chatlib.errors import BrokerNotInstalled

    def make() -> LocalBroker | DockerBroker:
        try:
            if pytestconfig.getoption("--broker-kind") == "docker":
                return DockerBroker(pytestconfig.getoption("--broker-image"))
            find_installation()
            return LocalBroker()
        except BrokerNotInstalled as error:
            pytest.skip(str(error))

    return make


@pytest.fixture(scope="session")
def broker(new_broker: Callable[[], LocalBroker | DockerBroker]) -> Iterator[LocalBroker | DockerBroker]:
    """One private RabbitMQ for the run. Do not stop or break it: a test that does makes its own by `new_broker`."""
    with new_broker() as node:
        yield node


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Return a factory of fresh names: `unique("bob")` is "bob-" and ten hexadecimal digits."""
    return unique_name
