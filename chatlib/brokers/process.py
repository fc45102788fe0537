"""A process that is provably ours: a pid alone proves nothing, since the system gives it to another one later.

Each process that chatlib starts for a broker carries the broker's tag (random, 64 bits) in its command line and leads a
session of its own. It is signalled only if the pid, the time of its creation and the tag all fit.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from chatlib.waiting import until

__all__ = ["OurProcess"]

CLOCK_TOLERANCE = 5.0  # seconds; a creation time moves a little when the system clock is set (Linux counts from boot)
EXEC_PATIENCE = 1.0
"""Seconds. In the middle of an exec, and a node's start is several, Linux shows a process without a command line: 0.7 % of a
million looks at a shell that did nothing else (measured)."""

GONE = frozenset({psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD})

# Children that are to outlive us: kept, since a Popen that is collected while its process runs warns.
_outliving: list[subprocess.Popen[bytes]] = []


class OurProcess:
    """A process started by this or an earlier process of ours, with the session that it leads."""

    def __init__(self, pid: int, created: float, tag: str, child: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self.created = created
        self.tag = tag
        self._child = child  # set where we are its parent: then nobody else can have its pid

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        tag: str,
        *,
        program: Path,
        env: Mapping[str, str],
        cwd: Path,
        output: IO[bytes],
        keep: Sequence[int] = (),
    ) -> OurProcess:
        """Start `program` with the arguments `command` (which must hold `tag`), detached from terminal and signals.

        output: where its stdout and stderr go. keep: file descriptors that it inherits.
        """
        _outliving[:] = [child for child in _outliving if child.poll() is None]
        child = subprocess.Popen(
            list(command),
            executable=program,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=list(keep),
            start_new_session=True,
        )
        try:
            created = psutil.Process(child.pid).create_time()
        except psutil.NoSuchProcess:
            created = time.time()
        return cls(child.pid, created, tag, child)

    @property
    def alive(self) -> bool:
        """Whether it is there (a frozen one is, a zombie is not) and is ours."""
        if self._child is not None:
            return self._child.poll() is None
        return self._theirs() is not None

    @property
    def frozen(self) -> bool:
        """Whether it is stopped by SIGSTOP."""
        try:
            return self.alive and psutil.Process(self.pid).status() == psutil.STATUS_STOPPED
        except psutil.NoSuchProcess:
            return False

    @property
    def exit_code(self) -> int | None:
        """How it ended, where we are its parent and it has ended; minus the number of the signal that ended it."""
        return None if self._child is None else self._child.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and its session; nothing happens if it is gone or not ours."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def freeze(self) -> None:
        """SIGSTOP; returns when the system says that it has stopped."""
        self.signal(signal.SIGSTOP)
        until(lambda: self.frozen or not self.alive, 5.0)

    def thaw(self) -> None:
        """SIGCONT; returns when it runs again."""
        self.signal(signal.SIGCONT)
        until(lambda: not self.frozen, 5.0)

    def kill(self, timeout: float = 10.0) -> bool:
        """SIGKILL, works on a frozen one too; whether it was gone within `timeout` seconds."""
        self.signal(signal.SIGKILL)
        return self.wait(timeout)

    def terminate(self, timeout: float) -> bool:
        """SIGTERM (thawed first, or it would never hear it); whether it was gone within `timeout` seconds."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        return self.wait(timeout)

    def wait(self, timeout: float) -> bool:
        """Whether it is gone within `timeout` seconds."""
        if self._child is not None:
            try:
                self._child.wait(timeout)
            except subprocess.TimeoutExpired:
                return False
            return True
        return until(lambda: not self.alive, timeout)

    def disown(self) -> None:
        """Watch it as any process may from now on, not as its parent: in a forked child, or because it is to outlive us."""
        if self._child is not None:
            _outliving.append(self._child)
        self._child = None

    def _theirs(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            if process.status() in GONE:
                return None
            if abs(process.create_time() - self.created) > CLOCK_TOLERANCE:
                return None
            return process if any(self.tag in part for part in until(process.cmdline, EXEC_PATIENCE)) else None
        except psutil.Error:  # gone meanwhile, or another user's: not ours
            return None
