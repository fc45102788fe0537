"""Connections that an operator closes."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import quote

from chatlib.brokers.base import Broker
from chatlib.chat import Chat
from chatlib.errors import ManagementError
from chatlib.faults.fault import Fault, impossible, instant
from chatlib.faults.operator import api_of
from chatlib.management import Management
from chatlib.waiting import until

__all__ = ["close_connections"]

NAME = "close_connections"
LISTED = 12.0  # seconds until a new connection is listed: one statistics interval, 1 s with our brokers, 5 s on a stock one
GONE = 12.0  # seconds until a closed one is not listed any more
GOING = (404, 500)  # what the API answers about a connection that is gone, or goes while it is asked for
REASON = "closed by an operator (chatlib.faults)"


def close_connections(broker: Broker, chat_or_name: Chat | str | None = None) -> Fault:
    """Close connections through the management API, as an operator does; returns when they are gone from it, `count` says how many.

    chat_or_name: a chat, the beginning of the name that clients gave their connections, or None for all of the virtual host.
    A chat comes back by itself (`chat.reconnects` grows), so there is nothing to heal.
    A connection is listed up to a statistics interval after it was opened (1 s with our brokers, 5 s on a stock one). For a chat this
    waits until both of its connections are; of others, those that are not listed yet are spared.
    Raises FaultError where no such connection is open, or without the management API.
    """
    target, expected, wanted = _chosen(chat_or_name)
    with api_of(NAME, target, broker) as api:
        until(lambda: len(_listed(api, wanted)) >= expected, LISTED)
        found = _listed(api, wanted)
        for key in found:
            _close(api, key)
        at = time.time()
        if not found:
            raise impossible(NAME, target, f"none was listed within {LISTED:g} s; is the client connected to this broker?")
        if not until(lambda: not found & _listed(api, wanted), GONE):
            raise impossible(NAME, target, f"the broker still lists some {GONE:g} s after they were closed; is it overloaded?")
        return instant(NAME, target, count=len(found), at=at)


def _chosen(chat_or_name: Chat | str | None) -> tuple[str, int, Callable[[str], bool]]:
    """What to call it, how many connections there must be, and which names they have."""
    if isinstance(chat_or_name, Chat):
        name = chat_or_name.name
        return f"connections of {name}", 2, {f"{name} publish", f"{name} consume"}.__contains__
    if chat_or_name is None:
        return "all connections", 1, lambda _: True
    return f"connections of {chat_or_name}", 1, lambda name: name.startswith(chat_or_name)


def _listed(api: Management, wanted: Callable[[str], bool]) -> set[str]:
    """The API's keys of those connections whose name, as given by the client, is wanted."""
    listed = api.get(api.in_vhost("vhosts") + "/connections")
    return {each["name"] for each in listed if wanted(each.get("client_properties", {}).get("connection_name", ""))}


def _close(api: Management, key: str) -> None:
    try:
        api.delete(f"connections/{quote(key, safe='')}", reason=REASON)
    except ManagementError as error:
        if error.status not in GOING:  # a chat lets go of its other connection itself, when one is closed
            raise
