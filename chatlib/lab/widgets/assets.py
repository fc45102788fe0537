"""The code and the looks that run in the browser: one file for each widget beside what all of them share."""

from __future__ import annotations

from html import escape
from importlib import resources
from typing import Final

__all__ = ["css", "esm", "still"]

STILL: Final = "chatlib-still"


def _text(name: str) -> str:
    return (resources.files("chatlib.lab.widgets") / "static" / name).read_text(encoding="utf-8")


def esm(name: str) -> str:
    """The module of this widget, with what all share before it: nothing is fetched from anywhere."""
    return f"{_text('common.js')}\n{_text(f'{name}.js')}"


def css(name: str) -> str:
    """The looks of this widget, with what all share before them."""
    return f"{_text('common.css')}\n{_text(f'{name}.css')}"


def still(body: str, *, width: int = 760, title: str = "") -> dict[str, str]:
    """A MIME bundle that shows `body`, HTML or SVG with its looks in it, where there is no kernel. width: pixels.

    scripts/notebooks.py turns it into a PNG before a notebook is saved: code-hosting sites take the looks away from HTML.
    """
    kinds = f"{STILL} mathjax_ignore tex2jax_ignore"  # what people say may look like a formula
    return {"text/html": f'<div class="{kinds}" role="img" aria-label="{escape(title)}" style="max-width:{width}px">{body}</div>'}
