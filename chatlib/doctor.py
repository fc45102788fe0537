"""The doctor: whether this machine can run chatlib, and where not, what to do. Each check is a function that changes nothing.

`examine()` runs them all. A *problem* stops chatlib; a *warning* stops a part of it (the lab, Docker), or will one day.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from chatlib.brokers import LocalBroker, broker_of_environment, find_installation, registry, running_brokers
from chatlib.brokers.base import BrokerState
from chatlib.errors import AccessRefused, BrokerNotInstalled, BrokerUnavailable, ManagementError, ManagementUnreachable
from chatlib.machine import Finding, State, disk, docker, host_name, ipv6, memory, ports, size, state_folder
from chatlib.management import Management
from chatlib.requirements import misfits, numbers, requirements_of
from chatlib.urls import masked

__all__ = ["Finding", "State", "examine"]

OLDEST_PYTHON: Final = (3, 11)
OLDEST_RABBITMQ: Final = (3, 10)
VARIABLE: Final = "CHATLIB_BROKER_URL"


def examine(checks: Sequence[Callable[[], Finding]] | None = None) -> list[Finding]:
    """Run all checks (or `checks`), one after the other; one that fails itself becomes a warning. Takes some 2 s at most 20."""
    return [_run(check) for check in (CHECKS if checks is None else checks)]


def _run(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as exc:  # noqa: BLE001  a doctor who dies of one organ tells nothing of the others
        return Finding(check.__name__.replace("_", " "), "warning", f"the check itself failed: {exc!r}", "report this, please")


# ---- Python ----------------------------------------------------------------------------------------------------------------


def python(version: tuple[int, ...] = sys.version_info[:3], where: str = sys.executable) -> Finding:
    """Python is new enough."""
    found = f"{'.'.join(map(str, version))} at {where}"
    if version >= OLDEST_PYTHON:
        return Finding("Python", "ok", found)
    return Finding(
        "Python", "problem", found, f"install Python {'.'.join(map(str, OLDEST_PYTHON))} or newer: sudo apt install python3.11-venv"
    )


def packages(requirements: Sequence[str] | None = None) -> Finding:
    """The packages that chatlib itself needs are there, in versions that it knows."""
    return _packages("packages", "problem", "", "pip install --upgrade chatlib", requirements)


def lab_packages(requirements: Sequence[str] | None = None) -> Finding:
    """What the lessons need in the kernel: JupyterLab, widgets, charts."""
    return _packages("lab packages", "warning", "lab", "pip install --upgrade 'chatlib[lab]'   (or: make setup)", requirements)


def nbval(requirements: Sequence[str] | None = None) -> Finding:
    """What tests the lessons; nobody else needs it."""
    wanted = [one for one in requirements_of("dev", requirements) if one[0] == "nbval"]
    found = misfits(wanted)
    if found or not wanted:
        return Finding("nbval", "ok", "not here, or too old; only the tests of the lessons need it")
    return Finding("nbval", "ok", f"nbval {metadata.version('nbval')}")


def _packages(check: str, bad: State, extra: str, fix: str, requirements: Sequence[str] | None) -> Finding:
    wanted = requirements_of(extra, requirements)
    if missing := misfits(wanted):
        return Finding(check, bad, "; ".join(missing), fix)
    return Finding(check, "ok", ", ".join(f"{name} {metadata.version(name)}" for name, _ in wanted))


# ---- RabbitMQ --------------------------------------------------------------------------------------------------------------


def rabbitmq() -> Finding:
    """RabbitMQ and Erlang for a broker of one's own."""
    try:
        found = find_installation()
    except BrokerNotInstalled as error:
        elsewhere = bool(os.environ.get(VARIABLE)) or docker().found.startswith("engine")
        first, _, ways = str(error).partition("\n")
        return Finding("RabbitMQ", "warning" if elsewhere else "problem", first, ways or first)
    what = f"RabbitMQ {found.version or 'of unknown version'} at {found.server}, Erlang {found.erlang_version or '?'} at {found.erl}"
    if found.version and numbers(found.version)[:2] < OLDEST_RABBITMQ:
        return Finding("RabbitMQ", "warning", what, "chatlib is tested with 3.10 to 4.x: sudo apt install rabbitmq-server")
    if not found.has_plugin("rabbitmq_management"):
        return Finding("RabbitMQ", "warning", f"{what}, without the management plugin", "install RabbitMQ with its plugins")
    return Finding("RabbitMQ", "ok", what)


