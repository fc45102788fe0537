"""`chatlib doctor`: is this machine fit, and where not, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from chatlib.cli.common import BAD, STYLES, SYMBOLS, console, failures, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatlib.doctor import Finding

__all__ = ["doctor"]


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output: healthy, and the findings.")] = False,
) -> None:
    """Check this machine: Python, packages, RabbitMQ, ports, disk, memory, names, Docker, running brokers.

    For each it says what it found and, where something is wrong, what to do. It changes nothing.

    Exit status: 0 if nothing would stop chatlib (there may be warnings: they stop a part of it, as the lab or Docker), else 1.

    \b
    Examples:
      chatlib doctor
      chatlib doctor --json | jq '.findings[] | select(.state != "ok")'
    """
    from chatlib.doctor import examine

    with failures(BAD):
        findings = examine()
    healthy = all(finding.state != "problem" for finding in findings)
    if as_json:
        write_json({"healthy": healthy, "findings": [finding.to_dict() for finding in findings]})
    else:
        _show(findings)
    raise typer.Exit(0 if healthy else BAD)


def _show(findings: Sequence[Finding]) -> None:
    from rich.markup import escape
    from rich.table import Table

    out = console()
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for finding in findings:
        style = STYLES[finding.state]
        found = escape(finding.found)
        if finding.state != "ok":
            found = f"[{style}]{finding.state}:[/] {found}\n[bold]→[/] {escape(finding.fix)}"
        table.add_row(f"[{style}]{SYMBOLS[finding.state]}[/]", finding.check, found)
    out.print(table)
    problems = sum(finding.state == "problem" for finding in findings)
    warnings = sum(finding.state == "warning" for finding in findings)
    if problems:
        out.print(f"\n[bold red]{problems} {_plural(problems, 'problem')}[/]: mend what is marked ✘ first, then run chatlib doctor again.")
    elif warnings:
        out.print(f"\n[yellow]Fit, with {warnings} {_plural(warnings, 'warning')}[/]: chatlib works, a part of it may not.")
    else:
        out.print("\n[green]Fit.[/] Next: chatlib replay")


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"
