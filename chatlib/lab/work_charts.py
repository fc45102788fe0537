"""Static pictures of work that was done more than once, or not at all: the lines of a book, and the calls that something got."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from chatlib import events
from chatlib.events import FAULT_BEGAN, Event
from chatlib.lab.clerk import KILLED
from chatlib.lab.pictures import FAULT, _figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from chatlib.lab.lesson import Lesson
    from chatlib.lab.network import Call, Network

__all__ = ["book_chart", "calls_chart"]

BIN: Final = 0.1  # seconds of one bar
PAID, REFUSED, RED = "#2b6cb0", "#e08a1e", "#a11"
KINDS: Final = {
    "in the book": ("circle", PAID, 8),
    "in the book again": ("x", "#d62728", 12),
    "dropped as known": ("diamond-open", "#2e7d46", 13),
}


def book_chart(lesson: Lesson, sections: Sequence[str], title: str) -> Figure:
    """What came into the book, one panel for each experiment: which payment (up) at which step (to the right); kills are marked.

    Steps are counted, not timed. A payment that never came into the book is a row that is marked as missing.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=len(sections), shared_yaxes=True, horizontal_spacing=0.04, subplot_titles=list(sections))
    figure.update_layout(_figure(title, 400).layout, template="none")
    shown: set[str] = set()
    for column, section in enumerate(sections, 1):
        records = lesson.records(section)
        points, kills, missing = _steps(records)
        for kind, (symbol, colour, size) in KINDS.items():
            chosen = [(step, number) for step, number, what in points if what == kind]
            if chosen:
                figure.add_trace(
                    go.Scatter(x=[step for step, _ in chosen], y=[number for _, number in chosen], mode="markers", name=kind,
                               legendgroup=kind, showlegend=kind not in shown,
                               marker={"symbol": symbol, "color": colour, "size": size, "line": {"width": 2, "color": colour}}),
                    row=1, col=column,
                )  # fmt: skip
                shown.add(kind)
        for step in kills:
            figure.add_vline(x=step, line={"color": RED, "width": 2, "dash": "dot"}, row=1, col=column)
            figure.add_annotation(x=step, y=1.5, text="killed", xanchor="left", showarrow=False, font={"color": RED, "size": 12},
                                  row=1, col=column)  # fmt: skip
        for number in missing:
            figure.add_hrect(y0=number - 0.5, y1=number + 0.5, fillcolor=FAULT, line_width=0, layer="below", row=1, col=column)
            figure.add_annotation(x=len(points), y=number, text=f"{number} is missing", xanchor="right", showarrow=False,
                                  font={"color": RED, "size": 12}, row=1, col=column)  # fmt: skip
    figure.update_xaxes(title={"text": "step", "standoff": 8}, zeroline=False)
    figure.update_yaxes(zeroline=False)
    figure.update_yaxes(title="number of the payment", tickvals=[1, 5, 10, 15, 20], col=1)
    figure.update_layout(margin={"t": 90, "b": 95}, legend={"orientation": "h", "y": -0.26, "yanchor": "top"})
    return figure


def _steps(records: Sequence[Event]) -> tuple[list[tuple[int, int, str]], list[float], list[int]]:
    """Points (step, number of the payment, kind), kills (between two steps) and payments that never came into the book."""
    stored = [event["message_id"] for event in records if event["hop"] == events.STORED]
    number = {message_id: position for position, message_id in enumerate(stored, 1)}
    happened = sorted(
        (event for event in records if event["hop"] in (events.HANDLED, events.DROPPED) and event["message_id"] in number),
        key=lambda event: event["at"],
    )
    points, seen = [], set()
    for step, event in enumerate(happened, 1):
        message_id = event["message_id"]
        again = "in the book again" if message_id in seen else "in the book"
        points.append((step, number[message_id], "dropped as known" if event["hop"] == events.DROPPED else again))
        seen.add(message_id)
    moments = [event["at"] for event in records if event["hop"] == FAULT_BEGAN and event["name"] == KILLED]
    kills = [sum(event["at"] < moment for event in happened) + 0.5 for moment in moments]
    return points, kills, sorted(number[message_id] for message_id in number.keys() - seen)


def calls_chart(networks: Mapping[str, Network], title: str) -> Figure:
    """How many calls came to each of these in each tenth of a second since it went down, one panel above the other."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=len(networks), cols=1, shared_xaxes=True, vertical_spacing=0.12, subplot_titles=list(networks))
    figure.update_layout(_figure(title, 130 + 170 * len(networks)).layout, template="none")
    longest, highest = 0.0, 1
    for row, network in enumerate(networks.values(), 1):
        began, ended = network.outages[0]
        highest = max([highest, *_bars(network.calls, began).values()])
        for kind, colour, told in (("paid", PAID, True), ("refused", REFUSED, False)):
            bars = _bars([call for call in network.calls if (call.told == "paid") == told], began)
            longest = max([longest, *(at + BIN for at in bars)])
            figure.add_trace(
                go.Bar(x=[round(at + BIN / 2, 3) for at in bars], y=list(bars.values()), width=BIN * 0.92, name=kind,
                       marker={"color": colour, "line": {"width": 0}}, legendgroup=kind, showlegend=row == 1),
                row=row, col=1,
            )  # fmt: skip
        figure.add_vrect(x0=0, x1=ended - began, fillcolor=FAULT, line_width=0, layer="below", row=row, col=1)
        figure.add_annotation(x=ended - began, y=1, yref="y domain", yanchor="bottom", text="network down", xanchor="left", showarrow=False,
                              font={"color": RED, "size": 12}, row=row, col=1)  # fmt: skip
        if network.capacity is not None:
            figure.add_hline(y=network.capacity, line={"color": "#555", "width": 1.5, "dash": "dash"}, row=row, col=1)
    figure.update_xaxes(zeroline=False, range=[-0.05, longest + 0.1])
    figure.update_xaxes(title={"text": "seconds since the network went down", "standoff": 8}, row=len(networks), col=1)
    figure.update_yaxes(zeroline=False, title="calls in 0.1 s", range=[0, highest * 1.08])
    figure.update_layout(barmode="stack", margin={"t": 90, "b": 95}, legend={"orientation": "h", "y": -0.18, "yanchor": "top"})
    return figure


def _bars(calls: Sequence[Call], began: float) -> dict[float, int]:
    """Tenths of a second since `began` -> calls in them."""
    counts = Counter(int((call.at - began) / BIN) for call in calls)
    return {round(number * BIN, 3): counts[number] for number in sorted(counts)}
