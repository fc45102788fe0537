"""Static pictures: the topology as the running broker tells it, a queue's depth over time, the time at the till, who heard whom.

Every function returns a plotly figure, which a saved notebook shows without a kernel.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from chatlib.lab.marks import FAULT, Span, notes, placed, shapes, spans
from chatlib.lab.samples import Depth
from chatlib.management import Management
from chatlib.names import unescape, user_of_queue

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from chatlib.lab.lesson import Lesson
    from chatlib.lab.till import Till

__all__ = ["FAULT", "depth_chart", "heard", "shade", "spans", "till_chart", "topology"]

FONT: Final = "system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif"
COLOURS: Final = {
    "producer": ("#e9e4f8", "#6a5acd"),
    "exchange": ("#ffe9c7", "#c77700"),
    "queue": ("#d9eaff", "#2b6cb0"),
    "consumer": ("#dcf3e0", "#2e7d46"),
    "nobody": ("#f4f4f4", "#999999"),
}
KEY_COLOURS: Final = ("#2e7d46", "#6a5acd", "#c77700", "#b0306a", "#17808f", "#555555")


def _figure(title: str, height: int, **layout: Any) -> Figure:
    """An empty figure in the course's look: a white card, which is legible in a light and in a dark JupyterLab."""
    import plotly.graph_objects as go
    import plotly.io as pio

    if "PLOTLY_RENDERER" not in os.environ:  # by default plotly adds a page of HTML that loads MathJax from another machine
        pio.renderers.default = "plotly_mimetype"
    figure = go.Figure()
    figure.update_layout(
        template="none",
        title={"text": title, "x": 0.01, "xanchor": "left", "font": {"size": 16}},
        font={"family": FONT, "size": 13, "color": "#222"},
        width=760,
        height=height,
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
        **layout,
    )
    figure.update_xaxes(zeroline=False)
    figure.update_yaxes(zeroline=False)
    return figure


def shade(figure: Figure, found: Iterable[Span], zero: float, end: float) -> None:
    """Shade the faults on an axis of seconds from `zero` (Unix seconds) to `end`, and name them above."""
    marks = placed(found, zero, 0, end)
    figure.update_layout(shapes=[*figure.layout.shapes, *shapes(marks)], annotations=[*figure.layout.annotations, *notes(marks)])


# ---- topology --------------------------------------------------------------------------------------------------------------


def topology(lesson: Lesson, title: str, *, exchanges: Sequence[str], producers: Iterable[str] = (), skip: Iterable[str] = ()) -> Figure:
    """Producers, exchanges, bindings, queues and consumers, left to right, read from the broker now.

    exchanges: which to draw, with the queues bound to them. producers: names to draw at the left (a broker does not know who
    may publish). skip: users to leave out. Under each queue stands how many messages wait in it.
    """
    producers = list(producers)
    with Management(lesson.broker.management_url, login=lesson.broker.url) as management:
        bindings = [
            (binding["source"], binding["routing_key"], binding["destination"])
            for exchange in exchanges
            for binding in management.get(management.in_vhost("exchanges", exchange) + "/bindings/source")
        ]
    left_out = set(skip)
    bindings = [binding for binding in bindings if user_of_queue(binding[2]) not in left_out]
    queues = sorted({queue for _, _, queue in bindings})
    state = {queue: lesson.depth(queue) for queue in queues}
    drawing = _Drawing(title, max(len(queues), len(exchanges), 1), with_producers=bool(producers))
    where = drawing.column("queue", 2, [(queue, unescape(queue), f"{count} waiting") for queue, (count, _) in state.items()])
    where |= drawing.column("exchange", 1, [(name, name, "") for name in exchanges])
    where |= drawing.column("producer", 0, [(f"producer {name}", name, "") for name in producers])
    for queue, (_, consumers) in state.items():
        kind, name = ("consumer", user_of_queue(queue) or "") if consumers else ("nobody", "nobody")
        drawing.box(kind, 3, where[queue][1], name if consumers < 2 else f"{consumers} × {name}")
        drawing.arrow((2, where[queue][1]), (3, where[queue][1]), colour="#2e7d46" if consumers else "#cccccc")
    for name in producers:
        for exchange in exchanges:
            drawing.arrow(where[f"producer {name}"], where[exchange])
    drawing.bindings(sorted(bindings), where)
    return drawing.figure


