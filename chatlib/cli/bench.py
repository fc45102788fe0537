"""`chatlib bench`: chatlib beside other clients, from the benchmarks of a checkout."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from chatlib.cli.common import CANNOT, tell

__all__ = ["bench"]

CHECKOUT = Path(__file__).resolve().parents[2]


def bench(
    quick: Annotated[bool, typer.Option("--quick", help="One round with little work: whether everything runs, not how fast.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", help="How a case begins: publish, receive, latency, fanout, recovery, lab, memory, signup. Repeat it for more."
        ),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", help="Interleaved rounds; 0: five, or one with --quick.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="The results as one JSON object on standard output.")] = False,
) -> None:
    """Measure chatlib beside pika, kombu, aio-pika, AMQPStorm and a C client: the same work, on one private node, in one run.

    It needs a checkout of the project with its development packages, since the peers are not installed with chatlib. About 25 minutes.

    Exit status: 0 if all was measured, 1 if some was not, 2 without a checkout.

    \b
    Examples:
      chatlib bench --quick
      chatlib bench --only publish --json | jq .ratios
    """
    if not (CHECKOUT / "benchmarks" / "__main__.py").is_file():
        tell("error: the benchmarks are not part of the installed package: run `make bench` in a checkout of chatlib")
        raise typer.Exit(CANNOT)
    with tempfile.TemporaryDirectory(prefix="chatlib-bench-") as folder:
        command = [sys.executable, "-m", "benchmarks", "--rounds", str(rounds), *(["--quick"] if quick else [])]
        for case in only or []:
            command += ["--only", case]
        if as_json:
            command += ["--no-plot", "--output", folder]
        status = subprocess.run(command, cwd=CHECKOUT, stdout=sys.stderr if as_json else None, check=False).returncode
        results = Path(folder, "results.json")
        if as_json and results.is_file():
            typer.echo(results.read_text(), nl=False)
    raise typer.Exit(status)
