"""Durable chat for many users and groups over RabbitMQ.

>>> import chatlib
>>> with chatlib.LocalBroker() as broker, chatlib.connect(broker) as chat:   # doctest: +SKIP
...     chat.user("alice").send("@bob", "hello").wait(timeout=5)
"""

import importlib
from typing import TYPE_CHECKING, Any

from chatlib.chat import Chat, connect
from chatlib.checker import check
from chatlib.errors import *  # noqa: F403  every error is public
from chatlib.errors import __all__ as _errors
from chatlib.link import LinkState
from chatlib.received import ReceivedMessage
from chatlib.recorder import Recorder
from chatlib.retry import RetryPolicy
from chatlib.sent import SentMessage, SentState
from chatlib.settings import Settings
from chatlib.user import ChatUser

if TYPE_CHECKING:
    from chatlib import faults
    from chatlib.brokers import DockerBroker, DockerCluster, LocalBroker, LocalCluster, RemoteBroker, default_broker
    from chatlib.monitor import Monitor

__version__ = "0.1.0"

__all__ = [
    "Chat",
    "ChatUser",
    "DockerBroker",
    "DockerCluster",
    "LinkState",
    "LocalBroker",
    "LocalCluster",
    "Monitor",
    "ReceivedMessage",
    "Recorder",
    "RemoteBroker",
    "RetryPolicy",
    "SentMessage",
    "SentState",
    "Settings",
    "check",
    "connect",
    "default_broker",
    "faults",
    *_errors,
]


_LATER = {
    **dict.fromkeys(("DockerBroker", "DockerCluster", "LocalBroker", "LocalCluster", "RemoteBroker", "default_broker"), "chatlib.brokers"),
    "Monitor": "chatlib.monitor",
}


def __getattr__(name: str) -> Any:
    """Brokers, faults and the monitor are loaded when they are asked for: who connects to a URL needs none of them."""
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    if name == "faults":
        return importlib.import_module("chatlib.faults")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER, "faults"})