class _Drawing:
    """Boxes in four columns on a grid, and arrows between them."""

    X: Final = (0.0, 2.6, 6.5, 9.6)
    HALF: Final = (0.8, 0.9, 1.15, 0.9)  # half the width of a box in each column
    HEADS: Final = ("producers", "exchanges", "queues", "consumers")

    def __init__(self, title: str, rows: int, *, with_producers: bool) -> None:
        self.rows = rows
        self.x = self.X if with_producers else (0.0, 0.1, *self.X[2:])
        self.figure = _figure(title, 110 + 62 * rows, plot_bgcolor="white")
        self.figure.update_layout(margin={"l": 10, "r": 10, "t": 50, "b": 10})
        self.figure.update_xaxes(visible=False, range=[-1, 10.7], fixedrange=True)
        self.figure.update_yaxes(visible=False, range=[-0.9, rows + 0.1], fixedrange=True)
        for x, head in zip(self.x, self.HEADS, strict=True):
            if with_producers or head != "producers":
                self._text(x, rows - 0.15, f"<b>{head}</b>", 11, "#666")

    def column(self, kind: str, column: int, boxes: Sequence[tuple[str, str, str]]) -> dict[str, tuple[int, float]]:
        """Boxes (key, label, note) spread over the height; returns key -> (column, y)."""
        step = self.rows / max(len(boxes), 1)
        places = {}
        for number, (key, label, note) in enumerate(boxes):
            y = self.rows - 1 + 0.5 - step * (number + 0.5)
            places[key] = (column, y)
            self.box(kind, column, y, label, note)
        return places

    def box(self, kind: str, column: int, y: float, label: str, note: str = "") -> None:
        fill, line = COLOURS[kind]
        x, half = self.x[column], self.HALF[column]
        self.figure.add_shape(
            type="rect", x0=x - half, x1=x + half, y0=y - 0.3, y1=y + 0.3, fillcolor=fill, line={"color": line, "width": 1.5}, layer="above"
        )
        short = label if len(label) <= 18 else label[:17] + "…"
        self._text(x, y + (0.1 if note else 0), short, 13, "#222")
        if note:
            self._text(x, y - 0.15, note, 11, line)

    def arrow(self, start: tuple[int, float], end: tuple[int, float], label: str = "", colour: str = "#888") -> None:
        (a, y0), (b, y1) = start, end
        x0, x1 = self.x[a] + self.HALF[a], self.x[b] - self.HALF[b]
        self._line((x0, y0), (x1, y1), colour, head=2)
        if label:
            near = 0.62  # nearer to the queue, where the arrows have come apart
            self._text(x0 + (x1 - x0) * near, y0 + (y1 - y0) * near, label, 11, "#444", "rgba(255,255,255,0.9)")

    def bindings(self, bindings: Sequence[tuple[str, str, str]], where: Mapping[str, tuple[int, float]]) -> None:
        """Each (exchange, key, queue) an arrow with its key; where many arrows share keys, a colour and one label for each key."""
        heights: dict[tuple[str, str], list[float]] = {}
        for source, key, queue in bindings:
            heights.setdefault((source, key), []).append(where[queue][1])
        keys = sorted(heights, key=lambda each: -sum(heights[each]) / len(heights[each]))  # so that few arrows cross
        if len(bindings) <= 4 or len(keys) == len(bindings):
            for source, key, queue in bindings:
                self.arrow(where[source], where[queue], unescape(key))
            return
        step = self.rows / len(keys)
        for number, (source, key) in enumerate(keys):
            colour = KEY_COLOURS[number % len(KEY_COLOURS)]
            x, y = (self.x[1] + self.x[2]) / 2 - 0.3, self.rows - 0.5 - step * (number + 0.5)
            start = self.x[1] + self.HALF[1], where[source][1]
            self._line(start, (x, y), colour)
            for queue in (queue for a, b, queue in bindings if (a, b) == (source, key)):
                self._line((x, y), (self.x[2] - self.HALF[2], where[queue][1]), colour, head=2)
            self._text(x, y, unescape(key), 12, colour, "white")

    def _line(self, start: tuple[float, float], end: tuple[float, float], colour: str, head: int = 0) -> None:
        (ax, ay), (x, y) = start, end
        self.figure.add_annotation(
            x=x, y=y, ax=ax, ay=ay, xref="x", yref="y", axref="x", ayref="y", text="", showarrow=True,
            arrowhead=head, arrowsize=1, arrowwidth=1.4, arrowcolor=colour,
        )  # fmt: skip

    def _text(self, x: float, y: float, text: str, size: int, colour: str, background: str = "rgba(0,0,0,0)") -> None:
        safe = text if text.startswith("<b>") else text.replace("&", "&amp;").replace("<", "&lt;")
        self.figure.add_annotation(x=x, y=y, text=safe, showarrow=False, font={"size": size, "color": colour}, bgcolor=background)


