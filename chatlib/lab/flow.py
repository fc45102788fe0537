"""The flow through queues: sampled in the background, and drawn with the faults marked. Live charts have the same panels and colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from chatlib.lab.marks import Span, spans
from chatlib.lab.pictures import _figure, shade
from chatlib.lab.tracks import Line, Tracks
from chatlib.lab.waiting import wait_until
from chatlib.sampler import Sampler

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from chatlib.lab.lesson import Lesson

__all__ = ["CONSUMERS", "FIGURES", "LINES", "flow_chart", "flow_figure", "panels", "sample"]

LINES: Final = ("#2b6cb0", "#c77700", "#2e7d46", "#6a5acd", "#b0306a", "#17808f", "#8a6d3b", "#777777")  # 3:1 on white and on black
LAYERS: Final = ("#e3e3e3", "#cfcfcf", "#bbbbbb", "#a7a7a7", "#f3d9b1", "#e0b877", "#8fb8e0", "#2b6cb0")  # from below; the last stand out
FIGURES: Final[Mapping[str, tuple[str, str, str]]] = {
    "publish_rate": ("publish", "#2e7d46", "solid"),
    "deliver_rate": ("deliver", "#c77700", "dash"),
    "ack_rate": ("ack", "#6a5acd", "dot"),
}
IN_AND_OUT: Final = {"publish_rate": ("in (per second)", "#2e7d46", "solid"), "deliver_rate": ("out (per second)", "#c77700", "solid")}
CONSUMERS: Final = "#777777"
LEGEND: Final = 640  # pixels of a row of the legend
ITEM: Final = 44  # of an entry in it, without its name
LETTER: Final = 7  # of a letter of the name


def sample(lesson: Lesson, *queues: str, hz: float = 4.0) -> Sampler:
    """Sample these queues (or all) in the background until the lesson ends; returns when the first sample is there."""
    sampler = Sampler(lesson.broker, queues=queues or None, hz=hz)
    sampler.start()
    lesson.closing(sampler.stop)
    wait_until(lambda: bool(sampler.frame()["up"].any()), 20, "the first sample")
    return sampler


def flow_chart(lesson: Lesson, sampler: Sampler, title: str, *, stacked: bool = False) -> Figure:
    """Above how many messages wait in each queue, below how many came in and went out a second; faults are shaded.

    stacked: the queues on top of each other, and no rates.
    """
    tracks = Tracks(sampler.rows())
    return flow_figure(
        tracks, spans(lesson.history), title, queues=list(tracks.queues), rates={} if stacked else IN_AND_OUT, stacked=stacked
    )


def flow_figure(
    tracks: Tracks,
    faults: Sequence[Span],
    title: str,
    *,
    queues: Sequence[str],
    rates: Mapping[str, tuple[str, str, str]] = FIGURES,
    stacked: bool = False,
    unacked: bool = False,
    consumers: bool = False,
) -> Figure:
    """A picture of a whole run. rates: of `RATES`, with name, colour and dash. unacked: also these, dotted; consumers: in a panel below."""
    with tracks.lock:
        zero = tracks.first or 0.0
        end = max((tracks.last or zero) - zero, 1.0)
        figure = _figure(
            title,
            600 if consumers else 480 if rates else 400,
            legend={"orientation": "h", "y": 0, "yref": "container", "yanchor": "bottom"},
        )
        figure.update_layout(margin={"t": 95, "b": 85}, **panels(rates=bool(rates), consumers=consumers))
        if stacked:
            _stack(figure, tracks, queues, zero)
        else:
            for queue, colour in zip(queues, LINES * len(queues), strict=False):
                track = tracks.queues[queue]
                _line(figure, track.ready, zero, name=queue, colour=colour, fill="tozeroy")
                if unacked and track.unacked.peak():
                    _line(figure, track.unacked, zero, name=f"{queue}, unacked", colour=colour, dash="dot")
        for which, (name, colour, dash) in rates.items():
            _line(figure, tracks.rates[which], zero, name=name, colour=colour, dash=dash, yaxis="y2")
        if consumers:
            _line(figure, tracks.consumers, zero, name="consumers", colour=CONSUMERS, yaxis="y3")
            figure.update_layout(yaxis3={"range": [0, max(2.0, 1.1 * tracks.consumers.peak())]})
    rows = max(1, math.ceil(sum(ITEM + LETTER * len(trace.name) for trace in figure.data if trace.showlegend is not False) / LEGEND))
    figure.update_layout(margin={"b": 55 + 30 * rows}, height=figure.layout.height + 30 * (rows - 1))
    shade(figure, [span for span in faults if span[2] is None or span[2] > zero], zero, end)
    figure.update_xaxes(range=[0, end])
    return figure


def panels(*, rates: bool, consumers: bool) -> dict[str, Any]:
    """The axes, as part of plotly's layout: messages above, below them rates, below these consumers, one axis of time for all."""
    lowest = "y3" if consumers else "y2" if rates else "y"
    found: dict[str, Any] = {"xaxis": {"title": "seconds", "anchor": lowest}, "yaxis": _panel("messages waiting")}
    if consumers:
        found["yaxis"] = _panel("messages", size=12, domain=[0.51, 1])
        found["yaxis2"] = _panel("per second", size=12, domain=[0.24, 0.44], anchor="x", nticks=4)
        found["yaxis3"] = _panel("consumers", size=12, domain=[0, 0.17], anchor="x", nticks=3, tickformat="d")
    elif rates:
        found["yaxis"] |= {"domain": [0.42, 1]}
        found["yaxis2"] = _panel("messages/s", domain=[0, 0.32], anchor="x")
    return found


def _panel(title: str, *, size: int = 14, **more: Any) -> dict[str, Any]:
    return {"rangemode": "tozero", "zeroline": False, "title": {"text": title, "font": {"size": size}}} | more


def _stack(figure: Figure, tracks: Tracks, queues: Sequence[str], zero: float) -> None:
    """Layers need their points at the same moments: plotly takes a missing one for 0."""
    import plotly.graph_objects as go

    lines = {queue: tracks.queues[queue].ready for queue in queues}
    moments = sorted({moment for line in lines.values() for moment in line.since()[0]})
    x = [round(moment - zero, 2) for moment in moments]
    for (queue, line), colour in zip(lines.items(), LAYERS * len(lines), strict=False):
        style = {"shape": "hv", "color": colour, "width": 0.5}
        figure.add_trace(go.Scatter(x=x, y=line.at(moments), mode="lines", name=queue, stackgroup="all", fillcolor=colour, line=style))


def _line(figure: Figure, line: Line, zero: float, *, name: str, colour: str, dash: str = "solid", **how: Any) -> None:
    """One trace for each stretch without a gap (plotly would fill across), together one entry of the legend, even of nothing."""
    import plotly.graph_objects as go

    points = zip(*line.since(), strict=True)
    stretches = [list(group) for known, group in groupby(points, lambda point: point[1] is not None) if known]
    for number, stretch in enumerate(stretches or [[]]):
        figure.add_trace(
            go.Scatter(x=[round(at - zero, 2) for at, _ in stretch], y=[round(value or 0.0, 1) for _, value in stretch], mode="lines",
                       name=name, legendgroup=name, showlegend=number == 0,
                       line={"shape": "hv", "color": colour, "width": 2, "dash": dash}, **how)
        )  # fmt: skip
