"""What goes to the broker and what comes from it: a body with its AMQP properties, before and after the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["CONFIRMED", "REJECTED", "RETURNED", "Delivery", "Outgoing"]

CONFIRMED = "confirmed"
RETURNED = "returned"
REJECTED = "rejected"


@dataclass(slots=True)
class Outgoing:
    """One publish. `kind` is the AMQP type property, `timestamp` Unix seconds, `user` and `to` are for the log."""

    exchange: str
    key: str
    body: bytes
    message_id: str
    kind: str
    timestamp: int
    on_outcome: Callable[[Outgoing, str, str], None]  # (this, CONFIRMED | RETURNED | REJECTED, why), on the I/O thread
    headers: dict[str, Any] | None = None
    content_type: str | None = "application/json"
    user: str = ""
    to: str = ""


@dataclass(slots=True, eq=False)
class Delivery:
    """One message handed out by the broker. `epoch` counts connections: an ack only means something within its own."""

    epoch: int
    tag: int
    queue: str
    body: bytes
    message_id: str
    headers: Mapping[str, Any]
    redelivered: bool
    content_type: str | None
    timestamp: int | None
