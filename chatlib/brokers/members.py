"""What every cluster can do, on this machine's processes or in containers: one broker made of several, of which a majority must run."""

from __future__ import annotations

import abc
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event, RLock
from typing import Any, ClassVar, Generic, TypeVar

from chatlib.brokers.base import BrokerState, Startable
from chatlib.brokers.readiness import await_ready
from chatlib.brokers.views import Member, has_stopped_serving, queue_at, seen_by
from chatlib.errors import BrokerStartFailed, BrokerUnavailable, ManagementUnreachable
from chatlib.waiting import until

__all__ = ["BrokerCluster"]

_log = logging.getLogger("chatlib.brokers")

POLL = 0.1  # seconds between two looks
OVERLOOKED = 25.0  # seconds until nodes that do not see each other are helped; one that has paused is back in 3 to 8
FINDING = 60.0  # seconds for them to find each other; who serves nobody then (seen once, on a busy machine) is started anew
LOOK = 2.0  # seconds for one client to connect and declare
UNNOTICED = 5.0  # seconds that a node may be frozen and the others do not give it up: they take 7.5 to 12.5
PAUSING = 20.0  # seconds until a node of a minority has seen that (at most 12.5, see TICK_TIME) and stopped serving (1 or 2)


N = TypeVar("N", bound=Member)


