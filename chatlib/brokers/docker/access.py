"""How a containerised broker is reached: ports and password, new, kept with the volume, or read from a container."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from chatlib.brokers.docker.engine import Engine, trouble
from chatlib.brokers.ports import LOOPBACK, Ports, choose_ports
from chatlib.errors import BrokerStartFailed

if TYPE_CHECKING:
    from docker.models.containers import Container

__all__ = ["AMQP", "DATA", "MANAGEMENT", "Access", "Membership"]

HOSTNAME = "broker"  # the node's name and its data folder hang on it: the same for every container that mounts a volume
DATA = "/var/lib/rabbitmq"
AMQP, MANAGEMENT = "5672/tcp", "15672/tcp"
VOLUME_LABEL = "chatlib.broker"  # on the volume: ports and password, so that `url` stays for as long as the data
DEFAULT_USER = "guest"  # RabbitMQ's own, where a container that we did not make sets none


@dataclass(frozen=True, slots=True)
class Membership:
    """What the containers of a cluster have in common, and what each is called among them."""

    network: str  #: on which they find each other
    hostname: str
    user: str
    password: str
    cookie: str  #: lets them trust each other

    def __repr__(self) -> str:
        return f"Membership({self.hostname} on {self.network})"  # never the secrets


@dataclass(frozen=True, slots=True)
class Access:
    """What a containerised broker is called and how it is reached."""

    name: str  #: of the container
    volume: str  #: where its data are: a named volume, or "" where there is none
    user: str
    password: str
    ports: Ports  #: on this machine; `dist` and `epmd` are not published
    hostname: str = HOSTNAME  #: inside
    host: str = LOOPBACK
    vhost: str = "/"

    def __repr__(self) -> str:
        return f"Access({self.name}, {self.host}:{self.ports.amqp})"  # never the password

    @property
    def url(self) -> str:
        """The AMQP address, with credentials."""
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return f"amqp://{login}@{self.host}:{self.ports.amqp}/{quote(self.vhost, safe='')}"

    @property
    def management_url(self) -> str:
        """The root of the management API, without credentials; "" where its port is not published."""
        return f"http://{self.host}:{self.ports.management}" if self.ports.management else ""

    @classmethod
    def new(cls, engine: Engine, name: str, volume: str, ports: Ports | None, member: Membership | None = None) -> Self:
        """Return what is kept with the volume if there is one, else fresh ports and a fresh password (that of the cluster).

        Raises `BrokerStartFailed` where the volume is somebody else's: nobody knows the password of the broker in it.
        """
        from docker.errors import NotFound

        with trouble(f"looking for the volume {volume}"):
            try:
                labels = engine.client.volumes.get(volume).attrs.get("Labels") or {}
            except NotFound:
                chosen = choose_ports(ports or Ports())
                fresh = Ports(chosen.amqp, chosen.management)
                if member is not None:
                    return cls(name, volume, member.user, member.password, fresh, member.hostname)
                return cls(name, volume, f"chat-{secrets.token_hex(3)}", secrets.token_urlsafe(18), fresh)
        try:
            kept = json.loads(labels[VOLUME_LABEL])
            wanted = Ports(
                *((ports and ports.amqp) or kept["amqp"], (ports and ports.management) or kept["management"]),
            )
            return cls(name, volume, str(kept["user"]), str(kept["password"]), wanted)
        except (KeyError, ValueError, TypeError) as error:
            raise BrokerStartFailed(
                f"the volume {volume} was not made by chatlib, so the password of the broker in it is not known.\n"
                f"Choose another volume name, or remove it with its messages: docker volume rm {volume}"
            ) from error

    @classmethod
    def read(cls, container: Container) -> Self:
        """Return how a container that is there is reached. Raises `BrokerStartFailed` if it is no broker that we can reach."""
        config: Mapping[str, Any] = container.attrs["Config"]
        environment = dict(line.partition("=")[::2] for line in config.get("Env") or [])
        host, amqp = _published(container, AMQP)
        if not amqp:
            raise BrokerStartFailed(
                f"the container {container.name} (image {config.get('Image')}) publishes no port for AMQP (5672) on this machine.\n"
                f"Is it a broker? Make it anew with `-p 127.0.0.1:5672:5672`, or choose another name for yours."
            )
        mounts = container.attrs.get("Mounts") or []
        return cls(
            name=str(container.name),
            volume=next((mount["Name"] for mount in mounts if mount.get("Type") == "volume" and mount["Destination"] == DATA), ""),
            user=environment.get("RABBITMQ_DEFAULT_USER", DEFAULT_USER),
            password=environment.get("RABBITMQ_DEFAULT_PASS", DEFAULT_USER),
            ports=Ports(amqp, _published(container, MANAGEMENT)[1]),
            hostname=str(config.get("Hostname", "")),
            host=host,
            vhost=environment.get("RABBITMQ_DEFAULT_VHOST", "/"),
        )

    def labels(self) -> dict[str, str]:
        """Return what is written on the volume."""
        kept = {"user": self.user, "password": self.password, "amqp": self.ports.amqp, "management": self.ports.management}
        return {VOLUME_LABEL: json.dumps(kept)}


def _published(container: Container, port: str) -> tuple[str, int]:
    """Return host and port of this machine at which a port of the container is published, also while it is stopped; 0: it is not."""
    for bindings in (container.attrs["NetworkSettings"].get("Ports") or {}, container.attrs["HostConfig"].get("PortBindings") or {}):
        for binding in bindings.get(port) or []:
            if binding.get("HostPort"):
                host = binding.get("HostIp") or ""
                return LOOPBACK if host in {"", "0.0.0.0", "::"} else host, int(binding["HostPort"])  # noqa: S104  compared, not bound
    return LOOPBACK, 0
