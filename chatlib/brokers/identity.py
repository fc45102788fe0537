"""What a private broker is called and where its things are: chosen once, kept in its data folder for all later processes."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import quote

from chatlib.brokers.ports import LOOPBACK, Ports, choose_ports
from chatlib.errors import BrokerStartFailed

__all__ = ["Identity", "create", "load", "load_or_create", "save"]

FILE = "broker.json"
FORMAT = 1
DEFAULT_PLUGINS: Final = ("rabbitmq_management",)


@dataclass(frozen=True, slots=True)
class Identity:
    """A private broker's name, address and secrets. `folder` is its data folder (absolute)."""

    folder: Path
    name: str  #: for people
    node: str  #: Erlang's name of the node, "something@localhost"
    user: str
    password: str
    cookie: str  #: lets rabbitmqctl and cluster peers in
    ports: Ports
    plugins: tuple[str, ...]
    config: tuple[str, ...]  #: lines of rabbitmq.conf beyond our own settings
    peers: tuple[str, ...] = ()  #: all nodes of its cluster, this one too; they share `ports.epmd`, which the cluster runs

    def __repr__(self) -> str:
        return f"Identity({self.node}, {self.folder})"  # never the secrets

    @property
    def url(self) -> str:
        """The AMQP address, with credentials."""
        return f"amqp://{quote(self.user, safe='')}:{quote(self.password, safe='')}@{LOOPBACK}:{self.ports.amqp}/%2F"

    @property
    def management_url(self) -> str:
        """The root of the management API, without credentials."""
        return f"http://{LOOPBACK}:{self.ports.management}"

    @property
    def log_file(self) -> Path:
        """Everything that the node says."""
        return self.folder / "broker.log"

    @property
    def lock_file(self) -> Path:
        """Locked by the node's own process for as long as it lives."""
        return self.folder / "broker.lock"

    @property
    def node_folder(self) -> Path:
        """RabbitMQ's part: database, Erlang cookie, configuration. Also HOME of the node."""
        return self.folder / "rabbitmq"


def load_or_create(
    folder: Path,
    *,
    name: str | None = None,
    ports: Ports | None = None,
    plugins: Iterable[str] | None = None,
    config: Iterable[str] | None = None,
) -> Identity:
    """Return the identity that lives in `folder`, made new where there is none.

    What is given replaces what was kept (the name of a node never changes: its database hangs on it).
    Raises OSError where the folder cannot be used, `BrokerStartFailed` where the kept identity is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = load(folder)
    if kept is None:
        fresh = create(folder, name=name, ports=choose_ports(ports or Ports()), plugins=plugins, config=config)
        return fresh if save(fresh, only_if_new=True) else _loaded(folder)
    wanted = replace(
        kept,
        name=name or kept.name,
        ports=Ports(*(new or old for new, old in zip(asdict(ports or Ports()).values(), asdict(kept.ports).values(), strict=True))),
        plugins=kept.plugins if plugins is None else tuple(plugins),
        config=kept.config if config is None else tuple(config),
    )
    if wanted != kept:
        save(wanted)
    return wanted


def create(
    folder: Path, *, name: str | None, ports: Ports, plugins: Iterable[str] | None = None, config: Iterable[str] | None = None
) -> Identity:
    """Return a new identity, with a name and secrets that no other has; nothing is written."""
    return Identity(
        folder=folder,
        name=name or folder.name,
        node=f"chatlib-{secrets.token_hex(4)}@localhost",
        user=f"chat-{secrets.token_hex(3)}",
        password=secrets.token_urlsafe(18),
        cookie=secrets.token_hex(16).upper(),
        ports=ports,
        plugins=tuple(DEFAULT_PLUGINS if plugins is None else plugins),
        config=tuple(config or ()),
    )


def _loaded(folder: Path) -> Identity:
    found = load(folder)
    if found is None:
        raise BrokerStartFailed(f"{folder / FILE} vanished while it was read: is somebody removing that folder?")
    return found


def load(folder: Path) -> Identity | None:
    """Return the identity that lives in `folder`, or None. Raises `BrokerStartFailed` where it is damaged, or gone from its data."""
    file = folder / FILE
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        if any((folder / "rabbitmq").glob("mnesia/*")):
            raise BrokerStartFailed(
                f"{folder} holds a broker's database but no {FILE}, which has its name, ports and password.\n"
                f"Put {FILE} back, or use another data_dir (or remove {folder / 'rabbitmq'}: its messages are lost then)."
            ) from None
        return None
    try:
        values = json.loads(text)
        if values.pop("format") != FORMAT:
            raise ValueError("another format")
        return Identity(
            folder=folder,
            ports=Ports(**values.pop("ports")),
            plugins=tuple(values.pop("plugins")),
            config=tuple(values.pop("config")),
            peers=tuple(values.pop("peers", ())),
            **values,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokerStartFailed(
            f"{file} is damaged ({error}): it should hold the broker's name, ports and password as JSON.\n"
            "Put a copy back, or use another data_dir."
        ) from error


def save(identity: Identity, *, only_if_new: bool = False) -> bool:
    """Write the identity in one step; False if `only_if_new` and another process was first."""
    values = {key: value for key, value in asdict(identity).items() if key != "folder"} | {"format": FORMAT}
    draft = identity.folder / f"{FILE}.{secrets.token_hex(4)}"
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(values, file, indent=1)
        target = identity.folder / FILE
        if not only_if_new:
            draft.replace(target)
            return True
        try:
            target.hardlink_to(draft)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            draft.replace(target)
        return True
    finally:
        draft.unlink(missing_ok=True)
