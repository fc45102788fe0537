"""Where RabbitMQ and Erlang are on this machine, and what to do where they are not."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chatlib.errors import BrokerNotInstalled

__all__ = ["Installation", "find_installation", "ways_to_get_one"]

SERVER_VARIABLE = "CHATLIB_RABBITMQ_SERVER"
DEBIAN_LIB = Path("/usr/lib/rabbitmq")  # also where the upstream .deb and .rpm put it


@dataclass(frozen=True, slots=True)
class Installation:
    """The programs that make up a RabbitMQ: absolute paths, and the versions as far as the file names tell."""

    server: Path  #: the script that runs a node as whoever calls it (not the wrapper in sbin, which wants root)
    erl: Path  #: Erlang's virtual machine
    epmd: Path  #: Erlang's port mapper daemon
    version: str  #: of RabbitMQ, such as "3.10.8", or "" where the path does not say
    erlang_version: str  #: such as "25.2.3", or ""

    @property
    def search_path(self) -> str:
        """PATH for the broker's processes: its own programs first."""
        own = [str(program.parent) for program in (self.server, self.erl)]
        inherited = [part for part in os.environ.get("PATH", "").split(os.pathsep) if part]
        return os.pathsep.join(dict.fromkeys([*own, *inherited, "/usr/bin", "/bin"]))

    @property
    def home(self) -> Path:
        """The folder with `sbin`, `plugins` and `escript` in it."""
        return self.server.resolve().parent.parent

    def has_plugin(self, name: str) -> bool:
        """Whether this RabbitMQ has a plugin of that name (RabbitMQ itself starts without it and says nothing)."""
        folder = self.home / "plugins"
        return not folder.is_dir() or any(folder.glob(f"{name}-[0-9]*"))

    def tool(self, name: str) -> Path:
        """Return the path of a tool beside the server, such as `rabbitmqctl`."""
        return self.server.parent / name


def find_installation() -> Installation:
    """Return the RabbitMQ of this machine.

    Looked for in this order: $CHATLIB_RABBITMQ_SERVER (the path of a rabbitmq-server script), the folder of the Debian
    package, beside the rabbitmq-server on PATH, the conda environment in use. Raises `BrokerNotInstalled` with what to do.
    """
    if sys.platform == "win32":
        raise BrokerNotInstalled("a LocalBroker needs Linux or macOS.\n" + ways_to_get_one())
    given = os.environ.get(SERVER_VARIABLE)
    if given is not None:
        candidates: Iterator[Path] = iter([Path(given)])
    else:
        candidates = _candidates()
    server = next((path for path in candidates if path.is_file() and os.access(path, os.X_OK)), None)
    if server is None:
        what = f"{SERVER_VARIABLE}={given} is not a program" if given is not None else "RabbitMQ is not installed on this machine"
        raise BrokerNotInstalled(f"{what}.\n{ways_to_get_one()}")
    beside = server.resolve().parent / server.name
    if server.resolve().name != server.name and beside.is_file():
        # conda's and Debian's program on PATH is a wrapper, which runs what lies beside it under the name it is called by
        server = beside
    home = server.resolve().parent.parent
    # Debian's RabbitMQ goes with Debian's Erlang, whatever is first on PATH: the two must fit
    erl = _program("erl", server.parent, _prefix(home) / "bin", *([Path("/usr/bin")] if server.is_relative_to(DEBIAN_LIB) else []))
    if erl is None:
        raise BrokerNotInstalled(
            f"RabbitMQ is there ({server}), but Erlang is missing: no `erl` on PATH ({os.environ.get('PATH', '')!r}) and none beside it.\n"
            f"Put the folder of `erl` on PATH, or install both:\n{ways_to_get_one()}"
        )
    root = erl.resolve().parent.parent  # .../lib/erlang
    epmd = _program("epmd", erl.parent) or next(iter(sorted(root.glob("erts-*/bin/epmd"))), None)
    if epmd is None:
        raise BrokerNotInstalled(f"Erlang is there ({erl}), but its port mapper `epmd` is missing: reinstall Erlang.\n{ways_to_get_one()}")
    return Installation(server, erl, epmd, _rabbitmq_version(home), _erlang_version(root))


def ways_to_get_one() -> str:
    """Return the ways to get a broker on this system, one a line."""
    conda = "conda env create -f environment.yml, then conda activate chatlib   (no root needed; RabbitMQ included)"
    docker = "docker compose up -d, then CHATLIB_BROKER_URL=amqp://...   (or chatlib.DockerBroker() where Docker runs)"
    if sys.platform == "win32":
        apt, conda = "inside WSL2: sudo apt install rabbitmq-server", "inside WSL2: " + conda
    elif sys.platform == "darwin":
        apt = "brew install rabbitmq"
    else:
        apt = "sudo apt install rabbitmq-server   (Debian, Ubuntu; the service need not run)"
    return f"Three ways to get a broker:\n  - {apt}\n  - {conda}\n  - {docker}"


def _candidates() -> Iterator[Path]:
    yield DEBIAN_LIB / "bin" / "rabbitmq-server"
    yield from _versioned(DEBIAN_LIB / "lib")
    on_path = shutil.which("rabbitmq-server")
    if on_path:
        real = Path(on_path).resolve()
        yield from _versioned(real.parent.parent / "lib")
        yield Path(on_path).absolute()
    for prefix in dict.fromkeys(filter(None, [os.environ.get("CONDA_PREFIX"), sys.prefix])):
        yield from _versioned(Path(prefix) / "lib")
        for folder in ("bin", "sbin"):
            yield Path(prefix) / folder / "rabbitmq-server"


def _versioned(lib: Path) -> list[Path]:
    """Return the server scripts of lib/rabbitmq_server-VERSION, newest first."""
    found = lib.glob("rabbitmq_server-*/sbin/rabbitmq-server")
    return sorted(found, key=lambda path: [int(part) for part in re.findall(r"\d+", path.parts[-3])], reverse=True)


def _prefix(home: Path) -> Path:
    """Return the prefix that contains `home` (PREFIX/lib/rabbitmq_server-VERSION), as in a conda environment."""
    return home.parent.parent


def _program(name: str, *folders: Path) -> Path | None:
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    found = shutil.which(name)
    return Path(found).absolute() if found else None


def _rabbitmq_version(home: Path) -> str:
    named = re.search(r"rabbitmq_server-(\d[\w.]*)", home.name)
    if named:
        return named[1]
    for plugin in home.glob("plugins/rabbit-[0-9]*"):
        return plugin.name.removeprefix("rabbit-").removesuffix(".ez")
    return ""


def _erlang_version(root: Path) -> str:
    for file in sorted(root.glob("releases/*/OTP_VERSION"), reverse=True):
        return file.read_text(encoding="utf-8").strip()
    return ""
