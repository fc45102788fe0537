"""The reaper: a tiny shell that outlives its owner by a moment and takes the owner's broker with it.

It blocks on a pipe whose other end only the owner has. Whatever ends the owner, SIGKILL included, closes that end; the
reaper then kills the processes it was told of, removes the temporary folder and the registry's record, and ends.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

__all__ = ["Reaper"]

# Arguments: the tag, a folder to remove or "", the registry's record. It asks for the tag in the command line before
# it kills, so a pid that meanwhile belongs to somebody else is left alone. SIGTERM is ignored: a service manager that
# stops a whole session would otherwise end the reaper before the owner.
SCRIPT = r"""
trap '' HUP INT TERM
tag=$1 folder=$2 record=$3 pids=
while read -r word pid; do
  case $word in
    watch) pids="$pids $pid" ;;
    forget) rest=; for p in $pids; do [ "$p" = "$pid" ] || rest="$rest $p"; done; pids=$rest ;;
    done) exit 0 ;;
  esac
done
command_of() {
  if [ -r "/proc/$1/cmdline" ]; then tr '\0' ' ' < "/proc/$1/cmdline"; else ps -ww -p "$1" -o args=; fi 2>/dev/null
}
for pid in $pids; do
  tries=0  # in the middle of an exec a process shows no command line (and none when it is gone)
  while command=$(command_of "$pid"); [ -z "$command" ] && kill -s 0 "$pid" 2>/dev/null && [ $tries -lt 20 ]; do
    sleep 0.05; tries=$((tries + 1))
  done
  case $command in *"$tag"*) kill -s KILL -- "-$pid" ;; esac
done
if [ -n "$folder" ]; then
  tries=0
  while rm -rf -- "$folder" 2>/dev/null; [ -e "$folder" ] && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
fi
rm -f -- "$record"
"""


class Reaper:
    """One reaper process, told by lines on a pipe which processes to watch. If it is gone itself, the registry is left."""

    def __init__(self, tag: str, folder: Path | None, record: Path) -> None:
        read_end, self._pipe = os.pipe()
        try:
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", SCRIPT, "chatlib-reaper", tag, str(folder or ""), str(record)],
                stdin=read_end,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        finally:
            os.close(read_end)

    @property
    def pid(self) -> int:
        """Of the shell."""
        return self._shell.pid

    def watch(self, pid: int) -> None:
        """Kill this process when the owner dies."""
        self._tell(f"watch {pid}")

    def forget(self, pid: int) -> None:
        """It has ended; the system may give its pid away now."""
        self._tell(f"forget {pid}")

    def dismiss(self) -> None:
        """End the reaper without any harm; returns when it is gone."""
        self._tell("done")
        self.disown()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._shell.wait(5)

    def disown(self) -> None:
        """Close this process's end of the pipe: in a forked child, so that it does not keep the owner's broker alive."""
        with contextlib.suppress(OSError):
            os.close(self._pipe)
        self._pipe = -1

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError):  # the reaper is gone: then the next start finds what is left, by the registry
            os.write(self._pipe, f"{line}\n".encode())
