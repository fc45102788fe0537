"""What a broker has and what it is doing, as tidy pandas tables: `Monitor`, a small client of the management API.

::

    with Monitor(broker) as monitor:
        monitor.queues()                       # one row for each queue
        with monitor.sampler(hz=4) as sampler: # depth and rates in the background
            ...
        sampler.frame()

What exists is exact, and so is how many messages are in a classic queue; a quorum queue (retries, and everything on a cluster) reports
now and then, so its depth may be some seconds old (seen on 3.10: 80 for 2 s, when it was empty). Other figures (rates, memory,
consumers) are samples that the broker takes now and then: `LocalBroker` every second, a stock broker every five. So a queue may have
none in its first seconds, and a broker whose metrics are off (RabbitMQ 4 calls them deprecated) has none at all: they are NaN then,
and there are no channels and consumers.
`age` is how old the figures are, in seconds: found out by looking at the broker's clock more than once, so NaN in the first table.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from chatlib.errors import ManagementError
from chatlib.management import Management
from chatlib.tables import Column, flag, found, moment, number, row, table, text

if TYPE_CHECKING:
    from pandas import DataFrame

    from chatlib.sampler import Marked, Sampler

__all__ = ["Freshness", "Monitor", "client_of", "depths_of"]

BAD_REQUEST: Final = 400

Columns = Mapping[str, Column]

QUEUES: Final[Columns] = {
    "queue": text("name"),
    "type": text("type"),
    "durable": flag("durable"),
    "exclusive": flag("exclusive"),
    "state": text("state"),
    "ready": number("ready"),
    "unacked": number("unacked"),
    "consumers": number("consumers"),
    "memory": number("memory"),
    "publish_rate": number("message_stats", "publish_details", "rate"),
    "deliver_rate": number("message_stats", "deliver_get_details", "rate"),
    "ack_rate": number("message_stats", "ack_details", "rate"),
    "node": text("node"),
}
DEPTHS: Final[Columns] = {"ready": number("messages_ready"), "unacked": number("messages_unacknowledged")}
EXCHANGES: Final[Columns] = {
    "exchange": text("name"),
    "type": text("type"),
    "durable": flag("durable"),
    "auto_delete": flag("auto_delete"),
    "internal": flag("internal"),
    "in_rate": number("message_stats", "publish_in_details", "rate"),
    "out_rate": number("message_stats", "publish_out_details", "rate"),
}
BINDINGS: Final[Columns] = {
    "source": text("source"),
    "key": text("routing_key"),
    "destination": text("destination"),
    "destination_type": text("destination_type"),
}
CONNECTIONS: Final[Columns] = {
    "connection": text("name"),
    "client": text("client_properties", "connection_name"),
    "user": text("user"),
    "vhost": text("vhost"),
    "state": text("state"),
    "channels": number("channels"),
    "connected": moment("connected_at"),
    "heartbeat": number("timeout"),
    "in_rate": number("recv_oct_details", "rate"),
    "out_rate": number("send_oct_details", "rate"),
    "node": text("node"),
}
CHANNELS: Final[Columns] = {
    "channel": text("name"),
    "number": number("number"),
    "connection": text("connection_details", "name"),
    "user": text("user"),
    "vhost": text("vhost"),
    "state": text("state"),
    "confirms": flag("confirm"),
    "prefetch": number("prefetch_count"),
    "consumers": number("consumer_count"),
    "unacked": number("messages_unacknowledged"),
    "unconfirmed": number("messages_unconfirmed"),
    "publish_rate": number("message_stats", "publish_details", "rate"),
    "deliver_rate": number("message_stats", "deliver_get_details", "rate"),
    "ack_rate": number("message_stats", "ack_details", "rate"),
}
CONSUMERS: Final[Columns] = {
    "queue": text("queue", "name"),
    "tag": text("consumer_tag"),
    "channel": text("channel_details", "name"),
    "connection": text("channel_details", "connection_name"),
    "ack_required": flag("ack_required"),
    "prefetch": number("prefetch_count"),
    "exclusive": flag("exclusive"),
    "active": flag("active"),
}
NODES: Final[Columns] = {
    "node": text("name"),
    "type": text("type"),
    "running": flag("running"),
    "uptime": number("uptime", scale=0.001),
    "memory": number("mem_used"),
    "memory_limit": number("mem_limit"),
    "memory_alarm": flag("mem_alarm"),
    "disk_free": number("disk_free"),
    "disk_limit": number("disk_free_limit"),
    "disk_alarm": flag("disk_free_alarm"),
    "files": number("fd_used"),
    "sockets": number("sockets_used"),
    "processes": number("proc_used"),
    "run_queue": number("run_queue"),
}
ALARMS: Final[Columns] = {"node": text("node"), "alarm": text("resource")}
RATES: Final[Columns] = {"what": text("what"), "total": number("total"), "rate": number("rate")}
AGE: Final[Columns] = {"age": number("age")}


class HasManagement(Protocol):
    """A broker: the addresses of its AMQP and of its management API."""

    @property
    def url(self) -> str: ...

    @property
    def management_url(self) -> str: ...


def client_of(broker_or_url: HasManagement | str, timeout: float) -> Management:
    """A client of the management API of a broker object, wherever that has it, or at a URL as `Management` takes it.

    timeout: seconds for each request. Raises BrokerStartFailed if the object is closed.
    """
    if isinstance(broker_or_url, str):
        return Management(broker_or_url, timeout=timeout)
    return Management(broker_or_url.management_url, login=broker_or_url.url, timeout=timeout, moved=lambda: broker_or_url.management_url)


def depths_of(management: Management) -> dict[str, dict[str, float]]:
    """How many messages are ready and unacked in each queue of the virtual host: a classic queue is asked at this moment, of a quorum
    queue it is what it reported last.

    These two parameters take the way around the broker's metrics (3.10 and 4.x); who does not know them answers with its last sample.
    """
    asked = {"disable_stats": "true", "enable_queue_totals": "true", "columns": "name,messages_ready,messages_unacknowledged"}
    listed = _dicts(management.get(management.in_vhost("queues"), **asked))
    return {each["name"]: row(each, DEPTHS) for each in listed if "name" in each}


class Freshness:
    """How old a node's figures are, by the clock among them: `uptime`, in milliseconds, is as old as all the others.

    Our clock minus uptime is when the node began, plus the age; its least value so far is the nearest to an age of 0.
    So the age is too small by what the youngest figures were old when they were seen, which shrinks as more are seen.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[Any, float, float]] = {}  # node -> (its process, least value so far, uptime at the last look)
        self.interval = math.nan  #: seconds between two samples of the broker, as last seen

    def look(self, nodes: Iterable[Any]) -> dict[str, float]:
        """Age in seconds by name of the node, of the objects of /api/nodes; NaN at the first look at a node, and after its restart."""
        now, ages = self._clock(), {}
        with self._lock:
            for each in nodes:
                name, milliseconds = found(each, "name"), found(each, "uptime")
                if not isinstance(name, str) or not isinstance(milliseconds, int | float):
                    continue
                uptime, process = milliseconds / 1000, found(each, "os_pid")
                last_process, least, last = self._seen.get(name, (process, math.inf, math.inf))
                if uptime < last or process != last_process:  # never seen, or it was started anew
                    least = math.inf
                elif uptime > last:
                    self.interval = uptime - last
                began = now - uptime
                ages[name] = math.nan if least == math.inf else max(0.0, began - least)
                self._seen[name] = process, min(least, began), uptime
        return ages