# ---- charts ----------------------------------------------------------------------------------------------------------------


def depth_chart(lesson: Lesson, depth: Depth, title: str) -> Figure:
    """How many messages waited, over the seconds since the first sample; faults are shaded."""
    import plotly.graph_objects as go

    points = _corners(depth.points)
    zero = points[0][0] if points else 0.0
    end = points[-1][0] - zero if points else 1.0
    figure = _figure(title, 340, showlegend=False)
    figure.update_layout(margin={"t": 80})
    figure.add_trace(
        go.Scatter(x=[round(at - zero, 3) for at, _ in points], y=[count for _, count in points], mode="lines", fill="tozeroy",
                   line={"shape": "hv", "color": "#2b6cb0", "width": 2})
    )  # fmt: skip
    shade(figure, spans(lesson.history), zero, end)
    figure.update_xaxes(title="seconds", range=[0, end])
    figure.update_yaxes(title="messages waiting", rangemode="tozero")
    return figure


def _corners(points: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """The samples at which something changed, the first and the last: a lesson may be left open for an hour."""
    last = len(points) - 1
    return [
        point
        for number, point in enumerate(points)
        if number in (0, last) or point[1] != points[number - 1][1] or point[1] != points[number + 1][1]
    ]


def till_chart(till: Till, title: str) -> Figure:
    """How long each customer stood at the till, in milliseconds on a logarithmic axis; one colour for each experiment."""
    import plotly.graph_objects as go

    figure = _figure(title, 420, legend={"orientation": "h", "y": -0.3, "yanchor": "top"})
    figure.update_layout(margin={"b": 125})
    colours = ["#2e7d46", "#d62728", "#c77700", "#6a5acd", "#2b6cb0", "#17a2b8", "#555555"]
    sections = list(dict.fromkeys(each.section for each in till.served))
    for section, colour in zip(sections, colours * len(sections), strict=False):
        chosen = [(number, each) for number, each in enumerate(till.served, 1) if each.section == section]
        figure.add_trace(
            go.Scatter(x=[number for number, _ in chosen], y=[max(each.seconds * 1000, 0.01) for _, each in chosen], mode="markers",
                       name=section, marker={"color": colour, "size": 8}, text=[f"{each.order}: {each.told}" for _, each in chosen])
        )  # fmt: skip
    figure.update_xaxes(title="customer number")
    figure.update_yaxes(title="milliseconds at the till", type="log", dtick=1)
    return figure


def heard(counts: Mapping[tuple[str, str], int], title: str) -> Figure:
    """Who received how many messages from whom: a table of colours, senders down, receivers across."""
    import plotly.graph_objects as go

    senders, receivers = sorted({a for a, _ in counts}), sorted({b for _, b in counts})
    cells = [[counts.get((a, b), 0) for b in receivers] for a in senders]
    figure = _figure(title, 130 + 34 * len(senders))
    figure.add_trace(
        go.Heatmap(z=cells, x=receivers, y=senders, colorscale="Blues", zmin=0, showscale=False, xgap=2, ygap=2,
                   text=[[str(cell) if cell else "" for cell in row] for row in cells], texttemplate="%{text}")
    )  # fmt: skip
    figure.update_xaxes(title="received by", side="bottom", type="category")
    figure.update_yaxes(title="sent by", autorange="reversed", type="category", automargin=True)
    return figure
