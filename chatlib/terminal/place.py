"""Where a terminal chat happens: which broker, and in which folder what was typed survives."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from chatlib.brokers import Broker, LocalBroker, RemoteBroker, broker_at, default_broker
from chatlib.brokers.base import BrokerState
from chatlib.errors import BrokerNotInstalled, BrokerStartFailed

if TYPE_CHECKING:
    from chatlib.chat import HasUrl

__all__ = ["broker_name", "data_folder", "find_broker"]


def find_broker(url: str | None, tell: Callable[[str], None], *, management: str | None = None) -> HasUrl:
    """The broker at `url`, or with None the one that every terminal of this user finds; started if need be, which `tell` is told.

    management: the root of its management API, where that is not on the usual port of the same host.
    Raises InvalidUrl, BrokerStartFailed, BrokerNotInstalled, BrokerUnavailable.
    """
    if url is not None:
        return broker_at(url, management)
    try:
        broker = default_broker()
    except BrokerNotInstalled as error:
        raise BrokerNotInstalled(f"{error}\nOr say which broker to use: --broker amqp://user:password@host:5672/") from None
    if isinstance(broker, RemoteBroker):
        return broker_at(broker.url, management) if management else broker
    if isinstance(broker, LocalBroker):
        return _shared(broker, tell)
    raise BrokerNotInstalled(
        "no broker runs that other terminals would find, and no RabbitMQ is installed here to start one; but there is Docker:\n"
        "`docker compose up -d --wait broker` starts one, then export CHATLIB_BROKER_URL=amqp://chatlib:chatlib@127.0.0.1:5672/"
    )


def _shared(broker: LocalBroker, tell: Callable[[str], None]) -> LocalBroker:
    """A broker of this process alone would be no place to meet: the one that outlives it, and that others find."""
    if not broker.detached:
        broker = LocalBroker.named()
    if broker.state is BrokerState.STARTING:
        broker.wait_ready()
    elif not broker.is_running:
        _start(broker, tell)
    return broker


def _start(broker: Broker, tell: Callable[[str], None]) -> None:
    tell("no broker runs: starting one that stays, for all terminals of yours (some seconds) ...")
    try:
        broker.start()
    except BrokerStartFailed:
        # Two terminals opened at the same time: the other one was first.
        if not broker.is_running:
            raise
        broker.wait_ready()
    tell("the broker runs, also after this terminal is closed; `chatlib broker stop` stops it")


def broker_name(url: str) -> str:
    """A broker for people: "127.0.0.1:5672", without user and password."""
    parts = urlsplit(url)
    host = parts.hostname or "localhost"
    return f"{f'[{host}]' if ':' in host else host}:{parts.port or (5671 if parts.scheme == 'amqps' else 5672)}"


def data_folder(url: str, user: str) -> Path:
    """The folder of `user` on the broker at `url`: its own for each, in the user's state folder.

    The AMQP user is part of it, since that of a private broker is its own: another broker on the same port is another place.
    Names keep apart by a digest, since some file systems hold Bob and bob for one, and names may be longer than theirs.
    """
    from chatlib.brokers.registry import state_folder

    parts = urlsplit(url)
    place = f"{parts.username or 'guest'}@{broker_name(url)}{parts.path or '/'}"
    return state_folder() / "terminals" / _folder(place) / _folder(user)


def _folder(name: str) -> str:
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    readable = "".join(character if character.isascii() and character.isalnum() else "-" for character in name)
    return f"{readable[:40].strip('-') or 'name'}-{digest}"
