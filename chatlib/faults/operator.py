"""What an operator of the broker can do: by its management API, or by its rabbitmqctl."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol, cast

from chatlib.brokers.base import Broker, BrokerState
from chatlib.errors import ChatError, FaultError
from chatlib.faults.brokers import require_running
from chatlib.faults.fault import impossible, require_kind
from chatlib.management import Management

__all__ = ["HasTools", "api_of", "tools_of"]


class HasTools(Protocol):
    """A broker whose own tools can be run: a LocalBroker, a DockerBroker, a node of a cluster."""

    def rabbitmqctl(self, *args: str, timeout: float = 60.0) -> str:
        """Run `rabbitmqctl ARGS`; what it printed."""


@contextlib.contextmanager
def api_of(name: str, target: str, broker: Broker) -> Iterator[Management]:
    """The broker's management API for the fault `name`. Raises FaultError where it is not there or says no."""
    require_kind(name, target, broker, "management_url", "a broker, such as chatlib.LocalBroker() or chatlib.RemoteBroker(url)")
    try:
        if not broker.management_url:
            raise impossible(
                name, target, "the broker publishes no management API: publish port 15672, with the plugin rabbitmq_management"
            )
        with Management(broker.management_url, login=broker.url) as management:
            yield management
    except FaultError:
        raise
    except ChatError as error:
        raise impossible(name, target, error) from error


def tools_of(name: str, target: str, broker: Broker) -> HasTools:
    """The broker, whose rabbitmqctl can be run now. Raises FaultError where it cannot."""
    require_running(name, broker, target=target)
    if broker.state is BrokerState.FROZEN:
        raise impossible(name, target, "it is frozen and answers nobody; heal that fault first")
    if not callable(getattr(broker, "rabbitmqctl", None)):
        fix = "take one of its nodes, such as cluster.nodes[0]" if hasattr(broker, "nodes") else "use a LocalBroker or a DockerBroker"
        raise impossible(name, target, f"it takes rabbitmqctl, and a {type(broker).__name__} has none: {fix}")
    return cast(HasTools, broker)
