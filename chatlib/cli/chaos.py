"""`chatlib chaos`: many users, a random schedule of faults, and the verdict."""

from __future__ import annotations

import contextlib
import math
import random
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chatlib.cli.common import BAD, CANNOT, INTERRUPTED, console, failures, finite, tell, write_json
from chatlib.errors import ChatError
from chatlib.terminal.text import counted

if TYPE_CHECKING:
    from chatlib.chaos import ChaosResult, Progress, Schedule

__all__ = ["chaos"]

FAULTS = 20
PER_MINUTE = 60  # faults that are drawn for each minute: more than can happen in it
HOME = Path("artifacts/chaos")
COLUMNS = ("attempted", "confirmed", "delivered", "lost", "duplicated", "unexpected", "out_of_order")
OWN = ("forgotten", "repeated", "untold")
DEFECTS = ("lost", "duplicated", "unexpected", "out_of_order", *OWN)


def chaos(
    faults: Annotated[
        int | None, typer.Option("--faults", metavar="N", help=f"How many faults; {FAULTS} unless said otherwise.", min=0)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", metavar="M", help="For how long, instead of how many faults.", min=0.0, show_default=False)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", help="The same seed gives the same schedule; without one it is by chance, and told.", min=0),
    ] = None,
    broker: Annotated[
        str, typer.Option("--broker", metavar="local|cluster|docker", help="What is broken: a private broker, made for the run.")
    ] = "local",
    users: Annotated[int, typer.Option("--users", metavar="N", help="How many users.", min=2, max=10_000)] = 20,
    processes: Annotated[int, typer.Option("--processes", metavar="N", help="In how many processes.", min=2, max=200)] = 5,
    rate: Annotated[float, typer.Option("--rate", metavar="N", help="Messages a second, all senders together.", min=0.1)] = 80.0,
    drain: Annotated[
        float, typer.Option("--drain", metavar="SECONDS", help="How long what was sent may take to arrive after the last fault.", min=1.0)
    ] = 300.0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FOLDER",
            help="Where schedule, histories, logs, verdict and picture go; new or empty. Without it: one of its own in artifacts/chaos.",
            show_default=False,
        ),
    ] = None,
    again: Annotated[
        Path | None,
        typer.Option(
            "--replay", metavar="FOLDER", help="Play the schedule of the run in FOLDER again, into a new folder.", show_default=False
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The result as one JSON object on standard output, and nothing else there.")
    ] = False,
) -> None:
    """Break everything, by chance, under load, and check that nothing was lost.

    Users in several processes send to each other and to groups, go offline and online, join, leave, fail and try again. Meanwhile
    the broker is stopped, killed, frozen and short of memory and disk, the network cut, delayed and swallowed, processes killed,
    connections closed. At the end everything is healed, everybody online, the inboxes are emptied, and the records of all processes
    are checked: nothing lost, nothing handled twice, nothing out of order, every sender told.

    Exit status: 0 only if every promise was kept; 1 otherwise; 2 if it could not be run.

    \b
    Examples:
      chatlib chaos                                  20 faults, about two minutes
      chatlib chaos --faults 200 --seed 1
      chatlib chaos --minutes 10 --broker docker
      chatlib chaos --replay artifacts/chaos/20261122-101500-seed-1
      chatlib chaos --seed 7 --json | jq .verdict.lost
    """
    finite(**{"--minutes": minutes, "--rate": rate, "--drain": drain})
    with failures(CANNOT):
        schedule = _schedule(faults, minutes, seed, broker, users, processes, rate, again)
        folder = output or HOME / f"{datetime.now():%Y%m%d-%H%M%S}-seed-{schedule.seed}"  # noqa: DTZ005  the reader's clock
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ChatError(f"--output {folder}: {error.strerror}: name a folder that you can write") from None
    what = counted(len(schedule.steps), "fault") if schedule.seconds is None else "random faults"
    tell(f"seed {schedule.seed}, {what}, in {folder}")
    with failures(CANNOT), _told_where(folder), _Screen() as screen:
        from chatlib.chaos import play

        result = play(schedule, folder, drain=drain, on_progress=screen.progress, say=screen.say)
    note = _draw(result)
    if as_json:
        write_json(result.to_dict())
    else:
        _show(result, note)
    raise typer.Exit(0 if result.valid else BAD)


