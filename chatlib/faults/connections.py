"""Connections that an operator closes."""

from __future__ import annotations

from chatlib.brokers.base import Broker
from chatlib.chat import Chat
from chatlib.faults.fault import Fault

__all__ = ["close_connections"]


def close_connections(broker: Broker, chat_or_name: Chat | str | None = None) -> Fault:
    """Close connections through the management API, as an operator does; returns when they are gone from it, `count` says how many.

    chat_or_name: a chat, the beginning of the name that clients gave their connections, or None for all of the virtual host.
    A chat comes back by itself (`chat.reconnects` grows), so there is nothing to heal.
    Raises FaultError where no such connection is open, or without the management API.
    """
    raise NotImplementedError
