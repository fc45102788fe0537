"""`chatlib dead-letters`: what failed for good, listed, looked at, sent again or thrown away."""

from __future__ import annotations

import base64
import contextlib
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from chatlib.cli.broker import DEFAULT
from chatlib.cli.common import CANNOT, console, failures, tell, write_json
from chatlib.errors import BrokerUnavailable, ChatError
from chatlib.terminal.text import counted, excerpt, safe

if TYPE_CHECKING:
    from chatlib.chat import Chat
    from chatlib.dead_letters import DeadLetter

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    help="What failed for good, was rejected or could not be read: list it, look at it, send it again, throw it away.",
    epilog="Looking takes nothing away. A replay keeps the message's id, so whoever has handled it drops it.",
)

PATIENCE: Final = 3.0  # seconds for a broker to answer; somebody waits for the shell
HEX_BYTES: Final = 256  # of what is no text, shown as hexadecimal

Broker = Annotated[
    str | None,
    typer.Option(
        "--broker",
        metavar="URL",
        help="amqp://user:password@host:5672/; else $CHATLIB_BROKER_URL, else the one of `chatlib broker start`.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output, and nothing else there.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]", help="Message ids; without any: all.", show_default=False)]


@app.command("list")
def list_letters(
    broker: Broker = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="At most so many, the oldest first.", min=1)] = 1000,
    as_json: Json = False,
) -> None:
    """List them, the oldest first, with the reason and the number of attempts.

    \b
    Examples:
      chatlib dead-letters list
      chatlib dead-letters list --json | jq -r '.[].message_id'
    """
    with failures(CANNOT), _chat(broker) as chat:
        letters = chat.dead_letters.list(limit)
        if as_json:
            write_json([_row(letter) for letter in letters])
        elif letters:
            _table(letters)
        else:
            tell("no dead letters")


@app.command()
def show(
    message_id: Annotated[str, typer.Argument(metavar="ID", help="Its message id.", show_default=False)],
    broker: Broker = None,
    as_json: Json = False,
) -> None:
    """Show all that is known of one: whose it was, every failure, and its bytes. A group message may be dead for several members."""
    with failures(CANNOT), _chat(broker) as chat:
        letters = [letter for letter in chat.dead_letters if letter.message_id == message_id]
        if not letters:
            raise ChatError(f"no dead letter has the id {message_id!r}: `chatlib dead-letters list` shows those that there are")
        if as_json:
            write_json([_all(letter) for letter in letters])
            return
        for number, letter in enumerate(letters):
            typer.echo(("\n" if number else "") + "\n".join(_lines(letter)))


@app.command()
def replay(message_ids: Ids = None, broker: Broker = None, as_json: Json = False) -> None:
    """Send them to their inboxes again, under the same ids and with a full set of attempts; each is taken out when its copy is confirmed.

    \b
    Examples:
      chatlib dead-letters replay
      chatlib dead-letters replay 01M80PRCYFDE1J47E39VSGKK62
    """
    with failures(CANNOT), _known(), _chat(broker) as chat:
        count = chat.dead_letters.replay(*message_ids or ())
        if as_json:
            write_json({"replayed": count})
        else:
            tell(f"{counted(count, 'message')} sent again")


@app.command()
def purge(
    message_ids: Ids = None,
    broker: Broker = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Throw all away without asking.")] = False,
    as_json: Json = False,
) -> None:
    """Throw them away, for good."""
    with failures(CANNOT), _known(), _chat(broker) as chat:
        if not message_ids and not yes:
            if not sys.stdin.isatty():
                raise ChatError("this throws all of them away, and nobody is here to ask: say which by their ids, or say --yes")
            typer.confirm(f"Throw away all {counted(len(chat.dead_letters), 'dead letter')} for good?", abort=True, err=True)
        count = chat.dead_letters.purge(*message_ids or ())
        if as_json:
            write_json({"purged": count})
        else:
            tell(f"{counted(count, 'dead letter')} thrown away")


