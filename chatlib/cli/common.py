"""What the commands share: how they fail, what they write and where."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import math
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import typer

from chatlib.errors import ChatError, InvalidName

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["BAD", "CANNOT", "INTERRUPTED", "STYLES", "SYMBOLS", "console", "described", "failures", "finite", "tell", "write_json"]

BAD: Final = 1  #: done, and the answer is bad
CANNOT: Final = 2  #: not done as asked for
INTERRUPTED: Final = 130  #: Ctrl-C, as shells have it

WIDTH: Final = 110  # columns for pipes and files, where nothing says how wide the reader's screen is
SYMBOLS: Final = {"ok": "✔", "warning": "!", "problem": "✘"}
STYLES: Final = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def console(*, stderr: bool = False) -> Console:
    """A rich console: colours at a terminal only, and what the locale cannot write is replaced instead of raising."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
    return Console(stderr=stderr, width=None if stream.isatty() else WIDTH, highlight=False, soft_wrap=False)


def described(command: Callable[..., None]) -> str:
    r"""The docstring of a command as its help: each paragraph one line, for the terminal to wrap; `\b` keeps the lines of one."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    return "\n\n".join(text if text.startswith("\b") else text.replace("\n", " ") for text in paragraphs)


def finite(**options: float | None) -> None:
    """Refuse what is no number or for ever, which typer's bounds let pass."""
    for name, value in options.items():
        if value is not None and not math.isfinite(value):
            raise typer.BadParameter(f"a number is wanted, not {value}", param_hint=f"'{name}'")


def tell(text: str) -> None:
    """A line for people, beside the result: to standard error."""
    typer.echo(text, err=True)


def write_json(value: Any) -> None:
    """`value` as the only thing on standard output; ASCII, so that no locale can spoil it."""
    typer.echo(json.dumps(value, indent=2))


@contextlib.contextmanager
def failures(status: int) -> Iterator[None]:
    """Turn errors that people can do something about into their text on standard error, and the exit status.

    status: for any ChatError and OSError; a bad name is a wrong argument in every command.
    """
    try:
        yield
    except KeyboardInterrupt:
        tell("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except InvalidName as error:
        tell(f"error: {error}")
        raise typer.Exit(CANNOT) from None
    except ChatError as error:
        tell(f"error: {error}")
        raise typer.Exit(status) from None
    except BrokenPipeError:
        raise  # the reader of our output has gone: typer ends quietly
    except OSError as error:
        tell(f"error: {error}")
        raise typer.Exit(status) from None
