"""What a chat asks the broker about queues, exchanges and bindings: declare, count, purge, delete. From any thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from chatlib.admin import Admin, Request
from chatlib.connection import Channel
from chatlib.errors import BrokerUnavailable, ChatClosed, ChatError, QueueDown, TopologyMismatch
from chatlib.topology import LAST_WORD, SETTLING, Binding, Declaration, Queue, QueueType, base, is_replicated, mark_of

__all__ = ["Queues", "declaring"]


class Queues:
    """`Link.queues`. request(what, wait=True): asks and waits for the answer; rest(seconds): waits unless the link closes.

    Every method raises BrokerUnavailable after `request_timeout` seconds without an answer, and ChatClosed.
    """

    def __init__(self, admin: Admin, request: Callable[..., Any], rest: Callable[[float], None]) -> None:
        self._admin = admin
        self._request = request
        self._rest = rest

    @property
    def queue_type(self) -> QueueType:
        """Of inboxes and all else that waits, on this broker."""
        return self._admin.queue_type

    def declare(self, declarations: Iterable[Declaration], *, anew: bool = False) -> None:
        """Make sure that these exist, now and after every recovery. Raises TopologyMismatch for what exists with other arguments.

        anew: also what was declared here before; somebody may have removed it elsewhere.
        A new quorum queue or stream takes `SETTLING` seconds: it is bound, and so relied on, only when it is safe. Its mark, made
        after that, tells others who find it there that they need not wait, neither for it nor for those declared with it.
        """
        wanted = tuple(declaration for declaration in declarations if anew or declaration not in self._admin.declared)
        replicated = tuple(d for d in wanted if isinstance(d, Queue) and is_replicated(d))
        if any(mark_of(queue.name) in wanted and not self._has_settled(queue.name) for queue in replicated):
            self._declare(replicated, replicated)
            self.settle()
        if wanted:
            self._declare(wanted, wanted)

    def settle(self) -> None:
        """Wait until replicated queues that were declared a moment ago may be relied on."""
        self._rest(SETTLING)

    def _has_settled(self, queue: str) -> bool:
        return self.exists(queue) and self.has_exchange(mark_of(queue).name)

    def make(self, declarations: Sequence[Declaration]) -> None:
        """Declare these, here and now only: recovery does not restore them, nobody waits until they have settled."""
        self._request(Request(declaring(declarations)))

    def remember(self, declarations: Sequence[Declaration]) -> None:
        """These were declared some other way; recovery restores them."""
        self._declare([LAST_WORD], declarations)

    def _declare(self, declarations: Sequence[Declaration], remember: Sequence[Declaration]) -> None:
        try:
            self._request(Request(declaring(declarations), remember))
        except (BrokerUnavailable, ChatClosed, TopologyMismatch):
            raise
        except ChatError:  # something that they are bound to is missing: it was deleted behind our back
            self._request(Request(declaring(base(self.queue_type))))
            self._request(Request(declaring(declarations), remember))

    def mend(self) -> None:
        """Declare again what every chat needs: something of it was deleted behind our back. Returns at once; from any thread."""
        self._request(Request(declaring(base(self.queue_type))), wait=False)

    def exists(self, queue: str) -> bool:
        """Whether there is such a queue."""
        try:
            self.depth(queue)
        except QueueDown:
            return True
        except (BrokerUnavailable, ChatClosed):
            raise
        except ChatError:
            return False
        return True

    def has_exchange(self, name: str) -> bool:
        """Whether there is such an exchange."""
        try:
            self._request(Request(lambda channel, done: channel.look(name, lambda: done(None))))
        except (BrokerUnavailable, ChatClosed):
            raise
        except ChatError:
            return False
        return True

    def unbind(self, binding: Binding) -> None:
        """Remove a binding, also from what recovery restores."""
        self._admin.forget([binding])
        say_last = declaring([LAST_WORD])
        self._request(Request(lambda channel, done: channel.unbind(binding, lambda: say_last(channel, done)), removes=[binding]))

    def depth(self, queue: str) -> tuple[int, int]:
        """(ready messages, consumers), exact at this moment; unacked messages are not counted.

        Raises ChatError if there is no such queue.
        """
        counts: tuple[int, int] = self._request(Request(lambda channel, done: channel.depth(queue, lambda *counts: done(counts))))
        return counts

    def purge(self, queue: str) -> int:
        """Throw away what is ready; how many messages that were. Raises as `depth`."""
        count: int = self._request(Request(lambda channel, done: channel.purge(queue, done)))
        return count

    def delete(self, queue: str) -> None:
        """Delete a queue with all that is in it, and forget it."""
        mark = mark_of(queue)
        gone = [*self._admin.of_queue(queue), mark]
        self._admin.forget(gone)

        def delete(channel: Channel, done: Callable[[Any], None]) -> None:
            channel.delete(queue, lambda: channel.delete_exchange(mark.name, lambda: done(None)))

        self._request(Request(delete, removes=gone))


def declaring(declarations: Sequence[Declaration]) -> Callable[[Channel, Callable[[Any], None]], None]:
    """What a request runs to declare all of these in one go, with the `LAST_WORD` behind them."""

    def run(channel: Channel, done: Callable[[Any], None]) -> None:
        if not declarations:
            done(None)
            return
        for declaration in declarations:
            channel.declare(declaration)
        channel.declare(LAST_WORD)
        channel.unbind(LAST_WORD, lambda: done(None))  # its answer also says that all before it was done

    return run
