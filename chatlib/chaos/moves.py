"""Who joined and left which group in a chaos run, kept on disk: a process that is killed in the middle of it goes on where it was.

The broker may have made a change whose maker died before he could record it. So each is announced first, and one that was announced
and not done is done again by the next life; the record then says that it was under way since the announcement.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from chatlib import ChatUser
from chatlib.events import JOINED, LEFT, Event

__all__ = ["Moves"]


class Moves:
    """path: the file, of one process. members: group -> who is in it when the run begins."""

    def __init__(self, path: Path, users: Iterable[str], members: Mapping[str, Iterable[str]]) -> None:
        mine = set(users)
        self.members = {(user, group) for group, everybody in members.items() for user in everybody if user in mine}
        self._unfinished: tuple[float, str, str, bool] | None = None
        for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else ():
            at, user, group, joins, done = json.loads(line)
            self._unfinished = None if done else (at, user, group, joins)
            if done:
                self._apply(user, group, joins)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def finish(self, users: Mapping[str, ChatUser], record: Callable[[Event], None]) -> None:
        """Do what the last life began."""
        if self._unfinished is not None:
            at, name, group, joins = self._unfinished
            self._do(at, users[name], group, joins, record)

    def change(self, user: ChatUser, group: str, record: Callable[[Event], None]) -> None:
        """Join it, or leave it if he is in it."""
        joins = (user.name, group) not in self.members
        at = time.time()
        self._note(at, user.name, group, joins, False)
        self._do(at, user, group, joins, record)

    def _do(self, began: float, user: ChatUser, group: str, joins: bool, record: Callable[[Event], None]) -> None:
        (user.join if joins else user.leave)(group)
        record({"hop": JOINED if joins else LEFT, "at": time.time(), "message_id": "", "user": user.name, "to": group, "began": began})
        self._note(began, user.name, group, joins, True)
        self._apply(user.name, group, joins)

    def _apply(self, user: str, group: str, joins: bool) -> None:
        (self.members.add if joins else self.members.discard)((user, group))

    def _note(self, at: float, user: str, group: str, joins: bool, done: bool) -> None:
        """One write: whole, or not there."""
        os.write(self._file, (json.dumps([at, user, group, joins, done]) + "\n").encode())
