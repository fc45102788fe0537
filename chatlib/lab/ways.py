"""Eight ways to leave a message with a broker: with and without a durable queue, persistent messages, and confirms."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chatlib import events
from chatlib.checker import check
from chatlib.errors import ChatError
from chatlib.events import Event
from chatlib.lab.amqp import Wire
from chatlib.lab.waiting import wait_until
from chatlib.topology import LAST_WORD
from chatlib.verdict import Verdict

if TYPE_CHECKING:
    from pandas import DataFrame

    from chatlib.lab.lesson import Lesson
    from chatlib.sampler import Sampler

__all__ = ["EXCHANGE", "WAYS", "Way", "Ways"]

EXCHANGE: Final = "letters"
READER: Final = "reader"
PATIENCE: Final = 0.6  # seconds that the senders wait for confirms
VISIBLE: Final = 0.5  # seconds: in a chart of some 40


@dataclass(frozen=True, slots=True)
class Way:
    """One of the eight, named by the letters of what is switched on: "DPC" has all three, "---" none."""

    durable: bool
    persistent: bool
    confirmed: bool

    @property
    def name(self) -> str:
        """Also the name of its queue and its key."""
        switches = zip("DPC", (self.durable, self.persistent, self.confirmed), strict=True)
        return "".join(letter if on else "-" for letter, on in switches)


WAYS: Final = tuple(Way(*switches) for switches in itertools.product((False, True), repeat=3))
KEPT: Final = tuple(way for way in WAYS if way.durable and way.persistent)
FILES: Final = (".jif", ".idx", ".qi", ".qs", ".rdq")  # journal, index and store of classic queues, versions 1 and 2


@dataclass(eq=False)
class _Sender:
    """One sender, and the history of what it did in the experiment that is under way."""

    way: Way
    wire: Wire | None = None
    said: list[str] = field(default_factory=list)
    open: dict[str, None] = field(default_factory=dict)  # ids that are not yet done for this sender
    history: list[Event] = field(default_factory=list)

    def tell(self, hop: str, message_id: str, **fields: object) -> None:
        self.history.append({"hop": hop, "at": time.time(), "message_id": message_id, **fields})


class Ways:
    """Eight senders, each with a queue and a wire of its own; one reader empties all the queues.

    What a sender calls done, the checker counts as confirmed: with confirms when the broker says so, without as soon as it was handed
    to the operating system.
    """

    def __init__(self, lesson: Lesson) -> None:
        self._lesson = lesson
        self._experiment = ""
        self._senders = {way.name: _Sender(way) for way in WAYS}
        self._lost: dict[str, dict[str, int]] = {}
        lesson.closing(self._hang_up)

    @property
    def names(self) -> list[str]:
        """The eight, which are also the names of the queues."""
        return list(self._senders)

    def begin(self, experiment: str) -> None:
        """A new experiment: every queue is declared, and empty; every sender has a fresh wire."""
        self._hang_up()
        self._experiment = experiment
        with self._wire() as wire:
            wire.exchange(EXCHANGE)
            for way in WAYS:
                wire.queue(way.name, durable=way.durable)
                wire.bind(way.name, EXCHANGE, way.name)
                wire.drain(way.name)
        # RabbitMQ 3.10 may forget the very last thing that was declared before a SIGKILL: that must not be one of the eight
        self._lesson.chat._link.queues.make([LAST_WORD])
        for sender in self._senders.values():
            sender.said, sender.history = [], []
            sender.open.clear()
        self._connect()

    def send(self, count: int, patience: float = PATIENCE) -> None:
        """Every sender sends `count` more. Those who wait for confirms wait `patience` seconds, all together."""
        for sender in self._senders.values():
            for _ in range(count):
                message_id = f"{sender.way.name} {len(sender.said) + 1:03}"
                sender.said.append(message_id)
                sender.open[message_id] = None
                sender.tell(events.STORED, message_id, user=sender.way.name, to=f"@{READER}")
        self._publish(patience)

    def resend(self, patience: float = 10.0) -> None:
        """Every sender sends again, over a fresh wire and under the same id, what is not done yet."""
        self._connect()
        self._publish(patience)

    def collect(self) -> DataFrame:
        """The reader takes everything out of all the queues. Returns the checker's table, one row for each way."""
        import pandas as pd

        for sender in self._senders.values():
            with self._wire() as wire:
                for message_id in self._taken(wire, sender.way.name):
                    for hop in (events.DELIVERED, events.HANDLED):
                        sender.tell(hop, message_id, user=READER, attempt=1)
        pd.set_option("display.width", 160)  # the table on one line, where it is shown as text
        verdicts = self.verdicts()
        self._lost[self._experiment] = {name: verdict.lost for name, verdict in verdicts.items()}
        for name, verdict in verdicts.items():
            self._lesson.section(f"{self._experiment}: {name}", verdict)
        return pd.concat({name: verdict.table.iloc[0] for name, verdict in verdicts.items()}, axis=1).T

    def verdicts(self) -> dict[str, Verdict]:
        """The checker's verdict on each way, in the experiment that is under way."""
        return {name: check(sender.history) for name, sender in self._senders.items()}

    def waiting(self) -> dict[str, int]:
        """How many messages wait in each queue, exactly; 0 where the queue is gone."""
        return {name: self._ask(lambda wire, name=name: wire.depth(name)) for name in self._senders}  # type: ignore[misc]

    def seen(self, sampler: Sampler) -> None:
        """Return when the sampler has shown what waits now, for long enough that people see it in a chart, and the broker lies still: what
        is to outlive it is in its files.
        """
        waiting = {name: count for name, count in self.waiting().items() if count}

        def shown() -> bool:
            return waiting.items() <= sampler.latest("ready").items()

        wait_until(shown, 20, f"the sampler shows {waiting}")
        seen = time.monotonic()
        wait_until(lambda: shown() and time.monotonic() > seen + VISIBLE, 20, f"the sampler goes on showing {waiting}")
        self._written(waiting)

    def _written(self, waiting: Mapping[str, int]) -> None:
        """Return when the broker has written what is to outlive it. Without confirms it waits until the queue
        rests: 0.3 s here (3.10.8), and never while a sampler and a map ask the queue four times a second each.
        """
        folder = getattr(self._lesson.broker, "data_dir", None)
        if folder is None:  # a container's files are not ours to read
            return
        last = [self._body(f"{name} {waiting[name]:03}") for name in waiting if self._senders[name].way in KEPT]

        def on_disk() -> bool:
            files = [path.read_bytes() for path in Path(folder).rglob("*") if path.suffix in FILES and path.is_file()]
            return all(any(body.encode() in each for each in files) for body in last)

        wait_until(on_disk, 20, f"the broker has written {last}")

    def _body(self, message_id: str) -> str:
        """What a letter says: no other experiment has one like it."""
        return f"{self._experiment}, {message_id}"

    @property
    def lost(self) -> DataFrame:
        """How many messages were lost: a row for each way, a column for each experiment so far."""
        import pandas as pd

        return pd.DataFrame(self._lost, index=[way.name for way in WAYS])

    def _publish(self, patience: float) -> None:
        for sender in self._senders.values():
            if sender.wire is None:
                continue
            for message_id in sender.open:
                sender.wire.publish(EXCHANGE, sender.way.name, message_id, self._body(message_id), persistent=sender.way.persistent)
                sender.tell(events.SENT, message_id, user=sender.way.name, to=f"@{READER}")
        deadline = time.monotonic() + patience
        for sender in self._senders.values():
            if sender.wire is None:
                continue
            if sender.way.confirmed:
                sender.wire.listen(max(0.01, deadline - time.monotonic()))
            done = [each for each in sender.open if not sender.way.confirmed or each in sender.wire.confirmed]
            for message_id in done:
                del sender.open[message_id]
                sender.tell(events.CONFIRMED, message_id, user=sender.way.name, to=f"@{READER}")

    def _connect(self) -> None:
        self._hang_up()
        for sender in self._senders.values():
            sender.wire = self._wire()
            if sender.way.confirmed:
                sender.wire.confirms()

    def _wire(self) -> Wire:
        return Wire(self._lesson.broker.url, name="eight ways")

    def _taken(self, wire: Wire, queue: str) -> list[str]:
        try:
            return wire.drain(queue)
        except ChatError:  # 404: the queue did not survive
            return []

    def _ask(self, question: Callable[[Wire], int]) -> int:
        with self._wire() as wire:
            try:
                return question(wire)
            except ChatError:
                return 0

    def _hang_up(self) -> None:
        for sender in self._senders.values():
            if sender.wire is not None:
                sender.wire.close()
                sender.wire = None

    def __repr__(self) -> str:
        return f"<Ways {self._experiment or 'not begun'}>"
