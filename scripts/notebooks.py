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
import os
import re
import shutil
import struct
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import jupytext
import nbclient
import nbformat
from nbformat import NotebookNode
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
SOURCES = NOTEBOOKS / "source"
SOLUTION = re.compile(r"^[ \t]*### BEGIN SOLUTION\n(.*?)^[ \t]*### END SOLUTION\n?", re.DOTALL | re.MULTILINE)
STUB = re.compile(r"^[ \t]*### STUB\n", re.MULTILINE)
COMMENT = re.compile(r"^([ \t]*)# ?", re.MULTILINE)
PICTURES = {"PLOTLY_RENDERER": "plotly_mimetype+png"}
PNG = "image/png"
STILL = "chatlib-still"  # the class of the picture that a live widget leaves (chatlib.lab.widgets.assets)
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
TIMEOUT = 60  # seconds for one cell, as under nbval
PRELUDE = """import kaleido, warnings
warnings.filterwarnings("ignore", "The kopts argument")
kaleido.start_sync_server(silence_warnings=True)"""


def sources(prefix: str = "") -> list[Path]:
    """Return the sources of all lessons whose names begin with `prefix`, in order."""
    return sorted(SOURCES.glob(f"{prefix}*.md"))


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
    for cell in book.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
            data: dict[str, Any] = output.get("data", {})
            if WIDGET_VIEW in data and len(data) > 2:
                del data[WIDGET_VIEW]
            if STILL in data.get("text/html", ""):
                data[PNG] = photographed(data.pop("text/html"))
            if PNG in data:
                data[PNG] = smaller(data[PNG])
    nbformat.validate(book)


def photographed(page: str) -> str:
    """Return a picture (base64 of a PNG) of the still of a live widget: code-hosting sites take the looks away from HTML."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        tab = browser.new_page(viewport={"width": 800, "height": 600}, device_scale_factor=1.5)
        tab.set_content(f'<body style="margin:0;background:#fff">{page}</body>')
        picture = tab.locator(f".{STILL}").first.screenshot()
        browser.close()
    return base64.b64encode(picture).decode()


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
    out = [raw[:8]]
    for kind, body in [*kept, (b"IDAT", pixels), (b"IEND", b"")]:
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
