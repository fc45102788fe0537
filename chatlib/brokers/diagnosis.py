"""Why a node did not come up: its own log lines that tell, and what to do about them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from chatlib.errors import BrokerStartFailed

__all__ = ["advice", "log_since", "start_failure", "telling_lines"]

MOST_LINES = 20
# What a log says, and what to do next. The first that fits is it.
ADVICE: tuple[tuple[str, str], ...] = (
    (
        r"eaddrinuse|address already in use|port \d+ .*(in use|taken)",
        "A port is taken: stop the program that listens there, or give other ports.",
    ),
    (r"enospc|no space left", "The disk is full: free some space (RabbitMQ wants at least 50 MB), or use a data_dir elsewhere."),
    (r"eacces|permission denied|erofs|read-only file system", "A file or folder may not be written: check who owns the data_dir."),
    (r"cookie file .* must be accessible by owner", "The data_dir must be yours alone: chmod -R go= on it, or use one on a local disk."),
    (
        r"erl: (not found|command not found)|exec: .*erl",
        "Erlang is missing or not on PATH: reinstall it (apt install rabbitmq-server does).",
    ),
    (
        r"nxdomain|epmd error|can't set (short|long) node name",
        "The name localhost does not resolve: add `127.0.0.1 localhost` to /etc/hosts.",
    ),
    (
        r"incompatible_feature_flags|required_feature_flag|feature flags? .*(unsupported|not supported)|khepri|version_mismatch",
        "The data was written by another version of RabbitMQ: use a new data_dir, or that version.",
    ),
    (r"cannot allocate memory|eheap_alloc|system_limit|emfile", "The machine is out of memory or of file handles: close something."),
    (
        r"failed_to_prepare_configuration|failed_to_parse|conf.*(invalid|error)|unknown variable",
        "RabbitMQ refuses a configuration line: check `config=`.",
    ),
    (
        r"plugins? .*not.*found|plugins_not_found|missing plugin",
        "RabbitMQ has no such plugin: check `plugins=` and `rabbitmq-plugins list`.",
    ),
)
TELLING = re.compile(
    r"\[(error|critical|alert|emergency)\]|boot failed|\berror\b|failed|enospc|eacces|eaddrinuse|not found|denied|crash", re.IGNORECASE
)
STAMP = re.compile(r"^\d{4}-\d\d-\d\d [\d:.]+\S* ")


def log_since(file: Path, offset: int) -> list[str]:
    """Return the lines that the log got since it was `offset` bytes long, without empty ones."""
    try:
        with file.open("rb") as log:
            log.seek(offset)
            text = log.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def telling_lines(lines: Sequence[str]) -> list[str]:
    """Return the lines that tell what went wrong (at most 20, oldest first), or the last ones where none does."""
    kept: list[str] = []
    seen: set[str] = set()
    for line in lines:
        bare = STAMP.sub("", line).strip()  # the node says it all twice: to the log and to the console
        text = re.sub(r"^\[\w+\] <[\d.]+> ?", "", bare)
        if TELLING.search(bare) and text and text not in seen:
            seen.add(text)
            kept.append(line)
    return (kept or list(lines))[-MOST_LINES:]


def advice(lines: Sequence[str]) -> str:
    """Return what to do about a log like this, or "" where nothing is known."""
    text = "\n".join(lines)
    return next((help_text for pattern, help_text in ADVICE if re.search(pattern, text, re.IGNORECASE)), "")


def start_failure(what: str, log: Path, offset: int) -> BrokerStartFailed:
    """Return the error for a failed start: what happened, what to do, and the log lines that tell (also as `.log`)."""
    lines = log_since(log, offset)
    known = advice(telling_lines(lines)) or f"The whole log is in {log}."
    return BrokerStartFailed(f"{what}. {known}", telling_lines(lines))
