"""How many messages wait on the broker during a chaos run, sampled in the background: sums by kind of queue, written to disk.

A `Sampler` keeps a row for each queue in memory, of one broker; here are hundreds of queues, for hours, and nodes that come and go.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from chatlib.chaos.stage import Stage
from chatlib.errors import ManagementError, ManagementUnreachable
from chatlib.management import Management

__all__ = ["CLASSES", "Depth"]

PERIOD: Final = 0.5  # seconds
CLASSES: Final = {"inbox": "inboxes", "retry": "retries", "retries": "retries", "receipts": "receipts", "dead-letters": "dead letters"}
"""The beginning of a queue's name -> what it is, for people."""


class Depth:
    """Writes lines of JSON to `path`: at, and messages (ready and unacked) by class; no line while no broker answers."""

    def __init__(self, stage: Stage, path: Path) -> None:
        self._stage, self._path = stage, path
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos depth", daemon=True)

    def __enter__(self) -> Depth:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        with self._path.open("a") as file:
            while not self._ended.wait(PERIOD):
                try:
                    counts = self._count(self._stage.one)
                except (ManagementError, ManagementUnreachable):
                    continue
                if not counts:  # the broker has just come up, and has no figures yet
                    continue
                file.write(json.dumps({"at": time.time(), **counts}) + "\n")
                file.flush()

    @staticmethod
    def _count(node: Any) -> Counter[str]:
        counts: Counter[str] = Counter()
        with Management(node.management_url, login=node.url, timeout=2.0) as management:
            for queue in management.get(management.in_vhost("queues"), columns="name,messages"):
                kind = CLASSES.get(queue["name"].partition(".")[0])
                if kind is not None and "messages" in queue:
                    counts[kind] += queue["messages"]
        return counts
