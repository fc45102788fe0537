"""When which fault hits what: a pure function of a seed, and the file that keeps it.

Faults of a *lane* follow each other: the next begins `after` seconds after the last was healed. The lanes run side by side, so that a
sender may be killed while the broker is down, which is where an outbox proves itself.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from chatlib.chaos.cast import Cast, cast_for
from chatlib.errors import ChatError
from chatlib.names import receipts_queue

__all__ = ["BROKERS", "KINDS", "LANES", "Kind", "Schedule", "ScheduleError", "Step", "draw"]

VERSION: Final = 1
BROKERS: Final = ("local", "docker", "cluster")
NODES: Final = 3
PEACE: Final = {"broker": (0.5, 3.0), "network": (0.5, 16.0), "process": (0.5, 16.0)}  # seconds between two faults of a lane
LANES: Final = tuple(PEACE)
RARELY: Final = 0.05
CALM: Final = 10.0
"""Seconds on a cluster without a fault of nodes before and after a queue is deleted. RabbitMQ 3.10 deletes and makes a quorum queue member
by member: one that is away, or falls while its owner makes the queue again, leaves it without a leader or with a member that hands out
nothing, and then nobody can use it (seen in two of three runs)."""
LONG: Final = 25.0  # seconds: with the heartbeat of the actors (10 s, looked at every 15) they notice by themselves
SINGLE: Final = frozenset({"local", "docker"})
ALL: Final = frozenset(BROKERS)
CLUSTER: Final = frozenset({"cluster"})


class ScheduleError(ChatError, ValueError):
    """A file that holds no schedule, or one that cannot be played here."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault. lasts: seconds, from and to. on: the brokers that can have it. often: how many of it in a round of all.

    target(rng, cast): what it hits. amount: of it, from and to (seconds of delay, bytes a second). lingers: sometimes lasts `LONG` more.
    """

    lane: str
    lasts: tuple[float, float]
    on: frozenset[str]
    target: Callable[[random.Random, Cast], str]
    amount: tuple[float, float] | None = None
    often: int = 1
    lingers: bool = False


def _broker(_: random.Random, __: Cast) -> str:
    return "broker"


def _node(rng: random.Random, _: Cast) -> str:
    return f"node {rng.randrange(NODES)}"


def _anybody(rng: random.Random, cast: Cast) -> str:
    return rng.choice(cast.roles).name


def _sender(rng: random.Random, cast: Cast) -> str:
    return rng.choice([role.name for role in cast.roles if role.senders])


def _receiver(rng: random.Random, cast: Cast) -> str:
    return rng.choice([role.name for role in cast.roles if role.receivers])


def _queue(rng: random.Random, cast: Cast) -> str:
    """A queue of receipts: they are advice. With an inbox what is in it would be gone, and nobody promises otherwise."""
    return receipts_queue(rng.choice(cast.senders))


KINDS: Final = {
    "stop": Kind("broker", (0.2, 3), SINGLE, _broker),
    "kill": Kind("broker", (0.0, 3), SINGLE, _broker, often=2),
    "freeze": Kind("broker", (1, 6), SINGLE, _broker, lingers=True),
    "memory_alarm": Kind("broker", (1, 4), SINGLE, _broker),
    "disk_alarm": Kind("broker", (1, 4), SINGLE, _broker),
    "node_down": Kind("broker", (0, 4), CLUSTER, _node, often=2),
    "node_frozen": Kind("broker", (1, 6), CLUSTER, _node, lingers=True),
    "partition": Kind("broker", (2, 8), CLUSTER, _node, lingers=True),
    "close_connections": Kind("broker", (0, 0), ALL, _anybody),
    "delete_queue": Kind("broker", (0, 0), ALL, _queue),
    "cut": Kind("network", (0.2, 3), ALL, _anybody, often=2),
    "black_hole": Kind("network", (1, 6), ALL, _anybody, lingers=True),
    "delay": Kind("network", (1, 5), ALL, _anybody, amount=(0.02, 0.4)),
    "throttle": Kind("network", (1, 5), ALL, _anybody, amount=(2_000, 50_000)),
    "kill_sender": Kind("process", (0, 2), ALL, _sender, often=3),
    "kill_receiver": Kind("process", (0, 2), ALL, _receiver, often=3),
}
"""Every fault that a run can have. A whole broker is stopped, killed or frozen only where it is the only one."""


@dataclass(frozen=True, slots=True)
class Step:
    """One fault: number (from 1), lane, fault (of `KINDS`), target; in seconds: `after` the last one was healed, and how long it lasts."""

    number: int
    lane: str
    fault: str
    target: str
    after: float
    lasts: float
    amount: float | None = None

    def __str__(self) -> str:
        unit = {"delay": " s", "throttle": " B/s"}.get(self.fault, "")
        more = f" ({self.amount:g}{unit})" if self.amount is not None else ""
        return f"{self.fault.replace('_', ' ')} {self.target}{more}"


@dataclass(frozen=True)
class Schedule:
    """A run before it is played. rate: messages a second, all senders together. steps: in the order in which they were drawn."""

    seed: int
    broker: str
    users: int
    processes: int
    rate: float
    steps: tuple[Step, ...]
    seconds: float | None = field(default=None)  #: no fault begins later than that

    @property
    def cast(self) -> Cast:
        """Who takes part."""
        return cast_for(self.users, self.processes, self.seed)

    def lane(self, name: str) -> tuple[Step, ...]:
        """The faults of one lane, in order."""
        return tuple(step for step in self.steps if step.lane == name)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps({"version": VERSION, **asdict(self)}, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Schedule:
        """Read what `save` wrote. Raises ScheduleError."""
        try:
            found = json.loads(path.read_text())
            if found.pop("version") != VERSION:
                raise ScheduleError(f"{path} is a schedule of another version of chatlib: play it with that one")
            steps = tuple(Step(**step) for step in found.pop("steps"))
            schedule = cls(steps=steps, **found)
        except OSError as exc:
            raise ScheduleError(f"no schedule at {path} ({exc.strerror}): give the folder of an earlier run") from exc
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            if isinstance(exc, ScheduleError):
                raise
            raise ScheduleError(f"{path} is no schedule of a chaos run ({exc!r}): give the folder of an earlier run") from exc
        schedule.check(str(path))
        return schedule

    def check(self, where: str) -> None:
        """Raise ScheduleError for what cannot be played."""
        if self.broker not in BROKERS:
            raise ScheduleError(f"{where}: the broker is {self.broker!r}; one of {', '.join(BROKERS)} can be broken here")
        for name, least in (("seed", 0), ("processes", 2), ("users", 2)):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < least:
                raise ScheduleError(f"{where}: {name} is {getattr(self, name)!r}; a whole number from {least} on is wanted")
        if self.users < self.processes:
            raise ScheduleError(f"{where}: {self.users} users cannot be in {self.processes} processes")
        numbers = [("rate", self.rate), ("seconds", self.seconds)]
        for step in self.steps:
            numbers += [(f"{name} of fault {step.number}", getattr(step, name)) for name in ("after", "lasts", "amount")]
        for name, value in numbers:
            optional = value is None and name.startswith(("seconds", "amount"))
            if not optional and not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
                raise ScheduleError(f"{where}: {name} is {value!r}; a number, not below 0, is wanted")
        if self.rate == 0:
            raise ScheduleError(f"{where}: at a rate of 0 nobody sends")
        for step in self.steps:
            kind = KINDS.get(step.fault)
            if kind is None or kind.lane != step.lane or self.broker not in kind.on:
                raise ScheduleError(f"{where}: fault {step.number} is {step.fault!r}, which a broker of kind {self.broker!r} cannot have")

    @property
    def facts(self) -> dict[str, Any]:
        """Everything but the steps."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "steps"}


