"""The death of a process: a sender with unconfirmed messages, a consumer before its ack."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Protocol

import psutil

from chatlib.faults.fault import Fault, impossible, instant
from chatlib.waiting import until

__all__ = ["HasPid", "kill_process"]

GONE = 10.0  # seconds; the kernel takes milliseconds, unless the process waits for a disk


class HasPid(Protocol):
    """A process as Python knows it: subprocess.Popen, multiprocessing.Process, psutil.Process, asyncio's."""

    @property
    def pid(self) -> int | None:
        """None before it was started."""


def kill_process(process: HasPid | int) -> Fault:
    """SIGKILL to a process; returns when it has ended. There is nothing to heal: start another one.

    process: a subprocess.Popen, a multiprocessing.Process, anything else with a `pid`, or the pid itself.
    Raises FaultError if it has ended already, may not be killed by this user, or is this process itself.
    """
    if not isinstance(process, int) and not hasattr(process, "pid"):
        raise impossible("kill_process", "process", f"it takes a process or its number, and not this {type(process).__name__}")
    pid = process if isinstance(process, int) else process.pid
    target = f"process {pid}"
    if pid is None:
        raise impossible("kill_process", "process", "it was not started: start() it first")
    if pid == os.getpid():
        raise impossible("kill_process", target, "that is this Python itself; what is to be killed must run in a process of its own")
    if pid <= 1:  # to kill(2), 0 and below are whole groups of processes
        raise impossible("kill_process", target, "that is no process of yours")
    if isinstance(process, subprocess.Popen):
        process.poll()
    if _ended(process, pid):
        raise impossible("kill_process", target, "it has ended already: start another one")
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError as error:
        raise impossible("kill_process", target, "it ended this very moment: start another one") from error
    except PermissionError as error:
        raise impossible("kill_process", target, "it belongs to another user, and only processes of your own can be killed") from error
    if not until(lambda: _ended(process, pid), GONE):
        raise impossible("kill_process", target, f"it got SIGKILL and is still there after {GONE:g} s: does it wait for a disk?")
    return instant("kill_process", target)


def _ended(process: HasPid | int, pid: int) -> bool:
    """Whether it is gone. Its exit status is left to its parent, except where the parent's own object is here to take it."""
    if isinstance(process, subprocess.Popen):
        return process.poll() is not None
    try:
        return psutil.Process(pid).status() in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    except psutil.NoSuchProcess:
        return True
