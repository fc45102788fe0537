"""Faults of a whole broker: stopped, killed, frozen."""

from __future__ import annotations

from chatlib.brokers.base import Broker, BrokerState
from chatlib.brokers.remote import RemoteBroker
from chatlib.errors import BrokerUnavailable
from chatlib.faults.fault import Fault, impossible, inflict, require_kind

__all__ = ["freeze", "kill", "require_ours", "require_running", "stop"]

READY = 60.0  # seconds that a thawed broker has to serve again; it takes milliseconds
TARGET = "broker"


def stop(broker: Broker) -> Fault:
    """Shut the broker down gracefully: clients are told. Healed: it is up again, a client can connect and declare.

    Raises FaultError for a broker that does not run or that somebody else runs.
    """
    require_running("stop", broker)
    return inflict("stop", TARGET, broker.stop, seen=lambda: not broker.is_running, heal=broker.start)


def kill(broker: Broker) -> Fault:
    """SIGKILL to the broker, as in a crash. Healed: it is up again, a client can connect and declare. Raises as `stop`."""
    require_running("kill", broker)
    return inflict("kill", TARGET, broker.kill, seen=lambda: not broker.is_running, heal=broker.start)


def freeze(broker: Broker) -> Fault:
    """Take the broker's processor time away: connections hang, and new ones are accepted by the system and never answered.

    Healed: it runs again and serves; one that was stopped or killed meanwhile is left so. Raises as `stop`, and if it is frozen already.
    """
    require_running("freeze", broker)
    if broker.state is BrokerState.FROZEN:
        raise impossible("freeze", TARGET, "it is frozen already: heal that fault, or thaw() it, first")
    return inflict("freeze", TARGET, broker.freeze, seen=lambda: broker.state is BrokerState.FROZEN, heal=lambda: thawed(broker))


def thawed(broker: Broker) -> None:
    """Thaw it and return when it serves, or when it turns out that it does not run."""
    broker.thaw()
    try:
        broker.wait_ready(READY)
    except BrokerUnavailable:
        if broker.is_running:
            raise


def require_ours(name: str, broker: Broker, *, target: str = TARGET) -> None:
    """Raise FaultError for a broker that somebody else runs, and for what is no broker."""
    require_kind(name, target, broker, "is_running", "a broker, such as chatlib.LocalBroker()")
    if isinstance(broker, RemoteBroker):
        why = "it is run by somebody else; use chatlib.LocalBroker() or chatlib.DockerBroker() for what breaks a broker"
        raise impossible(name, target, why)


def require_running(name: str, broker: Broker, *, target: str = TARGET) -> None:
    """Raise FaultError for a broker that somebody else runs, or that does not run."""
    require_ours(name, broker, target=target)
    if not broker.is_running:
        raise impossible(name, target, "it does not run, start() it first")
