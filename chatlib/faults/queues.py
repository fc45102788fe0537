"""Queues that somebody deletes behind everybody's back."""

from __future__ import annotations

from chatlib.brokers.base import Broker
from chatlib.errors import ManagementError
from chatlib.faults.fault import Fault, impossible, instant
from chatlib.faults.operator import api_of
from chatlib.management import Management

__all__ = ["delete_queue"]

NAME = "delete_queue"
NOT_FOUND = 404
SOME = 8  # names of other queues to show


def delete_queue(broker: Broker, name: str) -> Fault:
    """Delete a queue, with what is in it, through the management API; returns when it is gone. There is nothing to heal.

    name: of the queue, such as "inbox.bob". Consumers of it are told (basic.cancel); a chat that consumes it declares it again.
    Raises FaultError if there is no such queue, or without the management API.
    """
    with api_of(NAME, name, broker) as api:
        path = api.in_vhost("queues", name)
        try:
            api.delete(path)
        except ManagementError as error:
            if error.status != NOT_FOUND:
                raise
            raise impossible(NAME, name, f"there is no such queue; there are {_some(api)}") from error
        return instant(NAME, name)  # the answer came after the deed; a chat that consumes may have made another one of that name by now


def _some(api: Management) -> str:
    names = sorted(queue["name"] for queue in api.get(api.in_vhost("queues"), columns="name"))
    return ", ".join(names[:SOME]) + (f" and {len(names) - SOME} more" if len(names) > SOME else "") or "none"
