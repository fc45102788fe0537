"""How long may be waited: what is no number of seconds is refused, and "for ever" fits into whatever waits."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from chatlib.brokers import LocalBroker, LocalCluster
from chatlib.brokers.docker import DockerBroker, DockerCluster
from chatlib.brokers.readiness import await_ready
from chatlib.management import Management
from chatlib.waiting import seconds, until

TAKERS: dict[str, Callable[[Any], object]] = {
    "seconds": lambda timeout: seconds(timeout, "it"),
    "until": lambda timeout: until(lambda: True, timeout),
    "await_ready": lambda timeout: await_ready("amqp://127.0.0.1:1/", timeout),
    "Management": lambda timeout: Management("http://127.0.0.1:1", timeout=timeout),
    "LocalBroker": lambda timeout: LocalBroker(start_timeout=timeout),
    "LocalCluster": lambda timeout: LocalCluster(start_timeout=timeout),
    "DockerBroker": lambda timeout: DockerBroker(start_timeout=timeout),
    "DockerBroker.from_compose": lambda timeout: DockerBroker.from_compose(start_timeout=timeout),
    "DockerCluster": lambda timeout: DockerCluster(start_timeout=timeout),
    "DockerCluster.from_compose": lambda timeout: DockerCluster.from_compose(start_timeout=timeout),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_what_is_no_number_of_seconds_is_refused(taker: str) -> None:
    for wrong in (None, "5", [1]):
        with pytest.raises(TypeError, match="must be a number of seconds"):
            TAKERS[taker](wrong)
    with pytest.raises(ValueError, match="must be a number of seconds, got nan"):
        TAKERS[taker](math.nan)


def test_what_is_one_stays_as_it_is() -> None:
    assert [seconds(timeout, "it") for timeout in (0, 0.5, 30, 86_400.0)] == [0, 0.5, 30, 86_400]
    assert [seconds(timeout, "it") for timeout in (-0.5, -math.inf, -(10**400))] == [0, 0, 0]


@pytest.mark.parametrize("endless", [math.inf, 10**400, threading.TIMEOUT_MAX])
def test_for_ever_fits_also_as_what_is_left_until_a_deadline(endless: float) -> None:
    for now in (0.0, time.monotonic(), 1e8 / 3):
        left = now + seconds(endless, "it") - now
        assert 86_400 * 365 < left < threading.TIMEOUT_MAX


def test_each_that_waits_takes_for_ever() -> None:
    """Until something comes: here it has come, or comes soon."""
    queue, event, ever = SimpleQueue[int](), threading.Event(), seconds(math.inf, "it")
    timer = threading.Timer(0.1, lambda: (queue.put(1), event.set()))
    timer.start()
    assert queue.get(timeout=ever) == 1 and event.wait(ever)
    timer.join(ever)
    with pytest.raises(Empty):
        queue.get(timeout=seconds(-1, "it"))
