"""LocalBroker: a private RabbitMQ node as an object, without root and without Docker."""

from __future__ import annotations

import os
import re
import sys
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from chatlib.brokers import diagnosis, registry
from chatlib.brokers.base import BrokerState, Startable
from chatlib.brokers.installation import find_installation
from chatlib.brokers.keeper import Keeper
from chatlib.brokers.node import run_tool
from chatlib.brokers.ports import Ports, is_free
from chatlib.brokers.process import OurProcess
from chatlib.brokers.readiness import await_ready
from chatlib.errors import AccessRefused, BrokerUnavailable, InvalidName
from chatlib.urls import masked
from chatlib.waiting import seconds

__all__ = ["DEFAULT_NAME", "LocalBroker", "running_brokers"]

DEFAULT_NAME = "default"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
STOP_PATIENCE = 30.0  # seconds from SIGTERM to SIGKILL; 3.10.8 takes 6, of which its management agent waits 5


class LocalBroker(Startable):
    """A private RabbitMQ node, run as an ordinary process of this user; several can run at once, beside a system broker.

    data_dir: where the broker lives. None: a temporary folder that is removed by `close()` or when Python ends; else the
        data survives `kill()`, `stop()` and the death of Python, and so do the ports and the password: `url` stays the same.
    name: for people; by default the folder's name.
    ports: fixed ports instead of free ones, `Ports(amqp=5673)`; what is 0 is chosen.
    plugins: by default the management plugin; others by their names.
    config: more lines of rabbitmq.conf, such as "vm_memory_high_watermark.relative = 0.1".
    detached: the broker outlives this process and nobody stops it but `stop()` or `kill()`, from any process; see `named`.
    start_timeout: seconds that `start()` waits for a node that neither serves nor dies.

    Whoever starts a broker owns it: keep the object. When the object is collected or its process ends, in whatever way,
    the broker ends (a detached one does not). `close()`, or the end of `with`, is the graceful way.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        name: str | None = None,
        ports: Ports | None = None,
        plugins: Iterable[str] | None = None,
        config: Iterable[str] | None = None,
        detached: bool = False,
        start_timeout: float = 60.0,
    ) -> None:
        if data_dir is None and detached:
            raise ValueError("a detached broker needs a data_dir, or a name: LocalBroker.named()")
        folder = None if data_dir is None else Path(data_dir).expanduser().absolute()
        self._name = name or (folder.name if folder is not None else "temporary")
        self._keeper = Keeper(folder, name=name, detached=detached, ports=ports, plugins=plugins, config=config)
        self._start_timeout = seconds(start_timeout, "start_timeout")
        self._finalizer = weakref.finalize(self, self._keeper.abandon)  # when this object is collected, and at exit

    @classmethod
    def named(cls, name: str = DEFAULT_NAME, **options: Any) -> Self:
        """Return the detached broker of that name, running or not; its data is kept in the user's state folder.

        It is the one of `chatlib broker start`. `options` are those of the class. Raises `InvalidName`.
        """
        if not NAME.fullmatch(name):
            raise InvalidName(
                f"a broker's name has 1 to 40 letters (a-z), digits, '_' or '-' and begins with a letter or digit, not {name!r}"
            )
        return cls(registry.state_folder() / "brokers" / name, name=name, detached=True, **options)

    # What it is

    @property
    def name(self) -> str:
        """A short name for people."""
        return self._name

    @property
    def url(self) -> str:
        """The AMQP address with user and password; stays the same through restarts, and for a data_dir for good."""
        return self._keeper.identity.url

    @property
    def management_url(self) -> str:
        """The root of the management API and pages; log in as in `url`."""
        return self._keeper.identity.management_url

    @property
    def data_dir(self) -> Path:
        """The folder with everything that is this broker's."""
        return self._keeper.identity.folder

    @property
    def ports(self) -> Ports:
        """All on loopback."""
        return self._keeper.identity.ports

    @property
    def node_name(self) -> str:
        """Erlang's name of the node, for rabbitmqctl and for clusters."""
        return self._keeper.identity.node

    @property
    def detached(self) -> bool:
        """Whether it outlives this process."""
        return self._keeper.detached

    @property
    def log_file(self) -> Path:
        """The file with all that the node says."""
        return self._keeper.identity.log_file

    @property
    def state(self) -> BrokerState:
        """Where it is now."""
        node, ready = self._keeper.node()
        if node is None:
            return BrokerState.STOPPED
        if node.frozen:
            return BrokerState.FROZEN
        return BrokerState.RUNNING if ready else BrokerState.STARTING

    @property
    def is_running(self) -> bool:
        """Whether the node's process is there, frozen or not."""
        return self._keeper.node()[0] is not None

    @property
    def pid(self) -> int | None:
        """The process of the node (Erlang's virtual machine), or None."""
        node, _ = self._keeper.node()
        return None if node is None else node.pid

    def status(self) -> Mapping[str, Any]:
        """Return what a program would want to know, ready for JSON. `url` holds the password."""
        return {
            "name": self.name,
            "state": self.state.value,
            "pid": self.pid,
            "url": self.url,
            "management_url": self.management_url,
            "node": self.node_name,
            "data_dir": str(self.data_dir),
            "log_file": str(self.log_file),
            "detached": self.detached,
        }

    def log_lines(self, count: int = 50) -> list[str]:
        """Return the last `count` lines of the node's log, oldest first."""
        return diagnosis.log_since(self.log_file, 0)[-count:] if count > 0 else []

    # What can be done with it

    def start(self) -> None:
        """Start the node, or thaw it if it is frozen; returns when a client can connect and declare.

        Raises `BrokerNotInstalled` (no RabbitMQ, no Erlang: with the ways to get them) or `BrokerStartFailed` (folder not
        usable or in use, port taken, disk full ...) with the node's own log lines, as soon as the node has ended.
        """
        with self._keeper.mutex:
            running, _ = self._keeper.node()
            node = running or self._keeper.launch()
        if running is not None:
            running.thaw()
        try:
            self._await_start(node)
        except BaseException:
            # also on Ctrl-C: nothing half-started stays behind; but not what another thread has started after this one was killed
            with self._keeper.mutex:
                if self._keeper.starting and self._keeper.node()[0] in (node, None):
                    self._keeper.end_processes()
            raise
        self._keeper.mark_ready()

    def stop(self) -> None:
        """Stop it gracefully: SIGTERM, and SIGKILL after 30 s. The data stays (a temporary folder until `close()`)."""
        self._keeper.end_processes(STOP_PATIENCE)

    def kill(self) -> None:
        """SIGKILL to the node, as in a crash; returns when it is gone."""
        self._keeper.end_processes()

    def restart(self) -> None:
        """`stop()` and `start()`."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP to the node: connections hang, and even new ones are accepted (by the system) and never answered.

        Raises `BrokerUnavailable` if it does not run.
        """
        node, _ = self._keeper.node()
        if node is None:
            raise BrokerUnavailable(f"{self!r} does not run, so it cannot be frozen: start() it first")
        node.freeze()

    def thaw(self) -> None:
        """SIGCONT: undo `freeze()`; nothing happens in any other state."""
        node, _ = self._keeper.node()
        if node is not None:
            node.thaw()

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Return when a client can connect and declare.

        Raises `BrokerUnavailable` at once if the node does not run or is frozen, else after `timeout` seconds.
        """
        await_ready(self.url, timeout, self._require_usable)

    def rabbitmqctl(self, *args: str, timeout: float = 60.0) -> str:
        """Run `rabbitmqctl ARGS` against this node (seconds: it starts a virtual machine); return what it printed.

        Raises `BrokerUnavailable` if the broker does not run, and with its output if it fails.
        """
        identity = self._keeper.identity
        if not self.is_running and is_free(identity.ports.amqp):  # it may be another process that runs it
            raise BrokerUnavailable(f"{self!r} does not run, so it cannot be asked: start() it first")
        return run_tool(identity, find_installation(), "rabbitmqctl", *args, timeout=timeout)

    def close(self) -> None:
        """Stop it and give everything up; a temporary folder is removed. A detached broker is left running."""
        if not self.detached:
            self._keeper.close(STOP_PATIENCE)

    def __repr__(self) -> str:
        known = self._keeper.known
        address = "no address yet" if known is None else masked(known.url)
        return f"<LocalBroker {self.name} {address}{' detached' if self.detached else ''}>"

    # How

    def _await_start(self, node: OurProcess) -> None:
        def check() -> None:
            if not node.alive:
                code = node.exit_code
                how = "" if code is None else f" (killed by signal {-code})" if code < 0 else f" (exit status {code})"
                raise self._keeper.failure(f"RabbitMQ ended while it started{how}")

        try:
            await_ready(self.url, self._start_timeout, check)
        except AccessRefused:
            raise
        except BrokerUnavailable as error:
            raise self._keeper.failure(f"RabbitMQ runs but did not become usable: {error}") from error

    def _require_usable(self) -> None:
        state = self.state
        if state is BrokerState.STOPPED:
            raise BrokerUnavailable(f"{self!r} does not run: start() it")
        if state is BrokerState.FROZEN:
            raise BrokerUnavailable(f"{self!r} is frozen: thaw() it")


def running_brokers() -> list[LocalBroker]:
    """Return the detached brokers of this user that run now, the one named "default" first."""
    if sys.platform == "win32":
        return []
    found = [
        LocalBroker(entry.data_dir, name=entry.data_dir.name, detached=True)
        for entry in registry.entries()
        if entry.detached and entry.running
    ]
    return sorted(found, key=lambda broker: (broker.name != DEFAULT_NAME, broker.name))
