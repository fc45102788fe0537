"""The reaper of a container: a tiny shell that outlives its owner by a moment and removes the owner's container.

It blocks on a pipe whose other end only the owner has; whatever ends the owner, SIGKILL included, closes that end. It needs the
`docker` command; where that is missing, the next DockerBroker removes what is left, by the labels. A forked child of the owner
has a copy of the pipe's end, so the reaper waits for the end of both.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess

__all__ = ["NETWORKS_SCRIPT", "Reaper"]

# Arguments: the container, and its volume or "". SIGTERM is ignored: who stops a whole session would end it before the owner.
SCRIPT = r"""
trap '' HUP INT TERM
read -r word && exit 0
docker rm --force --volumes "$1"
[ -z "$2" ] || docker volume rm --force "$2"
"""


# Of a cluster. Argument: the label on its networks. Its containers have reapers of their own, so they take a moment to be off them.
NETWORKS_SCRIPT = r"""
trap '' HUP INT TERM
read -r word && exit 0
tries=0
while [ $tries -lt 60 ]; do
  left=$(docker network ls --quiet --filter "label=$1")
  [ -n "$left" ] || exit 0
  docker network rm $left && exit 0
  sleep 0.5; tries=$((tries + 1))
done
"""


class Reaper:
    """One reaper process; volume: "" where the data are kept."""

    def __init__(self, container: str, volume: str, *, script: str = SCRIPT) -> None:
        self._owner = os.getpid()
        self._shell: subprocess.Popen[bytes] | None = None
        if shutil.which("docker") is None:
            return
        read_end, self._pipe = os.pipe()
        try:
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", script, "chatlib-docker-reaper", container, volume],
                stdin=read_end,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        finally:
            os.close(read_end)

    def dismiss(self) -> None:
        """End it without any harm; returns when it is gone."""
        if self._shell is None or self._owner != os.getpid():
            return
        shell, self._shell = self._shell, None
        with contextlib.suppress(OSError):
            os.write(self._pipe, b"done\n")
        os.close(self._pipe)
        with contextlib.suppress(subprocess.TimeoutExpired):
            shell.wait(5)
