"""Threads that run the user's code: many queues of work, each in order, shared by a few threads."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

__all__ = ["Serial", "Workers"]

_log = logging.getLogger("chatlib.workers")
BATCH = 50  # steps of one queue before another gets the thread


class Workers:
    """A pool of `threads` threads for any number of `Serial` queues."""

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._closed = False

    def serial(self, step: Callable[[], bool]) -> Serial:
        """A queue that calls `step()` on one thread at a time, again as long as it returns True."""
        return Serial(self, step)

    def submit(self, function: Callable[[], None]) -> None:
        """Run `function` on some thread of the pool, or not at all once closed."""
        if not self._closed:
            try:
                self._pool.submit(function)
            except RuntimeError:  # closed in between, or the interpreter ends
                self._closed = True

    def close(self) -> None:
        """Let what runs now end; start nothing more."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)


class Serial:
    """Work that must stay in order: `wake()` from any thread makes `step` run until it has nothing to do."""

    def __init__(self, workers: Workers, step: Callable[[], bool]) -> None:
        self._workers = workers
        self._step = step
        self._lock = threading.Lock()
        self._scheduled = False
        self._again = False
        self._idle = threading.Event()
        self._idle.set()
        self._runner = 0  # the thread that runs it now

    def wake(self) -> None:
        """There is something to do. Cheap, thread-safe, never blocks."""
        with self._lock:
            self._again = True
            if self._scheduled:
                return
            self._scheduled = True
            self._idle.clear()
        self._workers.submit(self._run)

    def wait_idle(self, timeout: float) -> bool:
        """Wait until nothing is being done; False after `timeout` seconds. Does not wait for itself."""
        return self._runner == threading.get_ident() or self._idle.wait(timeout)

    def _run(self) -> None:
        self._runner = threading.get_ident()
        for _ in range(BATCH):
            with self._lock:
                self._again = False
            try:
                more = self._step()
            except BaseException:  # noqa: BLE001  a handler's sys.exit() must not silence its queue for ever
                _log.exception("a step of the worker failed")
                more = True  # what is behind it must not wait for the next arrival
            with self._lock:
                if not more and not self._again:
                    self._scheduled = False
                    self._runner = 0
                    self._idle.set()
                    return
        self._runner = 0
        self._workers.submit(self._run)


class Mailbox(Serial):
    """A `Serial` that passes items, in order, to `handle(item)`."""

    def __init__(self, workers: Workers, handle: Callable[[object], None]) -> None:
        self._items: deque[object] = deque()
        self._handle = handle
        super().__init__(workers, self._take)

    def put(self, item: object) -> None:
        """Hand over one item."""
        self._items.append(item)
        self.wake()

    def _take(self) -> bool:
        if not self._items:
            return False
        self._handle(self._items.popleft())
        return True
