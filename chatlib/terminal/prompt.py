"""The screen for people: line editing below, the conversation above, and ticks that change in place.

What scrolls in a terminal cannot be written again. So the last lines of the conversation are part of the prompt, which
is drawn anew at each change, and a line goes up into the scrollback when newer ones need its room.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.patch_stdout import patch_stdout
from prompt_toolkit.utils import get_cwidth

from chatlib.link import LinkState
from chatlib.terminal.completion import Addresses
from chatlib.terminal.line import Fragments, Line, Note, Own, fit
from chatlib.terminal.screen import Shown
from chatlib.terminal.style import STYLE
from chatlib.terminal.text import safe

if TYPE_CHECKING:
    from chatlib.terminal.client import Client

__all__ = ["PromptScreen"]

LIVE_ROWS: Final = 12  # of the conversation, drawn with the prompt; at most half of the terminal
TOGETHER: Final = 0.3  # seconds in which news of lines that have scrolled away are gathered into one line
FAREWELL: Final = 20.0  # seconds for the commands that still wait for the broker; more than Settings.request_timeout
TWICE: Final = 2.0  # seconds between two Ctrl-C that mean: quit

_LINK: Final = {
    LinkState.CONNECTED: ("good", "● connected"),
    LinkState.CONNECTING: ("bad", "○ connecting"),
    LinkState.RECOVERING: ("bad", "○ reconnecting"),
    LinkState.BLOCKED: ("bad", "○ the broker takes no messages for now"),
    LinkState.CLOSED: ("bad", "○ closed"),
}


class PromptScreen:
    """For a terminal on standard input and output. colors: use them (else only bold). broker: what the toolbar calls it."""

    def __init__(self, *, colors: bool, broker: str) -> None:
        self._broker = broker
        self._client: Client | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._typed: SimpleQueue[str | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._printing = threading.Lock()
        self._incoming: deque[tuple[Sequence[Line], Shown | None]] = deque()
        self._ended = False  # no prompt any more: lines are printed at once
        self._closed = False
        # Only touched on the event loop's thread:
        self._live: deque[Line] = deque()
        self._late: dict[str, dict[int, Own]] = {}
        self._drawing = False
        self._interrupted = -TWICE
        self._session: PromptSession[str] = PromptSession(
            message=self._message,
            bottom_toolbar=self._toolbar,
            style=STYLE,
            color_depth=None if colors else ColorDepth.DEPTH_1_BIT,
            key_bindings=self._keys(),
            completer=Addresses(lambda: self._client.addresses if self._client else []),
            complete_while_typing=False,
            reserve_space_for_menu=4,
            erase_when_done=True,
            enable_suspend=True,
        )

    # ---- the protocol ----------------------------------------------------------------------------------------------------

    def run(self, client: Client) -> None:
        """Prompt until /quit, Ctrl-D, two Ctrl-C, or SIGTERM."""
        self._client = client
        self._print_rest()  # above the prompt: tmux takes one in the first row, once erased, for a page to keep
        worker = threading.Thread(target=self._execute, name="terminal commands", daemon=True)
        worker.start()
        with patch_stdout():
            asyncio.run(self._main())
        self._ended = True
        self._print_rest()
        self._typed.put(None)
        worker.join(0.5)  # what was typed before Ctrl-D counts
        if worker.is_alive():
            self.post([Note("waiting for what was typed last; Ctrl-C gives it up")])
            worker.join(FAREWELL)

    def show(self, lines: Sequence[Line]) -> bool:
        """Draw `lines`; True when they are drawn."""
        shown = Shown()
        if not self._put(lines, shown):
            return False
        shown.wait()
        return not shown.closed

    def post(self, lines: Sequence[Line]) -> None:
        """Draw `lines` soon."""
        self._put(lines, None)

    def changed(self, line: Own) -> None:
        """Draw it with its new tick, or tell what became of it if it has scrolled away."""
        self._call(lambda: self._on_changed(line))

    def refresh(self) -> None:
        """Draw the prompt and the toolbar again."""
        self._call(self._session.app.invalidate)

    def close(self) -> None:
        """What has come since the prompt ended is printed, and from now on nothing is."""
        with self._lock:
            self._closed = True
        self._print_rest()

    def _print_rest(self) -> None:
        """Print what waits, while there is no prompt."""
        with self._printing:
            with self._lock:
                rest = list(self._incoming)
                self._incoming.clear()
            self._print([line for lines, _ in rest for line in lines])
        for _, shown in rest:
            if shown:
                shown.set()

    # ---- threads ---------------------------------------------------------------------------------------------------------

    def _put(self, lines: Sequence[Line], shown: Shown | None) -> bool:
        with self._lock:
            if self._closed:
                return False
            self._incoming.append((lines, shown))
        if self._ended:
            self._print_rest()
        else:
            self._call(self._draw_soon)
        return True

    def _call(self, function: object) -> None:
        with suppress(RuntimeError):  # the loop has ended
            if self._loop:
                self._loop.call_soon_threadsafe(function)  # type: ignore[arg-type]

    def _execute(self) -> None:
        """Commands wait for the broker, so they run here, one after the other, and the prompt stays alive."""
        assert self._client
        while not self._client.quitting.is_set() and (typed := self._typed.get()) is not None:
            self._client.execute(typed)
        self._call(self._quit)

    # ---- on the event loop -----------------------------------------------------------------------------------------------

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._loop.add_signal_handler(number, self._quit)
        with suppress(EOFError):
            await self._session.prompt_async(pre_run=self._draw_soon)
        while self._drawing:
            await asyncio.sleep(0.01)
        self._print(list(self._live))
        self._live.clear()

    def _quit(self) -> None:
        if self._session.app.is_running and not self._session.app.is_done:
            self._session.app.exit(exception=EOFError())

    def _draw_soon(self) -> None:
        if not self._drawing and self._session.app.is_running:
            self._drawing = True
            asyncio.ensure_future(self._draw())  # noqa: RUF006  `_main` waits for `_drawing`

    async def _draw(self) -> None:
        """Take in what has come; what no longer fits goes up into the scrollback, in one step with the new prompt."""
        try:
            while self._incoming:
                with self._lock:
                    batch = list(self._incoming)
                    self._incoming.clear()
                self._live.extend(line for lines, _ in batch for line in lines)
                leaving = self._leaving()
                if leaving:
                    await run_in_terminal(partial(self._print, leaving))
                else:
                    self._session.app.invalidate()
                for _, shown in batch:
                    if shown:
                        shown.set()
        finally:
            self._drawing = False

    def _leaving(self) -> list[Line]:
        """Take out of the live lines what no longer fits."""
        room, keep = min(LIVE_ROWS, self._session.app.output.get_size().rows // 2), 0
        for line in reversed(self._live):
            room -= len(self._rows(line))
            if room < 0:
                break
            keep += 1
        return [self._live.popleft() for _ in range(len(self._live) - keep)]

    def _rows(self, line: Line) -> list[Fragments]:
        return fit(line.fragments(one_line=False), self._session.app.output.get_size().columns, get_cwidth)

    def _print(self, lines: Iterable[Line]) -> None:
        """For good. What people said is left whole, to be copied, and for the terminal to break; our own words are broken at spaces."""
        text: Fragments = []
        for line in lines:
            for row in self._rows(line) if isinstance(line, Note) else [line.fragments(one_line=False)]:
                text += [*row, ("", "\n")]
        if text:
            app = self._session.app
            print_formatted_text(FormattedText(text), end="", style=STYLE, output=app.output, color_depth=app.color_depth)

    def _on_changed(self, own: Own) -> None:
        if own in self._live:
            self._session.app.invalidate()
            return
        assert self._loop
        if not self._late:
            self._loop.call_later(TOGETHER, self._tell_late)
        self._late.setdefault(own.sent.to, {})[own.number] = own

    def _tell_late(self) -> None:
        late, self._late = self._late, {}
        for owns in late.values():
            failed = [own for own in owns.values() if own.is_failed]
            others = [own for own in owns.values() if not own.is_failed]
            lines: list[Line] = [_Late(own, 0) for own in failed]
            if others:
                lines.append(_Late(max(others, key=lambda own: own.number), len(others) - 1))
            self.post(lines)

    # ---- what is drawn ---------------------------------------------------------------------------------------------------

    def _message(self) -> FormattedText:
        text: Fragments = []
        for line in self._live:
            for row in self._rows(line):
                text += [*row, ("", "\n")]
        if self._client:
            status = self._client.status
            to = f" → {status.conversation}" if status.conversation else ""
            away = "" if status.online else " (offline)"
            text.append(("class:prompt", safe(f"{status.user}{away}{to}> ")))
        return FormattedText(text)

    def _toolbar(self) -> FormattedText:
        if not self._client:
            return FormattedText()
        status = self._client.status
        style, link = _LINK[status.link]
        text: Fragments = [(f"class:{style}", f" {link}"), ("", f" to {self._broker}")]
        if not status.online:
            text.append(("class:bad", "  offline"))
        if status.pending:
            text.append(("class:bad", f"  {status.pending:,} not confirmed yet"))
        for conversation, count in sorted(status.unread.items()):
            text.append(("class:news", f"  {safe(conversation)} {count:,} new"))
        return FormattedText([*text, ("", "  /help")])

    # ---- what is typed ---------------------------------------------------------------------------------------------------

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("enter", filter=has_focus(DEFAULT_BUFFER))
        def _(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            buffer.append_to_history()
            self._typed.put(buffer.text)
            buffer.reset()

        @keys.add("c-c")
        @keys.add("<sigint>")
        def _(event: KeyPressEvent) -> None:
            now = time.monotonic()
            again, self._interrupted = now - self._interrupted < TWICE, now
            had_text = bool(event.current_buffer.text)
            event.current_buffer.reset()
            if again and not had_text:
                self._quit()
            elif not had_text:
                self.post([Note(f"Ctrl-C again within {TWICE:g} s, or Ctrl-D, quits")])

        return keys


class _Late(Line):
    """What became of a message that has scrolled away."""

    def __init__(self, own: Own, earlier: int) -> None:
        self._own = own
        self._earlier = earlier

    def fragments(self, *, one_line: bool) -> Fragments:
        return self._own.late(self._earlier)
