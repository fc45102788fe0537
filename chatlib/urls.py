"""URLs of brokers."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["MANAGEMENT", "masked"]

MANAGEMENT: Final = {"amqp": ("http", 15672), "amqps": ("https", 15671)}
"""Where a broker's management API is, by the scheme of its address: RabbitMQ's defaults."""


def masked(url: str) -> str:
    """`url` with its password replaced by ***, fit for logs, errors and screens."""
    return re.sub(r"^(\w+://[^/?#]*?:)[^/?#]*@", r"\1***@", url)  # also of what is no URL otherwise: it must not show either
