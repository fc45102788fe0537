"""What the nodes of a cluster say, each for itself, by its management API."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from chatlib.brokers.base import Broker
from chatlib.errors import ManagementError, ManagementUnreachable

if TYPE_CHECKING:
    from chatlib.management import Management

__all__ = ["Member", "has_stopped_serving", "queue_at", "seen_by"]

LOOK = 2.0  # seconds for one answer of one node
PATIENT_LOOK = 5.0  # seconds, where a node may have to ask others, one of which is frozen: it gives that up after a second or two


class Member(Broker, Protocol):
    """A broker that is a node of a cluster."""

    @property
    def node_name(self) -> str:
        """Erlang's name of the node."""


def seen_by(node: Member) -> frozenset[str]:
    """The nodes (Erlang's names) that run as far as `node` knows; none, where it does not answer."""
    try:
        found = _asked(node, lambda api: api.get("nodes", columns="name,running"), LOOK)
    except (ManagementUnreachable, ManagementError):
        return frozenset()
    return frozenset(each["name"] for each in found if each.get("running"))


def has_stopped_serving(node: Member) -> bool:
    """Whether it takes no connections, as a node that has paused; one that is only slow has not."""
    import httpx

    try:
        _asked(node, lambda api: api.get("nodes", columns="name"), LOOK)
    except ManagementUnreachable as error:
        return not isinstance(error.__cause__, httpx.TimeoutException)
    except ManagementError:
        return False
    return False


def queue_at(node: Member, name: str) -> Any:
    """What `node` says of a queue, without figures, for which it would ask all others. Raises as `Management`."""
    return _asked(node, lambda api: api.get(api.in_vhost("queues", name), disable_stats="true"), PATIENT_LOOK)


def _asked(node: Member, question: Callable[[Management], Any], timeout: float) -> Any:
    from chatlib.management import Management  # here, because httpx takes a while to import

    with Management(node.management_url, login=node.url, timeout=timeout) as management:
        return question(management)
