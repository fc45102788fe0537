"""What an exception of pika means, as an error of ours that says what to do.

pika's classes are known by their names here, so that one module only imports pika; a test holds the names against pika.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from chatlib.errors import AccessRefused, BrokerUnavailable, ChatError, QueueDown, TopologyMismatch, UnknownHost
from chatlib.urls import masked

__all__ = ["PIKA_NAMES", "explain", "refused_exchange"]

PIKA_NAMES: Final = (
    "AMQPConnectorStackTimeout",
    "AMQPHeartbeatTimeout",
    "AuthenticationError",
    "ChannelClosedByBroker",
    "ConnectionBlockedTimeout",
    "ConnectionClosedByBroker",
    "ConnectionOpenAborted",
    "ProbableAccessDeniedError",
    "ProbableAuthenticationError",
)
"""Classes of pika's `exceptions` and `connection_workflow` that are told apart here."""


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """`exc` and what pika's connection workflow has wrapped in it, outermost first."""
    yield exc
    inner: list[Any] = list(getattr(exc, "exceptions", ())) + [getattr(exc, "exception", None)] + list(exc.args)
    for cause in inner:
        if isinstance(cause, BaseException):
            yield from _causes(cause)


def explain(exc: BaseException, url: str) -> ChatError:
    """The error of ours that says what `exc` means for somebody who wants to reach `url`, and what to do."""
    where, parts, host = masked(url), urlsplit(url), urlsplit(url).hostname or "localhost"
    vhost = unquote(parts.path[1:]) or "/"
    for cause in _causes(exc):
        name = type(cause).__name__
        if name.startswith("Probable") and not re.search(r"\((403|530)\)", str(cause)):  # pika guesses: the broker said no such thing
            error: ChatError = BrokerUnavailable(
                f"the connection to {where} was cut in the middle of the handshake: the broker is starting or stopping, try again"
            )
        elif name in ("ProbableAuthenticationError", "AuthenticationError") or _code(cause) == 403:
            user = unquote(parts.username or "guest")
            hint = " ('guest' is let in from loopback only)" if user == "guest" else ""
            if name.startswith("ChannelClosed"):
                error = AccessRefused(f"user {user!r} lacks a permission at {where}: {_text(cause)}")
            else:
                error = AccessRefused(
                    f"the broker refused user {user!r} or the password, at {where}{hint}: check the part before '@' in the URL"
                )
        elif name == "ProbableAccessDeniedError" or _code(cause) == 530:
            error = AccessRefused(
                f"no virtual host {vhost!r}, or no permission to it, at {where}: check the path of the URL ('/' is written %2F or left out)"
            )
        elif _code(cause) in (406, 405):
            error = TopologyMismatch(f"{_text(cause)}: delete it, or use the settings that it was declared with")
        elif _code(cause) == 404 and "inaccessible" in _text(cause):
            error = QueueDown(f"not up (yet): {_text(cause)}")
        elif _code(cause) == 404:
            error = ChatError(f"missing on the broker: {_text(cause)}")
        elif isinstance(cause, socket.gaierror):
            error = UnknownHost(f"unknown host {host!r} in {where}: check the spelling")
        elif isinstance(cause, ConnectionRefusedError):
            error = BrokerUnavailable(f"nothing listens at {where}: start the broker (`chatlib broker start`), or check the port")
        elif name in ("AMQPConnectorStackTimeout", "ConnectionOpenAborted") or isinstance(cause, TimeoutError):
            error = BrokerUnavailable(
                f"no AMQP answer from {where} in time: the broker is frozen, still starting, or another service has the port"
            )
        elif name == "ConnectionClosedByBroker":
            error = BrokerUnavailable(f"the broker at {where} closed the connection: {_code(cause)} {_text(cause)}")
        elif name == "NoFreeChannels":
            error = ChatError(
                f"no channel is free on the connection to {where}: let a reading of a history or of the dead letters end first, "
                "or raise channel_max in the URL or on the broker"
            )
        elif name == "AMQPHeartbeatTimeout":
            error = BrokerUnavailable(f"no heartbeat from {where}: the broker is frozen or the network is cut")
        elif name == "ConnectionBlockedTimeout":
            error = BrokerUnavailable(
                f"the broker at {where} blocked publishing for too long: a memory or disk alarm, see `chatlib doctor`"
            )
        else:
            continue
        error.__cause__ = exc
        return error
    error = BrokerUnavailable(f"lost the connection to {where}: {exc!r:.300}")
    error.__cause__ = exc
    return error


def refused_exchange(error: ChatError) -> str | None:
    """The exchange that this user may not write to, where `error` says that and no more."""
    found = re.search(r" access to exchange '([^']+)' in vhost", str(error)) if isinstance(error, AccessRefused) else None
    return found and found[1]


def _code(exc: BaseException) -> int | None:
    code = getattr(exc, "reply_code", None)  # of ConnectionClosed and ChannelClosed
    return code if isinstance(code, int) else None


def _text(exc: BaseException) -> str:
    return str(getattr(exc, "reply_text", exc))
