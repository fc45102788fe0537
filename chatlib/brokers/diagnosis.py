"""Why a node did not come up: its own log lines that tell, and what to do about them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from chatlib.errors import BrokerStartFailed

__all__ = ["advice", "log_since", "start_failure", "telling_lines"]

MOST_LINES = 12
LONGEST_LINE = 240  # characters; Erlang prints whole data structures
TROUBLE = {"", "error", "critical", "alert", "emergency"}  # levels; "" is what bypassed the log, such as the shell's words
# What a log says, and what to do next. The first that fits is it.
ADVICE: tuple[tuple[str, str], ...] = (
    (
        r"eaddrinuse|address already in use|dist_port_already_used|could not bind",
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
        r"nxdomain|nodistribution|can't set (short|long) node name",
        "Erlang found no name for the node: /etc/hosts must have a line `127.0.0.1 localhost`.",
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
    r"eaddrinuse|enospc|eacces|erofs|no space|denied|already.used|could not|cannot|can't|failed to (start|prepare|parse|bind|write|open)"
    r"|^error\b|error during startup|exception during startup|^reason:|^- |tried to set|not found|nodistribution|badarg|halted",
    re.IGNORECASE,
)
PREFIX = re.compile(r"^\d{4}-\d\d-\d\d [\d:.]+\S* \[(\w+)\] <[\d.]+> ?")


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
    """Return the lines that tell what went wrong (oldest first, without time and process), or the last ones where none does.

    Erlang reports the cause first, then everything that fell with it, and says it all twice (log and console).
    """
    bare = [_shortened(text) for level, text in map(_split, lines) if level in TROUBLE and TELLING.search(text)]
    return list(dict.fromkeys(bare))[:MOST_LINES] or [_shortened(line.strip()) for line in lines[-MOST_LINES:]]


def advice(lines: Sequence[str]) -> str:
    """Return what to do about a log like this, or "" where nothing is known."""
    text = "\n".join(text for level, text in map(_split, lines) if level in TROUBLE)
    return next((help_text for pattern, help_text in ADVICE if re.search(pattern, text, re.IGNORECASE)), "")


def start_failure(what: str, log: Path, offset: int) -> BrokerStartFailed:
    """Return the error for a failed start: what happened, what to do, and the log lines that tell (also as `.log`)."""
    lines = log_since(log, offset)
    return BrokerStartFailed(f"{what}. {advice(lines)} The whole log: {log}".replace("  ", " "), telling_lines(lines))


def _split(line: str) -> tuple[str, str]:
    """Return the level of a log line ("" for what bypassed the log) and its text."""
    match = PREFIX.match(line)
    return (match[1], line[match.end() :].strip()) if match else ("", line.strip())


def _shortened(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 4] + " ..."
