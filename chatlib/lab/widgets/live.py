"""What every live widget has: a life that can be begun and ended any number of times, one thread that looks, one that does, and a picture.

A widget is made of three parts: a model that knows nothing of widgets, a presenter (pure: model in, traits out), and the view in static/.
Threads only read the model and write traits; what people click is handed to a worker, since JupyterLab moves callbacks between
threads and a busy kernel runs none.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, Self
from weakref import ref

import ipywidgets
from IPython.display import DisplayHandle

from chatlib.lab.lesson import current
from chatlib.lab.widgets import cells
from chatlib.waiting import until

__all__ = ["Live"]

PLAIN: Final = "text/plain"
VIEW: Final = "application/vnd.jupyter.widget-view+json"
PATIENCE: Final = 5.0  # seconds that stop() gives a thread to end its last round

LATEST: Final = 1.2  # seconds after which every widget has looked at everything again, also at what it looks at once a second

Bundle = dict[str, Any]
Actions = SimpleQueue[Callable[[], object] | None]

_log = logging.getLogger("chatlib.lab")


def _closing(widget: ref[Live]) -> Callable[[], None]:
    """Closes it if it is still there: a lesson holds no widget whose cell was run again."""

    def close() -> None:
        if (found := widget()) is not None:
            found.close()

    return close


def _made_of(widget: Any) -> list[Any]:
    """The widgets inside a widget, at every depth."""
    inside = [*getattr(widget, "children", ()), getattr(widget, "layout", None), getattr(widget, "style", None)]
    parts = [part for part in inside if isinstance(part, ipywidgets.Widget)]
    return parts + [deeper for part in parts for deeper in _made_of(part)]


class Live:
    """A mixin for widgets: put it before the class of the widget among the bases, and call `_begin()` at the end of `__init__`.

    hz: rounds a second. `start`, `stop` and `close` are idempotent; a stopped widget can be started again, a closed one not.
    Run again, a cell closes the widgets of its last run. What goes wrong in a thread is shown in the widget.
    """

    hz: float = 3.0

    def _look(self) -> None:
        """One round of the updater: read the model, write the traits that changed. Quick; may raise, which is shown."""
        raise NotImplementedError

    def _show_error(self, text: str) -> None:
        """Show `text` in the widget, or take it away if it is empty."""
        raise NotImplementedError

    def still(self) -> Bundle:
        """The picture of now without a kernel, as a MIME bundle: html of class "chatlib-still" (see pictures.still), or plotly's."""
        raise NotImplementedError

    def _end(self) -> None:
        """Give back what the widget took (listeners, samplers). Called once, by `close`."""

    # ---- life ------------------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """The widget is complete: it replaces its predecessor of this cell, ends with its lesson, and looks from now on."""
        self._life = threading.RLock()
        self._is_closed = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._lanes: dict[str, tuple[Actions, threading.Thread]] = {}
        self._handles: list[Any] = []  # IPython's are not typed
        self._errors: dict[str, str] = {}  # what went wrong last, of looking and of what was clicked
        self._rounds = 0
        self._kept: Bundle = {}
        try:
            cells.claim(self)
            if (lesson := current()) is not None:
                lesson.closing(_closing(ref(self)))
            self.start()
        except BaseException:  # the cell was interrupted: nobody will have this widget, to close it
            self.close()
            raise

    @property
    def is_running(self) -> bool:
        """Whether it is kept up to date."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> Self:
        """Keep it up to date from now on; returns itself. Raises RuntimeError after `close`."""
        with self._life:
            if self._is_closed:
                raise RuntimeError(f"this {type(self).__name__} is closed: run its cell again")
            if not self.is_running:
                self._ended = threading.Event()
                self._thread = threading.Thread(target=self._run, args=(self._ended,), name=f"lab-{type(self).__name__}", daemon=True)
                self._thread.start()
        return self

    def stop(self) -> None:
        """Look a last time, and leave it like that: what the notebook saves is this picture. Returns when the updater has ended."""
        with self._life:
            thread, self._thread = self._thread, None
            self._ended.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(PATIENCE)
            self._guard("look", self._look)
            self._refresh(live=True)

    def keep(self) -> None:
        """Let the notebook save the picture of now, whatever comes later: `stop` and `close` put it into the notebook."""
        if self.is_running:
            enough = self._rounds + 2 + math.ceil(self.hz * LATEST)  # the one under way does not count
            until(lambda: self._rounds >= enough or not self.is_running, PATIENCE)
        self._kept = self.still()

    def halt(self) -> None:
        """Look no more, without waiting for the round that is under way and without a last picture: `close` follows."""
        if "_life" in vars(self):
            self._ended.set()

    def close(self) -> None:
        """Stop, and give everything back: in the notebook the last picture stays in its place."""
        if "_life" not in vars(self):
            return  # its __init__ failed
        with self._life:
            if self._is_closed:
                return
            self._is_closed = True
        thread, self._thread = self._thread, None
        self._ended.set()
        for actions, _ in self._lanes.values():
            actions.put(None)
        with contextlib.ExitStack() as rest:  # all of it, also if the cell is interrupted meanwhile
            rest.callback(self._close_view)
            rest.callback(self._end)
            rest.callback(self._refresh, live=False)
            deadline = time.monotonic() + PATIENCE
            for each in (thread, *(worker for _, worker in self._lanes.values())):
                if each is not None and each is not threading.current_thread():
                    each.join(max(0.0, deadline - time.monotonic()))

    def _close_view(self) -> None:
        """Close the widget, and what it is made of: ipywidgets keeps every layout, style and child that is not closed, for good."""
        parts = _made_of(self)
        with contextlib.suppress(Exception):  # the kernel may be going down, and its comms with it
            super().close()  # type: ignore[misc]
        for part in parts:
            with contextlib.suppress(Exception):
                part.close()

    def _run(self, ended: threading.Event) -> None:
        due = time.monotonic()
        while not ended.is_set():
            self._guard("look", self._look)
            self._rounds += 1
            due = max(due + 1 / self.hz, time.monotonic())  # what was missed is not made up for
            ended.wait(due - time.monotonic())

    def _guard(self, kind: str, act: Callable[[], object]) -> None:
        """Call `act`; what it raises is logged and shown, until another of this kind goes well."""
        try:
            act()
        except Exception as exc:  # noqa: BLE001  a widget shows what went wrong, and goes on
            _log.debug("a round of %r failed", self, exc_info=True)
            error = f"{type(exc).__name__}: {exc}"
        else:
            error = ""
        if error != self._errors.get(kind, ""):
            self._errors[kind] = error
            with contextlib.suppress(Exception):
                self._show_error("\n".join(filter(None, self._errors.values())))

    # ---- what people click -----------------------------------------------------------------------------------------------------

    def _later(self, action: Callable[[], object], lane: str = "") -> None:
        """Do it on a thread of the widget's own, after what was asked for before in this lane. From any thread; returns at once.

        lane: each has a thread, so that what may take long (a broker that starts) holds up only what comes behind it in its lane.
        """
        with self._life:
            if self._is_closed:
                return
            if lane not in self._lanes:
                actions: Actions = SimpleQueue()
                name = f"lab-{type(self).__name__}-{lane or 'worker'}"
                worker = threading.Thread(target=self._work, args=(actions, f"action {lane}"), name=name, daemon=True)
                self._lanes[lane] = actions, worker
                worker.start()
            self._lanes[lane][0].put(action)

    def _work(self, actions: Actions, kind: str) -> None:
        while (action := actions.get()) is not None:
            self._guard(kind, action)

    # ---- display ---------------------------------------------------------------------------------------------------------------

    def _ipython_display_(self, **_: Any) -> None:
        """Show the live view, with a picture beside it for where there is no kernel; `stop` and `close` renew the picture."""
        handle: Any = DisplayHandle()  # type: ignore[no-untyped-call]
        self._handles.append(handle)
        handle.display(self._bundle(live=not self._is_closed), raw=True)

    def _refresh(self, *, live: bool) -> None:
        """Renew the picture in the notebook. live: with the view, which needs the kernel."""
        for handle in self._handles:
            with contextlib.suppress(Exception):  # a picture is not worth an error at the end of a kernel
                handle.update(self._bundle(live=live), raw=True)

    def _bundle(self, *, live: bool) -> Bundle:
        view = {VIEW: {"version_major": 2, "version_minor": 0, "model_id": self.model_id}} if live else {}  # type: ignore[attr-defined]
        try:
            picture = self._kept or self.still()
        except Exception:  # noqa: BLE001  without a picture the view is still there
            _log.debug("no picture of %r", self, exc_info=True)
            picture = {}
        return {PLAIN: repr(self)} | picture | view

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"  # constant: nbval compares it
