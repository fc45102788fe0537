"""Make the lessons: one source each, in notebooks/source, with the solutions; learners get them without, executed, with pictures.

    python scripts/notebooks.py            all lessons
    python scripts/notebooks.py 01         those whose name begins so

A source is Markdown with fenced code (jupytext). In a code cell the lines between ``### BEGIN SOLUTION`` and ``### END SOLUTION``
are for teachers; what learners get instead stands, commented out, after ``### STUB``, or is nothing.
A lesson is executed on a real broker before it is written, twice in the same kernel: "Run All" twice must work.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import re
import shutil
import struct
import sys
import time
import warnings
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

import jupytext
import kaleido
import nbclient
import nbformat
import plotly.io
from nbformat import NotebookNode
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
SOURCES = NOTEBOOKS / "source"
SOLUTION = re.compile(r"^[ \t]*### BEGIN SOLUTION\n(.*?)^[ \t]*### END SOLUTION\n?", re.DOTALL | re.MULTILINE)
STUB = re.compile(r"^[ \t]*### STUB\n", re.MULTILINE)
COMMENT = re.compile(r"^([ \t]*)# ?", re.MULTILINE)
PICTURES = {"PLOTLY_RENDERER": "plotly_mimetype+png"}
PNG = "image/png"
PLOTLY = "application/vnd.plotly.v1+json"
STILL = "chatlib-still"  # the class of the picture that a live widget leaves (chatlib.lab.widgets.assets)
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
TIMEOUT = 60  # seconds for one cell, as under nbval
SHARPNESS = 1.25  # pixels of a picture for each of the page
PALETTE = """async png => {
    const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
    const context = new OffscreenCanvas(image.width, image.height).getContext('2d');
    context.fillStyle = '#fff';
    context.fillRect(0, 0, image.width, image.height);
    context.drawImage(image, 0, 0);
    const pixels = new Uint32Array(context.getImageData(0, 0, image.width, image.height).data.buffer);
    const counts = new Map();
    for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
    const rgb = pixel => [pixel & 255, (pixel >> 8) & 255, (pixel >> 16) & 255];
    const colours = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a) || a - b).slice(0, 64);
    const known = colours.map(rgb), nearest = new Map(colours.map((colour, index) => [colour, index]));
    for (const pixel of counts.keys()) {
        if (nearest.has(pixel)) continue;
        const [r, g, b] = rgb(pixel);
        let best = 0, least = Infinity;
        known.forEach(([x, y, z], index) => {
            const far = (x - r) ** 2 + (y - g) ** 2 + (z - b) ** 2;
            if (far < least) { least = far; best = index; }
        });
        nearest.set(pixel, best);
    }
    const indices = Uint8Array.from(pixels, pixel => nearest.get(pixel));
    let text = '';
    for (let at = 0; at < indices.length; at += 32768) text += String.fromCharCode(...indices.subarray(at, at + 32768));
    return {width: image.width, height: image.height, colours: known.flat(), pixels: btoa(text)};
}"""
PRELUDE = """import kaleido, warnings
warnings.filterwarnings("ignore", "The kopts argument")
kaleido.start_sync_server(silence_warnings=True)"""


def sources(prefix: str = "") -> list[Path]:
    """Return the sources of all lessons whose names begin with `prefix`, in order; behind them the tour of the lab."""
    return sorted(SOURCES.glob(f"{prefix}*.md"))


def short(source: Path) -> str:
    """Return how this source is called in a word: "01" for a lesson, "tour" for the tour of the lab."""
    return source.stem[:2] if source.stem[0].isdigit() else source.stem.removeprefix("lab-")


def target(source: Path) -> Path:
    """Return where the learner's notebook of this source is."""
    return NOTEBOOKS / f"{source.stem}.ipynb"


def learner(text: str) -> str:
    """Return the code of a cell as learners get it."""

    def stub(match: re.Match[str]) -> str:
        parts = STUB.split(match[1])
        return COMMENT.sub(r"\1", parts[1]) if len(parts) > 1 else ""

    return SOLUTION.sub(stub, text).rstrip()


def solved(text: str) -> str:
    """Return the code of a cell as teachers get it, without the marks."""
    return SOLUTION.sub(lambda match: STUB.split(match[1])[0], text).rstrip()


def read(source: Path, *, solutions: bool = False) -> NotebookNode:
    """Return the notebook of a source, not executed, for learners or with the solutions; the same source gives the same notebook."""
    book = jupytext.read(source)
    for number, cell in enumerate(book.cells, 1):
        cell.id = f"cell-{number:02}"
        tags = cell.metadata.get("tags", [])
        cell.metadata = NotebookNode({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            cell.source = (solved if solutions else learner)(cell.source)
    book.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}, language_info={"name": "python"}
    )
    book.nbformat, book.nbformat_minor = 4, 5
    return book


def execute(*books: NotebookNode, prelude: str = "", **environment: str) -> list[float]:
    """Run the books one after the other in the same kernel; the outputs are in them afterwards. Returns the seconds of each."""
    client = nbclient.NotebookClient(books[0], timeout=TIMEOUT, coalesce_streams=True, resources={"metadata": {"path": str(NOTEBOOKS)}})
    seconds = []
    with client.setup_kernel(env=os.environ | environment):
        if prelude:
            client.execute_cell(nbformat.v4.new_code_cell(prelude), 0)
        for book in books:
            began = time.monotonic()
            client.nb = book
            client.reset_execution_trackers()
            for index, cell in enumerate(book.cells):
                client.execute_cell(cell, index)
            seconds.append(time.monotonic() - began)
    return seconds


