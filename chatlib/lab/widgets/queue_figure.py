"""The plotly figure of a live chart of queues: made once, then only what changed is written into it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Final

import plotly.graph_objects as go

from chatlib.lab.flow import CONSUMERS, FIGURES, LINES, panels
from chatlib.lab.marks import notes, shapes
from chatlib.lab.pictures import FONT
from chatlib.lab.widgets.queue_view import View, counted_by, short, ticks

__all__ = ["draw", "empty", "keep"]

HEIGHT: Final = 480  # pixels
LOWEST: Final = 0.03  # of a panel's height below 0: a line of zeros is seen whole
FORMS: Final = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "x")  # at the head of each line: not colour alone
NUMBER: Final = "%{fullData.name} : %{text}<extra></extra>"
CONFIG: Final = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["sendChartToCloud", "select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d", "toggleSpikelines"],
}


def empty(places: int) -> Any:
    """A FigureWidget with room for so many queues; its lines are in the order of `View.lines`."""
    figure: Any = go.FigureWidget()
    if (changed := getattr(getattr(go.FigureWidget, "_esm", None), "changed", None)) is not None:
        changed.disconnect()  # anywidget has each figure wait for changes of plotly's own code, which keeps it for good
    figure._config = CONFIG
    figure.add_traces([_queue(place, unacked=unacked) for unacked in (False, True) for place in range(places)])
    for name, colour, dash in FIGURES.values():
        figure.add_trace(_trace(name, colour, dash, yaxis="y2", legend="legend2"))
    figure.add_trace(_trace("consumers", CONSUMERS, "solid", yaxis="y3", legend="legend3"))
    beside = {"x": 1.01, "xanchor": "left", "yanchor": "top", "tracegroupgap": 0, "font": {"size": 12}, "bgcolor": "rgba(0,0,0,0)"}
    figure.update_layout(
        template="none",
        height=HEIGHT,
        autosize=True,
        font={"family": FONT, "size": 12},
        margin={"l": 62, "r": 190, "t": 52, "b": 40, "autoexpand": False},  # else every name would move the chart
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hovermode="x unified",
        hoverlabel={"namelength": -1},  # else "inbox.alice, unacked" is cut off
        uirevision="kept",
        legend=beside | {"y": 1, "title": {"text": "ready ───  unacked ┄┄┄", "font": {"size": 11}}},
        legend2=beside | {"y": 0.44},
        legend3=beside | {"y": 0.17},
        **panels(rates=True, consumers=True),
    )
    figure.update_xaxes(showgrid=True, zeroline=False, title={"standoff": 4}, unifiedhovertitle={"text": "%{x} s"})
    figure.update_yaxes(title={"standoff": 8})
    return figure


def _queue(place: int, *, unacked: bool) -> Any:
    more = {"showlegend": False} if unacked else {"marker": {"symbol": FORMS[place % len(FORMS)], "size": 8}}
    trace = _trace("", LINES[place % len(LINES)], "dot" if unacked else "solid", visible=False, legendgroup=str(place), **more)
    if not unacked:
        trace.update(mode="lines+markers", selected={"marker": {"opacity": 1}}, unselected={"marker": {"opacity": 0}})
    return trace


def _trace(name: str, colour: str, dash: str, **more: Any) -> Any:
    return go.Scatter(x=[], y=[], mode="lines", name=name, line={"shape": "hv", "color": colour, "width": 2, "dash": dash}, **more)


def draw(figure: Any, view: View, last: View | None, *, log: bool) -> bool:
    """Write into the figure what differs between `view` and what it shows, `last` (None: everything), in one message.

    A property is written for all lines or for none: to the browser, one that is left out of a message is one that is taken away.
    Returns whether more than points changed.
    """
    places, lines = len(view.names), len(view.lines)
    style: dict[str, list[Any]] = {}
    layout: dict[str, Any] = {}
    if last is None or view.names != last.names:
        names = [short(name) for name in view.names]
        others = [name for name, _, _ in FIGURES.values()] + ["consumers"]
        style["name"] = [*names, *(f"{name}, unacked" for name in names), *others]
        style["visible"] = [bool(name) for name in view.names] * 2 + [True] * len(others)
    if last is None or view.lines != last.lines:
        style["x"], style["y"] = [x for x, _ in view.lines], [y for _, y in view.lines]
        heads = [[len(x) - 1] for x, _ in view.lines[:places]]
        style["selectedpoints"] = heads + [None] * (lines - places)
        if log or last is None:
            counted = [
                [f"{counted_by(value):,}" if value is not None else "" for value in y] if log else None for _, y in view.lines[: 2 * places]
            ]
            style["text"] = counted + [None] * (lines - 2 * places)
    if last is None:  # on a logarithmic axis the points are logarithms: who points at one wants to read the number
        style["hovertemplate"] = [NUMBER if log else None] * 2 * places + [None] * (lines - 2 * places)
    if last is None or view.x != last.x:
        layout["xaxis.range"] = list(view.x)
    for axis, height, before in zip(("yaxis", "yaxis2", "yaxis3"), view.tops, last.tops if last else (None,) * 3, strict=True):
        if height != before:
            layout[f"{axis}.range"] = [-LOWEST * height, height]
    if "yaxis.range" in layout:
        layout["yaxis.tickmode"] = "array" if log else "auto"
        layout["yaxis.tickvals"], layout["yaxis.ticktext"] = ticks(view.tops[0]) if log else (None, None)
    if last is None or view.marks != last.marks:
        layout["shapes"], layout["annotations"] = shapes(view.marks), notes(view.marks)
    figure.plotly_update(restyle_data=style, relayout_data=layout, trace_indexes=list(range(lines)))
    return bool(layout) or "name" in style


def keep(figure: Any) -> None:
    """Let a page that is opened or shown again from now on begin with what the figure shows now, not with what it was made with."""
    figure._widget_data, figure._widget_layout = deepcopy(figure._data), deepcopy(figure._layout)
