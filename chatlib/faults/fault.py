"""A fault: what was done to what, from when to when, and how it is healed; and who is told of it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from chatlib.errors import ChatError, FaultError
from chatlib.events import FAULT_BEGAN, FAULT_ENDED, Event
from chatlib.waiting import until

__all__ = ["Fault", "impossible", "inflict", "instant", "recording"]

VERBS = {  # where the name of a fault is none
    "black_hole": "make a black hole of",
    "close_connections": "close",
    "disk_alarm": "raise a disk alarm on",
    "half_open": "half close",
    "kill_process": "kill",
    "memory_alarm": "raise a memory alarm on",
    "node_down": "take down",
    "node_frozen": "freeze",
}

_log = logging.getLogger("chatlib.faults")
_lock = threading.Lock()
_recordings: list[tuple[list[Fault], Callable[[Event], object] | None]] = []


class Fault:
    """Something that was done to a broker, a path, a process or a queue. A context manager: healed at the end of `with`, whatever happens.

    Made by the functions of `chatlib.faults`, which return when it has happened. Nothing of its effect is older than `began` or younger
    than `ended`. The facts cannot be changed; `heal()` may be called from any thread.
    """

    def __init__(
        self,
        name: str,
        target: str,
        heal: Callable[[], None] | None = None,
        *,
        began: float | None = None,
        count: int | None = None,
        detail: str = "",
    ) -> None:
        """heal: undoes it; None: there is nothing to heal, it was over as soon as it had happened."""
        self._name, self._target, self._count, self._detail = name, target, count, detail
        self._began = time.time() if began is None else began
        self._ended = None if heal else self._began
        self._heal = heal
        self._healing = threading.RLock()
        with _lock:
            self._recordings = list(_recordings)
        for found, _ in self._recordings:
            found.append(self)
        self._tell(FAULT_BEGAN, self._began)
        if self._ended is not None:
            self._tell(FAULT_ENDED, self._ended)

    @property
    def name(self) -> str:
        """What was done, the name of the function: "kill", "freeze" ..."""
        return self._name

    @property
    def target(self) -> str:
        """To what, for people: "broker", "inbox.bob", "node 2"."""
        return self._target

    @property
    def detail(self) -> str:
        """How much of it, for people, such as "0.2 s each way"; "" where there is nothing to say."""
        return self._detail

    @property
    def count(self) -> int | None:
        """How many things it hit (connections closed), or None where that means nothing."""
        return self._count

    @property
    def began(self) -> float:
        """Unix seconds."""
        return self._began

    @property
    def ended(self) -> float | None:
        """Unix seconds when it was seen to be healed; None until then. Equal to `began` where there is nothing to heal."""
        return self._ended

    def heal(self) -> None:
        """Undo it; returns when that is seen on the system. What is healed already is left so.

        Raises FaultError if that failed: the fault goes on then, and `heal()` may be called again.
        """
        with self._healing:
            if self._ended is not None or self._heal is None:
                return
            try:
                self._heal()
            except FaultError:
                raise
            except (ChatError, OSError) as error:
                raise FaultError(f"{self._name} of {self._target} could not be healed, call heal() again: {error}") from error
            self._ended = time.time()
            self._heal = None
        self._tell(FAULT_ENDED, self._ended)

    def as_record(self) -> dict[str, Any]:
        """name, target, detail, began, ended, count: ready for JSON Lines and for the rows of a table."""
        return {
            "name": self._name,
            "target": self._target,
            "detail": self._detail,
            "began": self._began,
            "ended": self._ended,
            "count": self._count,
        }

    def __enter__(self) -> Fault:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.heal()
        except FaultError as failed:
            if error is None:
                raise
            error.add_note(str(failed))  # the error of what was tried under the fault is the one to see
            _log.error("%s", failed)

    def __repr__(self) -> str:
        state = "not healed" if self._ended is None else "healed" if self._ended != self._began else "over"
        return f"<Fault {self._name}: {self._said()}, {state}>"

    def __str__(self) -> str:
        end = "" if self._ended is None else f" to {_clock(self._ended)}"
        when = f"at {_clock(self._began)}" if self._ended == self._began else f"from {_clock(self._began)}{end}"
        return f"{self._name}: {self._said()}, {when} UTC"

    def _said(self) -> str:
        return f"{self._target}, {self._detail}" if self._detail else self._target

    def _tell(self, hop: str, at: float) -> None:
        """Write a record of `chatlib.events` for whoever began to listen before the fault began."""
        for _, listener in self._recordings:
            if listener is not None:
                try:
                    listener({"hop": hop, "at": at, "message_id": "", "name": self._name, "target": self._target})
                except Exception:  # noqa: BLE001  somebody else's code must not keep a fault from being healed
                    _log.exception("a listener of faults failed")


@contextlib.contextmanager
def recording(listener: Callable[[Event], object] | None = None) -> Iterator[list[Fault]]:
    """Yield a list to which every fault is appended that begins within, in any thread: for charts and reports.

    listener: called with the records `fault.began` and `fault.ended` of these faults (see `chatlib.events`); a Recorder is one.
    """
    found: list[Fault] = []
    entry = (found, listener)
    with _lock:
        _recordings.append(entry)
    try:
        yield found
    finally:
        with _lock:
            _recordings[:] = [other for other in _recordings if other is not entry]


def inflict(
    name: str,
    target: str,
    act: Callable[[], object],
    *,
    seen: Callable[[], bool],
    heal: Callable[[], None],
    patience: float = 10.0,
    detail: str = "",
) -> Fault:
    """Do it, wait until it is seen to have happened, and return the Fault. Whatever goes wrong on the way, Ctrl-C too, is undone first.

    patience: seconds until FaultError, counted from the end of `act`.
    """
    began = time.time()
    try:
        act()
        if not until(seen, patience):
            raise FaultError(f"{name} of {target} was done, and no effect of it was seen within {patience:g} s; it was undone")
    except BaseException as error:
        try:
            heal()
        except (ChatError, OSError) as failed:
            error.add_note(f"and it could not be undone: {failed}")
        if isinstance(error, (ChatError, OSError)) and not isinstance(error, FaultError):
            raise impossible(name, target, error) from error
        raise
    return Fault(name, target, heal, began=began, detail=detail)


def instant(name: str, target: str, *, count: int | None = None, at: float | None = None) -> Fault:
    """The fault that has happened (`at`, by default now) and leaves nothing to heal."""
    return Fault(name, target, began=at, count=count)


def require_kind(name: str, target: str, given: object, attribute: str, wanted: str) -> None:
    """Raise FaultError for what is not of the kind that has `attribute`. wanted: what to give instead.

    The class is asked, since the attributes of a broker ask the network.
    """
    if not hasattr(type(given), attribute):
        raise impossible(name, target, f"it takes {wanted}, and not this {type(given).__name__}")


def impossible(name: str, target: str, why: object) -> FaultError:
    """The error for what cannot be done here; `why` ends with what to do."""
    return FaultError(f"cannot {VERBS.get(name, name.replace('_', ' '))} {target}: {why}")


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S.%f")[:-3]