def publish(book: NotebookNode) -> None:
    """Make an executed notebook fit to be saved: readable without a kernel, no widget state, no times of execution."""
    book.metadata.pop("widgets", None)
    count = 0
    with contextlib.closing(Camera()) as camera:
        for cell in book.cells:
            cell.metadata.pop("execution", None)
            if cell.cell_type != "code":
                continue
            count += 1
            cell.execution_count = count
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = count
                if "data" in output:
                    picture(output, camera)
    nbformat.validate(book)


def picture(output: NotebookNode, camera: Camera) -> None:
    """Leave of a live widget its picture, and give every chart one that needs no program to be seen."""
    data: dict[str, Any] = output.data
    if WIDGET_VIEW in data and len(data) > 2:
        del data[WIDGET_VIEW]
    if STILL in data.get("text/html", ""):
        data[PNG], width = camera.still(data.pop("text/html"))
        output.metadata[PNG] = {"width": width}
    elif PLOTLY in data and PNG not in data:
        data[PNG] = camera.chart(data[PLOTLY])
    if PNG in data:
        data[PNG] = smaller(camera.fewer_colours(data[PNG]))


class Camera:
    """Takes pictures (base64 of a PNG) of what only a browser can draw."""

    def __init__(self) -> None:
        self._end = contextlib.ExitStack()

    @cached_property
    def _tab(self) -> Page:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = self._end.enter_context(sync_playwright()).chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        self._end.callback(browser.close)
        return browser.new_page(viewport={"width": 1200, "height": 800}, device_scale_factor=SHARPNESS)

    def still(self, html: str) -> tuple[str, int]:
        """The still of a live widget, and its width in pixels: code-hosting sites take the looks away from HTML."""
        self._tab.set_content(f'<body style="margin:0;background:#fff">{html}</body>')
        still = self._tab.locator(f".{STILL}").first
        box = still.bounding_box()
        return base64.b64encode(still.screenshot()).decode(), round(box["width"]) if box else 0

    def chart(self, figure: dict[str, Any]) -> str:
        """A plotly figure, as it would draw itself."""
        if "kaleido" not in vars(self):
            vars(self)["kaleido"] = kaleido.start_sync_server(silence_warnings=True)
            self._end.callback(kaleido.stop_sync_server, silence_warnings=True)
        drawn = plotly.io.from_json(json.dumps(figure), skip_invalid=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The kopts argument")
            return base64.b64encode(plotly.io.to_image(drawn, format="png")).decode()

    def fewer_colours(self, png: str) -> str:
        """The same picture in its 64 most frequent colours, each other in that nearest to it: a quarter of the bytes."""
        found = self._tab.evaluate(PALETTE, png)
        pixels, width = base64.b64decode(found["pixels"]), found["width"]
        rows = b"".join(b"\0" + pixels[at : at + width] for at in range(0, len(pixels), width))
        head = struct.pack(">IIBBBBB", width, found["height"], 8, 3, 0, 0, 0)
        return packed([(b"IHDR", head), (b"PLTE", bytes(found["colours"])), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")])

    def close(self) -> None:
        """Close the browser."""
        self._end.close()


def smaller(picture: str) -> str:
    """Return the same PNG (base64), compressed as far as it goes: kaleido's are a quarter larger."""
    raw = base64.b64decode(picture)
    chunks, at = [], 8
    while at < len(raw):
        size = struct.unpack(">I", raw[at : at + 4])[0]
        chunks.append((raw[at + 4 : at + 8], raw[at + 8 : at + 8 + size]))
        at += 12 + size
    pixels = zlib.compress(zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT")), 9)
    kept = [(kind, body) for kind, body in chunks if kind in {b"IHDR", b"PLTE", b"tRNS"}]
    return packed([*kept, (b"IDAT", pixels), (b"IEND", b"")])


def packed(chunks: list[tuple[bytes, bytes]]) -> str:
    """A PNG (base64) of these chunks."""
    out = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in chunks:
        out.append(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))
    return base64.b64encode(b"".join(out)).decode()


def build(source: Path) -> str:
    """Execute the lesson of this source and write it; return what to tell."""
    first, second = read(source), read(source)
    seconds = execute(second, first, prelude=PRELUDE, **PICTURES)
    publish(first)
    path = target(source)
    nbformat.write(first, path)
    return f"{path.name}: {seconds[0]:.1f} s, again {seconds[1]:.1f} s, {path.stat().st_size // 1000} kB"


def main() -> int:
    """Build the lessons that the command line names; exit status 1 if a cell of one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lesson", nargs="*", default=[""], help="the beginning of a lesson's name, such as 01 (default: all)")
    status = 0
    for source in [path for prefix in parser.parse_args().lesson for path in sources(prefix)]:
        try:
            print(build(source), flush=True)
        except nbclient.exceptions.CellExecutionError as error:
            print(f"{source.name} FAILED:\n{error}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
