"""The command line: `chatlib COMMAND`. One module for each command; whatever is heavy is imported when a command runs.

Exit status: 0 for success; 1 when it was done and the answer is bad (a message was lost, a check found a problem, a broker did not
start); 2 when it could not be done as it was asked for (a wrong argument, a file that is no transcript, a broker out of reach).
"""

from __future__ import annotations

from typing import Annotated

import typer

from chatlib.cli.bench import bench
from chatlib.cli.broker import app as broker
from chatlib.cli.chaos import chaos
from chatlib.cli.chat import chat
from chatlib.cli.common import described
from chatlib.cli.dead_letters import app as dead_letters
from chatlib.cli.doctor import doctor
from chatlib.cli.replay import replay

__all__ = ["app"]

app = typer.Typer(
    name="chatlib",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Begin with: [bold]chatlib doctor[/bold], then [bold]chatlib replay[/bold]. Each command has a --help with examples.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from chatlib import __version__

        typer.echo(f"chatlib {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)] = False,
) -> None:
    """Durable chat for many users and groups over RabbitMQ."""


app.command(help=described(doctor))(doctor)
app.command(help=described(replay))(replay)
app.command(help=described(chat))(chat)
app.command(help=described(chaos))(chaos)
app.command(help=described(bench))(bench)
app.add_typer(broker, name="broker")
app.add_typer(dead_letters, name="dead-letters")
