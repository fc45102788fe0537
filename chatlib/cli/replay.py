"""`chatlib replay`: play a transcript through a broker and judge what arrived."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chatlib.cli.common import BAD, CANNOT, console, failures, finite, tell, write_json
from chatlib.errors import ChatError
from chatlib.terminal.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress as Bar

    from chatlib.brokers import Broker
    from chatlib.replay import Progress, ReplayResult

__all__ = ["replay"]

DAY = 86_400.0
COLUMNS = ("attempted", "confirmed", "delivered", "lost", "duplicated", "unexpected", "out_of_order")
DEFECTS = ("lost", "duplicated", "unexpected", "out_of_order")


def replay(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE.jsonl", help="The transcript; without one, the short one that comes with chatlib.", show_default=False
        ),
    ] = None,
    speed: Annotated[
        float, typer.Option("--speed", metavar="N", help="0: as fast as it goes. 1: in real time. 60: a minute in a second.", min=0.0)
    ] = 0.0,
    idle_limit: Annotated[
        float | None,
        typer.Option(
            "--idle-limit", metavar="SECONDS", help="With --speed: cut a silence that would last longer.", min=0.0, show_default=False
        ),
    ] = None,
    broker: Annotated[
        str | None,
        typer.Option(
            "--broker",
            metavar="URL",
            help="amqp://user:password@host:5672/; else $CHATLIB_BROKER_URL, a running `chatlib broker`, or a private one for this replay.",
            show_default=False,
        ),
    ] = None,
    prefix: Annotated[
        str,
        typer.Option(
            "--prefix", metavar="TEXT", help="Put before every name, to keep apart from other users of the broker.", show_default=False
        ),
    ] = "",
    purge: Annotated[bool, typer.Option("--purge", help="First throw away what waits in the inboxes of the transcript's users.")] = False,
    receipts: Annotated[bool, typer.Option("--receipts", help="Recipients also tell senders 'delivered': twice the traffic.")] = False,
    gap: Annotated[
        float,
        typer.Option(
            "--gap", metavar="DAYS", help="Who was in a group has left it after so many days without a word in it; 0: never.", min=0.0
        ),
    ] = 30.0,
    keep_history: Annotated[
        Path | None, typer.Option("--keep-history", metavar="FILE", help="Write every event to FILE, as JSON Lines.", show_default=False)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The result as one JSON object on standard output, and nothing else there.")
    ] = False,
) -> None:
    """Replay a transcript among its users through a broker, and check what arrived.

    Each sender sends; each member of the group at that line receives in an inbox of his own. Joining, leaving, quitting and
    changes of name are carried out on the broker; what is said while somebody is away waits for him. Then everybody comes online,
    all inboxes are emptied, and the checker compares who had to get what, which the transcript says, with who got what.

    Exit status: 0 only if nothing was lost, duplicated, unexpected or out of order; 1 otherwise; 2 if it could not be played.

    On a broker of others the users keep their names: messages that wait for one of them are not touched (it refuses to begin,
    see --prefix and --purge), and the transcript alone decides who is a member of the groups that it names.

    \b
    Examples:
      chatlib replay                            the short one, on a private broker
      chatlib replay chat.jsonl --keep-history run.jsonl
      chatlib replay chat.jsonl --speed 60 --idle-limit 2
      chatlib replay chat.jsonl --json | jq .lost
      chatlib replay --prefix test- --broker amqp://user:password@host/
    """
    from chatlib.brokers import LocalBroker
    from chatlib.player import silences
    from chatlib.replay import playable
    from chatlib.replay import replay as play
    from chatlib.transcript import small_transcript

    finite(**{"--speed": speed, "--idle-limit": idle_limit, "--gap": gap})
    with failures(CANNOT):
        if idle_limit is not None and not speed:
            raise ChatError("--idle-limit shortens the silences that --speed keeps, and says nothing without it: add --speed 1")
        script = playable(small_transcript() if file is None else file, prefix)
        if speed:
            tell(f"at speed {speed:g} this takes {_in_words(sum(silences(script, speed, idle_limit)))}")
        if keep_history is not None:
            if not keep_history.absolute().parent.is_dir():
                raise ChatError(f"--keep-history {keep_history}: there is no folder {keep_history.absolute().parent}")
            try:
                keep_history.open("a").close()  # now, and not when all is played
            except OSError as error:
                raise ChatError(f"--keep-history {keep_history}: {error.strerror}: name a file that you can write") from None
        node = _broker(broker)
        private = isinstance(node, LocalBroker) and not node.detached
        if private:
            tell("starting a private broker ...")
        with node, _bar() as bar:
            result = play(
                script,
                node,
                speed=speed,
                idle_limit=idle_limit,
                gap=gap * DAY or None,
                purge=purge,
                fresh=private,
                receipts=receipts,
                history_file=keep_history,
                on_progress=_follow(bar),
            )
    if as_json:
        write_json(result.to_dict())
    else:
        _show(result)
    raise typer.Exit(0 if result.clean else BAD)


def _broker(url: str | None) -> Broker:
    from chatlib.brokers import broker_at, default_broker

    return default_broker() if url is None else broker_at(url)


def _in_words(seconds: float) -> str:
    for unit, size in (("years", 365 * DAY), ("days", DAY), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"about {seconds / size:,.0f} {unit}" if seconds < 1e6 * size else "longer than anybody waits"
    return f"about {seconds:.0f} seconds"


def _bar() -> Bar:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    err = console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[more]}"),
        TimeElapsedColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )


def _follow(bar: Bar) -> Callable[[Progress], None]:
    task = bar.add_task("signing up", total=None, more="")

    def follow(progress: Progress) -> None:
        more = f"lines, {progress.handled:,} of {progress.expected:,} deliveries, {progress.online:,} online"
        bar.update(task, description=progress.phase, completed=progress.records, total=progress.total, more=more)

    return follow


def _show(result: ReplayResult) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    out, verdict = console(), result.verdict
    say = partial(out.print, soft_wrap=True)  # lines for people, and for grep: not broken
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    cells: list[str] = []
    for name in COLUMNS:
        count: Any = getattr(verdict, name)
        table.add_column(name.replace("_", " "), justify="right")
        cells.append(f"[bold red]{count:,}[/]" if name in DEFECTS and count else f"{count:,}")
    table.add_column("messages/s", justify="right")
    table.add_row(*cells, f"{result.messages_per_second:,.0f}")
    say(
        f"{escape(result.source)}: {result.messages:,} messages by {result.senders:,} of {result.users:,} users "
        f"in {counted(result.groups, 'group')}, "
        f"{result.seconds:,.1f} s, {result.deliveries_per_second:,.0f} deliveries/s"
    )
    out.print(table)
    mark, style = ("✔", "green") if result.clean else ("✘", "bold red")
    say(f"[{style}]{mark} {escape(verdict.sentence)}[/]")
    if verdict.handled != result.expected or verdict.confirmed != result.messages:
        say(f"  asked for: {result.messages:,} messages, {result.expected:,} deliveries")
    if result.reconnects:
        say(f"  the link to the broker was made anew {result.reconnects:,} times")
    if verdict.receipts:
        say(f"  {verdict.receipts:,} receipts came back to senders")
    for examples in verdict.examples.values():
        for example in examples:
            say(f"  {escape(str(example))}")
