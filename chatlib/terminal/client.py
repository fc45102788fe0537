"""The client of one user at a terminal: sends what is typed, shows what comes in, carries out the commands."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chatlib.errors import ChatError
from chatlib.link import LinkState
from chatlib.names import parse_address
from chatlib.sent import SentState
from chatlib.terminal.audience import Audience
from chatlib.terminal.line import Heard, Note, Own
from chatlib.terminal.text import counted
from chatlib.terminal.typed import COMMANDS, Command, Say, group_address, parse

if TYPE_CHECKING:
    from chatlib.chat import Chat
    from chatlib.received import ReceivedMessage
    from chatlib.terminal.screen import Screen

__all__ = ["Client", "Status"]

_log = logging.getLogger("chatlib.terminal")

SEEN: Final = 1000  # lines of each conversation that /history can show again without a kept history
BATCH: Final = 100  # messages shown in one go; the default prefetch, so that more are never there
LISTEN: Final = 0.5  # seconds of waiting for messages before looking whether this is the end


@dataclass(frozen=True, slots=True)
class Status:
    """What a prompt or a toolbar shows. unread: by conversation, of those that are not open. pending: sent, no outcome yet."""

    user: str
    conversation: str | None
    link: LinkState
    online: bool
    unread: dict[str, int]
    pending: int


class Client:
    """`name` at `screen`, in `chat`. Thread-safe. Raises as `Chat.user`."""

    def __init__(self, chat: Chat, name: str, screen: Screen) -> None:
        self._chat = chat
        self._screen = screen
        self._user = chat.user(name)
        self._lock = threading.Lock()
        self._conversation: str | None = None
        self._unread: dict[str, list[ReceivedMessage]] = {}
        self._seen: dict[str, deque[Heard]] = {}
        self._pending: dict[str, Own] = {}
        self._sent: deque[Own] = deque(maxlen=SEEN)  # what nobody holds gets no receipts
        self._count = 0
        self._link = chat.state
        self._audience = Audience(chat, self._user.name)
        self.failures = 0  #: lines that were refused and messages that will not arrive
        self.quitting = threading.Event()  #: set by /quit
        self._unwatch = chat.on_state(self._on_link)
        self._listener = threading.Thread(target=self._listen, name=f"terminal of {name}", daemon=True)

    # ---- for the screen --------------------------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        """What is so now."""
        with self._lock:
            unread = {conversation: len(messages) for conversation, messages in self._unread.items()}
            return Status(self._user.name, self._conversation, self._chat.state, self._user.is_online, unread, len(self._pending))

    @property
    def addresses(self) -> list[str]:
        """Everybody and every group that was seen, sorted: to complete what is typed."""
        with self._lock:
            people = {f"@{line.sender}" for lines in self._seen.values() for line in lines}
            return sorted((people | set(self._seen)) - {self._user.address})

    def start(self) -> None:
        """Begin to show what comes in."""
        self._listener.start()

    def open(self, address: str) -> int:
        """Make `address` (checked) the open conversation; how many unread messages in it are read now."""
        with self._lock:
            self._conversation = address
            unread = self._unread.pop(address, [])
        if unread:
            unread[-1].mark_read()
        self._screen.refresh()
        return len(unread)

    def execute(self, typed: str) -> None:
        """Do what was typed. What is wrong with it is shown on one line; nothing is raised."""
        try:
            meaning = parse(typed)
            if isinstance(meaning, Say):
                self._say(meaning)
            elif meaning is not None:
                self._command(meaning)
        except ChatError as error:
            self.fail(str(error))
        except Exception as error:  # noqa: BLE001  a fault of the program: tell, and let the user go on
            _log.exception("failed at %r", typed)
            self.fail(f"that failed ({type(error).__name__}: {error}): it was not done")

    def fail(self, why: str) -> None:
        """Show one line of an error."""
        self.failures += 1
        self._screen.show([Note(" ".join(why.split()), "error")])

    def wait_settled(self, timeout: float) -> int:
        """Wait at most `timeout` seconds for the outcome of what was sent; how many messages have none by then."""
        self._chat.flush(timeout)
        with self._lock:
            return len(self._pending)

    def close(self) -> None:
        """Show nothing more. What comes in from now on stays in the inbox. The chat stays open."""
        self._unwatch()
        self.quitting.set()
        self._audience.close()
        if self._listener.is_alive():
            self._listener.join(2 * LISTEN)

    # ---- sending ---------------------------------------------------------------------------------------------------------

    def _say(self, words: Say) -> None:
        to = words.to or self._conversation
        if to is None:
            raise ChatError("to whom? Write '@bob hello' or '#team hello', or open a conversation with '/to @bob'")
        sent = self._user.send(to, words.content)
        if to != self._conversation:
            self.open(to)
        self._count += 1
        own = Own(sent, self._count)
        with self._lock:
            self._pending[sent.message_id] = own
            self._sent.append(own)
        self._remember(to, Heard(self._user.name, to if to.startswith("#") else None, sent.content, sent.timestamp, own=own))
        self._screen.show([own])
        own.watch(self._on_change)
        self._on_change(own)  # it may have changed before it was watched
        if to.startswith("#"):
            self._audience.find(own, self._screen.changed)

    def _on_change(self, own: Own) -> None:
        """On a thread of chatlib."""
        if own.sent.state is not SentState.PENDING:
            with self._lock:
                first = self._pending.pop(own.sent.message_id, None)
            if first and own.is_failed:
                self.failures += 1
        self._screen.changed(own)

    # ---- receiving -------------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Acked is what was on the screen, so that a terminal that dies in between shows it again and loses nothing."""
        while not self.quitting.is_set():
            try:
                batch = list(self._user.receive(limit=1, timeout=LISTEN))
                if batch:
                    batch += self._user.receive(limit=BATCH - 1, timeout=0)
                    for received in batch:
                        self._remember(received.conversation, Heard.of(received))
                    if not self._screen.show([Heard.of(received) for received in batch]):
                        return
                    self._take(batch)
            except ChatError as error:
                if self.quitting.is_set():
                    return
                self.fail(str(error))

    def _take(self, batch: Iterable[ReceivedMessage]) -> None:
        read: dict[str, ReceivedMessage] = {}
        for received in batch:
            received.ack()
            conversation = received.conversation
            with self._lock:
                if conversation == self._conversation:
                    read[conversation] = received
                else:
                    self._unread.setdefault(conversation, []).append(received)
        for received in read.values():
            received.mark_read()  # this one, and all before it in its conversation
        self._screen.refresh()

    def _remember(self, conversation: str, line: Heard) -> None:
        with self._lock:
            self._seen.setdefault(conversation, deque(maxlen=SEEN)).append(line)

    def _on_link(self, state: LinkState, reason: str) -> None:
        """On the I/O thread."""
        before, self._link = self._link, state
        if state is LinkState.RECOVERING:
            self._tell("the broker is gone: reconnecting. What you type is kept and sent when it is back")
        elif state is LinkState.BLOCKED:
            self._tell(f"the broker takes no messages for now ({reason}). What you type is kept and sent when it does")
        elif state is LinkState.CONNECTED:
            self._tell("connected again" if before is LinkState.RECOVERING else "the broker takes messages again")
            self._count_again()
        self._screen.refresh()

    def _count_again(self) -> None:
        """Of what was said while the broker was away nobody could tell for how many it is."""
        self._audience.ask_again()
        with self._lock:
            unknown = [own for own in self._sent if own.sent.to.startswith("#") and own.audience is None]
        for own in unknown:
            self._audience.find(own, self._screen.changed)

    def _tell(self, text: str) -> None:
        self._screen.post([Note(text)])

    # ---- commands --------------------------------------------------------------------------------------------------------

    def _command(self, command: Command) -> None:
        getattr(self, f"_{command.name[1:]}")(command.argument)

    def _to(self, argument: str) -> None:
        if not argument:
            open_now = f"this is {self._conversation}; " if self._conversation else ""
            known = ", ".join(self.addresses) or "nobody yet"
            self._tell(f"{open_now}to open another: /to @bob or /to #team. Seen so far: {known}")
            return
        address, _, words = argument.partition(" ")
        if words:
            raise ChatError(f"/to takes an address and nothing else; '{argument}' alone sends at once")
        address = str(parse_address(address))
        read = self.open(address)
        self._tell(f"what you type goes to {address}" + (f"; {read} read" if read else ""))

    def _join(self, argument: str) -> None:
        group = group_address(argument or self._open_group, "/join #team")
        self._user.join(group)
        self._audience.forget(group)
        self.open(group)
        self._tell(f"you are a member of {group}; what you type goes there")

    def _leave(self, argument: str) -> None:
        group = group_address(argument or self._open_group, "/leave #team")
        self._user.leave(group)
        self._audience.forget(group)
        with self._lock:
            if self._conversation == group:  # or the next words would go where one has just left
                self._conversation = None
        self._tell(f"you are not in {group} now")
        self._screen.refresh()

    @property
    def _open_group(self) -> str:
        """The open conversation, if it is one of a group."""
        conversation = self._conversation or ""
        return conversation if conversation.startswith("#") else ""

    def _groups(self, _: str) -> None:
        groups = sorted(self._user.groups)
        self._tell(f"you are in {', '.join(groups)}" if groups else "you are in no group: /join #team")

    def _who(self, argument: str) -> None:
        address = argument or self._conversation or ""
        if address.startswith("@") and not argument:
            self._tell(f"{self._user.name} and {address[1:]}")
            return
        group = group_address(address, "/who #team")
        members = sorted(self._audience.members(group))
        self._tell(f"{counted(len(members), 'member')} in {group}: {', '.join(members)}" if members else f"nobody is in {group}")

    def _history(self, argument: str) -> None:
        conversation = self._conversation
        if conversation is None:
            raise ChatError("the history of what? Open a conversation first, with '/to @bob' or '/to #team'")
        if argument == "on":
            if not conversation.startswith("#"):
                raise ChatError(f"only groups keep a history, and this is {conversation}; /history shows what was seen in this session")
            self._chat.group(conversation, history=True)
            self._tell(f"from now on what is said in {conversation} can be read again, by everybody: /history")
            return
        if argument and not (argument.isascii() and argument.isdecimal() and 1 <= int(argument) <= SEEN):
            raise ChatError(f"/history takes a number from 1 to {SEEN:,}, or 'on', not {argument!r}")
        last = int(argument or 20)
        kept = self._kept(conversation, last)
        with self._lock:
            lines = list(self._seen.get(conversation, ()))[-last:] if kept is None else kept
        source = "seen in this session" if kept is None else "kept by the broker"
        self._screen.show([Note(f"{counted(len(lines), 'message')} in {conversation}, {source}:"), *lines])

    def _kept(self, conversation: str, last: int) -> list[Heard] | None:
        """The history that the broker keeps of a group, or None: of two people it keeps none."""
        if not conversation.startswith("#"):
            return None
        try:
            messages = list(self._chat.group(conversation).history(last=last))
        except ChatError as error:
            if not error.definite or self._chat.state is not LinkState.CONNECTED:
                raise
            return None
        return [Heard(message.sender_id, conversation, message.content, message.timestamp, old=True) for message in messages]

    def _offline(self, _: str) -> None:
        self._user.go_offline()
        self._tell("you are offline: what is sent to you is kept. /online gets it")
        self._screen.refresh()

    def _online(self, _: str) -> None:
        self._user.go_online()
        self._tell("you are online")
        self._screen.refresh()

    def _help(self, _: str) -> None:
        words = ["Type text for the open conversation. '@bob hello' opens another and sends."]
        words += [f"{f'{name} {takes}':<24} {does}" for name, (takes, does) in COMMANDS.items()]
        words += ["Ticks: · accepted, ✓ on the broker's disk, ✓✓ delivered; in a group, to n/m"]
        self._screen.show([Note(text) for text in words])

    def _quit(self, _: str) -> None:
        self.quitting.set()
