"""Alarms: a broker that is short of memory or disk space stops everybody who publishes, and nobody who consumes.

The limit is moved, not the memory filled: RabbitMQ compares what it uses with `vm_memory_high_watermark`, and what the disk has left
with `disk_free_limit`, both of which its own tool sets while it runs (rabbitmqctl set_vm_memory_high_watermark, set_disk_free_limit).
The former limit is kept inside the node, so that it comes back exactly, even if the answer to us was lost. A restart brings back the
configured one anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

from chatlib.brokers.base import Broker, BrokerState
from chatlib.errors import BrokerUnavailable, FaultError
from chatlib.faults.fault import Fault, impossible, inflict
from chatlib.faults.operator import HasTools, tools_of

__all__ = ["disk_alarm", "memory_alarm", "memory_cleared"]

TARGET = "broker"
ANSWER = 60.0  # seconds for rabbitmqctl, which starts a virtual machine: 1.5 s on an idle machine, many times that on a busy one
READY = 60.0  # seconds for a broker that is just starting

# Erlang for `rabbitmqctl eval`, one call for all of it. rabbitmqctl's own commands call the same functions. The words in capitals
# are filled in. What it says: done, late (not within 8 s; it takes milliseconds) or already.
WATCH = """
Raised = fun() -> lists:any(fun({{resource_limit, RESOURCE, Node}, _}) -> Node =:= node(); (_) -> false end,
                            rabbit_alarm:get_alarms()) end,
Await = fun Again(_, 0) -> late;
            Again(Wanted, Left) -> case Raised() of Wanted -> done; _ -> timer:sleep(100), Again(Wanted, Left - 1) end end,
"""
RAISE = """
case Raised() of
    true -> already;
    false -> application:set_env(chatlib, former_RESOURCE, GET()), ok = SET(LIMIT), Await(true, 80)
end."""
CLEAR = """
case application:get_env(chatlib, former_RESOURCE) of
    {ok, Former} -> ok = SET(Former), application:unset_env(chatlib, former_RESOURCE);
    undefined -> ok
end,
Await(false, 80)."""


@dataclass(frozen=True, slots=True)
class _Alarm:
    """name: of the fault; resource: what RabbitMQ calls it; get, set: its functions for the limit; limit: one that nothing keeps."""

    name: str
    resource: str
    get: str
    set: str
    limit: str

    def told(self, tools: HasTools, what: str) -> str:
        """Run a piece of Erlang on the node; what it said."""
        code = WATCH + what
        for word, text in {"RESOURCE": self.resource, "GET": self.get, "SET": self.set, "LIMIT": self.limit}.items():
            code = code.replace(word, text)
        return tools.rabbitmqctl("eval", code, timeout=ANSWER).strip()


MEMORY = _Alarm(
    "memory_alarm",
    "memory",
    get="vm_memory_monitor:get_vm_memory_high_watermark",
    set="vm_memory_monitor:set_vm_memory_high_watermark",
    limit="0",
)
DISK = _Alarm(
    "disk_alarm",
    "disk",
    get="rabbit_disk_monitor:get_disk_free_limit",
    set="rabbit_disk_monitor:set_disk_free_limit",
    limit="1 bsl 62",
)


def memory_alarm(broker: Broker) -> Fault:
    """Make the broker believe that it is out of memory; returns when the alarm is raised. Healed: former limit, alarm cleared.

    It takes seconds, since rabbitmqctl does. Raises FaultError for a broker that does not run, is frozen, has this alarm already, or is
    run by somebody else.
    """
    return _raise(MEMORY, broker)


def disk_alarm(broker: Broker) -> Fault:
    """Make the broker believe that its disk is full; returns when the alarm is raised. Healed and raises as `memory_alarm`."""
    return _raise(DISK, broker)


def memory_cleared(broker: Broker) -> None:
    """Undo a `memory_alarm` whose Fault is not at hand: the former limit is known to the node. Raises FaultError as `heal` does."""
    _clear(MEMORY, broker, tools_of(MEMORY.name, TARGET, broker))


def _raise(alarm: _Alarm, broker: Broker) -> Fault:
    tools = tools_of(alarm.name, TARGET, broker)
    ours = True

    def act() -> None:
        nonlocal ours
        answer = alarm.told(tools, RAISE)
        ours = answer != "already"
        if not ours:
            raise impossible(alarm.name, TARGET, f"it has a {alarm.resource} alarm already: heal that one, or restart it, first")
        if answer != "done":
            raise impossible(alarm.name, TARGET, f"its limit was moved and no alarm came ({answer}); it was put back. See the broker's log")

    def heal() -> None:
        if ours:
            _clear(alarm, broker, tools)

    return inflict(alarm.name, TARGET, act, seen=lambda: True, heal=heal)


def _clear(alarm: _Alarm, broker: Broker, tools: HasTools) -> None:
    """Put the former limit back. A broker that ended meanwhile has forgotten ours."""
    try:
        answer = _told_running(alarm, broker, tools)
    except BrokerUnavailable:
        if broker.is_running:
            raise
        return
    if answer == "late":
        raise FaultError(
            f"the former limit is back, and the {alarm.resource} alarm stays: it really is short of it. Free some, then heal() again"
        )


def _told_running(alarm: _Alarm, broker: Broker, tools: HasTools) -> str:
    if broker.state is BrokerState.FROZEN:
        raise FaultError(f"the {alarm.resource} alarm cannot be cleared while the broker is frozen: thaw() it, then heal() again")
    try:
        return alarm.told(tools, CLEAR)
    except BrokerUnavailable:  # it is just starting again, or gone
        broker.wait_ready(READY)
        return alarm.told(tools, CLEAR)
