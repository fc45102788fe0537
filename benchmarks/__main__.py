"""`python -m benchmarks`: measure, and write JSON, Markdown and a picture."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from benchmarks.cases import CASES, chosen
from benchmarks.report import markdown, verdicts

RESULTS = Path(__file__).resolve().parent / "results"
NAMES = ", ".join(case.name for case in CASES)


def main(
    quick: Annotated[bool, typer.Option("--quick", help="One round with little work: whether everything runs, not how fast.")] = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", help=f"A case, may be repeated; a beginning is enough. There are: {NAMES}.")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", help="Interleaved rounds; 0: five, or one with --quick.", min=0)] = 0,
    output: Annotated[
        Path, typer.Option("--output", help="Where results.json, results.md and the picture go.", show_default="benchmarks/results")
    ] = RESULTS,
    plot: Annotated[bool, typer.Option(help="Draw the picture (kaleido needs Chromium for a PNG).")] = True,
    show: Annotated[Path | None, typer.Option("--show", help="Measure nothing: report on this results.json.", exists=True)] = None,
) -> None:
    """Measure chatlib and its peers: the same work, on one private node, in one run. About 25 minutes, with --quick one."""
    console = Console(stderr=True)
    try:
        cases = chosen(only or [])
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--only") from error
    if quick and not only:  # four kernels to start take half of its minute
        cases = [case for case in cases if case.kind != "lab"]
    if show:
        document = json.loads(show.read_text())
    else:
        from benchmarks.run import run_all

        document = run_all(cases, rounds or (1 if quick else 5), quick=quick, console=console)
    document["ratios"] = [
        {"figure": verdict.text, "demanded": verdict.demanded, "met": verdict.met, **asdict(verdict.figure)}
        for case in cases
        if case.name in document["cases"]
        for verdict in verdicts(case, document["cases"][case.name])
    ]
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    picture = None
    if plot:
        from benchmarks.plot import draw

        picture = draw(document, cases, output, "results").name
    text = markdown(document, cases, picture)
    (output / "results.md").write_text(text)
    if sys.stdout.isatty():
        Console().print(Markdown(text))
    else:
        print(text)
    console.print(f"written to {os.path.relpath(output)}: results.json, results.md" + (f", {picture}" if picture else ""))
    raise typer.Exit(1 if document["failures"] else 0)


if __name__ == "__main__":
    typer.run(main)
