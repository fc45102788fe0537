"""For the tests on a real Docker engine: the engine, and that nothing of a test stays on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from chatlib.brokers.docker.engine import Engine
from chatlib.errors import BrokerStartFailed
from tests.support import wait_until

Inventory = Callable[[], set[str]]


@pytest.fixture(scope="session", autouse=True)
def engine() -> Iterator[Engine]:
    try:
        found = Engine()
    except BrokerStartFailed as error:
        pytest.skip(str(error))
    found.sweep()
    yield found
    found.close()


@pytest.fixture(scope="session")
def inventory(engine: Engine) -> Inventory:
    """What is on the engine now: containers, volumes, networks, by kind and name."""

    def look() -> set[str]:
        client = engine.client
        containers = {f"container {each.name}" for each in client.containers.list(all=True, ignore_removed=True)}
        volumes = {f"volume {each.name}" for each in client.volumes.list()}
        return containers | volumes | {f"network {each.name}" for each in client.networks.list()}

    return look


@pytest.fixture(autouse=True, scope="module")
def nothing_stays_behind(inventory: Inventory) -> Iterator[None]:
    before = inventory()
    yield
    wait_until(lambda: inventory() <= before, 15, "containers, volumes and networks of this file to be gone")
