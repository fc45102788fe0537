"""A live chart of queues: what waits in them, what goes through, who reads; faults are marked while they happen.

::

    with Monitor(broker) as monitor:
        chart = QueueChart(monitor, queues=["inbox.alice", "inbox.bob"])
        chart                                    # the last line of a cell shows it
        faults.kill(broker).heal()               # is marked by itself
        chart.frame()                            # the samples behind it
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any, Final, TypeVar

import ipywidgets
import traitlets

from chatlib.faults import recording
from chatlib.lab.flow import flow_figure
from chatlib.lab.marks import spans_of
from chatlib.lab.tracks import Line, Tracks
from chatlib.lab.waiting import wait_until
from chatlib.lab.widgets import assets, queue_figure
from chatlib.lab.widgets.live import Live
from chatlib.lab.widgets.queue_view import ALL, WINDOWS, View, left_out, status, view_of
from chatlib.sampler import Marked

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

    from chatlib.monitor import Monitor

__all__ = ["QueueChart"]

PLOTLY: Final = "application/vnd.plotly.v1+json"
LONGEST: Final = 8  # queues in one chart: there are no more colours that can be told apart
CHOOSING: Final = 5.0  # seconds between two choices of the busiest
KEEPING: Final = 5.0  # seconds between two pictures for pages that are opened again
PATIENCE: Final = 20.0  # seconds for a level to begin
SAVED: Final = 8  # queues in the picture of the whole run

F = TypeVar("F", bound=Marked)


class QueueChart(Live, ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Messages ready and unacked in each queue, rates and consumers of all of them, live, for a cell of a notebook.

    queues: names of those to watch; None: all of the virtual host. most: of how many queues lines are drawn, 1 to 8: the busiest of
    the window, and the chart says how many it leaves out. window: "30 s", "2 min" or "all". log_scale: a logarithmic axis for the messages.
    sample_hz: samples a second, hz: drawings a second. Raises ValueError for others.

    What the broker does is sampled also while the chart is paused; it counts publish, deliver and ack each at its own time, up to a
    second apart. Faults that begin while the chart is there are marked; others by `mark`.
    """

    paused = traitlets.Bool(False, help="whether the picture stands still; samples are still taken")
    window = traitlets.Enum(list(WINDOWS), default_value="30 s", help="how much of the run is shown")
    log_scale = traitlets.Bool(False, help="whether the axis of the messages is logarithmic")

    def __init__(
        self,
        monitor: Monitor,
        queues: Iterable[str] | None = None,
        *,
        most: int = 6,
        window: str = "30 s",
        log_scale: bool = False,
        sample_hz: float = 4.0,
        hz: float = 2.5,
        title: str = "Queues",
    ) -> None:
        if not 1 <= most <= LONGEST:
            raise ValueError(f"most is how many queues have lines, 1 to {LONGEST}, got {most!r}")
        if not 0 < hz <= 5:
            raise ValueError(f"hz is drawings a second, more than 0 and at most 5, got {hz!r}")
        if window not in WINDOWS:
            raise ValueError(f"window is one of {', '.join(map(repr, WINDOWS))}, got {window!r}")
        if isinstance(queues, str):
            queues = [queues]
        self.hz = hz
        self._title = title
        self._most = most
        self._sample_hz = sample_hz
        self.tracks = Tracks()
        self._drawing = threading.RLock()
        self._places: tuple[str, ...] = ("",) * most
        self._choose_at = self._keep_at = 0.0
        self._is_stale = True
        self._shown: View | None = None
        self._shown_log = log_scale
        self._paused_at: float | None = None
        self._figure = queue_figure.empty(most)
        self._status, self._left, self._trouble = (ipywidgets.HTML() for _ in range(3))
        style = ipywidgets.HTML(f"<style>{assets.css('queue_chart')}</style>", layout={"display": "none"})
        super().__init__([style, self._trouble, self._controls(), self._status, self._figure, self._left])
        self.window, self.log_scale = window, log_scale
        for name in ("chatlib", "chatlib-queues"):
            self.add_class(name)
        self.observe(self._changed, ["paused", "window", "log_scale"])
        with contextlib.ExitStack() as made:
            self.sampler = monitor.sampler(queues=queues, hz=sample_hz, faults=made.enter_context(recording()))
            self._resources = made.pop_all()
        self._begin()

    def _controls(self) -> Any:
        pause = ipywidgets.ToggleButton(description="Pause", tooltip="Let the picture stand still, to look at it; samples are still taken")
        tips = [f"Show {'the whole run' if window == ALL else f'the last {window}'}" for window in WINDOWS]
        window = ipywidgets.ToggleButtons(options=list(WINDOWS), tooltips=tips)
        log = ipywidgets.ToggleButton(description="Log scale", tooltip="A logarithmic axis for the messages: few and many are seen at once")
        for control, name, width in ((pause, "paused", "92px"), (window, "window", ""), (log, "log_scale", "112px")):
            traitlets.link((self, name), (control, "value"))
            if width:
                control.layout.width = width
        box = ipywidgets.HBox([pause, window, log])
        box.add_class("queue-controls")
        return box

    # ---- what people do with it ------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Let the picture stand still, as the button does; samples are still taken."""
        self.paused = True

    def resume(self) -> None:
        """Go on, with what happened meanwhile."""
        self.paused = False

    def mark(self, fault: F) -> F:
        """Have the chart show this fault, which may have begun before the chart; returns it."""
        self.sampler.mark(fault)
        return fault

    def shows(self, queue: str, ready: int, *, seconds: float = 2.0) -> None:
        """Wait until the line of `queue` is a level of `ready` messages, this long: a quick run is seen, too. Raises NotInTime."""

        def level() -> bool:
            self._catch_up()
            with self.tracks.lock:
                line = self.tracks.queues[queue].ready if queue in self.tracks.queues else Line()
                return line.values[-2:] == [ready, ready] and line.times[-1] - line.times[-2] >= seconds

        wait_until(level, seconds + PATIENCE, f"{ready:,} messages wait in {queue} for {seconds:g} s")

    def frame(self, *queues: str) -> DataFrame:
        """The samples behind the chart, see `Sampler.frame`: of these queues, or of all."""
        return self.sampler.frame(*queues)

    def figure(self, title: str | None = None) -> Figure:
        """The whole run so far as a static plotly figure, with the faults marked: for a saved notebook."""
        self._catch_up()
        queues = [name for name in self.tracks.busiest(self._places, SAVED) if name]  # in the colours that they have in the live chart
        missing, _ = left_out(list(self.tracks.queues), queues)
        head = f"{title or self._title}<br><span style='font-size:12px'>{missing}</span>" if missing else title or self._title
        return flow_figure(self.tracks, spans_of(self.sampler.faults), head, queues=queues, unacked=True, consumers=True)

    def still(self) -> dict[str, Any]:
        """The picture of the whole run, as a MIME bundle of plotly's."""
        return {PLOTLY: json.loads(self.figure().to_json())}

    # ---- life ------------------------------------------------------------------------------------------------------------------

    def start(self) -> QueueChart:
        """Sample and draw from now on; returns itself. Raises RuntimeError after `close`."""
        super().start()
        self.sampler.start()
        return self

    def stop(self) -> None:
        """Sample and draw no more; returns when both have ended. What was sampled stays."""
        super().stop()
        self.sampler.stop()

    def _end(self) -> None:
        self.sampler.stop()
        self._resources.close()

    def _show_error(self, text: str) -> None:
        self._trouble.value = f'<div class="chatlib-error" role="alert">{escape(text)}</div>' if text else ""

    def _changed(self, change: Any) -> None:
        """A control was used, or its trait set: in whatever thread, so only note it and draw soon."""
        if change["name"] == "paused":
            self._paused_at = time.time() if change["new"] else None
        self._later(self._look)

    def _catch_up(self) -> None:
        """Add the samples that were taken since the last look; from any thread."""
        with self.tracks.lock:
            self.tracks.add(self.sampler.rows(self.tracks.last if self.tracks.last is not None else -math.inf))

    def _look(self) -> None:
        with self._drawing:
            self._catch_up()
            paused_at, log, window = self._paused_at, bool(self.log_scale), str(self.window)
            now = time.time() if paused_at is None else paused_at
            self._say(paused_at)
            settings = (log, window)
            if paused_at is not None and self._shown is not None and settings == self._settings:
                return
            if paused_at is None and (now >= self._choose_at or "" in self._places):
                self._choose_at = now + CHOOSING
                start = now - WINDOWS[window]
                found = self.tracks.busiest(self._places, self._most, start)
                self._places = (*found, *[""] * (self._most - len(found)))
            tops = self._shown.tops if self._shown is not None and settings == self._settings else (0.0, 0.0, 0.0)
            view = view_of(self.tracks, spans_of(self.sampler.faults), self._places, window=window, now=now, log=log, tops=tops)
            if log != self._shown_log:
                self._shown = None  # the numbers of the axis too
            self._is_stale |= queue_figure.draw(self._figure, view, self._shown, log=log)
            if self._is_stale and now >= self._keep_at:
                queue_figure.keep(self._figure)
                self._is_stale, self._keep_at = False, now + KEEPING
            self._shown, self._shown_log, self._settings = view, log, settings

    _settings: tuple[bool, str] = (False, "")

    def _say(self, paused_at: float | None) -> None:
        clock = time.strftime("%H:%M:%S", time.localtime(paused_at)) if paused_at is not None else ""
        words, kind = status(self.tracks, time.time(), paused_at=clock, hz=self._sample_hz)
        line, names = left_out(self.tracks.present, self._places)
        for widget, text in (
            (self._status, f'<div class="queue-status {kind}" role="status">{words}</div>'),
            (self._left, f'<div class="queue-left" title="{escape(names)}">{escape(line)}</div>'),
        ):
            if widget.value != text:
                widget.value = text
