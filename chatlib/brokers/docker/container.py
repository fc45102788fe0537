"""The container of a broker: finding, making, launching it, and why it ended."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from chatlib.brokers import diagnosis
from chatlib.brokers.docker.access import AMQP, DATA, MANAGEMENT, Access, Membership
from chatlib.brokers.docker.engine import OWNER_LABEL, Engine, owner_label, trouble, words
from chatlib.brokers.node import RETRIED_AFTER
from chatlib.brokers.ports import LOOPBACK, holder, is_free
from chatlib.errors import BrokerStartFailed, BrokerUnavailable

if TYPE_CHECKING:
    from docker.models.containers import Container

__all__ = ["command_in", "create", "failure", "find", "launch", "log_of", "require_volume_free"]

TAKEN = ("port is already allocated", "address already in use", "failed to bind")


def find(engine: Engine, name: str) -> Container | None:
    """Return the container of that name in its present state, or None."""
    from docker.errors import NotFound

    with trouble(f"looking for the container {name}"):
        try:
            return engine.client.containers.get(name)
        except NotFound:
            return None


def require_volume_free(engine: Engine, access: Access) -> None:
    """Raise `BrokerStartFailed` if another container runs on the volume: two brokers on one database destroy it."""
    if not access.volume:
        return
    with trouble(f"looking for who uses the volume {access.volume}"):
        users = engine.client.containers.list(filters={"volume": access.volume}, ignore_removed=True)  # the running ones
    for user in users:
        if user.name != access.name:
            raise BrokerStartFailed(
                f"the volume {access.volume} is in use by the container {user.name}: DockerBroker(name={user.name!r}) is that broker; "
                "stop it, or use another volume."
            )


def create(
    engine: Engine,
    access: Access,
    image: str,
    *,
    config: Iterable[str],
    owned: bool,
    temporary: bool,
    fresh: bool,
    member: Membership | None = None,
) -> Container:
    """Make the container, and the volume where there is none; nothing runs yet.

    owned: it must not outlive this process. temporary: the volume must not either.
    fresh: whether the volume may be made; if it was there before and is not, its messages are lost and that is an error.
    """
    from docker.errors import APIError, NotFound
    from docker.types import Mount

    engine.require_image(image)
    with trouble(f"making the container {access.name}"):
        try:
            engine.client.volumes.get(access.volume)
        except NotFound:
            if not fresh:
                raise BrokerStartFailed(
                    f"somebody removed the volume {access.volume} with the broker's messages: make a new DockerBroker()"
                ) from None
            engine.client.volumes.create(access.volume, labels=access.labels() | ({OWNER_LABEL: owner_label()} if temporary else {}))
        container = engine.client.containers.create(
            image,
            name=access.name,
            hostname=access.hostname,
            environment={
                "RABBITMQ_DEFAULT_USER": access.user,
                "RABBITMQ_DEFAULT_PASS": access.password,
                # rabbitmq.conf has no line for it
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-rabbit dead_letter_worker_publisher_confirm_timeout {RETRIED_AFTER}",
            }
            | ({"RABBITMQ_ERLANG_COOKIE": member.cookie} if member is not None else {}),
            network=member.network if member is not None else None,
            ports={AMQP: (LOOPBACK, access.ports.amqp), MANAGEMENT: (LOOPBACK, access.ports.management)},
            mounts=[Mount(DATA, access.volume)],
            labels={OWNER_LABEL: owner_label()} if owned else {},
            # A crash of the process inside brings it back; `docker kill` and `docker stop` count as meant and do not.
            restart_policy={"Name": "on-failure", "MaximumRetryCount": 0},
            detach=True,
        )
        try:
            # management's numbers are a second old at most (default 5 s), as with a LocalBroker
            lines = ["collect_statistics_interval = 1000", *config]
            container.put_archive("/etc/rabbitmq", _archive("conf.d/20-chatlib.conf", "\n".join(lines) + "\n"))
        except APIError:
            container.remove(force=True)
            raise
    return container


def launch(container: Container, access: Access) -> None:
    """Start a container that does not run. Raises `BrokerStartFailed`, for a taken port with its holder."""
    from docker.errors import APIError

    with trouble(f"starting the container {access.name}"):
        try:
            container.start()
        except APIError as error:
            if not any(text in words(error).lower() for text in TAKEN):
                raise
            taken = [port for port in (access.ports.amqp, access.ports.management) if port and not is_free(port)]
            who = ", ".join(f"port {port} is taken{holder(port)}" for port in taken) or words(error)
            raise BrokerStartFailed(
                f"the broker's container {access.name} cannot have its ports: {who}.\n"
                "Stop that program or container, or choose other ports: DockerBroker(ports=Ports(amqp=...)) with a free one below 32768."
            ) from error


def log_of(container: Container, **options: Any) -> str:
    """Return what the container has said; options: `tail`, `since` of the SDK."""
    with trouble("reading the container's log"):
        return bytes(container.logs(**options)).decode("utf-8", "replace")


def command_in(container: Container, *command: str) -> str:
    """Run a command in the container as RabbitMQ's user and return what it printed; `BrokerUnavailable` with that if it fails."""
    with trouble(f"running {command[0]} in the container"):
        code, said = container.exec_run(list(command), user="rabbitmq")
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else ""
    if code:
        raise BrokerUnavailable(f"{' '.join(command)} failed ({code}): {text.strip()}")
    return text


def failure(what: str, container: Container, began: int) -> BrokerStartFailed:
    """Return the error for a start that failed: what happened, what to do, and the log lines since `began` (Unix time) that tell."""
    lines = [line.rstrip() for line in log_of(container, since=began, tail=400).splitlines() if line.strip()]
    return BrokerStartFailed(f"{what}. {diagnosis.advice(lines)}".rstrip(), diagnosis.telling_lines(lines))


def _archive(name: str, text: str) -> bytes:
    """Return a tar archive with one file that everybody in the container may read."""
    data, buffer = text.encode(), io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        folder = tarfile.TarInfo(name.rpartition("/")[0])
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(folder)
        file = tarfile.TarInfo(name)
        file.size, file.mode = len(data), 0o644
        archive.addfile(file, io.BytesIO(data))
    return buffer.getvalue()
