"""Whether a thread is in code of the user that chatlib has called, and that chatlib may be waiting for."""

from __future__ import annotations

import threading

__all__ = ["callback"]


class _Callback(threading.local):
    """Wrap it around every call of a handler, a listener or a watcher: `with callback: listener(event)`."""

    depth = 0  #: of the thread that asks: 0 outside of all of them

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1


callback = _Callback()
