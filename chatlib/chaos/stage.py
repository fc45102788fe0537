"""Where a chaos run is played: a broker or a cluster, a path of its own for each process, and how each fault is brought about."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from chatlib import faults
from chatlib.chaos.schedule import NODES, Step
from chatlib.faults import Fault, Path

__all__ = ["Stage"]


class Stage:
    """A started broker with paths. A context manager; it ends what it started, nothing else.

    kind: "local", "docker" or "cluster". broker: one that is there already and runs (a LocalBroker, DockerBroker or LocalCluster);
    None: one of its own. roles: the names of the processes. Raises ChatError where there is no such broker.
    """

    def __init__(self, kind: str, roles: Iterable[str], broker: Any = None) -> None:
        self._roles = list(roles)
        self._own = broker is None
        self.broker: Any = _make(kind) if broker is None else broker
        self.paths: dict[str, list[Path]] = {}
        self._exits = contextlib.ExitStack()

    def __enter__(self) -> Stage:
        try:
            if self._own:
                self._exits.enter_context(self.broker)
            for role in self._roles:
                self.paths[role] = [self._exits.enter_context(Path(node)) for node in self.nodes]
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._exits.close()

    @property
    def nodes(self) -> list[Any]:
        """The brokers of a cluster, or the only one."""
        return list(getattr(self.broker, "nodes", None) or [self.broker])

    @property
    def one(self) -> Any:
        """A broker that runs now, to be asked."""
        return next((node for node in self.nodes if node.is_running), self.nodes[0])

    def urls(self, role: str) -> list[str]:
        """The addresses for one process."""
        return [path.url for path in self.paths[role]]

    def inflict(self, step: Step, kill: Callable[[str], Fault]) -> list[Fault]:
        """Bring it about: one fault, or one for each path of a process. kill: SIGKILL to the process of that name.

        Raises FaultError.
        """
        match step.fault:
            case "kill_sender" | "kill_receiver":
                return [kill(step.target)]
            case "stop" | "kill" | "freeze" | "memory_alarm" | "disk_alarm":
                return [getattr(faults, step.fault)(self.broker)]
            case "node_down" | "node_frozen":
                return [getattr(faults, step.fault)(self.broker, _number(step.target))]
            case "partition":
                node = _number(step.target)
                return [faults.partition(self.broker, [node], [other for other in range(NODES) if other != node])]
            case "close_connections":
                return [faults.close_connections(self.one, f"chaos {step.target} ")]
            case "delete_queue":
                return [faults.delete_queue(self.one, step.target)]
        return self._on_paths(step)

    def _on_paths(self, step: Step) -> list[Fault]:
        act = getattr(faults, step.fault)
        amount = [] if step.amount is None else [step.amount]
        with contextlib.ExitStack() as healing:
            done = [healing.enter_context(act(path, *amount)) for path in self.paths[step.target]]
            healing.pop_all()  # all of them happened
        return done


def _number(target: str) -> int:
    return int(target.removeprefix("node "))


def _make(kind: str) -> Any:
    if kind == "local":
        from chatlib.brokers import LocalBroker

        return LocalBroker()
    if kind == "docker":
        from chatlib.brokers import DockerBroker

        return DockerBroker()
    from chatlib.brokers.cluster import LocalCluster

    return LocalCluster(NODES)
