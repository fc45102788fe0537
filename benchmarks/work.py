"""One piece of work for one contestant, as it is handed to a process of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["PREFETCH", "WINDOW", "Stopwatch", "Work", "body", "say"]

WINDOW = 1000
"""Publishes in flight without a confirm, for all who pipeline; chatlib's default."""

PREFETCH = 100
"""Unacked deliveries, for all; chatlib's default."""


@dataclass(frozen=True, slots=True)
class Work:
    """What to do; each action uses some of the fields.

    exchange, key: where to publish. queue: where to receive. to: the same address as chatlib writes it ("@bob", "#team").
    count: messages, or users. size: bytes of a body on the wire. content: characters of chatlib's content, which make that size.
    rate: messages a second (latency only). users: names to sign up. folder: for what shall survive the process (chatlib on disk).
    options: what tells apart two contestants of one module.
    """

    url: str
    exchange: str = ""
    key: str = ""
    queue: str = ""
    to: str = ""
    count: int = 0
    size: int = 0
    content: int = 0
    rate: float = 0.0
    users: tuple[str, ...] = ()
    folder: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    def dump(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Work:
        """Return what `dump` made."""
        fields = json.loads(text)
        return cls(**{**fields, "users": tuple(fields["users"])})

    def bodies(self) -> Iterator[bytes]:
        """Yield `count` bodies of `size` bytes, the peers' messages; they begin with their number."""
        return (body(number, self.size) for number in range(self.count))


def body(number: int, size: int) -> bytes:
    """Return a body of `size` bytes (at least 8) that begins with `number` in eight digits."""
    return b"%08d" % number + b"x" * (size - 8)


class Stopwatch:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._wall = time.monotonic()
        self._cpu = time.process_time()

    def read(self) -> dict[str, float]:
        """Return `seconds` by the clock and `cpu`, the seconds of processor time of this process with all its threads."""
        return {"seconds": time.monotonic() - self._wall, "cpu": time.process_time() - self._cpu}


def say(result: dict[str, Any]) -> None:
    """Tell the process that started this one."""
    print(json.dumps(result), flush=True)
