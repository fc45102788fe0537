"""One message's way, or that of a slice of a run, as a sequence diagram: a still picture, made of what was recorded."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from typing import Any, Protocol

from chatlib.events import Event
from chatlib.lab.widgets import assets, trace_svg
from chatlib.lab.widgets.trace_model import Trace, trace_of, trace_run
from chatlib.recorder import Recorder, load

__all__ = ["MessageTrace"]


class HasHistory(Protocol):
    """A lesson."""

    @property
    def history(self) -> list[Event]:
        """Every record so far."""
        ...


class HasId(Protocol):
    """A message that was sent or received."""

    @property
    def message_id(self) -> str:
        """Its id."""
        ...


Source = Iterable[Event] | Recorder | HasHistory | str | PathLike[str]


class MessageTrace:
    """The way of one message through every hop, resend and fault, as its cell's result: a picture without a kernel behind it.

    history: records of `chatlib.events`, a Recorder, a lesson, or the path of a JSON Lines file. message: its id, or the message as
    `send` returned it. From above to below stands what happened in its order, not on a scale of time: gaps say how long they are.
    Raises HistoryError for an unknown id, with those near it, for an empty history and for a file that is none; TypeError for others.
    """

    def __init__(self, history: Source, message: str | HasId) -> None:
        wanted = message if isinstance(message, str) else getattr(message, "message_id", None)
        if not isinstance(wanted, str):
            raise TypeError(f"message is an id, or the message as send() returned it, got {message!r}")
        self.trace: Trace = trace_of(_events_of(history), wanted)

    @classmethod
    def run(cls, history: Source, *, first: int = 0, limit: int = 10) -> MessageTrace:
        """Everything that became of `limit` messages of a run, from number `first` on (0 is the first that was sent).

        Raises HistoryError as the class does, and where there is no such message; ValueError for numbers that make no sense.
        """
        made = cls.__new__(cls)
        made.trace = trace_run(_events_of(history), first=first, limit=limit)
        return made

    def svg(self) -> str:
        """The diagram as one SVG with its looks in it."""
        return trace_svg.svg(self.trace)

    def still(self) -> dict[str, str]:
        """The diagram as a MIME bundle that every notebook shows."""
        return assets.still(self.svg(), width=1000, title=self.trace.title)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": repr(self)} | self.still()

    def __repr__(self) -> str:
        return "<MessageTrace>"  # constant: nbval compares it


def _events_of(history: Source) -> list[Event]:
    """The records, wherever they are."""
    if isinstance(history, str | PathLike):
        return load(history)
    if isinstance(history, Recorder):
        return history.events
    events = history if isinstance(history, Iterable) else getattr(history, "history", None)
    if not isinstance(events, Iterable):
        raise TypeError(f"history is records, a Recorder, a lesson or the path of a history file, got {history!r}")
    return list(events)
