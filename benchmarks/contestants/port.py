"""No client: the moment from which the new node accepts TCP connections, seen by a process that does nothing else."""

from __future__ import annotations

import socket
import time
from typing import Any
from urllib.parse import urlsplit

from benchmarks.work import Work, say


def recover(work: Work) -> dict[str, Any]:
    """Wait until nobody accepts connections any more, then until somebody does."""
    address = urlsplit(work.url)
    target = (str(address.hostname), int(address.port or 5672))
    say({"ready": True})
    _wait_until(target, accepting=False)
    lost = time.monotonic()
    _wait_until(target, accepting=True)
    return {"first": time.monotonic(), "lost": lost}


def _wait_until(target: tuple[str, int], *, accepting: bool) -> None:
    while True:
        with socket.socket() as probe:
            probe.settimeout(1)
            if (probe.connect_ex(target) == 0) is accepting:
                return
        time.sleep(0.002)
