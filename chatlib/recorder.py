"""The history of a run, kept in memory and as JSON Lines on disk: what `chatlib.checker` judges.

::

    with Recorder("run/alice.jsonl") as recorder:
        chat.on_event(recorder)
        ...
    print(recorder.verdict())

A run of several processes: one recorder and one file each, then ``check(stream("run/alice.jsonl", "run/bob.jsonl"))``.
Start it before the first join, and drain before the verdict.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
from collections import deque
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Final

from chatlib.checker import check
from chatlib.errors import HistoryError
from chatlib.events import Event
from chatlib.verdict import Verdict

__all__ = ["History", "Recorder", "load", "stream"]

KEEP: Final = 1_000_000  # records in memory; about 0.4 kB each
LONGEST: Final = 1 << 20  # bytes; no record is longer
BEHIND: Final = 50_000  # records not yet written; from here on the caller writes, so that memory stays bounded

_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode
_log = logging.getLogger(__name__)

StrPath = str | PathLike[str]


class History(list[Event]):
    """The records of one or more files. `torn`: how many files ended in half a record, left out, because the writer was killed."""

    torn: int = 0


def load(*paths: StrPath) -> History:
    """Read the histories at `paths`, one after the other. A million records take 3 to 5 s and about 1 GB: for a `check`, use `stream`.

    Half a record at the end of a file is left out and counted, since that is what SIGKILL may leave.
    Raises HistoryError, with file and line, for anything else that is no record, and for a file that cannot be read.
    """
    history = History()
    torn: list[Path] = []
    for path in paths:
        history.extend(_records(Path(path), torn))
    history.torn = len(torn)
    return history


def stream(*paths: StrPath) -> Iterator[Event]:
    """The records at `paths`, read as they are asked for, so that a `check` of any number of them fits in memory.

    Half a record at the end of a file is left out; raises HistoryError as `load` does, when it comes to the place.
    """
    for path in paths:
        yield from _records(Path(path), [])


def _records(path: Path, torn: list[Path]) -> Iterator[Event]:
    """The records of one file as they are read; a file whose last line is torn is added to `torn`."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    record = json.loads(line.decode())
                except (ValueError, RecursionError) as exc:
                    if not line.endswith(b"\n"):
                        torn.append(path)
                        return
                    raise HistoryError(f"{path}, line {number}: not a record of a history ({exc}); is this a history file?") from exc
                if not isinstance(record, dict):
                    raise HistoryError(f"{path}, line {number}: a record must be an object, not {type(record).__name__}")
                yield record
    except OSError as exc:
        raise HistoryError(f"{path} cannot be read: {exc.strerror or exc}") from exc


