"""The keeper of a private broker: its folder and identity, its node's processes, and who may start it when.

A broker that has an owner is known by the owner's lease; a detached one by its record in the registry, from any process.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event, RLock

from chatlib.brokers import diagnosis, registry
from chatlib.brokers.identity import Identity, load_or_create
from chatlib.brokers.installation import find_installation
from chatlib.brokers.lease import ROLES, Lease
from chatlib.brokers.node import launch
from chatlib.brokers.ports import Ports, require_free
from chatlib.brokers.process import OurProcess
from chatlib.errors import BrokerStartFailed

__all__ = ["Keeper", "folder_trouble", "require_plain"]

# In paths: RabbitMQ takes some for patterns when it looks for its own files, and hands paths to a shell between quotes.
FORBIDDEN = re.compile(r"""[*?^!\[\]{}'"`$\\\x00-\x1f\x7f]""")
LEAST_DISK = 50_000_000  # bytes; below this RabbitMQ 3.10 and 4.x block every publisher (disk_free_limit)
LOCK_PATIENCE = 1.5  # seconds; a node that was killed a moment ago, or is being killed, still holds its lock


class Keeper:
    """Keeps one private broker; the methods may be called from any thread."""

    def __init__(
        self,
        data_dir: Path | None,
        *,
        name: str | None,
        detached: bool,
        ports: Ports | None,
        plugins: Iterable[str] | None,
        config: Iterable[str] | None,
    ) -> None:
        self.data_dir = data_dir
        self.detached = detached
        self.mutex = RLock()
        self._name = name
        self._ports = ports
        self._plugins = None if plugins is None else tuple(plugins)
        self._config = None if config is None else tuple(config)
        self._identity: Identity | None = None
        self._lease: Lease | None = None
        self._log_offset = 0
        self._starting = False
        self._closed = False

    @property
    def known(self) -> Identity | None:
        """The identity, if it was needed before."""
        return self._identity

    @property
    def starting(self) -> bool:
        """Whether a start by this keeper is under way."""
        return self._starting

    @property
    def identity(self) -> Identity:
        """The identity; the first use makes or reads the folder. Raises `BrokerStartFailed`."""
        with self.mutex:
            if self._closed:
                raise BrokerStartFailed("this broker was closed and its temporary folder removed: make a new LocalBroker()")
            if self._identity is None:
                with folder_trouble(self.data_dir):
                    self._identity = self._made()
            return self._identity

    def node(self) -> tuple[OurProcess | None, bool]:
        """Return the node's process if it is there, and whether it has served a client since its start."""
        lease = self._lease
        if lease is not None:
            process, ready = lease.processes.get("vm"), not self._starting
        else:
            entry = self._entry()
            process, ready = (entry.processes.get("vm"), entry.ready) if entry is not None else (None, False)
        return (process, ready) if process is not None and process.alive else (None, False)

    def launch(self) -> OurProcess:
        """Start the node and return its process at once. Raises `BrokerNotInstalled` or `BrokerStartFailed`.

        A detached broker that another process starts at the same moment is one and the same: then its process is returned.
        """
        with self.mutex:
            installation = find_installation()
            identity = self.identity
            unknown = [plugin for plugin in identity.plugins if not installation.has_plugin(plugin)]
            if unknown:
                raise BrokerStartFailed(
                    f"RabbitMQ {installation.version} has no plugin {', '.join(unknown)}: `rabbitmq-plugins list` shows all."
                )
            with folder_trouble(identity.folder):
                _require_disk(identity.folder)
                if self._lease is not None:
                    self._lease.clear()  # after a crash of the node its epmd is left
                try:
                    lock = _locked(identity)
                except BrokerStartFailed:
                    other, _ = self.node()
                    if other is None:
                        raise
                    return other
                try:
                    require_free(replace(identity.ports, epmd=0) if identity.peers else identity.ports)
                    self._log_offset = identity.log_file.stat().st_size if identity.log_file.exists() else 0
                    self._starting = True
                    return launch(identity, installation, self._take_lease(identity.folder), lock)
                except BaseException:
                    self.end_processes()
                    raise
                finally:
                    os.close(lock)  # from here on only the node holds it

    def failure(self, what: str) -> BrokerStartFailed:
        """Return the error for a start that failed, with what the node has said since it began."""
        return diagnosis.start_failure(what, self.identity.log_file, self._log_offset)

    def mark_ready(self) -> None:
        """The node has served a client; a detached one is on its own from here."""
        with self.mutex:
            self._starting = False
            if self._lease is not None:
                self._lease.ready()
                if self.detached:
                    self._lease.leave()
                    self._lease = None
            elif (entry := self._entry()) is not None:
                entry.mark_ready()  # whoever started it may have died before he could

    def end_processes(self, patience: float | None = None) -> None:
        """End node and epmd; patience: seconds from SIGTERM to SIGKILL, None for SIGKILL at once."""
        with self.mutex:
            node, _ = self.node()
            entry = self._entry()
            if node is not None and patience is not None:
                node.terminate(patience)
            self._starting = False
            if self._lease is not None:
                self._lease.clear()
                if self.detached:
                    self._lease.end()
                    self._lease = None
            elif entry is not None:
                for role in ROLES:
                    if role in entry.processes:
                        entry.processes[role].kill()
                entry.path.unlink(missing_ok=True)

    def close(self, patience: float) -> None:
        """End the processes, gracefully where the data stay, and remove what is temporary; in a forked child do nothing."""
        with self.mutex:
            if self._lease is not None and self._lease.ended:
                return
            if self._lease is not None and self.data_dir is not None:
                self.end_processes(patience)
            self._closed = self.data_dir is None
            self.abandon()

    def abandon(self) -> None:
        """End everything at once: the broker object was collected, or Python ends. In a forked child nothing happens."""
        if self._lease is not None:
            self._lease.end()
            self._lease = None

    def _made(self) -> Identity:
        folder = self.data_dir or Path(tempfile.mkdtemp(prefix=registry.TEMPORARY_PREFIX)).absolute()
        try:
            require_plain(folder)
            if self.data_dir is None:
                self._take_lease(folder)  # first of all, so that the folder goes whatever happens
            return load_or_create(folder, name=self._name, ports=self._ports, plugins=self._plugins, config=self._config)
        except BaseException:
            if self.data_dir is None:
                shutil.rmtree(folder, ignore_errors=True)
                self.abandon()
            raise

    def _take_lease(self, folder: Path) -> Lease:
        if self._lease is None:
            self._lease = Lease(secrets.token_hex(8), folder, temporary=self.data_dir is None, detached=self.detached)
        return self._lease

    def _entry(self) -> registry.Entry | None:
        """Return the record of this broker if it is a detached one that runs, whoever started it."""
        if not self.detached or self.data_dir is None:
            return None
        return next((entry for entry in registry.entries() if entry.detached and entry.data_dir == self.data_dir and entry.running), None)


def _locked(identity: Identity) -> int:
    """Return an open descriptor that holds the folder's lock, after stopping a node whose owner died."""
    registry.sweep()
    lock = os.open(identity.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
    deadline, pause = time.monotonic() + LOCK_PATIENCE, Event()
    while not registry.lock(lock):
        if time.monotonic() > deadline:
            os.close(lock)
            raise BrokerStartFailed(f"{identity.folder} is in use by {_user_of(identity.folder)}")
        pause.wait(0.05)
        registry.sweep()
    return lock


def _user_of(folder: Path) -> str:
    """Return who has the folder, and what to do about it."""
    for entry in registry.entries():
        if entry.data_dir == folder and entry.running:
            if entry.detached:
                return f"a detached broker: LocalBroker.named({folder.name!r}) is it, and `chatlib broker stop` stops it."
            return f"a broker of process {entry.owner}: two brokers cannot share a data_dir. Stop that one, or use another data_dir."
    return "another broker: two brokers cannot share a data_dir. Stop that one, or use another data_dir."


def require_plain(folder: Path) -> None:
    """Raise `BrokerStartFailed` for a path that RabbitMQ cannot work in."""
    bad = FORBIDDEN.search(str(folder))
    if bad:
        raise BrokerStartFailed(
            f"the path {str(folder)!r} holds {bad[0]!r}: RabbitMQ cannot work in a folder whose path has a quote, a control character or "
            "one of * ? ^ ! [ ] { } $ ` \\ in it. Use another data_dir (spaces and letters of every script are fine)."
        )


def _require_disk(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < LEAST_DISK:
        raise BrokerStartFailed(
            f"the disk of {folder} is full: {free / 1e6:.0f} MB free, and below {LEAST_DISK / 1e6:.0f} MB RabbitMQ blocks every "
            "publisher. Free some space, or use a data_dir elsewhere."
        )


@contextlib.contextmanager
def folder_trouble(folder: Path | None) -> Iterator[None]:
    """Turn what the system says about files into an error that says what to do."""
    try:
        yield
    except OSError as error:
        where = folder or Path(tempfile.gettempdir())
        known = diagnosis.advice([error.strerror or str(error)]) or "Use a data_dir that this user can write."
        raise BrokerStartFailed(f"the folder {where} cannot be used: {error}. {known}") from error
