"""A lease: what one process holds while it runs a private broker, and the certainty that it all goes when the process goes.

Three nets, one under the other: `end()` (called by close, at exit and when the broker object is collected), the reaper
(the process was killed), and the registry's sweep at the next start (the reaper was killed as well, or the machine).
"""

from __future__ import annotations

import os
import shutil
import weakref
from pathlib import Path
from threading import Event, RLock
from typing import Final, Literal

from chatlib.brokers.process import OurProcess
from chatlib.brokers.reaper import Reaper
from chatlib.brokers.registry import Record

__all__ = ["ROLES", "Lease", "Role"]

Role = Literal["vm", "epmd"]
ROLES: Final[tuple[Role, ...]] = ("vm", "epmd")  # in the order to end them: a node that misses its epmd starts another one


class Lease:
    """The record, the reaper, the temporary folder and the processes of one broker."""

    def __init__(self, tag: str, folder: Path, *, temporary: bool, detached: bool) -> None:
        self.tag = tag
        self.processes: dict[Role, OurProcess] = {}
        self._folder = folder if temporary else None
        self._lock = RLock()
        self._ended = False
        self._record = Record(tag, folder, temporary=temporary, detached=detached)
        self._reaper = None if detached else Reaper(tag, self._folder, self._record.path)
        _leases.add(self)

    @property
    def ended(self) -> bool:
        """Whether this process has nothing to do with it any more: ended, left to itself, or its owner is our parent."""
        return self._ended

    def add(self, role: Role, process: OurProcess) -> None:
        """A process has been started."""
        if self._reaper is not None:
            self._reaper.watch(process.pid)
        self._record.note(role=role, pid=process.pid, created=process.created)
        self.processes[role] = process

    def ready(self) -> None:
        """The node has served a client."""
        self._record.note(ready=True)

    def clear(self) -> None:
        """Kill what is left of the processes; the lease goes on."""
        with self._lock:
            for role in ROLES:
                process = self.processes.pop(role, None)
                if process is None:
                    continue
                process.kill()
                self._record.note(gone=role)
                if self._reaper is not None:
                    self._reaper.forget(process.pid)

    def end(self) -> None:
        """Kill what is left, remove the temporary folder and the record, dismiss the reaper. Idempotent."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            self.clear()
            if self._folder is not None:
                _remove(self._folder)
            self._record.remove()
            if self._reaper is not None:
                self._reaper.dismiss()

    def leave(self) -> None:
        """Let the broker outlive this process: it is detached and on record."""
        with self._lock:
            self._ended = True
            self._record.disown()
            for process in self.processes.values():
                process.disown()

    def disown(self) -> None:
        """In a forked child: the parent is the owner, and its death must not be hidden by our copies of its descriptors."""
        self._lock = RLock()
        self.leave()
        if self._reaper is not None:
            self._reaper.disown()


def _remove(folder: Path) -> None:
    pause = Event()
    for _ in range(20):  # a child of the node (inet_gethost) may still close a file
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        pause.wait(0.05)


_leases: weakref.WeakSet[Lease] = weakref.WeakSet()


def _after_fork() -> None:
    for lease in list(_leases):
        lease.disown()


os.register_at_fork(after_in_child=_after_fork)
