"""One service of a docker-compose.yml: finding its container, bringing it up, taking it down again."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from chatlib.brokers.docker.engine import Engine, trouble
from chatlib.errors import BrokerNotInstalled, BrokerStartFailed

if TYPE_CHECKING:
    from docker.models.containers import Container

__all__ = ["ComposeService"]

FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")  # in Compose's own order
UP_PATIENCE = 600.0  # seconds; the image may have to be pulled
DOWN_PATIENCE = 120.0
LABEL = "com.docker.compose."


class ComposeService:
    """The service `service` of a Compose file; file: by default the first in this folder and those above, then chatlib's own."""

    def __init__(self, file: Path | None = None, service: str = "broker", project: str | None = None) -> None:
        self.file = _find_file() if file is None else file.expanduser().resolve()
        if not self.file.is_file():
            raise BrokerStartFailed(f"there is no Compose file {self.file}: name one, DockerBroker.from_compose('docker-compose.yml')")
        self.service = service
        self.project = project
        self.brought_up = False  #: by us, so that `down()` has something to do
        self._alone = False

    def container(self, engine: Engine) -> Container | None:
        """Return the service's container, a running one first, or None."""
        found = self._containers(engine, f"{LABEL}service={self.service}")
        return min(found, key=lambda container: container.status != "running", default=None)

    def up(self, engine: Engine) -> None:
        """`docker compose up -d SERVICE`. Raises `BrokerNotInstalled` (no Compose) or `BrokerStartFailed` with what it said."""
        self._alone = not self._containers(engine)
        self._run("up", "-d", "--no-deps", self.service, patience=UP_PATIENCE)
        self.brought_up = True

    def down(self) -> None:
        """Remove what `up()` made, network included; named volumes stay, as with `docker compose down`."""
        if self.brought_up:
            self.brought_up = False
            self._run("rm", "--stop", "--force", self.service, patience=DOWN_PATIENCE)  # `down` would leave one of a profile
            if self._alone:
                self._run("down", patience=DOWN_PATIENCE)

    def _containers(self, engine: Engine, *labels: str) -> list[Container]:
        wanted = [f"{LABEL}project.working_dir={self.file.parent}", *labels]
        if self.project:
            wanted.append(f"{LABEL}project={self.project}")
        with trouble(f"looking for the containers of {self.file}"):
            return engine.client.containers.list(all=True, filters={"label": wanted}, ignore_removed=True)

    def _run(self, *args: str, patience: float) -> None:
        project = ["--project-name", self.project] if self.project else []
        command = [*_compose(), "--file", str(self.file), *project, *args]
        try:
            done = subprocess.run(command, cwd=self.file.parent, capture_output=True, text=True, timeout=patience, check=False)
        except subprocess.TimeoutExpired as error:
            raise BrokerStartFailed(f"`{' '.join(command)}` took longer than {patience:g} s: try it in a terminal") from error
        if done.returncode:
            lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            raise BrokerStartFailed(f"`{' '.join(command)}` failed ({done.returncode}).{_advice(lines)}", lines[-12:])


def _find_file() -> Path:
    own = Path(__file__).resolve().parents[3]
    for folder in (Path.cwd(), *Path.cwd().parents, own):
        for name in FILES:
            if (folder / name).is_file():
                return (folder / name).resolve()
    raise BrokerStartFailed("there is no docker-compose.yml here or above: name one, DockerBroker.from_compose(path)")


def _compose() -> list[str]:
    """Return the command of Compose v2, or of v1 where that is what there is."""
    if shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise BrokerNotInstalled(
        "Compose is not installed: apt install docker-compose-v2 (or docker-compose-plugin, or docker-compose); "
        "DockerBroker() without a Compose file needs none."
    )


def _advice(lines: list[str]) -> str:
    taken = re.search(r"(?:bind for|tcp4?) (\S+:\d+).*(?:already allocated|already in use)", "\n".join(lines), re.IGNORECASE)
    if taken:
        return f" {taken[1].rstrip(':')} is taken: stop who has it, or change `ports:` in the file."
    if re.search(r"no such image|pull access denied|manifest .*unknown|failed to (do request|resolve)", "\n".join(lines), re.IGNORECASE):
        return " An image is missing and cannot be pulled: get online, or load it with `docker load`."
    return ""
