"""Between a chat and a room: what happens in the chat goes into the room's model, what is clicked in the room is done in the chat.

The room takes over the handlers of its people, and gives them back. What a cell sends for one of them is seen through the chat's events.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from chatlib.chat import Chat
from chatlib.errors import BrokerUnavailable, ChatClosed, ChatError, ManagementError, ManagementUnreachable
from chatlib.events import JOINED, LEFT, LINK, SENT, STORED, Event
from chatlib.lab.widgets.room_model import RoomModel
from chatlib.link import LinkState
from chatlib.names import parse_address
from chatlib.received import ReceivedMessage
from chatlib.sent import SentMessage
from chatlib.user import ChatUser, Handler

__all__ = ["Feed"]

_log = logging.getLogger("chatlib.lab")

PERIOD: Final = 1.0  # seconds between two questions to the broker
SIGNING_UP: Final = "waiting for the broker to sign up"
PATIENCE: Final = 30.0  # seconds before a broker without a management API is asked again
UP: Final = (LinkState.CONNECTED, LinkState.BLOCKED)


class _Taker:
    """The handler of one person while a room is open; it knows whose place it took."""

    def __init__(self, user: ChatUser, take: Callable[[str, ReceivedMessage], None]) -> None:
        self._user = user
        self._take = take
        self._before: tuple[Handler | None, int | None, float] = (user._handler, user._pause_after, user._pause_for)
        self._is_open = True
        user.on_message(self)

    def __call__(self, received: ReceivedMessage) -> None:
        self._take(self._user.name, received)

    @property
    def has_it(self) -> bool:
        """Whether nobody else has taken the messages meanwhile."""
        return self._user._handler is self

    def give_back(self) -> None:
        """To who had it before, unless somebody else has taken it meanwhile; a room that was closed meanwhile gets nothing."""
        self._is_open = False
        if not self.has_it:
            return
        handler, pause_after, pause_for = self._before
        while isinstance(handler, _Taker) and not handler._is_open:
            handler, pause_after, pause_for = handler._before
        with contextlib.suppress(ChatError):  # the chat is closed
            self._user.on_message(handler, pause_after=pause_after, pause_for=pause_for)


class Feed:
    """groups: by address, who joins at the beginning. Thread-safe. `look` is quick, `ask` may take as long as the broker likes."""

    def __init__(self, chat: Chat, model: RoomModel, groups: Mapping[str, Sequence[str]]) -> None:
        self._chat = chat
        self._model = model
        self._to_join = [(name, group) for group, names in groups.items() for name in names]
        self._lock = threading.Lock()
        self._accepted: dict[str, SentMessage | None] = {}  # sent by people of the room and not shown yet
        self._users: dict[str, ChatUser] = {}
        self._takers: dict[str, _Taker] = {}
        self._unlisten: Callable[[], None] = lambda: None
        self._reason = ""
        self._due = 0.0
        self._pause = PERIOD  # before groups are asked for again
        self._groups_due = 0.0
        self._is_open = False

    def sign_up(self) -> bool:
        """Sign everybody up and have them join; False if the broker is not there: `ask` tries again.

        Raises InvalidName, TopologyMismatch.
        """
        if self._chat.state not in UP:
            return False
        try:
            self._users = {user.name: user for user in self._chat.users(self._model.names)}
            while self._to_join:
                name, group = self._to_join[0]
                self._users[name].join(group)
                self._model.set_member(name, group, True)
                del self._to_join[0]
        except BrokerUnavailable as exc:
            _log.info("the people of the room are not signed up yet: %s", exc)
            return False
        return True

    def open(self) -> None:
        """Take over the handlers, and listen."""
        with self._lock:
            if not self._is_open:
                self._is_open = True
                self._unlisten = self._chat.on_event(self._on_event)
        if not self._users:
            for name in self._model.names:
                self._model.begin(name, SIGNING_UP)
        self._take_over()

    def _take_over(self) -> None:
        with self._lock:
            if self._is_open and not self._takers:
                self._takers = {name: _Taker(user, self._hear) for name, user in self._users.items()}

    def _hear(self, name: str, received: ReceivedMessage) -> None:
        """On a handler's thread. What was said before it is shown before it: an answer never stands above its question."""
        self._show_accepted()
        self._model.hear(name, received)

    def close(self) -> None:
        """Give the handlers back, listen no more."""
        with self._lock:
            self._is_open = False
            takers, self._takers = self._takers, {}
        self._unlisten()
        for taker in takers.values():
            taker.give_back()

    # ---- in --------------------------------------------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        """On the thread where it happened."""
        hop = event["hop"]
        if hop == STORED:
            if event["user"] in self._model.names:
                with self._lock:
                    self._accepted[event["message_id"]] = None
        elif hop == SENT:  # its sender may not have kept it, and after the confirm nobody has it any more: hold it until it is shown
            with self._lock:
                if self._accepted.get(event["message_id"], self) is None:
                    self._accepted[event["message_id"]] = self._chat.sent(event["message_id"])
        elif hop in (JOINED, LEFT):
            self._model.set_member(event["user"], event["to"], hop == JOINED)
        elif hop == LINK:
            self._reason = event["reason"]

    def look(self) -> None:
        """What can be had without asking the broker; and what is open is read."""
        self._show_accepted()
        for name, taker in list(self._takers.items()):
            self._model.set_online(name, self._users[name].is_online, deaf=not taker.has_it)
        state = self._chat.state
        self._model.set_link(state, self._reason if state is LinkState.BLOCKED else "", self._chat.reconnects)
        for received in self._model.to_read():
            with contextlib.suppress(ChatClosed):
                received.mark_read()

    def _show_accepted(self) -> None:
        with self._lock:  # in the order in which they were sent
            for message_id, held in list(self._accepted.items()):
                sent = held or self._chat.sent(message_id)
                if sent is not None:  # else it is being accepted at this moment
                    self._model.say(sent)
                    del self._accepted[message_id]

    # ---- questions to the broker -----------------------------------------------------------------------------------------------

    @property
    def wants_to_ask(self) -> bool:
        """Whether it is time to call `ask`."""
        if time.monotonic() < self._due or self._chat.state not in UP:
            return False
        return bool(self._model.away or self._to_join or not self._users or self._model.has_stale)

    def ask(self) -> None:
        """Ask the broker for what waits for those who are away and for who is in which group. May take a while."""
        try:
            if (self._to_join or not self._users) and self.sign_up():
                for name in self._users:
                    self._model.end(name, SIGNING_UP)
                self._take_over()
            for name in self._model.away:
                if name in self._users:
                    self._model.set_waiting(name, self._users[name].waiting)
            if time.monotonic() >= self._groups_due:
                self._ask_for_members()
        except (BrokerUnavailable, ChatClosed) as exc:
            _log.debug("the broker was asked, and did not answer: %s", exc)
        finally:
            self._due = time.monotonic() + PERIOD

    def _ask_for_members(self) -> None:
        groups = self._model.take_stale()
        for number, group in enumerate(groups):
            try:
                self._model.set_members(group, self._chat.members(group))
                self._pause = PERIOD
            except (ManagementUnreachable, ManagementError) as exc:  # after a start it comes up later than the broker
                _log.debug("the members of %s are unknown: %s", group, exc)
                for each in groups[number:]:
                    self._model.again(each)
                self._groups_due = time.monotonic() + self._pause
                self._pause = min(2 * self._pause, PATIENCE)
                return

    # ---- what is typed and clicked ---------------------------------------------------------------------------------------------

    def send(self, name: str, number: str, to: str, text: str) -> None:
        """`name` says `text`; the click `number` is answered."""

        def act() -> None:
            self._user(name).send(to, text)
            self._show_accepted()

        self._act(name, number, "", act)

    def open_conversation(self, name: str, number: str, address: str) -> None:
        """`name` looks at this conversation."""
        self._act(name, number, "", lambda: self._model.open(name, str(parse_address(address)) if address else ""))

    def switch(self, name: str, number: str, online: bool) -> None:
        """`name` goes online or away."""

        def act() -> None:
            user = self._user(name)
            user.go_online() if online else user.go_offline()

        self._act(name, number, "coming online" if online else "going away", act)

    def join(self, name: str, number: str, group: str) -> None:
        """`name` becomes a member of `group`, and looks at it."""

        def act() -> None:
            self._user(name).join(group)
            self._model.open(name, group)

        self._act(name, number, f"joining {group}", act)

    def leave(self, name: str, number: str, group: str) -> None:
        """`name` is a member no more."""
        self._act(name, number, f"leaving {group}", lambda: self._user(name).leave(group))

    def _user(self, name: str) -> ChatUser:
        user = self._users.get(name)
        if user is None:
            raise BrokerUnavailable(f"{name} is not signed up yet, since the broker does not answer: start it, and try again")
        return user

    def _act(self, name: str, number: str, what: str, act: Callable[[], object]) -> None:
        why = ""
        if what:
            self._model.begin(name, what)
        try:
            act()
        except ChatError as exc:
            why = str(exc)
        except Exception as exc:  # noqa: BLE001  a fault of the program: shown where it was clicked
            _log.debug("a click of %s failed", name, exc_info=True)
            why = f"{type(exc).__name__}: {exc}"
        self._due = 0.0
        self._model.answer(name, number, why, what)