def _schedule(
    faults: int | None,
    minutes: float | None,
    seed: int | None,
    broker: str,
    users: int,
    processes: int,
    rate: float,
    again: Path | None,
) -> Schedule:
    from chatlib.chaos import draw
    from chatlib.chaos import schedule as schedules

    if again is not None:
        if any(value is not None for value in (faults, minutes, seed)):
            raise ChatError("--replay plays the schedule that it finds: without --faults, --minutes and --seed")
        return schedules.Schedule.load(again / "schedule.json")
    if faults is not None and minutes is not None:
        raise ChatError("either --faults or --minutes, not both")
    if seed is None:
        seed = random.SystemRandom().randrange(10_000)
    count, seconds = (FAULTS if faults is None else faults), None
    if minutes is not None:
        count, seconds = math.ceil(minutes * PER_MINUTE), minutes * 60
    try:
        return draw(seed, count, broker=broker, users=users, processes=processes, rate=rate, seconds=seconds)
    except ValueError as error:
        raise ChatError(str(error)) from None


@contextlib.contextmanager
def _told_where(folder: Path) -> Iterator[None]:
    """Whoever interrupts a run, by Ctrl-C or SIGTERM, is told what there is of it; by now all is healed and ended."""
    ours = threading.current_thread() is threading.main_thread()  # Python takes signals there only
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if ours else None
    try:
        yield
    except KeyboardInterrupt:
        tell(f"interrupted: healed, everything that was started has ended; what was recorded until then is in {folder}")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        if ours:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


class _Screen:
    """Where the run is told: a bar at a terminal with what happened above it; elsewhere only what happened, a line each."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._console = console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[more]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("setup", total=None, more="")

    def progress(self, progress: Progress) -> None:
        """Show it."""
        more = f"{progress.sent:,} sent, {progress.unconfirmed:,} unconfirmed, {progress.handled:,} handled"
        if progress.under_way:
            more = f"[red]{', '.join(progress.under_way)}[/]  {more}"
        self._bar.update(self._task, description=progress.phase, completed=progress.done, total=progress.total, more=more)

    def say(self, line: str) -> None:
        """One line for what happened."""
        self._console.print(line, markup=False, soft_wrap=True)

    def __enter__(self) -> _Screen:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _draw(result: ChaosResult) -> str:
    """The picture into the folder; why there is none, if so."""
    try:
        from chatlib.chaos.chart import Curves, chart, draw_to
        from chatlib.chaos.run import histories
        from chatlib.recorder import stream

        curves = Curves(stream(*histories(result.folder)), result.folder / "depth.jsonl")
        return draw_to(result.folder, chart(curves, f"{'✔' if result.valid else '✘'} chaos, {result.title}"))[1]
    except ImportError:
        return 'no picture: pip install "chatlib[lab]" brings plotly'


def _show(result: ChaosResult, note: str) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    out, judgement = console(), result.judgement
    say: Callable[..., None] = partial(out.print, soft_wrap=True)  # lines for people, and for grep: not broken
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    cells: list[str] = []
    for name in (*COLUMNS, *OWN):
        count: Any = getattr(judgement if name in OWN else judgement.verdict, name)
        table.add_column(name.replace("_", " "), justify="right")
        cells.append(f"[bold red]{count:,}[/]" if name in DEFECTS and count else f"{count:,}")
    table.add_row(*cells)
    say(", ".join(f"{count} × {name.replace('_', ' ')}" for name, count in result.faults.items()) or "no faults")
    out.print(table)
    mark, style = ("✔ valid", "green") if result.valid else ("✘ NOT VALID", "bold red")
    say(f"[{style}]{mark}: {escape(result.sentence)}[/]")
    for problem in result.problems:
        say(f"  the run itself: {escape(problem)}")
    for defect, examples in judgement.examples.items():
        for text in examples:
            say(f"  {defect}: {escape(text)}")
    for found in judgement.verdict.examples.values():
        for example in found:
            say(f"  {escape(str(example))}")
    if note:
        say(f"  {escape(note)}")
    say(f"  everything is in {escape(str(result.folder))}; the same schedule again: chatlib chaos --replay {escape(str(result.folder))}")