def draw(
    seed: int,
    faults: int,
    *,
    broker: str = "local",
    users: int = 20,
    processes: int = 5,
    rate: float = 80.0,
    seconds: float | None = None,
) -> Schedule:
    """So many faults, drawn in rounds in which each kind comes as often as it should: a short run has seen nearly all of them.

    broker: one of `BROKERS`. rate: messages a second. seconds: after that long no further fault begins.
    Raises ValueError for numbers that make no sense.
    """
    if faults < 0:
        raise ValueError(f"the number of faults is 0 or more, not {faults}")
    if broker not in BROKERS:
        raise ValueError(f"a broker to break is one of {', '.join(BROKERS)}, not {broker!r}")
    if not rate > 0:
        raise ValueError(f"the rate is more than 0 messages a second, not {rate:g}")
    cast = cast_for(users, processes, seed)
    rng = random.Random(f"schedule {seed}")
    rounds = _rounds(rng, broker)
    steps = tuple(_step(rng, cast, number, next(rounds), broker) for number in range(1, faults + 1))
    return Schedule(seed, broker, users, processes, rate, steps, seconds)


def _rounds(rng: random.Random, broker: str) -> Iterator[str]:
    kinds = [name for name, kind in KINDS.items() if broker in kind.on for _ in range(kind.often)]
    while True:
        rng.shuffle(kinds)
        yield from kinds


def _step(rng: random.Random, cast: Cast, number: int, name: str, broker: str) -> Step:
    """All numbers are drawn always, so that changing one range leaves the rest of a schedule as it was."""
    kind = KINDS[name]
    after, lasts, share, luck = rng.uniform(*PEACE[kind.lane]), rng.uniform(*kind.lasts), rng.random(), rng.random()
    target = kind.target(rng, cast)
    amount = None
    if kind.amount is not None:
        low, high = kind.amount
        amount = float(f"{low * (high / low) ** share:.2g}")  # as often small as large
    if kind.lingers and luck < RARELY:
        lasts += LONG
    if name == "delete_queue" and broker == "cluster":
        after, lasts = after + CALM, lasts + CALM
    return Step(number, kind.lane, name, target, round(after, 2), round(lasts, 2), amount)
