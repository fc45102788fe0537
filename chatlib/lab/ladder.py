"""A picture of the retry ladder: where messages wait between two attempts, read from the running broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chatlib.lab.pictures import COLOURS, FONT, _figure
from chatlib.management import Management
from chatlib.names import DEAD_LETTERS, inbox_queue, retries_queue

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from chatlib.lab.lesson import Lesson

__all__ = ["ladder"]

DOTS: Final = 24  # of one rung; more are told by their number
DEAD_COLOURS: Final = ("#fbe3e3", "#a11")


def ladder(lesson: Lesson, user: str, title: str) -> Figure:
    """The inbox of `user`, the rungs on which his messages wait now (one queue for each wait), the way back, and the dead letters."""
    with Management(lesson.broker.management_url, login=lesson.broker.url) as management:
        names = [each["name"] for each in management.get(management.in_vhost("queues"), columns="name")]
    rungs = sorted((int(name.split(".")[1]), name) for name in names if name.startswith("retry.") and name.count(".") == 1)
    waiting = {name: lesson.depth(name)[0] for _, name in rungs}
    places = {name: lesson.depth(name)[0] for name in (inbox_queue(user), retries_queue(user), DEAD_LETTERS)}
    drawing = _Ladder(title, len(rungs))
    for number, (milliseconds, name) in enumerate(rungs):
        drawing.rung(number, f"{milliseconds} ms", waiting[name])
    drawing.places(user, places)
    return drawing.figure


class _Ladder:
    """On a field of 10 x 10: the ladder at the right, at the left the two queues that are read, between them who reads."""

    LEFT, RIGHT = 5.9, 9.9
    BOTTOM, TOP = 0.2, 9.1

    def __init__(self, title: str, rungs: int) -> None:
        self.figure = _figure(title, 150 + 16 * max(rungs, 12), plot_bgcolor="white", showlegend=False)
        self.figure.update_layout(margin={"l": 10, "r": 10, "t": 50, "b": 10})
        self.figure.update_xaxes(visible=False, range=[0, 10], fixedrange=True)
        self.figure.update_yaxes(visible=False, range=[0, 10], fixedrange=True)
        self.step = (self.TOP - self.BOTTOM) / max(rungs, 1)
        for x in (self.LEFT, self.RIGHT):
            self.figure.add_shape(type="line", x0=x, x1=x, y0=self.BOTTOM, y1=self.TOP, line={"color": COLOURS["queue"][1], "width": 3})
        self._text((self.LEFT + self.RIGHT) / 2, 9.55, "<b>a queue for each wait</b>", 12, "#444")

    def rung(self, number: int, label: str, waiting: int) -> None:
        """One queue: a dot for each message that waits in it."""
        import plotly.graph_objects as go

        y, colour = self.BOTTOM + self.step * (number + 0.5), COLOURS["queue"][1] if waiting else "#cccccc"
        line = {"color": colour, "width": 2 if waiting else 1}
        self.figure.add_shape(type="line", x0=self.LEFT, x1=self.RIGHT, y0=y, y1=y, line=line, layer="below")
        self._text(self.LEFT + 0.42, y, label, 10, "#222" if waiting else "#888", "white")
        shown = min(waiting, DOTS)
        if shown:
            first, gap = self.LEFT + 1.0, 0.11
            self.figure.add_trace(
                go.Scatter(x=[first + gap * dot for dot in range(shown)], y=[y] * shown, mode="markers", hoverinfo="skip",
                           marker={"size": 9, "color": colour, "line": {"color": "white", "width": 1}})
            )  # fmt: skip
            self._text(self.RIGHT - 0.2, y, str(waiting), 11, colour, "white")

    def places(self, user: str, waiting: dict[str, int]) -> None:
        """The other boxes, with how many messages wait in them, and the ways between all."""
        where = {inbox_queue(user): (1.25, 5.6), retries_queue(user): (1.25, 2.0), DEAD_LETTERS: (4.2, 8.6)}
        for name, (x, y) in where.items():
            fill, line = DEAD_COLOURS if name == DEAD_LETTERS else COLOURS["queue"]
            self._box(x, y, name, f"{waiting[name]} waiting", fill, line)
        self._box(4.2, 5.6, user, "tries", *COLOURS["consumer"])
        self._arrow((2.35, 5.6), (3.1, 5.6), "")
        self._arrow((4.2, 6.2), (4.2, 8.0), "no attempt left")
        self._arrow((5.3, 5.6), (self.LEFT, 5.6), "")
        self._text(5.6, 6.1, "failed", 11, "#444")
        self._arrow((self.LEFT, 2.0), (2.35, 2.0), "time is up")
        self._arrow((1.9, 2.6), (3.4, 5.0), "")

    def _box(self, x: float, y: float, label: str, note: str, fill: str, line: str) -> None:
        outline = {"color": line, "width": 1.5}
        self.figure.add_shape(type="rect", x0=x - 1.1, x1=x + 1.1, y0=y - 0.6, y1=y + 0.6, fillcolor=fill, line=outline)
        self._text(x, y + 0.2, label if len(label) <= 18 else label[:17] + "…", 13, "#222")
        self._text(x, y - 0.27, note, 11, line)

    def _arrow(self, start: tuple[float, float], end: tuple[float, float], label: str) -> None:
        (ax, ay), (x, y) = start, end
        self.figure.add_annotation(
            x=x, y=y, ax=ax, ay=ay, xref="x", yref="y", axref="x", ayref="y", text="", showarrow=True,
            arrowhead=2, arrowsize=1, arrowwidth=1.4, arrowcolor="#888",
        )  # fmt: skip
        if label:
            self._text((ax + x) / 2, (ay + y) / 2, label, 11, "#444", "rgba(255,255,255,0.9)")

    def _text(self, x: float, y: float, text: str, size: int, colour: str, background: str = "rgba(0,0,0,0)") -> None:
        safe = text if text.startswith("<b>") else text.replace("&", "&amp;").replace("<", "&lt;")
        self.figure.add_annotation(
            x=x, y=y, text=safe, showarrow=False, font={"size": size, "color": colour, "family": FONT}, bgcolor=background
        )
