"""The contestant in C: built on the spot from `client.c`."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

__all__ = ["Unavailable", "build"]

SOURCE = Path(__file__).with_name("client.c")
PACKAGES = ("librabbitmq-dev", "gcc", "libc6-dev")


class Unavailable(Exception):
    """There is no C client here; the text says why and what to do."""


def build(folder: Path) -> Path:
    """Compile the client into `folder` and return the program. As root on Debian, what it needs is installed first.

    Raises Unavailable; the run goes on without the limit that it shows.
    """
    program = folder / "client"
    error = _compile(program)
    if error and os.geteuid() == 0 and shutil.which("apt-get"):
        _install()
        error = _compile(program)
    if error:
        raise Unavailable(f"no C client, so its figures are missing: apt install {' '.join(PACKAGES)} ({error})")
    return program


def _compile(program: Path) -> str:
    """Compile; return why it failed, or nothing."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        return "no C compiler"
    done = subprocess.run([compiler, "-O2", "-o", str(program), str(SOURCE), "-lrabbitmq"], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["the compiler failed"])[0]


def _install() -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with tempfile.TemporaryFile() as quiet:
        for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
            subprocess.run(["apt-get", "-q", *arguments], env=environment, stdout=quiet, stderr=quiet, check=False)
