"""The ground a lesson stands on: a broker of its own, a chat, a record of everything, and a clean end.

::

    lesson = start_lesson("01")
    broker, chat = lesson.broker, lesson.chat
    ...
    lesson.close()
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from chatlib.brokers import LocalBroker, RemoteBroker, default_broker, find_installation, ways_to_get_one
from chatlib.brokers.base import Broker
from chatlib.chat import Chat, connect
from chatlib.checker import check
from chatlib.errors import BrokerNotInstalled, BrokerStartFailed, ChatError
from chatlib.events import JOINED, LEFT, SENT, STORED, Event
from chatlib.faults import Fault, recording
from chatlib.monitor import Monitor
from chatlib.recorder import Recorder
from chatlib.settings import Settings
from chatlib.verdict import Verdict

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Lesson", "LessonCannotStart", "current", "start_lesson"]

LOG_LINES = 1000
EXERCISES = "exercises"  # the section that is no experiment
_current: Lesson | None = None


class LessonCannotStart(ChatError):
    """There is no broker to learn with. A notebook shows the message, which names the fix, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"✘ This lesson cannot start.\n\n{self}\n\nThen run this cell again."]


class Lesson:
    """Made by `start_lesson`. A context manager.

    broker: started, private, and broken by nobody else. recorder: has every hop of every chat of this lesson.
    faults: every fault of `chatlib.faults` since the lesson began; the charts mark them.
    """

    def __init__(self, number: str, broker: Broker, settings: Settings | None = None) -> None:
        self.number = number
        self.broker = broker
        self.recorder = Recorder()
        self._settings = settings
        self._open_faults: dict[str, Fault] = {}
        self._end = contextlib.ExitStack()
        self.faults = self._end.enter_context(recording(self.recorder))
        self._log = _LogLines()
        self._end.callback(_close_broker, broker)
        self._end.callback(self._log.uninstall)
        self._closed = False
        self._sections: list[tuple[str, int]] = []
        self._given: dict[str, Verdict] = {}
        self._log.install()
        try:
            broker.start()
            self.chat = self.connect(f"lesson {number}")
        except BaseException:
            self.close()
            raise

    def connect(self, name: str, settings: Settings | None = None) -> Chat:
        """One more party with a link of its own to the same broker, recorded too. name: what the broker shows for it."""
        chat = connect(self.broker, name=name, settings=settings or self._settings)
        chat.on_event(self.recorder)
        self.closing(chat.close)
        return chat

    def closing(self, close: Callable[[], object]) -> None:
        """Call `close` when the lesson ends, before what was there earlier."""
        self._end.callback(close)

    @contextlib.contextmanager
    def fault(self, name: str) -> Iterator[None]:
        """Record that what is done inside `with` is a fault: the charts mark the time."""
        self.fault_began(name)
        try:
            yield
        finally:
            self.fault_ended(name)

    def fault_began(self, name: str) -> None:
        """Record the beginning of a fault that the lesson makes by itself, such as "bob is away"."""
        self._open_faults[name] = Fault(name, "", heal=lambda: None)

    def fault_ended(self, name: str) -> None:
        """Record its end. One that did not begin is none."""
        if (fault := self._open_faults.pop(name, None)) is not None:
            fault.heal()

    @cached_property
    def monitor(self) -> Monitor:
        """What the broker has and does; the live widgets look through it. Ends with the lesson."""
        monitor = Monitor(self.broker)
        self.closing(monitor.close)
        return monitor

    @property
    def history(self) -> list[Event]:
        """Every record so far, oldest first (see `chatlib.events`)."""
        return self.recorder.events

    def section(self, name: str, verdict: Verdict | None = None) -> None:
        """Begin an experiment: what is recorded from here on is judged under this name. The same name again begins it anew.

        verdict: one that was reached in another way; it is only listed.
        """
        self._sections = [section for section in self._sections if section[0] != name]
        self._sections.append((name, len(self.history)))
        self._given.pop(name, None)
        if verdict is not None:
            self._given[name] = verdict

    @property
    def section_name(self) -> str:
        """The experiment that is under way, or "" before the first."""
        return self._sections[-1][0] if self._sections else ""

    def verdict(self, section: str | None = None) -> Verdict:
        """The checker's verdict on everything so far, or on one experiment; who was a member before it began is known to it.

        A handler that took a message a moment ago may not have returned: with something lost it waits until nothing more is recorded.
        """
        if section is not None and section in self._given:
            return self._given[section]
        found, deadline = self._check(section), time.monotonic() + 5
        while found.lost and time.monotonic() < deadline and self._grows():
            found = self._check(section)
        return found

    def _grows(self) -> bool:
        """Whether something more is recorded within half a second."""
        before, deadline = len(self.history), time.monotonic() + 0.5
        while len(self.history) == before and time.monotonic() < deadline:
            time.sleep(0.02)
        return len(self.history) > before

    def _check(self, section: str | None) -> Verdict:
        if section is None:
            return check(self.history)
        first, _ = self._range(section)
        return check([event for event in self.history[:first] if event["hop"] in (JOINED, LEFT)] + self.records(section))

    def records(self, section: str) -> list[Event]:
        """The records of one experiment: of the messages that were sent in it, also what became of them later.

        Raises KeyError for an experiment that was not begun.
        """
        first, beyond = self._range(section)
        history = self.history
        sent_in = {event["message_id"]: number for number, event in reversed(list(enumerate(history))) if event["hop"] in (STORED, SENT)}
        return [
            event
            for number, event in enumerate(history[first:], first)
            if first <= sent_in.get(event.get("message_id", ""), number) < beyond
        ]

    def _range(self, section: str) -> tuple[int, int]:
        starts = dict(self._sections)
        first = starts[section]
        return first, min((start for start in starts.values() if start > first), default=sys.maxsize)

    def evidence(self) -> DataFrame:
        """The checker's table, one row for each experiment, the columns the same in every lesson."""
        import pandas as pd

        pd.set_option("display.width", 160)  # the table on one line, where it is shown as text
        return pd.concat({name: self.verdict(name).table.iloc[0] for name, _ in self._sections if name != EXERCISES}, axis=1).T

    def depth(self, queue: str) -> tuple[int, int]:
        """(messages that wait in `queue`, consumers of it), exact now. Raises BrokerUnavailable."""
        waiting, consumers = self.chat._link.queues.depth(queue)
        return waiting, consumers

    @property
    def log(self) -> list[str]:
        """What chatlib logged, newest last. A lesson keeps it here, since lines on the screen would land in whichever cell runs."""
        return list(self._log.lines)

    def close(self) -> None:
        """Close the chats and the broker, and remove the broker's data. A second call does nothing."""
        global _current
        if _current is self:
            _current = None
        if not self._closed:
            self._closed = True
            self._end.close()

    def __enter__(self) -> Lesson:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._closed:
            return f"Lesson {self.number} is closed: its broker is stopped and its data is gone."
        return f"✔ Lesson {self.number} is ready: a private RabbitMQ runs for you alone, and a chat is connected to it."