@contextlib.contextmanager
def _chat(url: str | None) -> Iterator[Chat]:
    """A chat on the broker that is meant. None is started: a new one has no dead letters."""
    from chatlib.brokers import broker_of_environment, running_brokers
    from chatlib.chat import connect
    from chatlib.settings import Settings

    named = None if url else broker_of_environment()
    url = named.url if named else url
    if not url:
        running = {broker.name: broker for broker in running_brokers()}
        if not running:
            raise BrokerUnavailable(
                "no broker runs here: start yours with `chatlib broker start`, or say which by --broker amqp://user:password@host:5672/ "
                "or $CHATLIB_BROKER_URL"
            )
        if len(running) > 1 and DEFAULT not in running:
            raise ChatError(
                f"several brokers run ({', '.join(sorted(running))}): say which by --broker URL, "
                "which `chatlib broker start --name NAME` prints"
            )
        chosen = running.get(DEFAULT) or next(iter(running.values()))
        url = chosen.url
        tell(f"on the broker {chosen.name!r}")
    with connect(url, name="chatlib dead-letters", settings=Settings(connect_timeout=PATIENCE)) as chat:
        yield chat


@contextlib.contextmanager
def _known() -> Iterator[None]:
    """An id that is not there is an error in words."""
    try:
        yield
    except KeyError as error:
        raise ChatError(f"{error.args[0]}: nothing was done; `chatlib dead-letters list` shows those that there are") from None


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _row(letter: DeadLetter) -> dict[str, Any]:
    """A letter as JSON, without its bytes."""
    return letter.to_dict() | {"first_failure": _iso(letter.first_failure), "last_failure": _iso(letter.last_failure)}


def _all(letter: DeadLetter) -> dict[str, Any]:
    return _row(letter) | {"failures": list(letter.failures), "body_base64": base64.b64encode(letter.body).decode()}


def _table(letters: list[DeadLetter]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading, options in (
        ("id", {"no_wrap": True}),
        ("for", {"overflow": "fold"}),
        ("from", {"overflow": "fold"}),
        ("attempts", {"justify": "right", "no_wrap": True}),
        ("reason", {"overflow": "fold", "ratio": 2}),
        ("content", {"overflow": "fold", "ratio": 2}),
    ):
        table.add_column(heading, **options)
    for letter in letters:
        row = letter.to_dict()
        cells = (
            row["message_id"],
            row["user"],
            row["sender"],
            str(row["attempts"]),
            excerpt(row["reason"], 120),
            excerpt(row["content"], 60),
        )
        table.add_row(*(Text(safe(cell)) for cell in cells))
    console().print(table)


def _lines(letter: DeadLetter) -> Iterator[str]:
    row = letter.to_dict()
    for name, value in (
        ("id", row["message_id"]),
        ("for", f"@{row['user']}" if row["user"] else "nobody knows"),
        ("from", f"@{row['sender']} to {row['to']}" if row["sender"] else "nobody knows"),
        ("queue", row["queue"]),
        ("attempts", str(row["attempts"])),
        ("reason", row["reason"]),
        ("first failure", _iso(letter.first_failure) or "unknown"),
        ("last failure", _iso(letter.last_failure) or "unknown"),
        ("bytes", f"{len(letter.body):,}"),
    ):
        yield f"{name:14} {safe(value)}"
    for number, failure in enumerate(letter.failures, 1):
        yield f"failure {number:<6} {safe(failure)}"
    if letter.message is not None:
        yield from ("", safe(letter.message.content, lines=True))
        return
    yield ""
    for offset in range(0, min(len(letter.body), HEX_BYTES), 16):
        piece = letter.body[offset : offset + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        yield f"{offset:08x}  {piece.hex(' '):47}  {text}"
    if len(letter.body) > HEX_BYTES:
        yield f"… {len(letter.body) - HEX_BYTES:,} bytes more: --json has them all"
