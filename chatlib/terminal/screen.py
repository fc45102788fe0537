"""What a screen can do, as the client sees it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from chatlib.terminal.client import Client
    from chatlib.terminal.line import Line, Own

__all__ = ["Screen", "Shown"]


class Shown(threading.Event):
    """Set when lines are on the screen, or never will be: then `closed`."""

    closed = False


class Screen(Protocol):
    """Where lines go and where typed lines come from. All methods but `run` may be called from any thread."""

    def run(self, client: Client) -> None:
        """Read what is typed and have the client execute it, until it ends; returns then. On the main thread."""

    def show(self, lines: Sequence[Line]) -> bool:
        """Show `lines`, in order; True when they are on the screen, False if the screen is closed. May block."""

    def post(self, lines: Sequence[Line]) -> None:
        """As `show`, without waiting: for threads that must not block."""

    def changed(self, line: Own) -> None:
        """A line that was shown looks different now. Never blocks."""

    def refresh(self) -> None:
        """The state of the client has changed (`Client.status`). Never blocks."""

    def close(self) -> None:
        """Show what is left to show, then nothing more. Idempotent."""
