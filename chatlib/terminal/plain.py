"""The screen of plain lines: for pipes, for programs, for terminals that can do no more. Every change of a tick is a line."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, TextIO

from chatlib.terminal.line import Line, Own, plain
from chatlib.terminal.screen import Shown

if TYPE_CHECKING:
    from chatlib.terminal.client import Client

__all__ = ["PlainScreen"]


class PlainScreen:
    """Reads lines from `source` and writes lines to `target`, each whole, one message on each. No colours, no control characters."""

    def __init__(self, source: TextIO, target: TextIO) -> None:
        self._source = source
        self._target = target
        self._queue: SimpleQueue[tuple[Sequence[Line], bool, Shown | None] | None] = SimpleQueue()
        self._closed = False
        self._reading = False
        self._ticks: dict[int, str] = {}
        self._writer = threading.Thread(target=self._write, name="terminal writer", daemon=True)
        self._writer.start()

    def run(self, client: Client) -> None:
        """Execute line by line until the end of the input or /quit; raises KeyboardInterrupt on SIGINT."""
        self._reading = True
        try:
            while not client.quitting.is_set() and not self._closed and (typed := self._source.readline()):
                client.execute(typed)
        finally:
            self._reading = False

    def show(self, lines: Sequence[Line]) -> bool:
        """Write `lines`; True when they are written."""
        shown = Shown()
        self._queue.put((lines, False, shown))
        while not shown.wait(0.5):
            if not self._writer.is_alive():
                return False
        return not shown.closed

    def post(self, lines: Sequence[Line]) -> None:
        """Write `lines` soon."""
        self._queue.put((lines, False, None))

    def changed(self, line: Own) -> None:
        """Write it again if its tick is another one."""
        self._queue.put(([line], True, None))

    def refresh(self) -> None:
        """Nothing: lines have no status bar."""

    def close(self) -> None:
        """Write what is left; then nothing more."""
        self._queue.put(None)
        self._writer.join(5.0)

    def _write(self) -> None:
        while (item := self._queue.get()) is not None:
            lines, is_change, shown = item
            try:
                if not self._closed:
                    self._put(lines, is_change)
            except OSError:  # nobody reads any more: `chatlib chat | head`
                self._closed = True
                _discard(self._target)
                if self._reading:  # the main thread waits for input that need not come
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            if shown:
                shown.closed = self._closed
                shown.set()
        self._closed = True

    def _put(self, lines: Sequence[Line], is_change: bool) -> None:
        written = []
        for line in lines:
            if isinstance(line, Own):
                text, kind = line.tick
                if self._ticks.get(line.number) == text or (is_change and line.number not in self._ticks):
                    continue
                self._ticks[line.number] = text
                if kind in ("read", "failed"):  # nothing comes after that
                    del self._ticks[line.number]
            written.append(plain(line.fragments(one_line=True)) + "\n")
        self._target.write("".join(written))
        self._target.flush()


def _discard(target: TextIO) -> None:
    """What could not be written is still in its buffer, and Python would try again, and complain, when it ends.

    So it goes nowhere (Python's documentation, module signal, "Note on SIGPIPE").
    """
    with contextlib.suppress(OSError, ValueError):  # no file behind it
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, target.fileno())
        os.close(nowhere)
