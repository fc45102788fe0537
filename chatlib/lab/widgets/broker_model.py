"""What a broker panel knows and does: how the broker and each of its nodes is, what happened to it, and the faults it makes. No widget.

::

    model = BrokerModel(broker)
    model.look()                      # a few times a second; never waits for a frozen or absent broker for long
    if model.begin("broker", "kill"): # False: it makes no sense now, or something is under way
        model.run("broker", "kill")   # in a thread: a start takes seconds
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from chatlib import faults
from chatlib.brokers.base import Broker, BrokerState
from chatlib.brokers.remote import RemoteBroker
from chatlib.errors import ChatError
from chatlib.events import FAULT_BEGAN, Event
from chatlib.faults.alarms import memory_cleared
from chatlib.faults.brokers import thawed
from chatlib.faults.fault import Fault, inflict, recording
from chatlib.management import Management
from chatlib.tables import found

__all__ = ["ALARM", "WHOLE", "BrokerModel", "Note", "Part", "allowed"]

WHOLE: Final = "broker"  #: the key of the broker itself; a node's is its index, "0", "1" ...
ALARM: Final = "alarm"  #: a state beside those of a broker: it runs and takes nothing from publishers
STOPPED_SAID: Final = "down"  # to people; a process that was killed was not stopped
NO_MAJORITY: Final = "no majority"  # of a cluster that is said to be starting: too few of its nodes serve
KEPT: Final = 200  # notes
LOOK: Final = 1.0  # seconds for one answer about alarms
ALARMS: Final = 1.5  # seconds between two questions about alarms
REMOTE: Final = 5.0  # seconds between two looks at a broker elsewhere: each is a connection

DOWN_FAULTS: Final = ("kill", "stop", "node_down")
FREEZES: Final = ("freeze", "node_frozen")
ALLOWED: Final = {
    "stopped": frozenset({"start"}),
    "starting": frozenset({"stop", "kill"}),
    "running": frozenset({"stop", "restart", "kill", "freeze", "alarm_on"}),
    ALARM: frozenset({"stop", "restart", "kill", "freeze", "alarm_off"}),
    "frozen": frozenset({"thaw", "kill"}),
}


@dataclass(frozen=True, slots=True)
class Note:
    """One line of the log. kind: "did" (from the panel), "failed", "seen" (a state that changed otherwise) or "fault" (made elsewhere)."""

    number: int
    at: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Part:
    """The broker, or a node of a cluster. state: a value of `BrokerState`, or `ALARM`. since: Unix seconds. busy: the action under way."""

    key: str
    name: str
    state: str = ""
    alarms: tuple[str, ...] = ()
    since: float = 0.0
    busy: str = ""
    can: frozenset[str] = field(default_factory=frozenset)


def allowed(part: Part, nodes: tuple[Part, ...], *, busy: bool) -> frozenset[str]:
    """What makes sense now. nodes: of a cluster, if `part` is one. busy: whether something is under way that concerns it."""
    if busy:
        return frozenset()
    if not nodes:
        return ALLOWED.get(part.state, frozenset())
    states = {node.state for node in nodes}
    running = bool(states & {"running", ALARM})
    can = {
        "start": bool(states & {"stopped", "frozen"}),
        "stop": running and "frozen" not in states,
        "restart": states <= {"running", ALARM},
        "kill": states != {"stopped"},
        "freeze": states <= {"running", ALARM},
        "thaw": "frozen" in states,
    }
    return frozenset(action for action, sense in can.items() if sense)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


class BrokerModel:
    """Thread-safe. Close it at the end: it listens to faults."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.is_remote = isinstance(broker, RemoteBroker)
        self._lock = threading.RLock()
        self._looking = threading.Lock()
        self._notes: deque[Note] = deque(maxlen=KEPT)
        self._count = 0
        self._parts: dict[str, Part] = {WHOLE: Part(WHOLE, "cluster" if hasattr(type(broker), "nodes") else "broker")}
        self._nodes: tuple[Any, ...] = ()
        self._done = 0  # actions
        self._faults: dict[str, list[Fault]] = {}
        self._begun: dict[str, float] = {}  # faults made elsewhere, by what is said of them
        self._acting: set[int] = set()  # threads that do what the panel was asked for: their faults are told as actions
        self._clients: dict[str, Management] = {}
        self._next: dict[str, float] = {}
        self._resources = contextlib.ExitStack()
        self._resources.enter_context(recording(self._heard))

    # ---- what there is ---------------------------------------------------------------------------------------------------------

    @property
    def parts(self) -> tuple[Part, ...]:
        """The broker and then its nodes, as last seen, with what can be done now."""
        with self._lock:
            whole, *nodes = self._parts.values()
            any_busy = any(part.busy for part in self._parts.values())
            found = [replace(whole, can=frozenset() if self.is_remote else allowed(whole, tuple(nodes), busy=any_busy))]
            found += [replace(node, can=allowed(node, (), busy=bool(node.busy or whole.busy))) for node in nodes]
            return tuple(found)

    @property
    def notes(self) -> list[Note]:
        """What happened, oldest first."""
        with self._lock:
            return list(self._notes)

    def look(self) -> None:
        """See how everything is; a change that the panel did not make is noted."""
        if not self._looking.acquire(blocking=False):
            return  # another thread is at it
        try:
            if self.is_remote and not self._due(WHOLE, REMOTE):
                return
            self._see_nodes()
            for key in list(self._parts):
                self._see(key)
            self._see_alarms()
        finally:
            self._looking.release()

    def _see_nodes(self) -> None:
        if self._nodes or not hasattr(type(self.broker), "nodes"):
            return
        try:
            nodes = tuple(getattr(self.broker, "nodes"))  # noqa: B009  a Broker has none, a cluster does
        except ChatError as error:
            self._say("failed", _first_line(error))
            return
        with self._lock:
            self._nodes = nodes
            self._parts |= {str(index): Part(str(index), f"node {index}") for index in range(len(nodes))}

    def _see(self, key: str) -> None:
        before = self._done
        state = self._of(key).state.value  # outside the lock: it may ask an engine
        with self._lock:
            if self._done != before:
                return  # something was done meanwhile: this is how it was before
            part = self._parts[key]
            self._update(part, state, part.alarms if state == BrokerState.RUNNING.value else ())

    def _see_alarms(self) -> None:
        running = next((key for key in reversed(self._parts) if self._parts[key].state in (BrokerState.RUNNING.value, ALARM)), None)
        if running is None or not self._due("alarms", ALARMS):
            return
        broker, before = self._of(running), self._done
        try:
            url = broker.management_url
            if url not in self._clients:
                self._clients[url] = Management(url, login=broker.url, timeout=LOOK)
            listed = found(self._clients[url].health("alarms"), "alarms")
        except ChatError:
            return  # it was going down, or has no management API: nothing is known
        alarms: dict[str, set[str]] = {}
        for each in listed if isinstance(listed, list) else []:
            alarms.setdefault(str(found(each, "node")), set()).add(str(found(each, "resource") or "unknown"))
        with self._lock:
            if self._done != before:
                return  # an alarm was raised or cleared meanwhile
            for key, part in list(self._parts.items()):
                name = getattr(self._of(key), "node_name", None)
                its = alarms.get(name, set()) if name else set().union(*alarms.values())
                if part.state in (BrokerState.RUNNING.value, ALARM):
                    self._update(part, BrokerState.RUNNING.value, tuple(sorted(its)))

    def _update(self, part: Part, state: str, alarms: tuple[str, ...]) -> None:
        """Under the lock."""
        shown = ALARM if alarms and state == BrokerState.RUNNING.value else state
        if shown == part.state and alarms == part.alarms:
            return
        quiet = not part.state or part.busy or self._parts[WHOLE].busy
        self._parts[part.key] = replace(part, state=shown, alarms=alarms, since=time.time() if shown != part.state else part.since)
        if not quiet and shown != part.state:
            words = {BrokerState.STOPPED.value: STOPPED_SAID}
            if part.key == WHOLE and self._nodes:
                words[BrokerState.STARTING.value] = NO_MAJORITY
            was, is_now = (words.get(state, state) for state in (part.state, shown))
            self._say("seen", f"{part.name}: {was} → {is_now}" + (f" ({', '.join(alarms)})" if alarms else ""))

    def _due(self, what: str, period: float) -> bool:
        now = time.monotonic()
        if now < self._next.get(what, 0.0):
            return False
        self._next[what] = now + period
        return True

    def _of(self, key: str) -> Broker:
        broker: Broker = self.broker if key == WHOLE else self._nodes[int(key)]
        return broker

    # ---- what can be done ------------------------------------------------------------------------------------------------------

    def begin(self, key: str, action: str) -> bool:
        """Ask for an action: True if it makes sense now, and then `run` has to follow. The second of two clicks gets False."""
        with self._lock:
            part = next((part for part in self.parts if part.key == key), None)
            if part is None or action not in part.can:
                return False
            self._parts[key] = replace(self._parts[key], busy=action)
            return True

    def run(self, key: str, action: str) -> None:
        """Do what was begun, and note how it went. Raises ChatError or OSError if it could not be done."""
        began, name = time.monotonic(), self._parts[key].name
        verb = action.replace("alarm_on", "raise a memory alarm").replace("alarm_off", "clear the memory alarm")
        what = verb if len(self._parts) == 1 else f"{verb}, {name}"
        self._acting.add(threading.get_ident())
        try:
            self._act(key, action)
        except (ChatError, OSError) as error:
            self._say("failed", f"{what}: {_first_line(error)}")
            raise
        else:
            self._say("did", f"{what}: done after {time.monotonic() - began:.1f} s")
        finally:
            self._acting.discard(threading.get_ident())
            with self._lock:
                self._done += 1
            with contextlib.suppress(ChatError, OSError):
                for each in self._parts if key == WHOLE else (key,):
                    self._see(each)
            with self._lock:
                self._parts[key] = replace(self._parts[key], busy="")

    @property
    def has_faults(self) -> bool:
        """Whether something that this panel did is not healed yet."""
        with self._lock:
            return any(self._faults.values())

    def settle(self) -> None:
        """End the faults of this panel whose effect somebody else has ended: a broker that was killed here and started in a cell."""
        for key, part in list(self._parts.items()):
            if part.busy or self._parts[WHOLE].busy or not self._faults.get(key):
                continue
            brokers = self._nodes if key == WHOLE and self._nodes else (self._of(key),)
            states = {broker.state for broker in brokers}  # asked anew: a heal on what was seen before a kill would undo the kill
            if states == {BrokerState.RUNNING}:
                self._heal(key, *DOWN_FAULTS, *FREEZES)
            elif states == {BrokerState.STOPPED}:
                self._heal(key, *FREEZES, "memory_alarm")

    def _act(self, key: str, action: str) -> None:
        broker, cluster, node = self._of(key), self.broker, None if key == WHOLE else int(key)
        doing: dict[str, Callable[[], Fault]]
        if node is None:
            doing = {"kill": lambda: faults.kill(broker), "stop": lambda: faults.stop(broker), "freeze": lambda: faults.freeze(broker)}
        else:
            of: Any = cluster
            doing = {
                "kill": lambda: faults.node_down(of, node),
                "stop": lambda: inflict(
                    "stop", f"node {node}", lambda: of.stop(node), seen=lambda: not broker.is_running, heal=lambda: of.start(node)
                ),
                "freeze": lambda: faults.node_frozen(of, node),
            }
        match action:
            case "kill" | "stop" | "freeze":
                self._keep(key, doing[action]())
            case "restart":
                self._keep(key, doing["stop"]())
                self._heal(key, *DOWN_FAULTS)
            case "start" if not self._heal(key, *DOWN_FAULTS):
                broker.start() if node is None else of.start(node)
            case "thaw" if not self._heal(key, *FREEZES):
                thawed(broker) if node is None else of.thaw(node)
            case "alarm_on":
                self._keep(key, faults.memory_alarm(broker))
            case "alarm_off" if not self._heal(key, "memory_alarm"):
                memory_cleared(broker)
        if action in ("kill", "stop", "restart"):
            self._heal(key, *FREEZES, "memory_alarm")  # it forgot them
        if action in ("alarm_on", "alarm_off"):
            with self._lock:
                self._update(self._parts[key], BrokerState.RUNNING.value, ("memory",) if action == "alarm_on" else ())

    def _keep(self, key: str, fault: Fault) -> None:
        with self._lock:
            self._faults.setdefault(key, []).append(fault)

    def _heal(self, key: str, *names: str) -> bool:
        """Heal what this panel did to `key`, of these names; whether there was any."""
        with self._lock:
            ours = [fault for fault in self._faults.get(key, ()) if fault.name in names]
        for fault in reversed(ours):
            fault.heal()
            with self._lock:
                self._faults[key] = [other for other in self._faults[key] if other is not fault]
        return bool(ours)

    # ---- the log ---------------------------------------------------------------------------------------------------------------

    def _heard(self, event: Event) -> None:
        """A fault began or ended, in whatever thread."""
        if threading.get_ident() in self._acting:
            return
        what = str(event["name"]).replace("_", " ") + (f" of {event['target']}" if event["target"] else "")
        if event["hop"] == FAULT_BEGAN:
            self._begun[what] = event["at"]
            self._say("fault", what)
        elif event["at"] != self._begun.get(what):  # what leaves nothing to heal is over as soon as it begins
            self._say("fault", f"{what} is over")

    def _say(self, kind: str, text: str) -> None:
        with self._lock:
            self._count += 1
            self._notes.append(Note(self._count, time.time(), kind, text))

    def close(self) -> None:
        """Listen no more. The broker stays as it is."""
        self._resources.close()
        for client in self._clients.values():
            client.close()
