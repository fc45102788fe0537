"""TCP ports on loopback: choosing free ones, and telling who holds a taken one."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass

import psutil

from chatlib.errors import BrokerStartFailed

__all__ = ["LOOPBACK", "Ports", "choose_distinct", "choose_ports", "holder", "is_free", "require_free"]

LOOPBACK = "127.0.0.1"
LOWEST, BEYOND = 21_000, 32_000  # above the well-known brokers' ports, below the ephemeral range (Linux: 32768 and up)


@dataclass(frozen=True, slots=True)
class Ports:
    """The four ports of a node, all on loopback. 0 means: choose a free one."""

    amqp: int = 0
    management: int = 0
    dist: int = 0  #: Erlang distribution: how rabbitmqctl and other nodes reach this one
    epmd: int = 0  #: Erlang's port mapper, one of our own so that a system broker's is never touched

    def __post_init__(self) -> None:
        given = [port for port in astuple(self) if port]
        if any(not 0 < port < 65536 for port in given) or len(set(given)) != len(given):
            raise ValueError(f"ports must be four different numbers from 1 to 65535 (0: choose one), not {astuple(self)}")


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of loopback now."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Erlang does: a closed connection's rest does not count
        try:
            trial.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose_ports(wanted: Ports) -> Ports:
    """Return `wanted` with every 0 replaced by a port that is free now.

    Random, so that brokers that start at the same time in several processes hardly ever meet.
    """
    chosen = list(astuple(wanted))
    for index, port in enumerate(chosen):
        if not port:
            chosen[index] = next(free for free in _random_ports() if free not in chosen and is_free(free))
    return Ports(*chosen)


def choose_distinct(count: int, wanted: Ports = Ports()) -> list[Ports]:
    """Return `choose_ports` for so many nodes, without a chosen port in two of them."""
    chosen: list[Ports] = []
    taken: set[int] = set()
    while len(chosen) < count:
        ports = choose_ports(wanted)
        new = set(astuple(ports)) - set(astuple(wanted))
        if not new & taken:
            taken |= new
            chosen.append(ports)
    return chosen


def _random_ports() -> Iterator[int]:
    while True:
        yield random.randrange(LOWEST, BEYOND)


def require_free(ports: Ports) -> None:
    """Raise `BrokerStartFailed` that names the port and its holder if one of them is taken."""
    for field, port in asdict(ports).items():
        if not is_free(port):
            raise BrokerStartFailed(
                f"port {port} (for {field}) of this broker is taken{holder(port)}.\n"
                f"Stop that program, or move the broker: LocalBroker(data_dir, ports=Ports({field}=...)) with a free port, "
                "which the data_dir then keeps."
            )


def holder(port: int) -> str:
    """Return " by process PID (name)" of who listens there, as far as this user may know it, else ""."""
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):  # macOS tells only root
        return ""
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port and connection.pid:
            try:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
            except psutil.Error:
                return f" by process {connection.pid}"
    return ""
