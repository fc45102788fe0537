"""URLs of brokers."""

from __future__ import annotations

import re

__all__ = ["masked"]


def masked(url: str) -> str:
    """`url` with its password replaced by ***, fit for logs, errors and screens."""
    return re.sub(r"^(\w+://[^/?#]*?:)[^/?#]*@", r"\1***@", url)  # also of what is no URL otherwise: it must not show either
