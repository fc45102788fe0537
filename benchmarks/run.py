"""A run: every case, round by round, the contestants in turn."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.cases import Case, Contestant
from benchmarks.machine import machine, versions
from benchmarks.measure import NODE, Bench
from benchmarks.native import Unavailable, build
from benchmarks.node import Node
from benchmarks.processes import Failed

__all__ = ["in_turn", "run_all"]


def in_turn(contestants: Sequence[Contestant], number: int) -> list[Contestant]:
    """Return the contestants in the order of round `number` (0, 1 ...): each round begins with the next one, so nobody is always first."""
    start = number % len(contestants)
    return [*contestants[start:], *contestants[:start]]


def run_all(cases: Sequence[Case], rounds: int, *, quick: bool, console: Console) -> dict[str, Any]:
    """Measure everything on one fresh node.

    Returns a JSON object: `when mode rounds machine versions notes failures cases`; `cases` is name -> {contestant: [metrics of each
    round, None where it failed]}.
    """
    document: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "mode": "quick" if quick else "full",
        "rounds": rounds,
        "machine": machine(),
        "notes": [],
        "failures": [],
        "cases": {},
    }
    with tempfile.TemporaryDirectory(prefix="chatlib-benchmark-") as folder, _progress(console) as progress:
        task = progress.add_task("build the C client, start a node", total=_steps(cases, rounds))
        native: Path | None = None
        try:
            native = build(Path(folder))
        except Unavailable as error:
            document["notes"].append(str(error))
            console.print(f"[yellow]{error}[/yellow]")
        with Node() as node:
            document["versions"] = versions(node.versions(), native)
            bench = Bench(node, native, quick)
            for case in cases:
                progress.update(task, description=f"{case.name}: prepare")
                if not console.is_terminal:  # where no bar is drawn
                    console.print(f"{case.name}: {rounds} rounds of {len(case.contestants)} contestants")
                bench.prepare(case)
                document["cases"][case.name] = _rounds(bench, case, rounds, document["failures"], progress, task)
                bench.finish(case)
            progress.update(task, description="stop the node")
    return document


def _rounds(bench: Bench, case: Case, rounds: int, failures: list[str], progress: Progress, task: Any) -> dict[str, list[Any]]:
    contestants = [c for c in case.contestants if c.module != "native" or bench.native]
    samples: dict[str, list[Any]] = {contestant.name: [] for contestant in contestants}
    if case.kind == "recovery":
        samples[NODE] = []

    def failed(error: str, number: int) -> None:
        failures.append(f"{case.name}, round {number + 1}: {error}")
        progress.console.print(f"[red]{failures[-1]}[/red]")

    for number in range(rounds):
        if case.kind == "recovery":
            progress.update(task, description=f"{case.name}, round {number + 1}: kill the node")
            try:
                together, errors = bench.recovery(contestants, number)
            except Failed as error:
                together, errors = {}, [str(error)]
            for text in errors:
                failed(text, number)
            for name, values in samples.items():
                values.append(together.get(name))
            progress.advance(task)
            continue
        for contestant in in_turn(contestants, number):
            progress.update(task, description=f"{case.name}, round {number + 1}: {contestant.name}")
            try:
                samples[contestant.name].append(bench.round(case, contestant, number))
            except Failed as error:
                samples[contestant.name].append(None)
                failed(str(error), number)
            progress.advance(task)
    return samples


def _steps(cases: Sequence[Case], rounds: int) -> int:
    return rounds * sum(1 if case.kind == "recovery" else len(case.contestants) for case in cases)


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield progress
