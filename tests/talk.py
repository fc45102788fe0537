"""Somebody who talks all the time: what a fault has to hit, recorded from the first word to the last and judged by the checker."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import chatlib
from chatlib import Recorder, SentMessage, Settings
from chatlib.faults import recording
from chatlib.verdict import Verdict
from tests.support import wait_until

__all__ = ["Talk"]

PAUSE = 0.003  # seconds between two messages


class Talk:
    """ann talks to bob over one chat, on a thread of her own, from the beginning of `with` until `verdict()`.

    way: what `chatlib.connect` takes. states: all that the link was, with reasons. faults: those that began meanwhile.
    recorder: for the events of others who take part.
    """

    def __init__(self, way: Any, unique: Callable[[str], str], settings: Settings | None = None) -> None:
        self.recorder = Recorder()
        self._recording = recording(self.recorder)
        self.faults = self._recording.__enter__()
        self.chat = chatlib.connect(way, settings=settings, on_event=self.recorder)
        self.states: list[tuple[str, str]] = []
        self.chat.on_state(lambda state, reason: self.states.append((state.value, reason)))
        self.ann, self.bob = self.chat.user(unique("ann")), self.chat.user(unique("bob"))
        self.sent: list[SentMessage] = []
        self.handled: list[str] = []
        self.bob.on_message(lambda message: self.handled.append(message.content))
        self._enough, self._silent, self._paused = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._talk)

    def __enter__(self) -> Self:
        self._thread.start()
        self.goes_on("at the beginning")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._enough.set()
        self._thread.join(15)
        self._recording.__exit__(None, None, None)
        self.chat.close(0 if error else 5)

    def quiet(self) -> None:
        """Be silent until `goes_on`; returns when all that was said is handled."""
        self._silent.set()
        wait_until(lambda: self._paused.is_set() and len(self.handled) >= len(self.sent), 40, "everything is handled")

    def _talk(self) -> None:
        while not self._enough.wait(PAUSE):
            if self._silent.is_set():
                self._paused.set()
                continue
            self._paused.clear()
            self.say(str(len(self.sent)))

    def say(self, content: str) -> SentMessage:
        """Put in a word."""
        sent = self.ann.send(self.bob.address, content)
        self.sent.append(sent)
        return sent

    def was(self, state: str) -> bool:
        """Whether the link was in this state since the beginning."""
        return any(seen == state for seen, _ in self.states)

    def goes_on(self, when: str, count: int = 20) -> None:
        """Return when the last of so many messages from now on, or a later one, is handled."""
        goal = len(self.sent) + count
        self._silent.clear()
        wait_until(lambda: any(content.isdigit() and int(content) >= goal for content in self.handled[-5:]), 40, f"they get through {when}")

    def stalls(self, when: str, count: int = 20) -> None:
        """Return when so many messages wait for their confirm, and none comes."""
        wait_until(lambda: self.chat.unconfirmed >= count, 20, f"messages pile up {when}")

    def verdict(self, *, returned: bool = False) -> Verdict:
        """Stop talking, drain, and judge; it is made sure that the history is that of all who were here. returned: some may be that."""
        self._enough.set()
        self._thread.join(15)
        assert not self._thread.is_alive()
        assert self.chat.flush(40), f"{self.chat.unconfirmed} messages are not confirmed, the link is {self.chat.state}"
        assert {message.state for message in self.sent} <= {"confirmed", "returned" if returned else "confirmed"}
        said = Counter(message.content for message in self.sent if message.state == "confirmed")
        confirmed = said.total()  # he may have handled what others said, too
        wait_until(
            lambda: len(self.handled) >= confirmed and not said - Counter(self.handled),
            40,
            f"all {confirmed} that are confirmed are handled",
        )
        verdict = self.recorder.verdict()
        assert verdict.attempted >= len(self.sent) and verdict.confirmed >= confirmed > 0
        hops = [event["hop"] for event in self.recorder.events]
        assert hops.count("fault.began") == hops.count("fault.ended") == len(self.faults)
        return verdict
