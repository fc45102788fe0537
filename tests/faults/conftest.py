"""One broker that the tests of this tier may kill, freeze and restart; each leaves it running for the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import process_runs


@pytest.fixture(scope="session")
def _mortal(new_broker: Callable[[], Any]) -> Iterator[Any]:
    with new_broker() as broker:
        yield broker
        broker.kill()  # a graceful stop takes 6 s, and is not what this is about


@pytest.fixture
def mortal(_mortal: Any) -> Any:
    """A broker to be killed: running at the beginning of each test, whatever the last one did to it."""
    _mortal.start()
    return _mortal


@pytest.fixture
def kill_and_start() -> Callable[[Any], None]:
    """SIGKILL, seen to have worked; and up again as another process."""

    def kill(broker: Any) -> None:
        pid = broker.pid
        assert pid
        broker.kill()
        assert not broker.is_running and not process_runs(pid)
        broker.start()
        assert broker.pid not in (None, pid)

    return kill
