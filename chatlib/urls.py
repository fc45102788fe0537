"""URLs of brokers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from chatlib.errors import ChatError, InvalidUrl

__all__ = ["MANAGEMENT", "masked", "urls_of"]

MANAGEMENT: Final = {"amqp": ("http", 15672), "amqps": ("https", 15671)}
"""Where a broker's management API is, by the scheme of its address: RabbitMQ's defaults."""


def masked(url: str) -> str:
    """`url` with its password replaced by ***, fit for logs, errors and screens."""
    return re.sub(r"^(\w+://[^/?#]*?:)[^/?#]*@", r"\1***@", url)  # also of what is no URL otherwise: it must not show either


def urls_of(broker_or_url: object) -> list[str]:
    """The AMQP URLs of a broker object, or those given. Raises InvalidUrl; ChatError where there are none."""
    urls: list[Any]
    if isinstance(broker_or_url, str):
        urls = [broker_or_url]
    elif isinstance(broker_or_url, Sequence):
        urls = list(broker_or_url)
    else:
        urls = list(getattr(broker_or_url, "urls", None) or [getattr(broker_or_url, "url", broker_or_url)])
    for url in urls:
        if not isinstance(url, str) or not url.startswith(("amqp://", "amqps://")):
            raise InvalidUrl(f"a broker's URL begins with amqp:// or amqps://, got {url!r}: pass a broker, a URL or a list of URLs")
        _check(url)
    if not urls:
        raise ChatError("no broker: pass a broker, a URL or a list of URLs")
    return urls


LEAST: Final = {"channel_max": 8, "frame_max": 32_768}
"""What a URL may lower these to. Channels of the connection that consumes: two, one that takes the place of another, and one for each
history or list of dead letters that is being read. A frame must hold the reasons of 20 failures, at 300 characters each."""


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as exc:
        raise InvalidUrl(f"not a URL ({exc}): {masked(url)!r}; amqp://user:password@host:5672/ is one") from None
    for name, values in parse_qs(parts.query).items():
        least = LEAST.get(name, 0)
        if any(re.fullmatch(r"[0-9]{1,9}", value) and int(value) < least for value in values):
            raise InvalidUrl(f"a chat needs a {name} of at least {least:,}: raise it in {masked(url)!r}, or leave it out")
