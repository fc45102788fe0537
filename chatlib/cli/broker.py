"""`chatlib broker`: a private RabbitMQ node of this user that outlives the terminal."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chatlib.brokers.base import BrokerState
from chatlib.cli.common import BAD, console, failures, tell, write_json
from chatlib.errors import ChatError

if TYPE_CHECKING:
    from chatlib.brokers import LocalBroker

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    help="A private RabbitMQ node of yours that outlives the terminal: start, stop, kill, look.",
    epilog="Other programs find it by themselves; for those that do not: export CHATLIB_BROKER_URL=$(chatlib broker start)",
)

Name = Annotated[str, typer.Option("--name", metavar="NAME", help="Which one; any number of them can run side by side.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output; the URL in it holds the password.")]
DEFAULT = "default"


@app.command()
def start(name: Name = DEFAULT, as_json: Json = False) -> None:
    """Start it, or find it running (a frozen one goes on); prints its URL when a client can use it.

    Only the URL goes to standard output. Messages survive stop, kill and restart; the URL stays the same.

    \b
    Examples:
      chatlib broker start
      export CHATLIB_BROKER_URL=$(chatlib broker start --name lesson)
    """
    with failures(BAD):
        node = _named(name)
        frozen, before = node.state is BrokerState.FROZEN, node.pid
        node.start()
        if as_json:
            write_json(node.status())
            return
        typer.echo(node.url)
        how = "was frozen, and goes on" if frozen else "was running already" if before else "runs"
        tell(f"broker {name!r} {how} (process {node.pid}); management pages at {node.management_url}")
        tell(f"stop it with: chatlib broker stop{_option(name)}")


@app.command()
def stop(name: Name = DEFAULT) -> None:
    """Stop it gracefully; its messages stay. No error if it is stopped already."""
    with failures(BAD):
        node = _known(name)
        ran = node.is_running
        node.stop()
        tell(f"broker {name!r} {'stopped' if ran else 'was not running'}")


@app.command()
def restart(name: Name = DEFAULT, as_json: Json = False) -> None:
    """Stop and start it; prints its URL, which stays the same."""
    with failures(BAD):
        node = _known(name)
        node.restart()
        if as_json:
            write_json(node.status())
        else:
            typer.echo(node.url)


@app.command()
def kill(name: Name = DEFAULT) -> None:
    """SIGKILL to the node, as in a crash. What it had confirmed is there again after `chatlib broker start`."""
    with failures(BAD):
        node = _running(name)
        pid = node.pid
        node.kill()
        tell(f"broker {name!r} (process {pid}) killed; start it again with: chatlib broker start{_option(name)}")


@app.command()
def freeze(name: Name = DEFAULT) -> None:
    """Take its processor time away (SIGSTOP): connections hang, and none is refused."""
    with failures(BAD):
        _running(name).freeze()
        tell(f"broker {name!r} is frozen; it goes on with: chatlib broker thaw{_option(name)}")


@app.command()
def thaw(name: Name = DEFAULT) -> None:
    """Undo freeze."""
    with failures(BAD):
        _running(name).thaw()
        tell(f"broker {name!r} goes on")


@app.command()
def status(name: Name = DEFAULT, as_json: Json = False) -> None:
    """What it is doing and where it is. Exit status 0 only if it is running (not stopped, starting or frozen).

    The password is in --json only, and in what `chatlib broker start` prints.
    """
    with failures(BAD):
        found = _status(_known(name))
    if as_json:
        write_json(found)
    else:
        _show(found)
    raise typer.Exit(0 if found["state"] == "running" else BAD)


@app.command()
def logs(
    name: Name = DEFAULT,
    lines: Annotated[int, typer.Option("--lines", "-n", metavar="N", help="How many, the latest.", min=0)] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what it says from now on, until Ctrl-C.")] = False,
) -> None:
    """The last lines of what the node says."""
    with failures(BAD):
        node = _known(name)
        for line in node.log_lines(lines):
            typer.echo(line)
        if follow:
            _follow(node.log_file)


@app.command("list")
def list_brokers(as_json: Json = False) -> None:
    """All named brokers of this user, running or not."""
    with failures(BAD):
        found = [_status(_named(name)) for name in _names()]
    if as_json:
        write_json(found)
    elif not found:
        tell("no brokers yet; make one with: chatlib broker start")
    else:
        _table(found)


# How


def _named(name: str) -> LocalBroker:
    from chatlib.brokers import LocalBroker

    return LocalBroker.named(name)


def _known(name: str) -> LocalBroker:
    """The broker of that name, if there ever was one."""
    node = _named(name)
    names = _names()
    if name not in names:
        others = f" (there are: {', '.join(names)})" if names else ""
        raise ChatError(f"there is no broker {name!r}{others}; make one with: chatlib broker start{_option(name)}")
    return node


def _running(name: str) -> LocalBroker:
    node = _known(name)
    if not node.is_running:
        raise ChatError(f"broker {name!r} does not run; start it with: chatlib broker start{_option(name)}")
    return node


def _names() -> list[str]:
    from chatlib.brokers.identity import FILE
    from chatlib.brokers.local import NAME
    from chatlib.brokers.registry import state_folder

    names = [found.parent.name for found in (state_folder() / "brokers").glob(f"*/{FILE}") if NAME.fullmatch(found.parent.name)]
    return sorted(names, key=lambda name: (name != DEFAULT, name))


def _status(node: LocalBroker) -> dict[str, Any]:
    """`LocalBroker.status`, or what is wrong with it: one damaged folder does not hide the others."""
    try:
        return dict(node.status())
    except ChatError as error:
        return {"name": node.name, "state": "damaged", "pid": None, "url": "", "error": str(error)}


def _show(found: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from chatlib.urls import masked

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in (found | {"url": masked(found["url"]) if found["url"] else ""}).items():
        table.add_row(key.replace("_", " "), escape("" if value is None else str(value)))
    console().print(table)


def _table(found: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from chatlib.urls import masked

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("name", "state", "process", "URL", "management"):
        table.add_column(name, overflow="fold")
    for each in found:
        row = (each["name"], each["state"], str(each["pid"] or ""), masked(each["url"]) if each["url"] else each.get("error", ""))
        table.add_row(*map(escape, (*row, each.get("management_url", ""))))
    console().print(table)


def _follow(file: Path) -> None:
    """Write what is added to `file`, also when it is begun anew."""
    pause, place = threading.Event(), file.stat().st_size if file.exists() else 0
    while not pause.wait(0.2):
        size = file.stat().st_size if file.exists() else 0
        if size < place:
            place = 0
        if size > place:
            with file.open("rb") as log:
                log.seek(place)
                added = log.read()
            place += len(added)
            typer.echo(added.decode("utf-8", "replace"), nl=False)


def _option(name: str) -> str:
    return "" if name == DEFAULT else f" --name {name}"
