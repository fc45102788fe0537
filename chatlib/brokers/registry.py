"""The registry: one small file for each broker of this user, so that a broker whose owner died is found and stopped.

A record is a file of JSON lines in the user's state folder. Its owner holds a lock on it (flock) for as long as the owner
lives; the system frees the lock at the owner's death, however it died. So: a record that can be locked and is not of a
detached broker that runs belongs to nobody, and its processes and its temporary folder may go.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chatlib.brokers.process import OurProcess

__all__ = ["TEMPORARY_PREFIX", "Entry", "Record", "entries", "lock", "state_folder", "sweep"]

TEMPORARY_PREFIX = "chatlib-broker-"  # a folder is removed only if its name begins so


def state_folder() -> Path:
    """Return where chatlib keeps what must be found by later processes: $XDG_STATE_HOME/chatlib, by default ~/.local/state/chatlib."""
    given = os.environ.get("XDG_STATE_HOME", "")
    base = Path(given) if given and Path(given).is_absolute() else Path("~/.local/state").expanduser()
    folder = base / "chatlib"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        usable = os.access(folder, os.W_OK)
    except OSError:
        usable = False
    if not usable:  # no home, or a read-only one (containers): the same place for the same user, until the next boot
        folder = Path(tempfile.gettempdir()) / f"chatlib-state-{os.getuid()}"
        folder.mkdir(exist_ok=True, mode=0o700)
        if folder.stat().st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to another user; set XDG_STATE_HOME to a folder of your own")
    return folder


def lock(descriptor: int) -> bool:
    """Try to lock an open file (flock, exclusive); the lock lives until every copy of the descriptor is closed."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Record:
    """The record of a broker that this process runs or has just started; appended to, one JSON object a line."""

    def __init__(self, tag: str, data_dir: Path, *, temporary: bool, detached: bool) -> None:
        folder = state_folder() / "nodes"
        folder.mkdir(exist_ok=True, mode=0o700)
        self.path = folder / f"{tag}.jsonl"
        draft = folder / f".{tag}.new"  # locked and filled before it can be seen
        self._descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        lock(self._descriptor)
        self.note(tag=tag, data_dir=str(data_dir), temporary=temporary, detached=detached, host=platform.node(), owner=os.getpid())
        draft.replace(self.path)

    def note(self, **values: Any) -> None:
        """Append a line."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):  # a full disk: the reaper still watches
                os.write(self._descriptor, json.dumps(values).encode() + b"\n")

    def remove(self) -> None:
        """The broker is stopped and nothing is left of it."""
        self.path.unlink(missing_ok=True)
        self.disown()

    def disown(self) -> None:
        """Close the file, which gives the lock up: when a detached broker is up; in a forked child, which is not the owner."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


@dataclass(slots=True)
class Entry:
    """A record as read back."""

    path: Path
    tag: str = ""
    data_dir: Path = Path()
    temporary: bool = False
    detached: bool = False
    host: str = ""
    owner: int = 0
    ready: bool = False  #: it has served a client since its start
    processes: dict[str, OurProcess] = field(default_factory=dict)  #: by role: "vm", "epmd"

    def mark_ready(self) -> None:
        """Note that it has served a client, if nobody did."""
        if not self.ready:
            with contextlib.suppress(OSError), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"ready": True}) + "\n")

    @property
    def running(self) -> bool:
        """Whether its node is there."""
        return "vm" in self.processes and self.processes["vm"].alive


def _read(path: Path) -> Entry:
    entry = Entry(path)
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
            if "tag" in values:
                entry.tag, entry.host, entry.owner = str(values["tag"]), str(values["host"]), int(values["owner"])
                entry.data_dir, entry.temporary, entry.detached = (
                    Path(values["data_dir"]),
                    bool(values["temporary"]),
                    bool(values["detached"]),
                )
            elif "role" in values:
                entry.processes[values["role"]] = OurProcess(int(values["pid"]), float(values["created"]), entry.tag)
                entry.ready = False
            elif "ready" in values:
                entry.ready = True
            elif "gone" in values:
                entry.processes.pop(values["gone"], None)
        except (ValueError, KeyError, TypeError):  # the last line of a killed writer
            continue
    return entry


def entries() -> Iterator[Entry]:
    """Yield the brokers that this user's processes on this machine have on record."""
    for path in _records():
        with contextlib.suppress(OSError):  # removed meanwhile
            entry = _read(path)
            # a home folder may be shared by several machines; and the name of this one may change while a broker runs
            if entry.host == platform.node() or entry.running:
                yield entry


def _records() -> list[Path]:
    return sorted((state_folder() / "nodes").glob("*.jsonl"))


def sweep() -> list[Entry]:
    """Stop the brokers whose owner died and remove their temporary folders; return them."""
    swept = []
    for path in _records():
        try:
            descriptor = os.open(path, os.O_RDWR)
        except OSError:  # removed meanwhile
            continue
        try:
            if lock(descriptor) and (entry := _sweep_one(path)) is not None:
                swept.append(entry)
        finally:
            os.close(descriptor)
    return swept


def _sweep_one(path: Path) -> Entry | None:
    """Clear away what a record that has no owner speaks of, if it is not a running detached broker."""
    entry = _read(path)
    elsewhere = entry.host not in {"", platform.node()} and not any(process.alive for process in entry.processes.values())
    if elsewhere or (entry.detached and entry.running):
        return None
    for role in ("vm", "epmd"):  # in this order: a node that misses its epmd starts another one
        if role in entry.processes:
            entry.processes[role].kill()
    if entry.temporary and entry.data_dir.name.startswith(TEMPORARY_PREFIX):
        shutil.rmtree(entry.data_dir, ignore_errors=True)
    path.unlink(missing_ok=True)
    return None if entry.detached else entry
