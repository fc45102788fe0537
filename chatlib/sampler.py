"""Sampling a broker in the background: the depth and the rates of its queues, a few times a second, into a table that stays bounded.

::

    with monitor.sampler(queues=["inbox.bob"]) as sampler:
        fault = sampler.mark(faults.kill(broker))
        fault.heal()
    sampler.frame("inbox.bob")           # rows of `up` False, with NaN, while the broker was away
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from chatlib.errors import ChatError
from chatlib.management import Management
from chatlib.monitor import Freshness, HasManagement, client_of, depths_of
from chatlib.tables import Column, flag, found, number, row, table, text

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["COLUMNS", "Sampler"]

_log = logging.getLogger("chatlib.sampler")

INTERVAL: Final = 5.0  # seconds between two samples of a stock broker, until it is seen how long they are here
TIMEOUT: Final = 2.0  # seconds for one answer: a frozen broker takes the question and never answers

COLUMNS: Final[Mapping[str, Column]] = {
    "at": number("at"),
    "queue": text("queue"),
    "up": flag("up"),
    "ready": number("ready"),
    "unacked": number("unacked"),
    "consumers": number("consumers"),
    "publish_rate": number("publish_rate"),
    "deliver_rate": number("deliver_rate"),
    "ack_rate": number("ack_rate"),
    "age": number("age"),
}
"""at: Unix seconds when the broker was asked. queue: "" in a sample that found none. up: whether it answered; if not, the numbers
are NaN. ready and unacked are exact of classic queues, and of quorum queues what they reported last, some seconds ago; consumers
and the rates (a second) are as old as `age` says, in seconds, and NaN where the broker does not count."""

FAULTS: Final[Mapping[str, Column]] = {"name": text("name"), "target": text("target"), "began": number("began"), "ended": number("ended")}
COUNTERS: Final[Mapping[str, Column]] = {
    "publish_rate": number("message_stats", "publish"),
    "deliver_rate": number("message_stats", "deliver_get"),
    "ack_rate": number("message_stats", "ack"),
}
ASKED: Final = ",".join(["name", "consumers", *(".".join(each.path) for each in COUNTERS.values())])


class Marked(Protocol):
    """A fault, as `chatlib.faults` makes them: a name, a target, when it began and ended (Unix seconds; None: it goes on)."""

    @property
    def name(self) -> str: ...

    @property
    def target(self) -> str: ...

    @property
    def began(self) -> float: ...

    @property
    def ended(self) -> float | None: ...


F = TypeVar("F", bound=Marked)


class Meter:
    """The rate of a counter that the broker renews now and then: what was added, over the time in which it was added.

    Not the rate that the broker gives: it does not count what a queue's first sample found, which is a whole burst if that came first.
    """

    def __init__(self) -> None:
        self._total = math.nan
        self._since = 0.0
        self._rate = math.nan

    def look(self, at: float, total: float, interval: float, period: float) -> float:
        """The rate a second. at: seconds; interval: between two samples of the broker (NaN: unknown); period: between two looks at it."""
        least, most = (period, INTERVAL) if math.isnan(interval) else (interval - period, interval)
        if math.isnan(total):  # not counted yet: it will begin at 0
            self._since = self._since if self._total == 0 else at
            self._total, self._rate = 0.0, math.nan
        elif math.isnan(self._total) or total < self._total:  # the first look, or it began anew with the broker
            self._total, self._since, self._rate = total, at, math.nan if total > 0 else 0.0
        elif total > self._total:
            self._rate = (total - self._total) / min(max(at - self._since, least), most + period)  # it came within one interval
            self._since, self._total = at, total
        elif at - self._since > 1.5 * most + period:  # it was renewed since, and nothing was added
            self._rate = 0.0
        return self._rate


class Sampler:
    """Made by `Monitor.sampler`. `start` and `stop` are idempotent; it can be started again. A context manager.

    queues: names of those to watch; None: all of the virtual host. hz: samples a second, up to 10. keep: rows that are kept; each
    sample is a row for each queue, the oldest rows go first. faults: more to mark, such as the list that `faults.recording()` yields.
    Nothing that the broker does ends the thread, and nothing is raised in it.
    """

    def __init__(
        self,
        broker_or_url: HasManagement | str,
        *,
        queues: Iterable[str] | None = None,
        hz: float = 4.0,
        keep: int = 50_000,
        faults: Sequence[Marked] = (),
    ) -> None:
        if not 0 < hz <= 10:
            raise ValueError(f"hz is samples a second, more than 0 and at most 10, got {hz!r}")
        if keep < 1:
            raise ValueError(f"keep is how many rows are kept, at least 1, got {keep!r}")
        self._recorded = faults
        self._marked: list[Marked] = []
        self._broker = broker_or_url
        self._queues = None if queues is None else tuple(queues)
        self._period = 1.0 / hz
        self._freshness = Freshness()
        self._rows: deque[dict[str, Any]] = deque(maxlen=keep)
        self._meters: dict[str, dict[str, Meter]] = {"": {}}  # by queue and column; of those in the last sample
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        """Whether samples are being taken."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> Sampler:
        """Take samples from now on; returns itself."""
        with self._lock:
            if not self.is_running:
                self._ended = threading.Event()
                self._thread = threading.Thread(target=self._run, args=(self._ended,), name="sampler", daemon=True)
                self._thread.start()
        return self

    def stop(self) -> None:
        """Take no more; returns when the thread has ended. The table stays."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._ended.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(2 * TIMEOUT)

    def mark(self, fault: F) -> F:
        """Have charts show this fault; returns it."""
        self._marked.append(fault)
        return fault

    @property
    def faults(self) -> list[Marked]:
        """The faults to show beside the samples, each once, by when they began."""
        return sorted({id(fault): fault for fault in (*self._recorded, *self._marked)}.values(), key=lambda fault: fault.began)

    def frame(self, *queues: str) -> DataFrame:
        """The samples so far, oldest first, with `COLUMNS`: of these queues, or of all. Raises ExtraMissing without pandas."""
        rows = list(self._rows.copy())  # one step, while the thread appends
        return table([each for each in rows if not queues or each["queue"] in queues], COLUMNS)

    def rows(self, since: float = -math.inf) -> list[dict[str, Any]]:
        """The samples taken after `since` (Unix seconds), oldest first, as dicts of `COLUMNS`: for what looks often, without pandas."""
        rows = self._rows.copy()
        new = list(itertools.takewhile(lambda each: each["at"] > since, reversed(rows)))
        return new[::-1]

    def latest(self, column: str) -> dict[str, float]:
        """The value of one of the `COLUMNS` for each queue in the last sample; NaN where the broker did not answer."""
        rows = self._rows.copy()
        return {each["queue"]: each[column] for each in rows if each["at"] == rows[-1]["at"]}

    def fault_frame(self) -> DataFrame:
        """The marked faults: name, target, and when they began and ended in Unix seconds (NaN: not yet)."""
        marked = [{name: getattr(each, name) for name in FAULTS} for each in self.faults]
        return table([row(each, FAULTS) for each in marked], FAULTS)

    def _run(self, ended: threading.Event) -> None:
        due = time.monotonic()
        with contextlib.ExitStack() as opened:
            management: Management | None = None
            while not ended.is_set():
                at = time.time()
                try:
                    management = management or opened.enter_context(client_of(self._broker, TIMEOUT))
                    self._take(management, at)
                except ChatError as exc:  # it does not answer, or its object is closed
                    _log.debug("no sample: %s", exc)
                    for queue in self._queues or tuple(self._meters):
                        self._rows.append(self._row(at, queue, up=False))
                except Exception:  # noqa: BLE001  an answer that nobody foresaw: one sample less, and the next is taken
                    _log.exception("a sample failed")
                due = max(due + self._period, time.monotonic())  # what was missed is not made up for
                ended.wait(due - time.monotonic())

    def _take(self, management: Management, at: float) -> None:
        now = time.monotonic()
        depths = depths_of(management)
        counts = management.get(management.in_vhost("queues"), columns=ASKED)
        nodes = management.get("nodes", columns="name,uptime,os_pid,rates_mode")
        ages = [age for age in self._freshness.look(nodes).values() if not math.isnan(age)]
        interval = self._freshness.interval
        # Where the broker counts, a queue without counters is one through which nothing went before its last sample
        nothing = 0.0 if any(found(node, "rates_mode") in ("basic", "detailed") for node in nodes) else math.nan
        counted = {each["name"]: each for each in counts}
        names = sorted(name for name in depths if self._queues is None or name in self._queues)
        self._meters = {name: self._meters.get(name) or {kind: Meter() for kind in COUNTERS} for name in names} or {"": {}}
        for name in names:
            figures = depths[name] | row(counted.get(name, {}), {"consumers": number("consumers")}) | {"age": max(ages, default=math.nan)}
            for kind, total in row(counted.get(name, {}), COUNTERS).items():
                figures[kind] = self._meters[name][kind].look(now, nothing if math.isnan(total) else total, interval, self._period)
            self._rows.append(self._row(at, name, up=True, **figures))
        if not names:  # it answered, and that is to be seen
            self._rows.append(self._row(at, "", up=True))

    @staticmethod
    def _row(at: float, queue: str, *, up: bool, **figures: float) -> dict[str, Any]:
        return {name: figures.get(name, math.nan) for name in COLUMNS} | {"at": at, "queue": queue, "up": up}

    def __enter__(self) -> Sampler:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Sampler {'running' if self.is_running else 'stopped'}, {len(self._rows)} rows>"
