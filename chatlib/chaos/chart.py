"""The picture of a chaos run: what waited, what was sent, confirmed and handled, and when which fault was on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chatlib.chaos.depth import CLASSES
from chatlib.chaos.schedule import KINDS, LANES
from chatlib.events import CONFIRMED, FAULT_BEGAN, FAULT_ENDED, HANDLED, STORED, Event
from chatlib.messages import SEND_MESSAGE

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["Curves", "chart", "draw_to"]

FONT: Final = "system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif"
RATES: Final = {STORED: ("sent", "#2b6cb0"), CONFIRMED: ("confirmed", "#2e7d46"), HANDLED: ("handled", "#c77700")}
COLOURS: Final = {"inboxes": "#2b6cb0", "retries": "#c77700", "receipts": "#6a5acd", "dead letters": "#555555"}
SHADE: Final = "rgba(214, 39, 40, 0.12)"
LANE_COLOURS: Final = dict(zip(LANES, ("#d62728", "#c77700", "#6a5acd"), strict=True))
GAP: Final = 2.0  # seconds without a sample: no broker answered


class Curves:
    """What the picture shows, from the records of a run and its samples of depth: every number in seconds since the first message."""

    def __init__(self, history: Iterable[Event], depth: Path) -> None:
        self.rates: dict[str, Counter[int]] = {hop: Counter() for hop in RATES}  # Unix second -> how many
        self.faults: dict[int, dict[str, Any]] = {}
        for event in history:
            hop = event["hop"]
            if hop in RATES and event.get("kind", SEND_MESSAGE) == SEND_MESSAGE and (hop != CONFIRMED or event.get("to")):
                self.rates[hop][int(event["at"])] += 1
            elif hop == FAULT_BEGAN and "number" in event:
                self.faults[event["number"]] = {"name": event["name"], "target": event["target"], "began": event["at"], "ended": None}
            elif hop == FAULT_ENDED and event.get("number") in self.faults:
                self.faults[event["number"]]["ended"] = event["at"]
        self.samples = [json.loads(line) for line in depth.read_text().splitlines()] if depth.exists() else []
        seconds = [second for counter in self.rates.values() for second in counter] or [0]
        self.first, self.last = min(seconds), max(seconds)

    def rate(self, hop: str) -> tuple[list[int], list[int]]:
        """(seconds, how many in each), without gaps."""
        counts = self.rates[hop]
        return list(range(self.last - self.first + 1)), [counts[second] for second in range(self.first, self.last + 1)]

    def waiting(self, kind: str) -> tuple[list[float], list[int | None]]:
        """(seconds, messages); None where nobody could say, because no broker answered."""
        seconds: list[float] = []
        counts: list[int | None] = []
        for sample in self.samples:
            at = round(sample["at"] - self.first, 2)
            if seconds and at - seconds[-1] > GAP:
                seconds.append(seconds[-1])
                counts.append(None)
            seconds.append(at)
            counts.append(sample.get(kind, 0))
        return seconds, counts


def chart(curves: Curves, title: str) -> Figure:
    """A plotly figure of three rows over the same seconds: depth, rates, and when which kind of fault was on."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=3,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.07,
        row_heights=[0.36, 0.34, 0.3],
        subplot_titles=["messages on the broker, ready and unacked", "messages a second", "faults"],
    )
    for kind in dict.fromkeys(CLASSES.values()):
        seconds, counts = curves.waiting(kind)
        if any(counts):
            line = {"shape": "hv", "color": COLOURS[kind], "width": 1.5}
            figure.add_trace(go.Scatter(x=seconds, y=counts, name=kind, mode="lines", line=line), row=1, col=1)
    for hop, (name, colour) in RATES.items():
        x, y = curves.rate(hop)
        line = {"shape": "hv", "color": colour, "width": 1.5}
        figure.add_trace(go.Scatter(x=x, y=y, name=name, mode="lines", line=line, legend="legend2"), row=2, col=1)
    _faults(figure, curves)
    figure.update_layout(
        template="none",
        title={"text": title, "x": 0.01, "xanchor": "left", "font": {"size": 16}},
        font={"family": FONT, "size": 12, "color": "#222"},
        width=1200,
        height=880,
        margin={"l": 130, "r": 20, "t": 80, "b": 50},
        bargap=0.25,
        barmode="overlay",
        legend=_legend(1.0),
        legend2=_legend(figure.layout.yaxis2.domain[1]),
        hovermode="closest",
    )
    figure.update_annotations(x=0, xanchor="left", font={"size": 14})
    figure.update_xaxes(zeroline=False, range=[0, max(1, curves.last - curves.first + 1)])
    figure.update_yaxes(zeroline=False, rangemode="tozero", row=1)
    figure.update_yaxes(zeroline=False, rangemode="tozero", row=2)
    figure.update_xaxes(title="seconds", row=3)
    return figure


def _legend(top: float) -> dict[str, Any]:
    """Above a row, at the right: beside its title."""
    return {"orientation": "h", "x": 1, "xanchor": "right", "y": top + 0.005, "yanchor": "bottom"}


def _faults(figure: Figure, curves: Curves) -> None:
    """A line for each kind of fault, with a bar for each time; where the broker was hit the other rows are shaded."""
    import plotly.graph_objects as go

    for lane, colour in LANE_COLOURS.items():
        mine = {number: fault for number, fault in sorted(curves.faults.items()) if KINDS[fault["name"]].lane == lane}
        kinds, starts, widths, texts = [], [], [], []
        for number, fault in mine.items():
            began = fault["began"] - curves.first
            ended = (fault["ended"] if fault["ended"] is not None else curves.last) - curves.first
            kinds.append(fault["name"].replace("_", " "))
            starts.append(began)
            widths.append(max(ended - began, 0.3))  # what is over at once is to be seen, too
            texts.append(f"{number}: {kinds[-1]} {fault['target']}, {ended - began:.1f} s")
            if lane == "broker" and ended > began:
                for row in (1, 2):
                    figure.add_vrect(x0=began, x1=ended, fillcolor=SHADE, line_width=0, layer="below", row=row, col=1)
        bars = go.Bar(y=kinds, x=widths, base=starts, orientation="h", marker={"color": colour}, hovertext=texts, hoverinfo="text")
        figure.add_trace(bars.update(name=lane, showlegend=False), row=3, col=1)
    order = [name.replace("_", " ") for name in reversed(KINDS) if any(fault["name"] == name for fault in curves.faults.values())]
    figure.update_yaxes(categoryorder="array", categoryarray=order, row=3)


def draw_to(folder: Path, figure: Figure, *, picture: bool = True) -> tuple[list[Path], str]:
    """Write report.html, and report.png where kaleido and a browser are there; what was written, and why something was not ("")."""
    page = folder / "report.html"
    figure.write_html(page, include_plotlyjs="directory")
    written, why = [page], ""
    if picture and find_spec("kaleido") is None:
        why = "no picture in PNG: pip install kaleido"
    elif picture:
        try:
            figure.write_image(folder / "report.png")
            written.append(folder / "report.png")
        except Exception as error:  # noqa: BLE001  a browser that is missing, or will not start, in words of its own
            why = f"no picture in PNG: kaleido could not draw it ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    return written, why