def start_lesson(number: str, *, settings: Settings | None = None) -> Lesson:
    """A fresh lesson; what an earlier run of this cell (or another lesson in the same kernel) left is closed first.

    number: as in the file's name, "01". settings: of the lesson's chats.
    Raises LessonCannotStart when there is no RabbitMQ, or when it does not come up.
    """
    global _current
    if _current is not None:
        _current.close()
    try:
        _current = Lesson(number, _own_broker(), settings)
    except BrokerNotInstalled as exc:
        raise LessonCannotStart(str(exc)) from exc
    except BrokerStartFailed as exc:
        raise LessonCannotStart(f"{exc}\n\nWhat to do: chatlib doctor   (in a terminal) checks this machine and names the fix.") from exc
    return _current


def current() -> Lesson | None:
    """The lesson that is open in this process, or None."""
    return _current


def _own_broker() -> Broker:
    """A broker that a lesson may break: a private node, or where no RabbitMQ is installed, a container."""
    try:
        find_installation()
    except BrokerNotInstalled:
        broker = default_broker()
        if isinstance(broker, RemoteBroker):
            raise BrokerNotInstalled(
                "CHATLIB_BROKER_URL names a broker that others may use, and a lesson needs one that it may break.\n" + ways_to_get_one()
            ) from None
        return broker
    return LocalBroker()


def _close_broker(broker: Broker) -> None:
    """The data is thrown away, so the node need not say goodbye: SIGKILL takes no time, a graceful stop 6 s (measured, 3.10.8)."""
    with contextlib.suppress(ChatError):
        broker.kill()
    close = cast(Any, broker).close
    close()


class _LogLines(logging.Handler):
    """Keeps the lines that chatlib logs, instead of letting them onto the screen."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: deque[str] = deque(maxlen=LOG_LINES)
        self._logger = logging.getLogger("chatlib")
        self._propagated, self._level = self._logger.propagate, self._logger.level

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname.lower()} {record.name}: {record.getMessage()}")

    def install(self) -> None:
        self._logger.addHandler(self)
        self._logger.propagate = False
        self._logger.setLevel(logging.INFO)

    def uninstall(self) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = self._propagated
        self._logger.setLevel(self._level)
