"""The map as one SVG with its looks in it, for where there is no kernel: a light card, drawn from the same boxes and lines."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

from chatlib.lab.widgets.map_layout import Box
from chatlib.lab.widgets.map_lines import Line
from chatlib.lab.widgets.map_words import depth_words

__all__ = ["FONT", "legal", "svg", "words_at"]

FONT: Final = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
TINTS: Final = ("#8a8f98", "#2e7d46", "#6a5acd", "#b0306a", "#17808f", "#b06a00", "#4d6b99")
INK, SOFT, BLUE, GREEN, VIOLET, RED, AMBER = "#1f1f1f", "#5f5f5f", "#2b6cb0", "#2e7d46", "#6a5acd", "#c62828", "#b06a00"
LINES: Final = {"consumes": GREEN, "sends": VIOLET}
DASHES: Final = {"absent": "2 4", "back": "5 4", "dlx": "5 4"}
MARGIN: Final = 10
NOTE: Final = 26  # the height of the line that says that the broker is gone


def svg(
    boxes: Iterable[Box], lines: Iterable[Line], figures: Mapping[str, Sequence[float]], frame: Mapping[str, Any], *, note: str = ""
) -> str:
    """Draw it. figures: (ready, unacked) by box, where one is not 0; frame: left, width, height, heads and summary; note: above it all."""
    left, top = frame["left"] - MARGIN, -MARGIN - (NOTE if note else 0)
    width, height = frame["width"] - left + MARGIN, frame["height"] - top
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left} {top} {width} {height:g}" width="{width}" height="{height:g}" '
        f'style="max-width:100%;height:auto" role="img" aria-label="{escape(frame["summary"])}" font-family="{escape(FONT)}">',
        f'<rect x="{left}" y="{top}" width="{width}" height="{height:g}" rx="8" fill="#ffffff"/>',
    ]
    if note:
        parts.append(words_at(left + 12, -MARGIN - 6, f"■ {note}", 13, RED, weight=600))
    parts += [words_at(x, 16, words, 11, SOFT, "middle") for _, x, words in frame["heads"]]
    dim = ' opacity="0.45"' if note else ""
    parts += [f"<g{dim}>", *map(_line, lines), *(_box(box, figures.get(box.id, (0, 0))) for box in boxes), "</g></svg>"]
    return "".join(parts)


def words_at(
    x: float, y: float, text: str, size: float, colour: str, anchor: str = "start", *, weight: int = 400, halo: bool = False
) -> str:
    """Text of SVG, `anchor`ed at (x, y). halo: so that it is legible over lines. What no XML may hold is left out."""
    around = ' paint-order="stroke" stroke="#ffffff" stroke-width="3"' if halo else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" font-weight="{weight}" fill="{colour}" text-anchor="{anchor}"'
        f' unicode-bidi="plaintext"{around}>{escape(legal(text))}</text>'
    )


def legal(text: str) -> str:
    """`text` without control characters and halves of surrogate pairs."""
    return "".join(" " if unicodedata.category(each) in ("Cc", "Cs", "Cn") else each for each in text)


def _line(line: Line) -> str:
    colour = LINES.get(line.kind, TINTS[line.tint])
    dash = f' stroke-dasharray="{DASHES[line.kind]}"' if line.kind in DASHES else ""
    found = f'<path d="{line.d}" fill="none" stroke="{colour}" stroke-width="1.3"{dash}/>'
    if line.arrow:
        found += f'<path d="{_arrow(line.d)}" fill="{colour}"/>'
    if line.label:
        found += words_at(line.lx, line.ly, line.label, 10.5, SOFT, "end", halo=True)
    return found


def _arrow(d: str) -> str:
    """The head at the end of a path: it points the way that its last piece goes."""
    numbers = [tuple(map(float, part.split(","))) for part in d.split() if "," in part]
    (x, y), (px, py) = numbers[-1], numbers[-2]
    turn = math.atan2(y - py, x - px)
    corners = [(x, y), *((x - 7.5 * math.cos(turn + side), y - 7.5 * math.sin(turn + side)) for side in (0.42, -0.42))]
    return "M" + " L".join(f"{a:.1f},{b:.1f}" for a, b in corners) + " z"


def _looks(box: Box, *, busy: bool) -> tuple[str, str, str]:
    """Fill, stroke and dashes."""
    if box.kind in ("exchange", "pill"):
        return "#fbf1e2", AMBER, ""
    if box.kind == "hub":
        return "#f7f7fa", TINTS[box.tint], ""
    if box.kind == "sender":
        return "#f0eefb", VIOLET, ""
    if box.kind == "consumer":
        return ("#eaf5ee", GREEN, "") if box.state == "online" else ("#ffffff", TINTS[0], "3 3")
    if box.state == "dead" and busy:
        return "#fbe9e9", RED, ""
    return ("#d9e7f6" if busy else "#f0f5fb"), (BLUE if busy else "#8fb0d4"), "5 3" if box.kind == "more" else ""


def _box(box: Box, figures: Sequence[float]) -> str:
    ready, unacked = figures
    busy, is_queue = bool(ready or unacked), box.kind in ("queue", "more")
    fill, stroke, dash = _looks(box, busy=busy and is_queue)
    is_person, centred = box.kind in ("sender", "consumer"), box.kind in ("exchange", "hub", "pill")
    radius = box.h / 2 if box.kind in ("exchange", "pill") else 10 if is_person else 5
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    parts = [
        f'<g transform="translate({box.x:g},{box.y:g})" data-id="{escape(legal(box.id))}">',
        f'<rect width="{box.w:g}" height="{box.h:g}" rx="{radius:g}" fill="{fill}" stroke="{stroke}" stroke-width="1.3"{dashes}/>',
    ]
    if is_person:
        filled = box.kind == "sender" or box.state == "online"
        look = f'fill="{stroke if filled else "none"}" stroke="{stroke}" stroke-width="1.4"'
        parts.append(f'<g transform="translate(16,{box.h / 2 + 0.5:g})" {look}>')
        parts.append('<circle cy="-5" r="3.6"/><path d="M-6.5,7 a6.5,6.5 0 0 1 13,0 z"/></g>')
    x, anchor = (box.w / 2, "middle") if centred else (30 if is_person else 12, "start")
    sub = depth_words(ready, unacked, box) if is_queue or box.kind == "sender" else box.sub
    if is_queue and busy:
        full = (box.w - 6) * min(1.0, math.log10(1 + ready + unacked) / 4)
        colour = RED if box.state == "dead" else BLUE
        parts.append(f'<rect x="3" y="{box.h - 5.5:g}" width="{full:.0f}" height="3" rx="1.5" fill="{colour}"/>')
    small = box.kind == "pill"
    parts.append(
        words_at(x, 15 if sub else box.h / 2 + 4, box.label, 11 if small else 13, INK, anchor, weight=400 if small else 600)
        + (words_at(x, 28, sub, 11, INK if is_queue and busy else SOFT, anchor, weight=600 if is_queue and busy else 400) if sub else "")
    )
    return "".join([*parts, "</g>"])
