"""What goes to the broker and what comes from it: a body with its AMQP properties, before and after the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["CONFIRMED", "LOST", "REJECTED", "RETURNED", "Delivery", "Outgoing"]

CONFIRMED = "confirmed"
RETURNED = "returned"
REJECTED = "rejected"
LOST = "lost"  #: the connection broke before a confirm; only told of what is not sent again (`Outgoing.once`)


@dataclass(slots=True)
class Outgoing:
    """One publish. `kind` is the AMQP type property, `timestamp` Unix seconds, `user` and `to` are for the log.

    owner: what `on_outcome` wants to know it by, held until then. once: after a loss it is not sent again; its owner hears `LOST` and
    decides. silent: it is nobody's message, and no hop is told.
    """

    exchange: str
    key: str
    body: bytes
    message_id: str
    kind: str
    timestamp: int
    on_outcome: Callable[[Outgoing, str, str], None]  # (this, CONFIRMED | RETURNED | REJECTED | LOST, why), on the I/O thread
    headers: dict[str, Any] | None = None
    content_type: str | None = "application/json"
    user: str = ""
    to: str = ""
    owner: Any = None
    once: bool = False
    silent: bool = False
    lost: bool = False  # set by the publisher: it waits in line, and must not be written any more


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
