"""What goes to the broker and what comes from it: a body with its AMQP properties, before and after the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["CONFIRMED", "LOST", "REFUSED", "REJECTED", "RETURNED", "Delivery", "Outgoing", "delivery"]

CONFIRMED = "confirmed"
RETURNED = "returned"
REJECTED = "rejected"  #: nack: a queue did not take it
REFUSED = "refused"  #: this user may not write there, at no attempt
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
    on_outcome: Callable[[Outgoing, str, str], None]  # (this, one of the outcomes above, why), on the I/O thread
    headers: dict[str, Any] | None = None
    content_type: str | None = "application/json"
    user: str = ""
    to: str = ""
    owner: Any = None
    once: bool = False
    silent: bool = False
    settled: bool = False  # set by the publisher: it still stands in line, and must not be written any more


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


def delivery(epoch: int, queue: str, method: Any, properties: Any, body: bytes) -> Delivery:
    """The `Delivery` in what pika hands in: its Basic.Deliver or Basic.GetOk, BasicProperties and bytes."""
    message_id, content_type, headers = _as_text(properties.message_id) or "", _as_text(properties.content_type), properties.headers or {}
    tag, redelivered = method.delivery_tag, method.redelivered
    return Delivery(epoch, tag, queue, body, message_id, headers, redelivered, content_type, properties.timestamp)


def _as_text(value: str | bytes | None) -> str | None:
    """A short string as text that is one again: pika hands out bytes where a foreign client wrote what is not UTF-8."""
    return value.decode(errors="replace").encode()[:255].decode(errors="ignore") if isinstance(value, bytes) else value
