"""What the figures were measured on, and with which versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil

__all__ = ["machine", "versions"]

PACKAGES = ("chatlib", "pika", "kombu", "amqp", "aio-pika", "aiormq", "AMQPStorm")
ROOT = Path(__file__).resolve().parent.parent


def machine() -> dict[str, Any]:
    """Return processor, cores, memory (bytes), system, and how busy it was before the run (load average of one minute)."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
        "load": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def versions(broker: dict[str, str], native: Path | None) -> dict[str, str]:
    """Return name -> version of everything that takes part; `broker` is what the broker says of itself."""
    found = {"Python": platform.python_version(), **broker}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    if native:
        found["librabbitmq"] = _output([str(native), "version"])
    commit = _output(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10"])
    if commit:
        found["chatlib"] += f" ({commit})"
    return found


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=10).stdout.strip()
    except OSError:
        return ""
