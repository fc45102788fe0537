"""The picture of a run: for each case a bar for each contestant, with the smallest and the largest round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import Case
from benchmarks.figures import spread
from benchmarks.report import show, values

__all__ = ["draw"]

BAR = 26  # pixels of height for each bar
OURS = "#1f6f8b"
OTHERS = "#b8bfc6"


def draw(document: Mapping[str, Any], cases: Sequence[Case], folder: Path, name: str) -> Path:
    """Write the picture into `folder` and return its file: PNG where kaleido finds a Chromium, else a page for a browser."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    shown = [case for case in cases if case.name in document["cases"]]
    heights = [len(document["cases"][case.name]) + 1 for case in shown]
    figure = make_subplots(
        rows=len(shown),
        cols=1,
        row_heights=heights,
        vertical_spacing=1.6 / max(2, sum(heights)) if len(shown) > 1 else 0,
        subplot_titles=[_title(case) for case in shown],
    )
    for row, case in enumerate(shown, 1):
        samples = document["cases"][case.name]
        metric = _metric(case)
        drawn = {contestant.name for contestant in case.contestants}
        bars = [
            (name, found)
            for name in samples
            if name in drawn and (found := spread([v for v in values(samples, name, metric) if v is not None]))
        ]
        bars.reverse()  # the first at the top
        figure.add_trace(
            go.Bar(
                orientation="h",
                y=[f"{name}   <b>{show(found.median)}</b>" for name, found in bars],  # not on the bar, where the spread is
                x=[found.median for _, found in bars],
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [found.high - found.median for _, found in bars],
                    "arrayminus": [found.median - found.low for _, found in bars],
                    "color": "#444",
                    "thickness": 1.2,
                    "width": 3,
                },
                marker_color=[OURS if name.startswith("chatlib") else OTHERS for name, _ in bars],
            ),
            row=row,
            col=1,
        )
    figure.update_layout(
        template="plotly_white",
        showlegend=False,
        width=900,
        height=BAR * sum(heights) + 46 * len(shown) + 60,
        margin={"l": 210, "r": 40, "t": 50, "b": 40},
        font={"family": "sans-serif", "size": 12},
    )
    figure.update_annotations(font_size=13, xanchor="left", x=0)
    try:
        figure.write_image(folder / f"{name}.png", scale=1.5)
    except Exception:  # noqa: BLE001  kaleido has many ways to say that it has no browser; the page shows the same
        figure.write_html(folder / f"{name}.html", include_plotlyjs="directory")
        return folder / f"{name}.html"
    return folder / f"{name}.png"


def _metric(case: Case) -> str:
    return "p99" if "p99" in case.metrics else next(iter(case.metrics))


def _title(case: Case) -> str:
    metric = _metric(case)
    unit = case.metrics[metric]
    better = "more" if case.higher_is_better else "less"
    return f"{case.title}: {metric}{f', {unit}' if unit and unit != metric else ''} ({better} is better)"
