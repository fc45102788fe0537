"""The Docker engine: finding it, saying what is wrong with it, and removing what a dead owner left on it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil

from chatlib.brokers.installation import ways_to_get_one
from chatlib.errors import BrokerNotInstalled, BrokerStartFailed

if TYPE_CHECKING:
    from docker import DockerClient

__all__ = ["OWNER_LABEL", "Engine", "owner_label", "trouble"]

OWNER_LABEL = "chatlib.owner"  # on a container and on a temporary volume: the process that they must not outlive
ENGINE_PATIENCE = 60.0  # seconds for one answer of the engine; graceful stops have their own time on top
CLOCK_TOLERANCE = 5.0  # seconds; a process's creation time moves a little when the system clock is set
LOCAL_HOSTS = {"", "localhost", "127.0.0.1", "::1"}
# What the engine says, and what to do next. The first that fits is it.
ADVICE: tuple[tuple[str, str], ...] = (
    (r"no space left", "The engine's disk is full: `docker system df` tells what takes it, `docker system prune` frees some."),
    (r"container name .* is already in use", "Another container has this name: `docker ps -a` shows it; choose another name."),
    (r"permission denied|operation not permitted", "The engine may not do that on this system: see `docker info` and the engine's log."),
    (r"cannot connect|is the docker daemon running", "The engine does not run: sudo systemctl start docker (or start Docker Desktop)."),
    (r"pool overlaps|address pools? .*subnetted", "The engine has no network left to give: `docker network prune` frees those not in use."),
)


class Engine:
    """The Docker engine of this machine, as $DOCKER_HOST or the current `docker context` names it.

    Raises `BrokerNotInstalled` (no docker package, no engine) or `BrokerStartFailed` (not allowed, not on this machine).
    """

    def __init__(self) -> None:
        self._client = _connect()
        self._process = os.getpid()

    @property
    def client(self) -> DockerClient:
        """The SDK's client; in a forked child a new one, since two processes cannot share its connections."""
        if self._process != os.getpid():
            self._client, self._process = _connect(), os.getpid()
        return self._client

    def close(self) -> None:
        """Close the connections to the engine; the next use opens new ones."""
        if self._process == os.getpid():
            self._client.close()

    def sweep(self) -> list[str]:
        """Remove the containers, networks and temporary volumes whose owner died; return their names."""
        swept = []
        with trouble("removing what a dead process left"):
            for container in self.client.containers.list(all=True, filters={"label": OWNER_LABEL}, ignore_removed=True):
                if _owner_is_dead(container.labels.get(OWNER_LABEL, "")) and remove(container):
                    swept.append(str(container.name))  # noqa: PERF401  removing is an effect
            for network in self.client.networks.list(filters={"label": OWNER_LABEL}):
                if _owner_is_dead((network.attrs.get("Labels") or {}).get(OWNER_LABEL, "")) and remove(network):
                    swept.append(str(network.name))  # noqa: PERF401
            for volume in self.client.volumes.list(filters={"label": OWNER_LABEL}):
                if _owner_is_dead((volume.attrs.get("Labels") or {}).get(OWNER_LABEL, "")) and remove(volume):
                    swept.append(str(volume.name))  # noqa: PERF401
        return swept

    def require_image(self, image: str) -> None:
        """Pull `image` if it is not here. Raises `BrokerNotInstalled` where that cannot be."""
        from docker.errors import APIError, ImageNotFound

        with trouble(f"looking for the image {image}"):
            try:
                self.client.images.get(image)
                return
            except ImageNotFound:
                pass
            try:
                repository, _, tag = image.rpartition(":") if ":" in image.rpartition("/")[2] else (image, "", "latest")
                self.client.images.pull(repository, tag=tag)
            except APIError as error:
                here = sorted({tag for found in self.client.images.list() for tag in found.tags if "rabbitmq" in tag})
                others = f"\nOr use one that is here: {', '.join(f'DockerBroker(image={tag!r})' for tag in here)}" if here else ""
                raise BrokerNotInstalled(
                    f"the image {image} is not on this machine and cannot be pulled: {words(error)}\n"
                    f"Check the name, log in or get online and run `docker pull {image}`, or bring it by `docker save` and `docker load`."
                    f"{others}"
                ) from error


@contextlib.contextmanager
def trouble(what: str) -> Iterator[None]:
    """Turn what the SDK raises into `BrokerStartFailed` that says what to do. what: "starting the container" ..."""
    from docker.errors import APIError, DockerException
    from requests import RequestException

    try:
        yield
    except APIError as error:
        said = words(error)
        known = next((text for pattern, text in ADVICE if re.search(pattern, said, re.IGNORECASE)), "")
        raise BrokerStartFailed(f"Docker refused, {what}: {said}" + (f"\n{known}" if known else "")) from error
    except (DockerException, RequestException, OSError) as error:
        raise BrokerStartFailed(
            f"the Docker engine stopped answering, {what}: {_root(error)}\n"
            "Start it again (sudo systemctl start docker, or Docker Desktop), then start() the broker: its volume has the messages."
        ) from error


def words(error: Any) -> str:
    """Return what the engine said, without the address of its API."""
    return str(getattr(error, "explanation", None) or error).strip()


def owner_label() -> str:
    """Return the label that names this process: machine, process id, time of creation."""
    return json.dumps({"machine": _machine(), "pid": os.getpid(), "created": psutil.Process().create_time()})


