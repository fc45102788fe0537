"""Brokers behind one small protocol: a private local node, somebody else's broker, and the choice between them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from chatlib.brokers.base import Broker, BrokerState
from chatlib.brokers.cluster import LocalCluster
from chatlib.brokers.installation import Installation, find_installation, ways_to_get_one
from chatlib.brokers.local import DEFAULT_NAME, LocalBroker, running_brokers
from chatlib.brokers.ports import Ports
from chatlib.brokers.remote import RemoteBroker
from chatlib.errors import BrokerNotInstalled, BrokerStartFailed, InvalidUrl
from chatlib.urls import masked

if TYPE_CHECKING:
    from chatlib.brokers.docker import DockerBroker, DockerCluster

__all__ = [
    "DEFAULT_NAME",
    "Broker",
    "BrokerState",
    "DockerBroker",
    "DockerCluster",
    "Installation",
    "LocalBroker",
    "LocalCluster",
    "Ports",
    "RemoteBroker",
    "broker_at",
    "broker_of_environment",
    "default_broker",
    "find_installation",
    "masked",
    "running_brokers",
    "ways_to_get_one",
]

URL_VARIABLE = "CHATLIB_BROKER_URL"
MANAGEMENT_VARIABLE = "CHATLIB_MANAGEMENT_URL"


def broker_of_environment() -> RemoteBroker | None:
    """Return the broker at $CHATLIB_BROKER_URL, its management API at $CHATLIB_MANAGEMENT_URL if that is set; None without the first.

    Raises InvalidUrl for what is no broker's address.
    """
    url = os.environ.get(URL_VARIABLE)
    try:
        return broker_at(url, os.environ.get(MANAGEMENT_VARIABLE)) if url else None
    except InvalidUrl as error:
        raise InvalidUrl(f"${URL_VARIABLE} is {error}") from None


def broker_at(url: str, management_url: str | None = None) -> RemoteBroker:
    """Return the broker at `url`. Its management API is at `management_url`; else where `chatlib broker start` put it, if that is the
    broker; else at the usual port. Raises InvalidUrl.
    """
    ours = () if management_url else running_brokers()
    return RemoteBroker(url, management_url or next((each.management_url for each in ours if each.url == url), None))


def default_broker() -> Broker:
    """Return the broker to use when nobody says which; it may still have to be started (`with` does).

    In this order: the one at $CHATLIB_BROKER_URL; a broker that `chatlib broker start` left running; a private local node;
    a Docker container. Raises `BrokerNotInstalled` with the ways to get one on this system.
    """
    named = broker_of_environment()
    if named is not None:
        return named
    running = running_brokers()
    if running:
        return running[0]
    try:
        find_installation()
    except BrokerNotInstalled as missing:
        try:
            docker = _docker_broker()
        except BrokerStartFailed as refused:
            raise BrokerNotInstalled(f"{missing}\nDocker is here and cannot be used yet: {refused}") from refused
        if docker is None:
            raise
        return docker
    return LocalBroker()


def __getattr__(name: str) -> Any:
    """DockerBroker and DockerCluster are loaded when they are asked for."""
    if name in {"DockerBroker", "DockerCluster"}:
        from chatlib.brokers import docker

        return getattr(docker, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _docker_broker() -> Broker | None:
    """Return a DockerBroker where the docker package is installed and an engine is there; raise `BrokerStartFailed` if it refuses."""
    from chatlib.brokers.docker import DockerBroker

    try:
        return DockerBroker()
    except BrokerNotInstalled:
        return None
