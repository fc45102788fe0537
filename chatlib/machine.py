"""The doctor's checks of the machine: ports, disk, memory, names, Docker. Each changes nothing."""

from __future__ import annotations

import platform
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

import psutil

from chatlib.brokers import registry
from chatlib.requirements import misfits, requirements_of

__all__ = ["Finding", "State", "disk", "docker", "host_name", "ipv6", "memory", "ports", "size", "state_folder"]

State = Literal["ok", "warning", "problem"]

DISK_NEEDED: Final = 50_000_000  # bytes; RabbitMQ's disk_free_limit: below it every publisher is blocked
DISK_WANTED: Final = 1_000_000_000
MEMORY_NEEDED: Final = 300_000_000  # bytes: a node takes 150 MB (measured on 3.10), and as much to work with
MEMORY_WANTED: Final = 1_000_000_000  # with JupyterLab and a kernel
PORTS: Final = {5672: "AMQP", 15672: "management", 4369: "epmd"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. check: its name; found: what there is; fix: what to do, a command where there is one ("" if ok)."""

    check: str
    state: State
    found: str
    fix: str = ""

    def to_dict(self) -> dict[str, str]:
        """The fields, for JSON."""
        return asdict(self)


def ports() -> Finding:
    """Who has RabbitMQ's usual ports. For information: brokers of chatlib choose free ports of their own."""
    holders = {port: _holder(port) for port in PORTS}
    return Finding("ports", "ok", ", ".join(f"{port} ({PORTS[port]}): {holder or 'free'}" for port, holder in holders.items()))


def _holder(port: int) -> str:
    """Who listens on `port`, as far as this user may know; "" if nobody does."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
                return (
                    f"process {connection.pid} ({psutil.Process(connection.pid).name()})" if connection.pid else "a process of another user"
                )
    except (psutil.Error, OSError):  # macOS tells only root
        with socket.socket() as trial:
            return "somebody" if trial.connect_ex(("127.0.0.1", port)) == 0 else ""
    return ""


def disk() -> Finding:
    """Room where brokers keep their data."""
    free = {str(folder): shutil.disk_usage(folder).free for folder in (registry.state_folder(), Path(tempfile.gettempdir()))}
    found = ", ".join(f"{size(count)} free for {folder}" for folder, count in free.items())
    least = min(free.values())
    if least < DISK_NEEDED:
        return Finding("disk", "problem", found, f"free some space: below {size(DISK_NEEDED)} RabbitMQ blocks everybody who sends")
    if least < DISK_WANTED:
        return Finding("disk", "warning", found, "free some space soon: 1 GB is comfortable")
    return Finding("disk", "ok", found)


def memory(available: int | None = None) -> Finding:
    """Memory for a node, and for JupyterLab beside it."""
    free = psutil.virtual_memory().available if available is None else available
    found = f"{size(free)} available"
    if free < MEMORY_NEEDED:
        return Finding("memory", "problem", found, f"close other programs: a broker alone needs {size(MEMORY_NEEDED)}")
    if free < MEMORY_WANTED:
        return Finding("memory", "warning", found, "close other programs: a broker, JupyterLab and a kernel need 1 GB")
    return Finding("memory", "ok", found)


def state_folder() -> Finding:
    """The folder in which later processes find brokers."""
    try:
        return Finding("state folder", "ok", str(registry.state_folder()))
    except OSError as error:
        return Finding("state folder", "problem", str(error), "export XDG_STATE_HOME=/a/folder/that/you/can/write")


def host_name(name: str | None = None, resolve: Callable[[str], list[str]] | None = None) -> Finding:
    """`localhost` and this machine's own name have addresses: the name of an Erlang node hangs on one of them."""
    name, look = platform.node() if name is None else name, resolve or _addresses
    if "127.0.0.1" not in look("localhost"):
        return Finding("host name", "problem", "localhost is not 127.0.0.1", "echo '127.0.0.1 localhost' | sudo tee -a /etc/hosts")
    addresses = look(name) if name else []
    if not addresses:
        return Finding(
            "host name",
            "warning",
            f"localhost is 127.0.0.1, but this machine's name {name!r} has no address: a RabbitMQ service of the system may not start",
            f"echo '127.0.1.1 {name}' | sudo tee -a /etc/hosts",
        )
    return Finding("host name", "ok", f"localhost is 127.0.0.1, {name} is {addresses[0]}")


def ipv6() -> Finding:
    """Whether localhost may also mean ::1, where brokers of chatlib do not listen."""
    named, works = "::1" in _addresses("localhost"), _listens("::1")
    if named and not works:
        return Finding(
            "IPv6",
            "warning",
            "localhost is also ::1, but IPv6 does not work here",
            "write 127.0.0.1 in URLs, or remove '::1 localhost' from /etc/hosts",
        )
    if named:
        return Finding("IPv6", "ok", "localhost is also ::1; brokers of chatlib listen on 127.0.0.1, and their URLs say so")
    return Finding("IPv6", "ok", "localhost is 127.0.0.1 only")


def docker() -> Finding:
    """Docker, for DockerBroker and compose; not needed where RabbitMQ is installed."""
    program = shutil.which("docker")
    if program is None:
        return Finding("Docker", "ok", "not installed; only DockerBroker and docker compose need it")
    try:
        asked = subprocess.run(
            [program, "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True, timeout=10, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding("Docker", "warning", f"client at {program}, the engine does not answer", "sudo systemctl restart docker")
    said = (asked.stderr or asked.stdout).strip().splitlines()
    if asked.returncode:
        why = said[-1] if said else f"exit status {asked.returncode}"
        if "permission denied" in why.lower():
            return Finding(
                "Docker",
                "warning",
                f"client at {program}, and this user may not use the engine",
                "sudo usermod -aG docker $USER, then log in anew",
            )
        return Finding(
            "Docker", "warning", f"client at {program}, no engine: {why}", "sudo systemctl start docker   (or start Docker Desktop)"
        )
    version = asked.stdout.strip()
    if misfits(wanted := requirements_of("docker", None)):
        return Finding(
            "Docker", "warning", f"engine {version}; {'; '.join(misfits(wanted))}, for DockerBroker", "pip install 'chatlib[docker]'"
        )
    return Finding("Docker", "ok", f"engine {version}, client at {program}")


def _addresses(host: str) -> list[str]:
    try:
        return list(dict.fromkeys(str(info[4][0]) for info in socket.getaddrinfo(host, None)))
    except (OSError, UnicodeError):
        return []


def _listens(address: str) -> bool:
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as trial:
            trial.bind((address, 0))
    except OSError:
        return False
    return True


def size(count: float) -> str:
    """Bytes for people: "1.5 GB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
