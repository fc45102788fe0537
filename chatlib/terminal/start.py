"""`chatlib chat`, from its options to its exit status."""

from __future__ import annotations

import io
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chatlib.errors import OutboxError, OutboxLocked
from chatlib.names import check_user_name, parse_address
from chatlib.terminal.client import Client
from chatlib.terminal.line import Note
from chatlib.terminal.place import broker_name, data_folder, find_broker
from chatlib.terminal.plain import PlainScreen
from chatlib.terminal.text import counted

if TYPE_CHECKING:
    from chatlib.chat import Chat
    from chatlib.terminal.screen import Screen

__all__ = ["run"]

PATIENCE: Final = 10.0  # seconds that the end of a piped input waits for confirms
FAREWELL: Final = 2.0  # the same at a terminal, where somebody waits for the shell


def run(
    user: str,
    *,
    broker: str | None = None,
    management: str | None = None,
    to: str | None = None,
    data_dir: Path | None = None,
    plain: bool = False,
) -> int:
    """Chat as `user` on this terminal until he leaves; the exit status.

    broker, management: URLs, see `place.find_broker`. to: the conversation to begin with. data_dir: by default one for this user
    and broker. plain: lines, as in a pipe.
    0: all that was typed is with the broker. 1: something is not confirmed yet; with plain lines also if something was
    refused or will not arrive (at a prompt it was seen, and answered).
    130: ended by Ctrl-C (plain lines only). Raises ChatError for what keeps it from beginning, with what to do.
    """
    user = check_user_name(user)
    to = None if to is None else str(parse_address(to))
    lines_only = plain or not sys.stdin.isatty() or not sys.stdout.isatty() or os.environ.get("TERM") == "dumb"
    logging.getLogger("chatlib").addHandler(logging.NullHandler())  # or Python writes warnings into the conversation
    place = find_broker(broker, _tell, management=management)
    screen = _screen(lines_only, broker_name(place.url))
    folder = data_dir or data_folder(place.url, user)
    with _connect(place, folder, user) as chat:
        return _converse(chat, user, to, screen, PATIENCE if lines_only else FAREWELL)


def _tell(text: str) -> None:
    sys.stderr.write(f"* {text}\n")
    sys.stderr.flush()


def _screen(lines_only: bool, broker: str) -> Screen:
    if lines_only:
        if isinstance(sys.stdin, io.TextIOWrapper) and isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")  # bytes that are no text are refused line by line
            sys.stdout.reconfigure(errors="backslashreplace")  # what this locale cannot write
        return PlainScreen(sys.stdin, sys.stdout)
    from chatlib.terminal.prompt import PromptScreen  # prompt_toolkit takes 0.2 s to import

    return PromptScreen(colors=not os.environ.get("NO_COLOR"), broker=broker)


def _connect(place: object, folder: Path, user: str) -> Chat:
    from chatlib.chat import connect

    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # other people's words may be in it
        return connect(place, data_dir=folder, name=f"chatlib chat {user}")  # type: ignore[arg-type]
    except OutboxLocked:
        raise OutboxLocked(
            f"{user!r} is open in another terminal of yours, which has {folder}: use that one, or leave it there with /quit. "
            "To have both, give this one a --data-dir of its own; each message then comes to one of the two."
        ) from None
    except OSError as error:
        raise OutboxError(f"cannot use the folder {folder}: {error.strerror}: choose a --data-dir that you can write") from None


def _converse(chat: Chat, user: str, to: str | None, screen: Screen, patience: float) -> int:
    left = chat.unconfirmed
    client = Client(chat, user, screen)
    begin = f"What you type goes to {to}" if to else "Begin with /to @bob or /join #team"
    member = "" if to is None or to.startswith("@") else f"; /join {to} to be a member"
    screen.post([Note(f"you are {user}. {begin}{member}; /help lists the rest")])
    if left:
        screen.post([Note(f"{counted(left, 'message')} of last time without a confirm: being sent")])
    if to:
        client.open(to)
    client.start()
    status = 0
    try:
        screen.run(client)
    except KeyboardInterrupt:
        status = 130
    pending = client.wait_settled(patience if chat.state.value == "connected" else min(patience, FAREWELL))
    client.close()
    if pending:
        where = f"`chatlib chat --as {user}`"
        screen.post([Note(f"{counted(pending, 'message')} without a confirm: kept, and sent when you start {where} again", "error")])
    chat.close(timeout=1.0)  # it was flushed above
    screen.close()
    return status or int(bool(pending or (client.failures and isinstance(screen, PlainScreen))))
