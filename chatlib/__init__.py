"""Durable chat for many users and groups over RabbitMQ.

>>> import chatlib
>>> with chatlib.LocalBroker() as broker, chatlib.connect(broker) as chat:   # doctest: +SKIP
...     chat.user("alice").send("@bob", "hello").wait(timeout=5)
"""

from typing import TYPE_CHECKING, Any

from chatlib.brokers import LocalBroker, RemoteBroker, default_broker
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
    from chatlib.brokers import DockerBroker

__version__ = "0.1.0"

__all__ = [
    "Chat",
    "ChatUser",
    "DockerBroker",
    "LinkState",
    "LocalBroker",
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
    *_errors,
]


def __getattr__(name: str) -> Any:
    """DockerBroker is loaded when it is asked for."""
    if name == "DockerBroker":
        from chatlib.brokers import DockerBroker

        return DockerBroker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