def broker_url() -> Finding:
    """The broker that $CHATLIB_BROKER_URL names."""
    unset = f"correct it, or: unset {VARIABLE}"
    try:
        broker = broker_of_environment()
        if broker is None:
            return Finding(VARIABLE, "ok", "not set: chatlib looks for a broker by itself")
        broker.wait_ready(3.0)
    except ValueError as error:
        return Finding(VARIABLE, "problem", str(error), unset)
    except AccessRefused as error:
        return Finding(VARIABLE, "problem", str(error), unset)
    except BrokerUnavailable as error:
        return Finding(VARIABLE, "problem", str(error), f"start that broker; {unset}")
    return _alarms(VARIABLE, masked(broker.url), broker.management_url, broker.url)


def named_brokers() -> Finding:
    """The brokers that `chatlib broker start` left running."""
    found = [_named_broker(broker) for broker in running_brokers()]
    if not found:
        return Finding("chatlib broker", "ok", "none runs: one is started when it is needed")
    worst: State = max((finding.state for finding in found), key=["ok", "warning", "problem"].index)
    fixes = "; ".join(finding.fix for finding in found if finding.fix)
    return Finding("chatlib broker", worst, "; ".join(finding.found for finding in found), fixes)


def _named_broker(broker: LocalBroker) -> Finding:
    what, option = f"{broker.name!r} at {masked(broker.url)}", "" if broker.name == "default" else f" --name {broker.name}"
    state = broker.state
    if state is BrokerState.FROZEN:
        return Finding("", "problem", f"{what} is frozen", f"chatlib broker thaw{option}")
    if state is not BrokerState.RUNNING:
        return Finding("", "warning", f"{what} is {state.value}", f"chatlib broker logs{option}, then: chatlib broker restart{option}")
    return _alarms("", what, broker.management_url, broker.url)


def _alarms(check: str, what: str, management_url: str, login: str) -> Finding:
    """Alarms of the broker, from its management API: they block everybody who sends."""
    try:
        with Management(management_url, login=login, timeout=3.0) as management:
            nodes = management.get("nodes")
    except (ManagementUnreachable, ManagementError) as error:
        return Finding(
            check,
            "warning",
            f"{what} serves; its alarms are not known: {error}",
            "enable the plugin rabbitmq_management, tag the user 'monitoring', say where it is by CHATLIB_MANAGEMENT_URL",
        )
    raised = [alarm for node in nodes for alarm in _raised(node)]
    if raised:
        return Finding(
            check, "problem", f"{what} blocks all senders: {'; '.join(raised)}", "free what is short there; it goes on by itself"
        )
    versions = sorted(
        {version for node in nodes for app in node.get("applications", []) if app["name"] == "rabbit" for version in [app["version"]]}
    )
    return Finding(check, "ok", f"{what} serves{', RabbitMQ ' + ', '.join(versions) if versions else ''}, no alarms")


def _raised(node: dict[str, Any]) -> Iterator[str]:
    if not node.get("running", True):
        yield f"node {node.get('name')} is down"
    if node.get("mem_alarm"):
        yield f"memory alarm on {node.get('name')} ({size(node.get('mem_used', 0))} used, limit {size(node.get('mem_limit', 0))})"
    if node.get("disk_free_alarm"):
        yield f"disk alarm on {node.get('name')} ({size(node.get('disk_free', 0))} free, limit {size(node.get('disk_free_limit', 0))})"


def leftovers() -> Finding:
    """Nodes whose owner died, with its reaper; the next start of a broker stops them."""
    left = [entry for entry in registry.entries() if entry.running and not entry.detached and _ownerless(entry.path)]
    if not left:
        return Finding("leftover nodes", "ok", "none")
    what = ", ".join(f"process {entry.processes['vm'].pid} (owner {entry.owner} is gone)" for entry in left)
    return Finding("leftover nodes", "warning", what, "the next start of any broker stops them: chatlib broker start")


def _ownerless(record: Path) -> bool:
    """Whether nobody holds the lock on a broker's record."""
    try:
        descriptor = os.open(record, os.O_RDWR)
    except OSError:  # gone meanwhile
        return False
    try:
        return registry.lock(descriptor)
    finally:
        os.close(descriptor)


CHECKS: Final[tuple[Callable[[], Finding], ...]] = (
    python, packages, lab_packages, nbval, rabbitmq, broker_url, named_brokers, leftovers,
    ports, disk, memory, state_folder, host_name, ipv6, docker,
)  # fmt: skip
"""All checks, in the order in which they are shown."""
