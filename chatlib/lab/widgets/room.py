"""A chat room in the notebook: a pane for each person, alive while the broker falls and the kernel computes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import anywidget
import traitlets

from chatlib.chat import Chat
from chatlib.lab.widgets import assets
from chatlib.lab.widgets.live import Bundle, Live
from chatlib.lab.widgets.room_feed import Feed
from chatlib.lab.widgets.room_model import LIMIT, RoomModel
from chatlib.lab.widgets.room_presenter import Values, head, pane, record, still
from chatlib.names import check_user_name, parse_address
from chatlib.terminal.typed import group_address

__all__ = ["Room"]

MOST: Final = 6  # panes that one can watch
LONGEST: Final = 1000  # characters of an address or a number that a page sends
NEWS: Final = 80  # messages that are sent again with each change, before all are sent once


class Room(Live, anywidget.AnyWidget):
    """Show these people, each in a pane of his own, and let the reader be all of them.

    chat: an open chat, which stays open when the room is closed. users: 1 to 6 names; they are signed up.
    groups: addresses that all of them join, or {"#team": ["alice", "bob"]}.
    A message is read when its conversation is open in the pane of its reader. What cells send with `chat.user("alice").send` is shown, too.
    The room takes the messages of its people (their `on_message`), and gives them back to the earlier handler when it is closed.
    Raises ValueError for none or too many people, InvalidName, InvalidAddress, TopologyMismatch.
    """

    _esm = assets.esm("room")
    _css = assets.css("room")

    hz = 5.0  # a chat that answers later feels slow

    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    head = traitlets.Dict().tag(sync=True)
    panes = traitlets.List(traitlets.Dict()).tag(sync=True)
    kept = traitlets.List(traitlets.Dict()).tag(sync=True)
    news = traitlets.List(traitlets.Dict()).tag(sync=True)  # what is new or different since `kept`
    limit = traitlets.Int(LIMIT).tag(sync=True)
    error = traitlets.Unicode("").tag(sync=True)

    def __init__(self, chat: Chat, users: Iterable[str], groups: Iterable[str] | Mapping[str, Sequence[str]] = ()) -> None:
        names = list(dict.fromkeys(check_user_name(name) for name in ([users] if isinstance(users, str) else users)))
        if not 1 <= len(names) <= MOST:
            raise ValueError(f"a room shows 1 to {MOST} people, not {len(names)}: make a second room for the others")
        members = _members(groups, names)
        self._model = RoomModel(names, list(members))
        self._feed = Feed(chat, self._model, members)
        self._feed.sign_up()
        super().__init__(names=names)
        self._fresh: dict[str, Values] = {}
        self._asking = False
        self.on_msg(self._on_click)
        self._begin()  # a room that an earlier run of the cell made gives the handlers back here
        try:
            self._feed.open()
        except BaseException:
            self.close()
            raise

    def open_conversation(self, user: str, address: str) -> None:
        """Show the conversation "@bob" or "#team" in the pane of `user`; what is unread there is read. "" shows none."""
        self._model.open(check_user_name(user), str(parse_address(address)) if address else "")

    def still(self) -> Bundle:
        """The room as it is now, for where there is no kernel."""
        return assets.still(still(self._model.now(), self._model.messages()), width=1040, title="a chat room")

    def _end(self) -> None:
        self._feed.close()

    def _show_error(self, text: str) -> None:
        self.error = text

    # ---- out -------------------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        self._feed.look()
        if not self._asking and self._feed.wants_to_ask:
            self._asking = True
            self._later(self._ask, "to ask")
        now = self._model.take()
        for message in now.changed:
            self._fresh.pop(message.message_id, None)
            self._fresh[message.message_id] = record(message, self.names)
        values: dict[str, Any] = {"head": head(now), "panes": [pane(each, self.names) for each in now.panes]}
        if len(self._fresh) > NEWS:
            values |= {"kept": [record(message, self.names) for message in self._model.messages()], "news": []}
            self._fresh.clear()
        elif now.changed:
            values["news"] = list(self._fresh.values())
        changed = {name: value for name, value in values.items() if getattr(self, name) != value}
        if changed:
            with self.hold_sync():  # one message to the browser: an answer and what it is about come together
                for name, value in changed.items():
                    setattr(self, name, value)

    def _ask(self) -> None:
        try:
            self._feed.ask()
        finally:
            self._asking = False

    # ---- in: on any thread, and at once ----------------------------------------------------------------------------------------

    def _on_click(self, _: object, content: object, __: object) -> None:
        """From the browser: {"do", "pane", "number", and "to" and "text", "on" or "group"}; anybody may have written it."""
        if not isinstance(content, dict):
            return
        with contextlib.suppress(KeyError, IndexError, TypeError, ValueError, OverflowError):
            what, name, number = content["do"], self._model.names[int(content["pane"])], _short(content.get("number", ""))
            if what == "open":
                self._feed.open_conversation(name, number, _short(content["to"]))  # takes no time
            elif what == "send":
                to, text = _short(content["to"]), str(content["text"])
                self._later(lambda: self._feed.send(name, number, to, text), "to send")  # no name of a user has a space
            elif what == "online":
                on = bool(content["on"])
                self._later(lambda: self._feed.switch(name, number, on), name)
            elif what in ("join", "leave"):
                act, group = self._feed.join if what == "join" else self._feed.leave, _short(content["group"])
                self._later(lambda: act(name, number, group), name)


def _short(value: object) -> str:
    """A number or an address that a page sent, as it can be sent back to a page: valid Unicode, and no megabytes."""
    return str(value)[:LONGEST].encode(errors="replace").decode()


def _members(groups: Iterable[str] | Mapping[str, Sequence[str]], names: Sequence[str]) -> dict[str, list[str]]:
    """By group, who of the room joins it."""
    given = [groups] if isinstance(groups, str) else groups
    pairs = given.items() if isinstance(given, Mapping) else [(group, names) for group in given]
    members = {group_address(group): [check_user_name(name) for name in theirs] for group, theirs in pairs}
    if strangers := {name for theirs in members.values() for name in theirs} - set(names):
        raise ValueError(
            f"only the people of the room can join a group here, not {', '.join(sorted(strangers))}: name them among the users"
        )
    return members
