"""URLs of brokers."""

from __future__ import annotations

from urllib.parse import urlsplit

__all__ = ["masked"]


def masked(url: str) -> str:
    """`url` with its password replaced by ***, fit for logs, errors and screens."""
    password = urlsplit(url).password
    return url if password is None else url.replace(f":{password}@", ":***@", 1)