class Monitor:
    """Tables about the broker, and about the virtual host in its URL. A context manager; thread-safe.

    broker_or_url: a broker object, an AMQP URL (port 15672 on the same host is asked) or the URL of a management API with user and
    password in it. timeout: seconds for each request.
    Every method raises ManagementUnreachable (no answer), ManagementError (an answer that says no), and ExtraMissing without pandas.
    Every table has all of its columns, whatever the broker left out, and one row for each thing, sorted by its name.
    """

    def __init__(self, broker_or_url: HasManagement | str, *, timeout: float = 5.0) -> None:
        self._broker = broker_or_url
        self.management = client_of(broker_or_url, timeout)
        self.freshness = Freshness()

    def queues(self) -> DataFrame:
        """Queues: messages `ready` and `unacked`; consumers, memory (bytes), messages a second in and out, as old as `age`."""
        depths = depths_of(self.management)
        answers = [each | depths.get(each.get("name", ""), {}) for each in self._list(self.management.in_vhost("queues"))]
        return self._figures("queue", QUEUES, answers)

    def exchanges(self) -> DataFrame:
        """Exchanges, with messages a second in and out, and `age`; the one without a name is the default exchange."""
        return self._figures("exchange", EXCHANGES, self._list(self.management.in_vhost("exchanges")))

    def bindings(self) -> DataFrame:
        """Bindings: messages that come to `source` with `key` go to `destination`. Exact."""
        return self._table("source", BINDINGS, self.management.in_vhost("bindings"))

    def connections(self) -> DataFrame:
        """Connections of all virtual hosts; `client` is what the client calls itself, rates are bytes a second."""
        return self._figures("connection", CONNECTIONS, self._list("connections"))

    def channels(self) -> DataFrame:
        """Channels of all virtual hosts; `connection` is the key of the table of connections."""
        return self._figures("channel", CHANNELS, self._list("channels"))

    def consumers(self) -> DataFrame:
        """Consumers, and the queue that each of them empties. Exact."""
        return self._table("queue", CONSUMERS, self.management.in_vhost("consumers"))

    def nodes(self) -> DataFrame:
        """Nodes of the cluster: memory and disk in bytes, alarms, `uptime` in seconds."""
        answer = self._list("nodes")
        ages = self.freshness.look(answer)
        rows = [{**row(each, NODES), "age": ages.get(each.get("name", ""), math.nan)} for each in answer]
        return table(_sorted(rows, "node"), {**NODES, **AGE})

    def alarms(self) -> DataFrame:
        """The alarms in force now: `memory` or `disk`, and on which node. No row where all is well. Exact."""
        answer = found(self.management.health("alarms"), "alarms")
        rows = [row(each, ALARMS) for each in _dicts(answer)]
        return table(_sorted(rows, "node"), ALARMS)

    def rates(self) -> DataFrame:
        """All messages of the broker: how many since its start and how many a second, by `what` (publish, confirm, ack ...).

        Empty until there was traffic, and where the broker's metrics are off.
        """
        stats = found(self.management.get("overview"), "message_stats")
        named = stats if isinstance(stats, Mapping) else {}
        rows = [
            {
                "what": what,
                "total": float(total),
                "rate": row(named, {"rate": number(f"{what}_details", "rate")})["rate"],
                "age": self._age(),
            }
            for what, total in sorted(named.items())
            if isinstance(total, int | float)
        ]
        return table(rows, {**RATES, **AGE})

    def sampler(
        self, *, queues: Iterable[str] | None = None, hz: float = 4.0, keep: int = 50_000, faults: Sequence[Marked] = ()
    ) -> Sampler:
        """A `Sampler` of depth and rates in the background, not yet started; it has connections of its own. Arguments as there."""
        from chatlib.sampler import Sampler

        return Sampler(self._broker, queues=queues, hz=hz, keep=keep, faults=faults)

    def _table(self, first: str, columns: Columns, path: str) -> DataFrame:
        return table(_sorted([row(each, columns) for each in self._list(path)], first), columns)

    def _figures(self, first: str, columns: Columns, answers: Iterable[Mapping[str, Any]]) -> DataFrame:
        rows, age = [row(each, columns) for each in answers], self._age()
        return table(_sorted([{**each, "age": age} for each in rows], first), {**columns, **AGE})

    def _list(self, path: str) -> list[dict[str, Any]]:
        try:
            return _dicts(self.management.get(path))
        except ManagementError as exc:
            if exc.status == BAD_REQUEST and "disabled" in str(exc):  # "Stats in management UI are disabled on this node"
                return []
            raise

    def _age(self) -> float:
        """The age of the oldest figures of all nodes."""
        ages = self.freshness.look(self._list("nodes")).values()
        return max((age for age in ages if not math.isnan(age)), default=math.nan)

    def close(self) -> None:
        """Close the HTTP connections."""
        self.management.close()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Monitor {self.management.url}>"


def _dicts(answer: Any) -> list[dict[str, Any]]:
    """The objects in an answer that should be a list of objects."""
    return [cast(dict[str, Any], each) for each in answer if isinstance(each, dict)] if isinstance(answer, list) else []


def _sorted(rows: Sequence[dict[str, Any]], first: str) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda each: [str(each[first]), *map(str, each.values())])