def _open(path: Path) -> tuple[BinaryIO, bool]:
    """Open `path` for appending, without the half record that a killed writer may have left; returns whether it holds any."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
        size = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, size - LONGEST))
        tail = file.read(size - start)
        rest = tail[tail.rfind(b"\n") + 1 :]
        if rest and not rest.startswith(b"{"):
            file.close()
            raise HistoryError(f"{path} is no history of earlier records, and was left as it is; give another path")
        if rest:
            try:
                json.loads(rest)
                file.write(b"\n")  # all there but for the end of its line
            except ValueError:
                size = file.truncate(size - len(rest))
    except OSError as exc:
        raise HistoryError(f"{path} cannot be written: {exc.strerror or exc}; give another path") from exc
    return file, size > 0


class Recorder:
    """Keeps every event that it is called with; give it to `Chat.on_event`. Any thread may call it.

    path: a JSON Lines file of its own, appended to (folders are made); None: in memory only.
    keep: how many of the latest records stay in memory; 0 for none (with a path), None for all.
    flush_every: seconds between writes by a thread in the background. A process that is killed loses at most what came since,
    that long at most, and the next recorder on the same file cuts off half a record. 0: each record is with the operating system
    before the call returns, so that SIGKILL loses nothing; use that where the process itself is killed, since a record that is
    missing looks like a message that is. Neither waits for the disk: a power cut may take more.

    Cost for the caller, measured on Python 3.11 on one of two cores: 0.1 microseconds an event in memory, 0.25 with a path, while
    the thread takes some 3 to 5 more in the background; 6 to 8 with flush_every=0. A record takes about 160 bytes on disk.
    When the background falls behind by 50,000 records the caller writes them itself: slower, but nothing is dropped.
    """

    def __init__(self, path: StrPath | None = None, *, keep: int | None = KEEP, flush_every: float = 0.05) -> None:
        if keep is not None and keep < 0:
            raise ValueError(f"keep must be 0 or more, or None for all, not {keep}")
        if path is None and keep == 0:
            raise ValueError("a Recorder without a path must keep something: give a path, or keep=None")
        if not flush_every >= 0:
            raise ValueError(f"flush_every must be 0 seconds or more, not {flush_every}")
        self._path = None if path is None else Path(path)
        self._keep = keep
        self._kept: deque[Event] = deque(maxlen=None if keep is None else keep + 1)  # one more tells that some are gone
        self._waiting: deque[Event] = deque()
        self._writing = threading.Lock()
        self._closed = threading.Event()
        self._failure: Exception | None = None
        self._at_once = flush_every == 0
        self._file: BinaryIO | None = None
        self._older = False  # the file holds records of an earlier recorder
        self._thread: threading.Thread | None = None
        if self._path is None:
            return
        self._file, self._older = _open(self._path)
        atexit.register(self._finish)
        if not self._at_once:
            self._thread = threading.Thread(target=self._run, args=(flush_every,), name=f"recorder {self._path.name}", daemon=True)
            self._thread.start()

    def __call__(self, event: Event) -> None:
        """Take one event. After `close` it is passed over."""
        if self._closed.is_set():
            return
        self._kept.append(event)
        if self._file is not None:
            self._waiting.append(event)
            if self._at_once or len(self._waiting) > BEHIND:
                self._write()

    def __len__(self) -> int:
        """How many records are in memory."""
        return len(self.events)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<Recorder {self._path or 'in memory'}{', closed' if self._closed.is_set() else ''}>"

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._finish()
        if kind is None:
            self._fail()

    @property
    def path(self) -> Path | None:
        """The file that it writes, None when in memory only."""
        return self._path

    @property
    def events(self) -> list[Event]:
        """The records in memory, oldest first: the last `keep` of those that this recorder took."""
        kept = self._kept.copy()  # one step, while others append
        if self._keep is not None and len(kept) > self._keep:
            kept.popleft()
        return list(kept)

    def verdict(self) -> Verdict:
        """`check` of the whole history: from memory, or from the file where it holds more (older runs, or more than `keep`).

        Raises HistoryError when records are gone, since a verdict on a part would be wrong.
        """
        gone = self._keep is not None and len(self._kept) > self._keep
        if not gone and not self._older:
            return check(self.events)
        if self._path is None:
            raise HistoryError(f"more than {self._keep:,} records came, and the first are gone: give a path, or a greater keep")
        self.flush()
        return check(stream(self._path))

    def flush(self) -> None:
        """Hand everything to the operating system now. Raises HistoryError when the file could not be written."""
        self._write()
        self._fail()

    def close(self) -> None:
        """Write what is left and close the file; a second call does nothing. Raises HistoryError when some could not be written."""
        self._finish()
        self._fail()

    def _run(self, flush_every: float) -> None:
        while not self._closed.wait(flush_every):
            self._write()

    def _write(self) -> None:
        """Write what waits; one thread at a time, so that the file keeps the order."""
        with self._writing:
            if self._file is None or self._file.closed or not self._waiting:
                return
            batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if self._failure is not None:
                return  # half a line may stand there: nothing can follow it
            try:
                self._file.write("".join([_encode(event) + "\n" for event in batch]).encode())
                self._file.flush()
            except (OSError, ValueError, TypeError) as exc:
                self._failure = exc
                _log.exception("the history %s cannot be written: it ends here", self._path)

    def _finish(self) -> None:
        self._closed.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._write()
        with self._writing:
            if self._file is not None and not self._file.closed:
                try:
                    self._file.close()
                except OSError as exc:  # closing flushes
                    self._failure = self._failure or exc
        atexit.unregister(self._finish)

    def _fail(self) -> None:
        if self._failure is not None:
            raise HistoryError(f"{self._path} is incomplete, it could not be written: {self._failure}") from self._failure
