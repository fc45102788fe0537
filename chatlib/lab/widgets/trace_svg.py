"""A sequence as SVG with its looks in it: lifelines from left to right, time downwards, one row an event, gaps shown as gaps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from typing import Final

from chatlib.lab.widgets.map_layout import short
from chatlib.lab.widgets.map_svg import FONT, legal, words_at
from chatlib.lab.widgets.trace_model import BROKER, Band, Row, Trace

__all__ = ["svg"]

LEFT: Final = 108  # for the times
TOP: Final = 88  # for the title and the heads
STEP: Final = 27  # from one row to the next
BREAK: Final = 24  # of a gap
SLOPE: Final = 9  # what travels arrives later than it left
INK, SOFT, GREY = "#1f1f1f", "#5f5f5f", "#b4b8bf"
VIOLET, AMBER, BLUE, GREEN, RED = "#6a5acd", "#b06a00", "#2b6cb0", "#2e7d46", "#c62828"
LOOKS: Final = {  # colour, dashes, mark at the end
    "sent": (VIOLET, "", ""),
    "unsure": (AMBER, "5 4", "?"),
    "confirmed": (GREEN, "", ""),
    "bad": (RED, "", "✕"),
    "delivered": (BLUE, "", ""),
    "ack": (GREEN, "2 3", ""),
    "receipt": (GREEN, "6 3", "✓"),
    "retry": (AMBER, "", "↻"),
    "drop": (RED, "", "✕"),
    "note": (INK, "", "●"),
}
BANDS: Final = {"fault": (RED, 0.09), "link": (AMBER, 0.13)}
AT_START: Final = {"sent", "unsure", "ack"}  # recorded where it leaves; the others where it arrives


def svg(trace: Trace) -> str:
    """Draw it: a light card, as wide as it needs to be and at least 700 units."""
    return _Drawing(trace).text()


class _Drawing:
    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        count = len(trace.lifelines)
        self.step = 230 if count <= 4 else max(128, 900 // count)
        self.x = {name: LEFT + 62 + number * self.step for number, name in enumerate(trace.lifelines)}
        self.width = max(700, LEFT + 62 + (count - 1) * self.step + 210)
        self.y: list[float] = []
        y = TOP + 18.0
        for row in trace.rows:
            y += BREAK if row.gap else 0
            self.y.append(y)
            y += STEP
        self.bottom = y
        self.height = y + (58 if len(trace.rows) > 24 else 18) + (22 if trace.left_out else 0)

    def text(self) -> str:
        title = escape(legal(self.trace.title))
        return "".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height:g}" width="{self.width}" '
                f'height="{self.height:g}" style="max-width:100%;height:auto" role="img" aria-label="{escape(legal(self.spoken()))}" '
                f'font-family="{escape(FONT)}">',
                f'<title>{title}</title><rect width="{self.width}" height="{self.height:g}" rx="8" fill="#ffffff"/>',
                words_at(16, 26, short(self.trace.title, self.width // 8), 15, INK, weight=600),
                *map(self.band, self.trace.bands),
                *self.lifelines(),
                *map(self.wait, self.trace.bands),
                *(self.row(row, y) for row, y in zip(self.trace.rows, self.y, strict=True)),
                *self.heads(TOP - 42),
                *(self.heads(self.bottom + 2) if len(self.trace.rows) > 24 else ()),
                words_at(16, self.height - 12, f"not shown: {self.trace.left_out}", 11.5, SOFT) if self.trace.left_out else "",
                "</svg>",
            ]
        )

    def spoken(self) -> str:
        """All of it in words."""
        told = (f"{' to '.join(filter(None, [row.start, row.end]))} {row.words}".strip() for row in self.trace.rows)
        return f"{self.trace.title}. " + "; ".join(told)

    def heads(self, y: float) -> Iterable[str]:
        wide = min(self.step - 14, 128)
        for name, x in self.x.items():
            is_broker = name == BROKER
            fill, stroke = ("#fbf1e2", AMBER) if is_broker else ("#f0f5fb", BLUE)
            radius = 14 if is_broker else 6
            yield (
                f'<rect x="{x - wide / 2:g}" y="{y:g}" width="{wide:g}" height="28" rx="{radius}" fill="{fill}" '
                f'stroke="{stroke}" stroke-width="1.3"/>'
            )
            yield words_at(x, y + 18.5, short(name, int(wide / 8)), 13, INK, "middle", weight=600)

    def lifelines(self) -> Iterable[str]:
        """Solid where something happens, broken where nothing does."""
        for name, x in self.x.items():
            colour = AMBER if name == BROKER else GREY
            y = float(TOP - 14)
            for row, at in zip(self.trace.rows, self.y, strict=True):
                if row.gap:
                    broken = at - STEP - BREAK + 14
                    yield _line(x, y, x, broken, colour)
                    yield _line(x, broken, x, at - 12, colour, dash="2 5")
                    y = at - 12
            yield _line(x, y, x, self.bottom, colour)

    def band(self, band: Band) -> str:
        """A fault, or the time without a link, behind it all."""
        if band.kind not in BANDS:
            return ""
        colour, opacity = BANDS[band.kind]
        inset = 0 if band.kind == "fault" else 6
        y, end = self.y[band.first] - 12, self.y[band.last] + 12
        return (
            f'<rect x="{LEFT - 8 + inset}" y="{y:g}" width="{self.width - LEFT - 2 * inset}" height="{max(end - y, 6):g}" rx="4" '
            f'fill="{colour}" fill-opacity="{opacity}"/>'
        )

    def wait(self, band: Band) -> str:
        """A retry that waits at the broker."""
        if band.kind != "wait" or BROKER not in self.x:
            return ""
        x, y = self.x[BROKER], self.y[band.first]
        return (
            f'<rect x="{x - 5}" y="{y:g}" width="10" height="{max(self.y[band.last] - y - SLOPE, 6):g}" rx="3" fill="#f6e2c3" '
            f'stroke="{AMBER}"><title>waits for its retry</title></rect>'
        )

    def row(self, row: Row, y: float) -> str:
        parts = [words_at(LEFT - 18, y + 4, f"{row.at:.3f} s".replace("-", "−"), 11, SOFT, "end")]
        if row.gap:
            parts.append(words_at(LEFT - 18, y - (STEP + BREAK) / 2 + 4, f"⋮ {_seconds(row.gap)} later", 11, INK, "end", weight=600))
        if row.kind in ("fault", "link"):
            colour = RED if row.kind == "fault" else AMBER
            mark = "■" if row.kind == "fault" else "◇"
            parts.append(words_at(LEFT, y + 4, f"{mark} {short(row.words, self.width // 8)}", 12, colour, weight=600, halo=True))
            return "".join(parts)
        start = self.x.get(row.start)
        if start is None:  # somebody who has no lifeline
            return "".join([*parts, words_at(LEFT, y + 4, f"{row.start} {row.words}", 12, SOFT)])
        goes = row.end in self.x and row.end != row.start  # in a foreign history a user may be called as the broker is here
        return "".join([*parts, self.arrow(row, start, self.x[row.end], y) if goes else self.note(row, start, y)])

    def note(self, row: Row, x: float, y: float) -> str:
        colour, _, mark = LOOKS[row.kind]
        sign = f'<circle cx="{x:g}" cy="{y:g}" r="4" fill="{colour}"/>' if mark == "●" else _sign(x, y, mark, colour)
        room = self.width - x - 16 if row.start == self.trace.lifelines[-1] else self.width - x - 24
        return sign + words_at(x + 12, y + 4, short(row.words, int(room / 6.4)), 12, colour, halo=True)

    def arrow(self, row: Row, start: float, end: float, y: float) -> str:
        colour, dash, mark = LOOKS[row.kind]
        leaves_here = row.kind in AT_START or row.end == BROKER
        y0, y1 = (y, y + SLOPE) if leaves_here else (y - SLOPE, y)
        turn = math.atan2(y1 - y0, end - start)
        stop = end - (9 if mark else 0) * math.copysign(1, end - start)
        head = [(stop, y1), *((stop - 8 * math.cos(turn + side), y1 - 8 * math.sin(turn + side)) for side in (0.4, -0.4))]
        parts = [_line(start, y0, stop, y1, colour, width=1.7, dash=dash)]
        parts.append(f'<path d="M{" L".join(f"{a:.1f},{b:.1f}" for a, b in head)} z" fill="{colour}"/>')
        if mark:
            parts.append(_sign(end, y1, mark, colour))
        person = start if row.end == BROKER else end  # the words stand near whom they are about
        side = math.copysign(1, (end if person == start else start) - person)
        near = person + side * self.step / 2
        text = short(row.words, max(14, int((abs(end - start) - 20) / 6.2)))
        if len(text) * 6.2 > self.step - 24:
            anchor, near = ("start" if side > 0 else "end"), person + side * 14
        else:
            anchor = "middle"
        above = y0 + (y1 - y0) * (near - start) / (end - start) - 4.5
        parts.append(words_at(near, above, text, 12, colour, anchor, halo=True))
        return "".join(parts)


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.1f} min"


def _line(x0: float, y0: float, x1: float, y1: float, colour: str, *, width: float = 1.4, dash: str = "") -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path d="M{x0:.1f},{y0:.1f} L{x1:.1f},{y1:.1f}" stroke="{colour}" stroke-width="{width:g}" fill="none"{dashes}/>'


def _sign(x: float, y: float, mark: str, colour: str) -> str:
    return (
        f'<circle cx="{x:g}" cy="{y:g}" r="7.5" fill="#ffffff" stroke="{colour}" stroke-width="1.3"/>'
        f'<text x="{x:g}" y="{y + 4:g}" font-size="11" font-weight="700" fill="{colour}" text-anchor="middle">{mark}</text>'
    )
