"""The processes of the contestants: started, talked to, and never left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from benchmarks.cases import Contestant
from benchmarks.work import PREFETCH, WINDOW, Work

__all__ = ["Failed", "Process", "run"]

ROOT = Path(__file__).resolve().parent.parent


class Failed(Exception):
    """A contestant did not finish its work; the text is the end of what it said."""


class Process:
    """One contestant at one piece of work. A context manager: at its end the process is gone."""

    def __init__(self, contestant: Contestant, action: str, work: Work, native: Path | None, timeout: float) -> None:
        self._name = f"{contestant.name}: {action}"
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  a file and not a pipe, which somebody would have to read
        environment = dict(os.environ)
        if contestant.module == "native":
            if native is None:
                raise Failed("there is no C client here")
            command = [str(native), *_arguments(action, work)]
            environment |= _address(work.url)
        else:
            command = [sys.executable, "-m", "benchmarks.worker", contestant.module, action]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, cwd=ROOT, env=environment
        )
        self._watchdog = threading.Timer(timeout, self._process.kill)
        self._watchdog.start()
        if contestant.module != "native":
            self.tell(work.dump())

    def tell(self, line: str) -> None:
        """Write a line to it."""
        assert self._process.stdin
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failed() from None

    def answer(self) -> dict[str, Any]:
        """Return its next JSON line. Raises Failed when it ends without one, also by the timeout."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise self._failed()
        try:
            result: dict[str, Any] = json.loads(line)
        except ValueError:
            raise Failed(f"{self._name}: {line.strip()}") from None
        return result

    def _failed(self) -> Failed:
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines()
        return Failed(f"{self._name}: ended with status {code}" + (f": {said[-1]}" if said else ""))

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._watchdog.cancel()
        if kind is not None:
            self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


def run(contestant: Contestant, action: str, work: Work, native: Path | None, timeout: float) -> dict[str, Any]:
    """Let a contestant do some work; return its result. Raises Failed."""
    with Process(contestant, action, work, native, timeout) as process:
        return process.answer()


def _arguments(action: str, work: Work) -> list[str]:
    """Return the command line of the C client."""
    values: dict[str, list[object]] = {
        "publish": [work.exchange, work.key, work.count, work.size, WINDOW],
        "pace": [work.exchange, work.key, work.count, work.size, work.rate],
        "receive": [work.queue, work.count, PREFETCH, work.options.get("every", 1)],
        "watch": [work.queue, work.count, PREFETCH],
    }
    return [action, *map(str, values[action])]


def _address(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    return {
        "BENCH_HOST": parts.hostname or "",
        "BENCH_PORT": str(parts.port or 5672),
        "BENCH_USER": unquote(parts.username or ""),
        "BENCH_PASSWORD": unquote(parts.password or ""),
    }