class BrokerCluster(Startable, Generic[N]):
    """Several nodes as one broker. `node` is an index from 0 in all methods; without one they mean all nodes.

    A partition is handled by "pause_minority": who does not see a majority of the nodes stops serving until it does.
    """

    queue_type: ClassVar = "quorum"  #: of inboxes here, see `Settings.queue_type`
    start_timeout: float  #: seconds

    def __init__(self) -> None:
        self._mutex = RLock()
        self._frozen_at: dict[str, float] = {}  # by Erlang's name
        self._apart: list[tuple[frozenset[int], frozenset[int]]] = []  # the partitions that were not healed yet

    # What it is

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """A short name for people."""

    @property
    @abc.abstractmethod
    def nodes(self) -> Sequence[N]:
        """The nodes, each a broker of its own."""

    @property
    def urls(self) -> list[str]:
        """The AMQP addresses of all nodes; they stay the same. `chatlib.connect` takes this list, and the cluster itself."""
        return [node.url for node in self.nodes]

    @property
    def url(self) -> str:
        """The AMQP address of the first node that runs, for whoever takes one address only."""
        return self._first().url

    @property
    def management_url(self) -> str:
        """The root of the management API and pages, at the first node that runs; any of them speaks for the whole cluster."""
        return self._first().management_url

    @property
    def state(self) -> BrokerState:
        """RUNNING: a majority of the nodes does. Else STOPPED: none runs; FROZEN: frozen ones are missing; STARTING."""
        states = [node.state for node in self.nodes]
        most = len(states) // 2 + 1
        if states.count(BrokerState.RUNNING) >= most:
            return BrokerState.RUNNING
        if states.count(BrokerState.STOPPED) == len(states):
            return BrokerState.STOPPED
        if states.count(BrokerState.RUNNING) + states.count(BrokerState.FROZEN) >= most:
            return BrokerState.FROZEN
        return BrokerState.STARTING

    @property
    def is_running(self) -> bool:
        """Whether any node is there, frozen or not."""
        return any(node.is_running for node in self.nodes)

    def leader_of(self, queue: str, timeout: float = 30.0) -> int:
        """The node that leads `queue` (for a classic queue: the only one that has it).

        After the end of a leader the others agree on a new one; this waits for it, for at most `timeout` seconds, then raises
        `BrokerUnavailable`. Raises `ManagementError` where there is no such queue.
        """
        names = [node.node_name for node in self.nodes]
        deadline, pause = time.monotonic() + timeout, Event()
        while True:
            found = self._queue(queue)
            leader = found and (found["leader"] if "leader" in found else found.get("node"))
            if leader in names and self.nodes[names.index(leader)].state is BrokerState.RUNNING:
                return names.index(leader)
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"no node leads {queue!r} ({timeout:g} s): a majority of its members must run and see each other")
            pause.wait(POLL)

    def members_of(self, queue: str) -> list[int]:
        """The nodes that keep `queue`. Raises as `leader_of`."""
        names = [node.node_name for node in self.nodes]
        found = self._queue(queue)
        if found is None:
            raise BrokerUnavailable(f"no node of {self!r} answers: start() it, or heal() it")
        return sorted(names.index(name) for name in found.get("members") or [found.get("node")] if name in names)

    # What can be done with it

    def start(self, node: int | None = None) -> None:
        """Start a node, or thaw it; without `node` all of them, healed. Returns when they serve and all that serve see each other.

        A node that was a member waits for those that went down after it. Raises as a broker's `start`; nothing half-started stays.
        """
        chosen = self._chosen(node)
        with self._mutex:
            self._prepare()
            if node is None:
                self._mend()
        self._bring_up(chosen)  # without the lock: one node may wait for another that is started beside it
        if not self._apart:
            self._await_union()

    def stop(self, node: int | None = None) -> None:
        """Shut down gracefully: clients are told and move on to another node. The data stays."""
        self._each(self._chosen(node), lambda broker: broker.stop())

    def kill(self, node: int | None = None) -> None:
        """SIGKILL, as in a crash; returns when it is gone."""
        self._each(self._chosen(node), lambda broker: broker.kill())

    def restart(self, node: int | None = None) -> None:
        """`stop()` and `start()`; all at once, not one after the other."""
        self.stop(node)
        self.start(node)

    def freeze(self, node: int | None = None) -> None:
        """Take its processor time away: it holds its connections and answers nothing. The others go on without it after some seconds."""
        for broker in (chosen := self._chosen(node)):
            self._frozen_at.setdefault(broker.node_name, time.monotonic())
        self._each(chosen, lambda broker: broker.freeze())

    def thaw(self, node: int | None = None) -> None:
        """Undo `freeze`; returns when it is back among those that serve (where a majority runs), or after a minute without that.

        When the others have given it up they let it in again only after it has seen that it was alone and has stopped serving. Else it
        would find them again at once, "pause_minority" would take no notice, and it would stay apart for good (seen with 3.10).
        """
        chosen = self._chosen(node)
        with self._mutex:
            frozen = [index for index, each in enumerate(self.nodes) if each in chosen and each.state is BrokerState.FROZEN]
            awake = frozenset(range(len(self.nodes))) - frozenset(frozen)
            since = min((self._frozen_at.pop(self.nodes[index].node_name, 0.0) for index in frozen), default=time.monotonic())
            given_up = len(awake) > len(self.nodes) / 2 and time.monotonic() - since > UNNOTICED and not self._apart
            if given_up:
                self._divide([frozen, sorted(awake)])
            self._each(chosen, lambda broker: broker.thaw())
            if given_up:
                self._rejoin([frozen, sorted(awake)])
            if self.state is BrokerState.RUNNING and not self._apart:
                with contextlib.suppress(BrokerStartFailed):
                    self._reunite()

    def partition(self, one: Sequence[int], other: Sequence[int]) -> None:
        """Split the network between two groups of nodes that name each node once: no node of one reaches any of the other.

        The smaller side stops serving as soon as it sees that it is one. Several partitions add up, until `heal`.
        Raises ValueError for other groups, `BrokerUnavailable` where it could not be done.
        """
        sides = frozenset(one), frozenset(other)
        if not all(sides) or sorted([*sides[0], *sides[1]]) != list(range(len(self.nodes))):
            raise ValueError(
                f"a partition puts each node, 0 to {len(self.nodes) - 1}, on one of two sides, not {list(one)} and {list(other)}"
            )
        with self._mutex:
            self._apart.append(sides)
            self._divide(self._parts())

    def heal(self) -> None:
        """Undo every `partition`; returns when all nodes that run serve again and see each other.

        The network is whole again only when the smaller part has stopped serving. One side that has noticed nothing, when the other has
        given it up, would stay apart for good: "pause_minority" looks for nodes that are gone, and finds none (seen with 3.10 and 4.0).
        A node that does not serve again by itself is killed and started. Raises `BrokerUnavailable` if they do not find each other even so.
        """
        with self._mutex:
            self._mend()
            try:
                self._reunite()
            except BrokerStartFailed as error:
                raise BrokerUnavailable(f"the network is whole again, and {error}") from error

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Return when a client can connect to some node and declare; raise `BrokerUnavailable` after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            last = f"{self!r} does not run: start() it"
            for node in self.nodes:
                if node.state is BrokerState.RUNNING:
                    try:
                        await_ready(node.url, min(LOOK, max(0.1, deadline - time.monotonic())))
                        return
                    except BrokerUnavailable as error:
                        last = str(error)
            if time.monotonic() > deadline or not self.is_running:
                raise BrokerUnavailable(last)
            Event().wait(POLL)

    @abc.abstractmethod
    def close(self) -> None:
        """Stop all nodes and give everything up; what is temporary is removed."""

    # How

    @abc.abstractmethod
    def _prepare(self) -> None:
        """Bring up what the nodes need before they can start."""

    @abc.abstractmethod
    def _bring_up(self, chosen: Sequence[N]) -> None:
        """Start these; if one fails, none of them stays half-started."""

    @abc.abstractmethod
    def _divide(self, parts: Sequence[Sequence[int]]) -> None:
        """Cut the network between these parts, which name each node once."""

    @abc.abstractmethod
    def _join(self) -> None:
        """Undo all that `_divide` did."""

    def _parts(self) -> list[list[int]]:
        """Return which nodes are still together, after all partitions."""
        parts: dict[tuple[bool, ...], list[int]] = {}
        for index in range(len(self.nodes)):
            parts.setdefault(tuple(index in one for one, _ in self._apart), []).append(index)
        return list(parts.values())

    def _mend(self) -> None:
        if self._apart:
            self._rejoin(self._parts())
            self._apart.clear()

    def _rejoin(self, parts: Sequence[Sequence[int]]) -> None:
        """Make the network whole, after all nodes that are in no majority have stopped serving."""
        running = [[self.nodes[index] for index in part if self.nodes[index].state is BrokerState.RUNNING] for part in parts]
        lesser = [node for part in running if len(part) <= len(self.nodes) / 2 for node in part]
        until(lambda: all(map(has_stopped_serving, lesser)), PAUSING, POLL)
        self._join()

    def _reunite(self) -> None:
        """Return when all that run see each other. Who stays apart, although nothing is between them, is cut off once more, and noticed;
        who has paused and does not serve again is started anew."""
        with contextlib.suppress(BrokerStartFailed):
            self._await_union(OVERLOOKED)
            return
        views: dict[frozenset[str], list[int]] = {}
        for index, node in enumerate(self.nodes):
            views.setdefault(seen_by(node) if node.state is BrokerState.RUNNING else frozenset(), []).append(index)
        if len(views) > 1:
            parts = list(views.values())
            _log.warning("nodes of %r stay apart: %s", self, parts)
            self._divide(parts)
            self._rejoin(parts)
        try:
            self._await_union(FINDING)
        except BrokerStartFailed as error:
            stuck = [node for node in self._serving() if not seen_by(node)]
            if not stuck:
                raise
            _log.warning("%s: killing and starting those that see none", error)
            self._each(stuck, lambda node: node.kill())
            self._each(stuck, lambda node: node.start())
            self._await_union(FINDING)

    def _first(self) -> N:
        return next((node for node in self.nodes if node.state is BrokerState.RUNNING), self.nodes[0])

    def _chosen(self, node: int | None) -> Sequence[N]:
        if node is None:
            return self.nodes
        if not 0 <= node < len(self.nodes):
            raise ValueError(f"this cluster has the nodes 0 to {len(self.nodes) - 1}, and no node {node}")
        return [self.nodes[node]]

    def _each(self, chosen: Sequence[N], act: Callable[[N], None], undo: Callable[[N], None] | None = None) -> None:
        """Do it with all of these at once. If one fails, or on Ctrl-C, `undo` is done with all; then the error is raised."""
        if len(chosen) == 1 and undo is None:
            act(chosen[0])
            return
        with ThreadPoolExecutor(len(chosen)) as pool:
            try:
                for done in as_completed([pool.submit(act, node) for node in chosen]):
                    done.result()
            except BaseException:
                if undo is not None:
                    for node in chosen:
                        undo(node)
                raise

    def _serving(self) -> list[N]:
        return [node for node in self.nodes if node.state is BrokerState.RUNNING]

    def _queue(self, name: str) -> Any:
        """Return what the first node that answers says of a queue, or None where none does."""
        for node in self._serving():
            with contextlib.suppress(ManagementUnreachable):
                return queue_at(node, name)
        return None

    def _await_union(self, timeout: float = FINDING) -> None:
        """Return when each node that runs serves, and sees all the others. Raises `BrokerStartFailed` after `timeout` seconds."""

        def united() -> bool:
            serving = self._serving()
            wanted = {node.node_name for node in serving}
            return all(seen_by(node) >= wanted for node in serving)

        if not until(united, timeout, POLL):
            seen = "; ".join(f"{node.node_name} sees {', '.join(sorted(seen_by(node))) or 'none'}" for node in self._serving())
            raise BrokerStartFailed(f"the nodes run and did not find each other within {timeout:g} s: {seen}")