def remove(thing: Any) -> bool:
    """Remove a container (with SIGKILL), a network or a volume; whether it is gone by that. Another process may have been first."""
    from docker.errors import APIError, NotFound

    try:
        if hasattr(thing, "kill"):
            thing.remove(force=True, v=True)
        elif hasattr(thing, "disconnect"):
            thing.remove()
        else:
            thing.remove(force=True)
    except NotFound:
        return False
    except APIError as error:
        if error.status_code in {403, 409}:  # removal is in progress, or a volume or network is still in use
            return False
        raise
    return True


def _machine() -> str:
    """Name what a process id means something in: the machine, and on Linux the pid namespace (a container has its own)."""
    try:
        return f"{platform.node()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def _owner_is_dead(label: str) -> bool:
    """Whether the label names a process of this machine that is not there any more; in doubt not."""
    try:
        owner = json.loads(label)
        if owner["machine"] != _machine():
            return False
        return abs(psutil.Process(int(owner["pid"])).create_time() - float(owner["created"])) > CLOCK_TOLERANCE
    except psutil.NoSuchProcess:
        return True
    except (ValueError, KeyError, TypeError, psutil.Error):
        return False


def _connect() -> DockerClient:
    try:
        from docker import DockerClient
        from docker.errors import DockerException
        from requests import RequestException
    except ImportError as error:
        message = "a DockerBroker needs the Python package docker: pip install 'chatlib[docker]' (conda: docker-py)"
        raise BrokerNotInstalled(message) from error

    address, tls = _address()
    parts = urlsplit(address)
    if parts.scheme == "ssh" or (parts.scheme in {"tcp", "http", "https"} and (parts.hostname or "") not in LOCAL_HOSTS):
        raise BrokerStartFailed(
            f"the Docker engine at {parts.scheme}://{parts.hostname} is another machine's, and its loopback ports are not ours.\n"
            "Choose the engine of this machine (unset DOCKER_HOST, docker context use default), or run the broker there and name it in "
            "CHATLIB_BROKER_URL."
        )
    try:
        if os.environ.get("DOCKER_HOST"):
            client = DockerClient.from_env(timeout=int(ENGINE_PATIENCE))
        else:
            client = DockerClient(base_url=address, tls=tls, timeout=int(ENGINE_PATIENCE))
        client.ping()
    except (DockerException, RequestException, OSError, ValueError) as error:
        raise _no_engine(address, error) from error
    return client


def _address() -> tuple[str, Any]:
    """Return the engine's address and TLS settings: $DOCKER_HOST, else the current context's, else a rootless engine's."""
    from docker.constants import DEFAULT_UNIX_SOCKET
    from docker.context import ContextAPI
    from docker.errors import DockerException

    given = os.environ.get("DOCKER_HOST")
    if given:
        return given, None
    host, tls = "", None
    with contextlib.suppress(DockerException, OSError, ValueError, KeyError, TypeError, AttributeError):  # a damaged config.json
        context = ContextAPI.get_current_context()
        if context is not None:
            host, tls = str(context.Host or ""), context.TLSConfig
    host = host or DEFAULT_UNIX_SOCKET.replace("http+unix://", "unix://")
    rootless = Path(os.environ.get("XDG_RUNTIME_DIR") or "/nonexistent") / "docker.sock"
    if host.startswith("unix://") and not Path(host.removeprefix("unix://")).exists() and rootless.exists():
        return f"unix://{rootless}", None
    return host, tls


def _no_engine(address: str, error: BaseException) -> BrokerStartFailed:
    """Return the error that says why no engine answers at `address`, and what to do."""
    cause = _root(error)
    named = f"\nDOCKER_HOST={os.environ['DOCKER_HOST']} names it: check or unset it." if os.environ.get("DOCKER_HOST") else ""
    if isinstance(cause, PermissionError):
        return BrokerStartFailed(
            f"there is a Docker engine, and this user may not use it ({address}: {cause.strerror}).\n"
            "sudo usermod -aG docker $USER, then log in again; or use a rootless engine; or do without Docker: chatlib.LocalBroker()."
            + named
        )
    if not isinstance(cause, OSError):
        return BrokerStartFailed(f"the Docker engine at {address} cannot be used: {cause}\n`docker version` tells more.{named}")
    if shutil.which("dockerd") or shutil.which("docker") or isinstance(cause, ConnectionRefusedError):
        start = "start Docker Desktop" if sys.platform in {"darwin", "win32"} else "sudo systemctl start docker (or start Docker Desktop)"
        return BrokerNotInstalled(f"Docker is installed, but its engine does not run ({address}: {cause.strerror}): {start}.{named}")
    return BrokerNotInstalled(f"there is no Docker engine on this machine ({address}: {cause.strerror}).{named}\n{ways_to_get_one()}")


def _root(error: BaseException) -> BaseException:
    """Return the system's error inside what the SDK, requests and urllib3 wrapped around it, or the error itself."""
    seen: set[int] = set()
    queue: list[Any] = [error]
    while queue:
        found = queue.pop(0)
        if id(found) in seen or not isinstance(found, BaseException):
            continue
        seen.add(id(found))
        if isinstance(found, OSError) and found.errno is not None:
            return found
        queue += [*found.args, found.__cause__, found.__context__]
    return error
