"""`chatlib chat`: talk at a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chatlib.cli.common import CANNOT, failures

__all__ = ["chat"]


def chat(
    user: Annotated[str, typer.Option("--as", metavar="NAME", help="Who you are; a new name is signed up.")],
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="ADDRESS",
            help="The conversation to begin with: @bob or '#team' (/join makes you a member).",
            show_default=False,
        ),
    ] = None,
    broker: Annotated[
        str | None,
        typer.Option(
            "--broker",
            metavar="URL",
            help="amqp://user:password@host:5672/; else $CHATLIB_BROKER_URL, else the one of `chatlib broker start`, started if need be.",
            show_default=False,
        ),
    ] = None,
    management: Annotated[
        str | None,
        typer.Option(
            "--management",
            metavar="URL",
            help="The broker's management API, if it is not on port 15672 of the same host.",
            show_default=False,
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir", metavar="DIR", help="Where what you typed survives; else a folder for this user and broker.", show_default=False
        ),
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines without editing and colours, as in a pipe.")] = False,
) -> None:
    """Chat at this terminal as NAME: type text, see it confirmed ✓, delivered ✓✓ and read. /help lists the commands.

    What you type is kept until the broker has it, through restarts of the broker and of this terminal.
    Exit status: 0 if all that was typed is with the broker; 1 if something is not; 2 if the chat could not begin; 130 after Ctrl-C
    with --plain.

    \b
    Examples, each in a terminal of its own:
      chatlib chat --as alice --to @bob
      chatlib chat --as bob
      echo '@bob hello' | chatlib chat --as carol
    """
    with failures(CANNOT):
        from chatlib.terminal.start import run

        status = run(user, broker=broker, management=management, to=to, data_dir=data_dir, plain=plain)
    raise typer.Exit(status)
