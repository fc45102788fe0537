"""What the Tab key completes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from chatlib.terminal.text import safe
from chatlib.terminal.typed import COMMANDS

__all__ = ["Addresses"]


class Addresses(Completer):
    """Commands, and the addresses that `seen()` returns."""

    def __init__(self, seen: Callable[[], Sequence[str]]) -> None:
        self._seen = seen

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """What could stand where the cursor is."""
        before = document.text_before_cursor
        word = before.rpartition(" ")[2]
        if word == before and word.startswith("/"):
            choices = list(COMMANDS)
        elif word[:1] in ("@", "#"):
            choices = list(self._seen())
        else:
            return
        for choice in choices:
            if choice.casefold().startswith(word.casefold()):
                yield Completion(choice + " ", start_position=-len(word), display=safe(choice))
