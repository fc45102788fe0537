"""Alarms: a broker that is short of memory or disk space stops everybody who publishes, and nobody who consumes."""

from __future__ import annotations

from chatlib.brokers.base import Broker
from chatlib.faults.fault import Fault

__all__ = ["disk_alarm", "memory_alarm"]


def memory_alarm(broker: Broker) -> Fault:
    """Make the broker believe that it is out of memory; returns when the alarm is raised. Healed: former limit, alarm cleared.

    Raises FaultError for a broker that does not run, is frozen, has this alarm already or is run by somebody else.
    """
    raise NotImplementedError


def disk_alarm(broker: Broker) -> Fault:
    """Make the broker believe that its disk is full; returns when the alarm is raised. Healed and raises as `memory_alarm`."""
    raise NotImplementedError
