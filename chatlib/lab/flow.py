"""The flow through queues while a lesson runs: sampled in the background, and drawn with the faults marked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any, Final

from chatlib.lab.pictures import FAULT, _figure, spans
from chatlib.lab.waiting import wait_until
from chatlib.sampler import Sampler

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

    from chatlib.lab.lesson import Lesson

__all__ = ["flow_chart", "sample"]

LINES: Final = ("#2b6cb0", "#c77700", "#2e7d46", "#6a5acd", "#b0306a", "#17808f", "#8a6d3b", "#555555")
LAYERS: Final = ("#e3e3e3", "#cfcfcf", "#bbbbbb", "#a7a7a7", "#f3d9b1", "#e0b877", "#8fb8e0", "#2b6cb0")  # from below; the last stand out
RATES: Final = {"publish_rate": ("in", "#2e7d46"), "deliver_rate": ("out", "#c77700")}


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
    samples = sampler.frame()
    zero = float(samples["at"].min())
    end = float(samples["at"].max()) - zero
    figure = _figure(title, 400 if stacked else 480, legend={"orientation": "h", "y": 0, "yref": "container", "yanchor": "bottom"})
    figure.update_layout(margin={"t": 90, "b": 85})
    if stacked:
        figure.update_yaxes(title="messages waiting", rangemode="tozero")
    else:
        figure.update_layout(
            yaxis={"domain": [0.42, 1], "title": "messages waiting", "rangemode": "tozero"},
            yaxis2={"domain": [0, 0.32], "title": "messages/s", "rangemode": "tozero", "anchor": "x", "zeroline": False},
        )
        _rates(figure, samples, zero)
    _depths(figure, samples, zero, stacked)
    _faults(figure, lesson, zero, end)
    figure.update_xaxes(title="seconds", range=[0, end], anchor="y" if stacked else "y2")
    return figure


def _depths(figure: Figure, samples: DataFrame, zero: float, stacked: bool) -> None:
    import plotly.graph_objects as go

    queues = [queue for queue in samples["queue"].unique() if queue]
    for queue, colour in zip(queues, (LAYERS if stacked else LINES) * len(queues), strict=False):
        of_queue = samples[samples["queue"] == queue]
        if stacked:
            x, y = _points(of_queue["at"] - zero, of_queue["ready"])
            line = {"shape": "hv", "color": colour, "width": 0.5}
            figure.add_trace(go.Scatter(x=x, y=y, mode="lines", name=queue, stackgroup="all", fillcolor=colour, line=line))
        else:
            _line(figure, of_queue["at"] - zero, of_queue["ready"], name=queue, colour=colour, fill="tozeroy")


def _rates(figure: Figure, samples: DataFrame, zero: float) -> None:
    """The rates of all queues together; nothing where the broker was away."""
    for column, (name, colour) in RATES.items():
        asked = samples.groupby("at")
        counted = asked[column].sum(min_count=1)
        when = counted.index.to_series() - asked["age"].first().fillna(0)  # when the broker counted, not when it was asked
        _line(figure, when - zero, counted, name=f"{name} (per second)", colour=colour, yaxis="y2")


def _line(figure: Figure, at: Any, values: Any, *, name: str, colour: str, **how: Any) -> None:
    """One trace for each stretch without a gap (plotly would fill across), together one entry of the legend."""
    import plotly.graph_objects as go

    x, y = _points(at, values)
    stretches = [list(group) for known, group in groupby(zip(x, y, strict=True), lambda point: point[1] is not None) if known]
    for number, stretch in enumerate(stretches):
        kept = _corners(stretch)
        figure.add_trace(
            go.Scatter(x=[a for a, _ in kept], y=[value for _, value in kept], mode="lines", name=name, legendgroup=name,
                       showlegend=number == 0, line={"shape": "hv", "color": colour, "width": 2}, **how)
        )  # fmt: skip


def _points(at: Any, values: Any) -> tuple[list[float], list[float | None]]:
    """The samples, None where there was no value. Times that go back, since an age is only nearly right, stand still instead."""
    times = accumulate((round(float(a), 2) for a in at), max)
    return list(times), [None if math.isnan(value) else round(float(value), 1) for value in values]


def _corners(points: Sequence[tuple[float, float | None]]) -> list[tuple[float, float | None]]:
    """Those at which something changed, the first and the last: the same line with fewer points."""
    last = len(points) - 1
    return [
        point
        for number, point in enumerate(points)
        if number in (0, last) or point[1] != points[number - 1][1] or point[1] != points[number + 1][1]
    ]


def _faults(figure: Figure, lesson: Lesson, zero: float, end: float) -> None:
    """Shade from the beginning of each fault to its end, and name it above; neighbours' names at different heights."""
    shown: Sequence[tuple[str, float, float | None]] = [span for span in spans(lesson.history) if span[2] is None or span[2] > zero]
    for number, (name, began, ended) in enumerate(shown):
        first, last = max(began - zero, 0), end if ended is None else min(ended - zero, end)
        if first > end:
            continue
        figure.add_vrect(x0=first, x1=last, fillcolor=FAULT, line={"width": 1, "color": "rgba(214, 39, 40, 0.4)"}, layer="below")
        figure.add_annotation(
            x=first, y=1, yref="paper", yanchor="bottom", xanchor="left", yshift=2 + 15 * (number % 2), showarrow=False,
            text=name.replace("_", " "), font={"size": 12, "color": "#a11"},
        )  # fmt: skip
