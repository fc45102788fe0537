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
DEAD: Final = "dead letters"
CLASSES: Final = {"inbox": "inboxes", "retry": "retries", "retries": "retries", "receipts": "receipts", "dead-letters": DEAD}
"""The beginning of a queue's name -> what it is, for people."""


class Depth:
    """Writes lines of JSON to `path`: at, and messages (ready and unacked) by class; no line while no broker answers.

    waiting: what somebody should still get, in the last sample: queue -> messages.
    """

    def __init__(self, stage: Stage, path: Path) -> None:
        self._stage, self._path = stage, path
        self.waiting: dict[str, int] = {}
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
                    depths = self._depths(self._stage.one)
                except (ManagementError, ManagementUnreachable):
                    continue
                if not depths:  # the broker has just come up, and has no figures yet
                    continue
                self.waiting = {name: count for name, count in depths.items() if count and _class_of(name) != DEAD}
                counts: Counter[str] = Counter()
                for name, count in depths.items():
                    counts[_class_of(name)] += count
                file.write(json.dumps({"at": time.time(), **counts}) + "\n")
                file.flush()

    @staticmethod
    def _depths(node: Any) -> dict[str, int]:
        with Management(node.management_url, login=node.url, timeout=2.0) as management:
            queues = management.get(management.in_vhost("queues"), columns="name,messages")
        return {each["name"]: each["messages"] for each in queues if "messages" in each and _class_of(each["name"])}


def _class_of(queue: str) -> str:
    """What a queue is for, for people; "" for one that is not of a chat."""
    return CLASSES.get(queue.partition(".")[0], "")
