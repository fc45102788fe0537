"""What the broker refused because an inbox is full: finding out whose, so that the sender can be told."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from chatlib.errors import ChatError, InboxFull
from chatlib.sent import SentMessage, SentState
from chatlib.workers import Workers

__all__ = ["Rejections"]


class Rejections:
    """One question to the broker for all that were refused at an address until its answer: a full group may refuse thousands a second.

    who_is_full(message): the names, asked on a worker. settle(message, error): that is its outcome. Thread-safe.
    """

    def __init__(
        self, workers: Workers, who_is_full: Callable[[SentMessage], Sequence[str]], settle: Callable[[SentMessage, ChatError], None]
    ) -> None:
        self._workers = workers
        self._who_is_full = who_is_full
        self._settle = settle
        self._changed = threading.Condition()
        self._waiting: dict[str, deque[SentMessage]] = {}  # by address, not told yet

    def add(self, sent: SentMessage) -> None:
        """It was refused; its outcome comes later, from another thread."""
        with self._changed:
            waiting = self._waiting.setdefault(sent.to, deque())
            waiting.append(sent)
            first = len(waiting) == 1
        if first:
            self._workers.submit(lambda: self._find_out(sent.to))

    def flush(self, timeout: float) -> bool:
        """Wait until every one has its outcome; False if that took longer than `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, min(max(0.0, timeout), threading.TIMEOUT_MAX))

    def close(self) -> None:
        """Tell those who are left without asking."""
        with self._changed:
            left = [sent for waiting in self._waiting.values() for sent in waiting]
            self._waiting.clear()
            self._changed.notify_all()
        for sent in left:
            self._tell(sent, ())

    def _find_out(self, to: str) -> None:
        """On a worker."""
        refused = self._refused(to)
        if not refused:
            return
        try:
            who = tuple(self._who_is_full(refused[0]))
        except ChatError:
            who = ()
        refused = self._refused(to)  # with those that came meanwhile
        for sent in refused:
            self._tell(sent, who)
        with self._changed:
            waiting = self._waiting.get(to)
            if waiting is None:
                return  # closed meanwhile
            for _ in refused:
                waiting.popleft()
            if not waiting:
                del self._waiting[to]
                self._changed.notify_all()
                return
        self._workers.submit(lambda: self._find_out(to))

    def _refused(self, to: str) -> list[SentMessage]:
        with self._changed:
            return list(self._waiting.get(to, ()))

    def _tell(self, sent: SentMessage, who: tuple[str, ...]) -> None:
        if sent.state is not SentState.PENDING:
            return  # `close` was here, too
        names = ", ".join(f"@{name}" for name in who) or ("somebody's" if sent.to.startswith("#") else sent.to)
        if sent.to.startswith("#"):
            names += f" (in {sent.to})"
            advice = "the other members have it: do not send it again"
        else:
            advice = "wait until messages are taken from there, then send again"
        self._settle(sent, InboxFull(f"inbox full: {names} did not take {sent.message_id}; {advice}", who))
