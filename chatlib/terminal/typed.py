"""What somebody typed: a command, or words for somebody. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from chatlib.errors import ChatError, InvalidAddress
from chatlib.names import parse_address

__all__ = ["COMMANDS", "Command", "Say", "group_address", "parse"]

COMMANDS: dict[str, tuple[str, str]] = {
    "/to": ("@user or #group", "open a conversation: what you type goes there"),
    "/join": ("#group", "become a member; what is said is kept for you"),
    "/leave": ("[#group]", "stop being a member"),
    "/groups": ("", "your groups"),
    "/who": ("[#group]", "who is in it"),
    "/history": ("[n] or on", "the last n messages; on: keep those of this group"),
    "/offline": ("", "receive nothing for now: it is kept for you"),
    "/online": ("", "receive again, in order"),
    "/say": ("text", "send text that begins with / @ or #"),
    "/help": ("", "this list"),
    "/quit": ("", "leave (also Ctrl-D, or Ctrl-C twice; once with --plain)"),
}
"""Every command: what it takes, and what it does."""


@dataclass(frozen=True, slots=True)
class Command:
    """`name` is one of `COMMANDS`; `argument` the rest of the line, without spaces around it."""

    name: str
    argument: str = ""


@dataclass(frozen=True, slots=True)
class Say:
    """`content` for the conversation `to` ("@bob", "#team"; None: the open one)."""

    content: str
    to: str | None = None


def parse(line: str) -> Command | Say | None:
    """What `line` means; None for an empty one.

    "@bob hello" says hello to bob, "@bob" alone is "/to @bob". Raises InvalidAddress or InvalidName for an address that
    breaks a rule, ChatError for an unknown command.
    """
    line = line.strip(" \t\r\n")
    if not line:
        return None
    word, _, rest = line.partition(" ")
    rest = rest.strip(" ")
    if word.startswith("/"):
        if word == "/say":
            if not rest:
                raise ChatError("say what? /say text")
            return Say(rest)
        if word not in COMMANDS:
            raise ChatError(f"there is no command {word}: /help lists them, and '/say {word} ...' sends it as text")
        return Command(word, rest)
    if word[0] in "@#":
        address = str(parse_address(word))
        return Say(rest, address) if rest else Command("/to", address)
    return Say(line)


def group_address(argument: str, usage: str = "write '#team'") -> str:
    """The address of a group, "#team"; raises InvalidAddress for anything else, InvalidName for a name that breaks a rule.

    usage: how the command is written, for the error.
    """
    if not argument:
        raise InvalidAddress(f"which group? {usage}")
    if argument.startswith("@"):
        raise InvalidAddress(f"{argument} is a user, and this is about groups: {usage}")
    return str(parse_address(argument))
