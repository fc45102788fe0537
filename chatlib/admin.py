"""Requests that the broker answers (declare, unbind, count ...), one at a time on a channel of their own.

A refusal closes that channel only: the one who asked is told, and another channel is opened. All requests are idempotent,
so one that was under way when the connection broke is simply made again.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from chatlib.connection import Channel
from chatlib.errors import ChatClosed, ChatError, NoAnswer, TopologyMismatch
from chatlib.topology import HISTORIES, Binding, Declaration, Queue, QueueType, base, mark_of

__all__ = ["Admin", "Request"]

MAX_LOSSES = 5

_log = logging.getLogger("chatlib.admin")


@dataclass(eq=False, slots=True)
class Request:
    """run(channel, done): asks, and calls `done(result)` with the answer. declares, removes: what exists once it was answered, and what
    does not, of what recovery restores: the last answer counts, whoever asked first."""

    run: Callable[[Channel, Callable[[Any], None]], None]
    declares: Sequence[Declaration] = ()
    removes: Sequence[Declaration] = ()
    future: Future[Any] = field(default_factory=Future)
    losses: int = 0  # connections that were lost while it was under way


class Admin:
    """The line of requests, and what this link has declared, for recovery. `ask` from any thread, the rest on the I/O thread.

    queue_type: of the queues of this chat. guessed: if the broker has them of the other type, that one it is.
    """

    def __init__(self, queue_type: QueueType = "classic", *, guessed: bool = False) -> None:
        self.queue_type: QueueType = queue_type
        self._guessed = guessed
        self._line: deque[Request] = deque()
        self._busy: Request | None = None
        self._channel: Channel | None = None
        self._working = False
        self.declared: dict[Declaration, None] = dict.fromkeys(base(queue_type))
        self._on_restored: Callable[[], None] | None = None  # set while `restore` is under way
        self._doubtful: deque[Declaration] | None = None  # set while it goes on one by one
        self._was_restored = False

    def ask(self, request: Request, first: bool = False) -> None:
        """Put a request in line (`first`: at the front). Call `work` on the I/O thread."""
        (self._line.appendleft if first else self._line.append)(request)

    def attach(self, channel: Channel) -> None:
        """A new channel."""
        self._channel = channel
        if self._doubtful is not None:
            self._restore_next()
        elif self._on_restored:
            self.restore(self._on_restored)

    def detach(self) -> None:
        """The channel is gone with its connection: ask again what was under way."""
        self._channel = None
        self._on_restored = self._doubtful = None
        busy, self._busy = self._busy, None
        if busy is None:
            return
        busy.losses += 1
        if busy.losses < MAX_LOSSES:
            self._line.appendleft(busy)
        elif not busy.future.done():  # there are things at which a broker closes the connection: asked for ever, nobody would have one
            busy.future.set_exception(
                NoAnswer(f"the connection was lost {MAX_LOSSES} times while this was asked for: look at the broker's log for why")
            )

    def refused(self, error: ChatError) -> bool:
        """The broker closed the channel over a request: tell who asked; go on over a new channel.

        False if that cannot help: what every chat needs was refused, or nothing was under way.
        """
        self._channel = None
        if self._on_restored:
            if self._guessed and isinstance(error, TopologyMismatch):
                self._turn()
                return True
            return self._was_restored and self._refused_at_restore(error)
        busy, self._busy = self._busy, None
        if busy is None:
            return False
        if not busy.future.done():
            busy.future.set_exception(error)
        return True

    def _turn(self) -> None:
        """The broker has the queues of all chats of the other type."""
        self._guessed = False
        self.forget(base(self.queue_type))
        self.queue_type = "classic" if self.queue_type == "quorum" else "quorum"
        self.declared = dict.fromkeys(base(self.queue_type)) | self.declared

    def work(self) -> None:
        """Start the next request if none is under way."""
        if self._working:
            return  # an answer that came at once: the loop below goes on
        self._working = True
        try:
            while self._line and self._channel and self._busy is None and self._on_restored is None:
                request = self._line.popleft()
                if not request.future.cancelled():
                    self._start(request, self._channel)
        finally:
            self._working = False

    def _start(self, request: Request, channel: Channel) -> None:
        self._busy = request

        def done(result: Any) -> None:
            if self._busy is not request:
                return  # its connection broke meanwhile; it will be asked again
            self._busy = None
            self.declared.update(dict.fromkeys(request.declares))
            self.forget(request.removes)
            if not request.future.done():
                request.future.set_result(result)
            self.work()

        request.run(channel, done)

    def restore(self, on_done: Callable[[], None]) -> None:
        """Declare again, in order, all that was declared before.

        What somebody has changed meanwhile, so that it is refused now, is left as it is: it must not keep everybody else away.
        """
        assert self._channel
        self._on_restored = on_done
        # Streams come back about a second after their broker, and until then any word about them is refused. They are durable,
        # so they are not declared again: everybody's recovery would have to wait for them. Nor is that they are registered: another
        # chat may have deleted the history, and what is said would wait for a stream that is gone.
        for declaration in self._restorable():
            self._channel.declare(declaration)
        self._channel.barrier(self._restored)

    def _restorable(self) -> list[Declaration]:
        streams = {d.name for d in list(self.declared) if isinstance(d, Queue) and ("x-queue-type", "stream") in d.arguments}
        streams |= {mark_of(stream).name for stream in streams}
        return [
            d
            for d in list(self.declared)
            if (d.queue if isinstance(d, Binding) else d.name) not in streams
            and not (isinstance(d, Binding) and d.source == HISTORIES.name)
        ]

    def _restored(self) -> None:
        on_done, self._on_restored, self._doubtful = self._on_restored, None, None
        self._was_restored, self._guessed = True, False
        if on_done:
            on_done()

    def _refused_at_restore(self, error: ChatError) -> bool:
        """One of many was refused: find out which, one at a time, and then do without it."""
        if self._doubtful is None:
            self._doubtful = deque(self._restorable())
        else:
            culprit = self._doubtful.popleft()
            self.forget([culprit])
            _log.critical("the broker refuses what this chat declared before, left as it is: %s: %s", culprit, error)
        return True

    def _restore_next(self) -> None:
        channel, doubtful = self._channel, self._doubtful
        assert channel
        if not doubtful:
            self._restored()
            return

        def accepted() -> None:
            doubtful.popleft()
            if doubtful is self._doubtful:
                self._restore_next()

        channel.declare(doubtful[0])
        channel.barrier(accepted)

    def of_queue(self, queue: str) -> list[Declaration]:
        """What was declared of one queue: itself and its bindings."""
        return [d for d in list(self.declared) if queue == (d.queue if isinstance(d, Binding) else d.name)]

    def forget(self, declarations: Iterable[Declaration]) -> None:
        """Recovery will not declare these again."""
        for declaration in declarations:
            self.declared.pop(declaration, None)

    def close(self) -> None:
        """Nothing will be answered any more."""
        self.detach()
        while self._line:
            request = self._line.popleft()
            if not request.future.done():
                request.future.set_exception(ChatClosed("the chat was closed before the broker answered"))
