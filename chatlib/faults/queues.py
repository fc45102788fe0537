"""Queues that somebody deletes behind everybody's back."""

from __future__ import annotations

from chatlib.brokers.base import Broker
from chatlib.faults.fault import Fault

__all__ = ["delete_queue"]


def delete_queue(broker: Broker, name: str) -> Fault:
    """Delete a queue, with what is in it, through the management API; returns when it is gone. There is nothing to heal.

    name: of the queue, such as "inbox.bob". Raises FaultError if there is no such queue, or without the management API.
    """
    raise NotImplementedError
