"""Faults on purpose, on the real system: each in one line, each healed for certain.

::

    from chatlib import faults

    fault = faults.kill(broker)            # returns when it has happened
    fault.heal()                           # returns when the broker is up again
    with faults.memory_alarm(broker):      # healed at the end, whatever happens inside
        ...

    with faults.Path(broker) as path, chatlib.connect(path) as chat:     # a network of one's own, to be broken
        with faults.cut(path):
            ...

What cannot be done where it is asked for raises FaultError, with what to do instead. Nothing here waits without an end.
"""

from chatlib.errors import FaultError
from chatlib.faults.alarms import disk_alarm, memory_alarm
from chatlib.faults.brokers import freeze, kill, stop
from chatlib.faults.cluster import node_down, node_frozen, partition
from chatlib.faults.connections import close_connections
from chatlib.faults.fault import Fault, recording
from chatlib.faults.path import Path, black_hole, cut, delay, half_open, throttle
from chatlib.faults.processes import kill_process
from chatlib.faults.queues import delete_queue

__all__ = [
    "Fault",
    "FaultError",
    "Path",
    "black_hole",
    "close_connections",
    "cut",
    "delay",
    "delete_queue",
    "disk_alarm",
    "freeze",
    "half_open",
    "kill",
    "kill_process",
    "memory_alarm",
    "node_down",
    "node_frozen",
    "partition",
    "recording",
    "stop",
    "throttle",
]
