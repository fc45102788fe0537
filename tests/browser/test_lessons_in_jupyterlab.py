"""Each lesson in JupyterLab, as its reader sees it: saved, without a kernel; then all of it run, to its verdict. And the tour, alive."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbconvert
import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from scripts import notebooks
from tests.browser.conftest import Lab, Watch
from tests.browser.live import address, close_notebook, command, errors, open_notebook, output, run_cells, shoot, theme

RUN_MILLISECONDS = 170_000  # a lesson takes some 20 s; this is for a machine that does other things, too
VERDICT = re.compile(r"[\d,]+ attempted, [^:<\n]*deliver(?:y|ies): \w+ lost")
CHART = ".jp-RenderedPlotly .plot-container"
CHART_SAVED = ".jp-RenderedPlotly img.plot-img"
STILL = f".jp-RenderedHTMLCommon > .{notebooks.STILL}"
STILL_SAVED = ".jp-RenderedImage img"
LOADED = """selector => [...document.querySelectorAll(selector)].every(each => each.naturalWidth > 500 && each.offsetHeight > 100
    && each.naturalHeight > 100)"""
WIDGETS = {
    "Room": ".chatlib.room",
    "TopologyMap": ".chatlib.topology-map",
    "QueueChart": ".chatlib-queues .js-plotly-plot",
    "BrokerPanel": ".chatlib.broker-panel",
}

every = pytest.mark.parametrize("source", notebooks.sources(), ids=notebooks.short)


def bundles(source: Path) -> list[dict[str, Any]]:
    """What the cells of the saved notebook show."""
    cells = nbformat.read(notebooks.target(source), 4).cells
    return [output["data"] for cell in cells for output in cell.get("outputs", []) if "data" in output]


def pictures(source: Path) -> tuple[int, int]:
    """(charts, stills of widgets) of the saved notebook."""
    seen = [notebooks.PLOTLY in bundle for bundle in bundles(source) if notebooks.PNG in bundle]
    return seen.count(True), seen.count(False)


def verdicts(source: Path) -> list[str]:
    """What the checker says in it, without what may differ from run to run."""
    return sorted({found for bundle in bundles(source) for found in VERDICT.findall(bundle.get("text/plain", ""))})


def sizes(pictures: Locator) -> list[tuple[int, int]]:
    return [(round(box["width"]), round(box["height"])) for box in (each.bounding_box() for each in pictures.all()) if box]


@pytest.mark.timeout(300)
@every
def test_a_lesson_is_read_then_run_to_its_verdict(source: Path, lab: Lab, page: Page, watch: Watch) -> None:
    """1 as saved, the pictures and the verdict are there; 2 all outputs are cleared, and nothing is; 3 all cells run, none
    fails, and everything is there again; 4 the quiz answers a click; 5 nothing left this machine, no error on the console.
    """
    name, outputs = notebooks.short(source), page.locator(".jp-Notebook .jp-OutputArea-output")
    (charts, stills), said = pictures(source), verdicts(source)
    assert charts + stills and said
    # 1
    open_notebook(page, address(lab, f"{source.stem}.ipynb"))
    for each in said:
        expect(outputs.filter(has_text=each).first).to_be_visible()
    expect(page.locator(CHART_SAVED)).to_have_count(charts)
    expect(page.locator(STILL_SAVED)).to_have_count(stills)
    page.wait_for_function(LOADED, arg=f"{CHART_SAVED}, {STILL_SAVED}")
    shoot(page, f"{name}-saved")
    # 2
    command(page, "notebook:clear-all-cell-outputs")
    expect(outputs).to_have_count(0)
    # 3
    page.set_default_timeout(RUN_MILLISECONDS)
    command(page, "notebook:run-all-cells")
    prompts = page.locator(".jp-Notebook .jp-CodeCell .jp-InputPrompt")
    assert [text for text in prompts.all_inner_texts() if "*" in text or text.strip() == "[ ]:"] == []
    assert errors(page) == []
    for each in said:
        expect(outputs.filter(has_text=each).first).to_be_visible()
    expect(outputs.filter(has_text="is closed: its broker is stopped")).to_have_count(1)
    expect(page.locator(CHART)).to_have_count(charts)  # of a live one, closed with the lesson, the picture of the run
    expect(page.locator(STILL)).to_have_count(stills)
    drawn = sizes(page.locator(f"{CHART}, {STILL}"))
    assert all(width >= 500 and height >= 100 for width, height in drawn), drawn
    # 4
    if source.stem[0].isdigit():
        answer = outputs.filter(has_text="Click on the answer").locator("details").first
        feedback = answer.locator("div")
        expect(feedback).to_be_hidden()
        answer.locator("summary").click()
        expect(feedback).to_be_visible()
    shoot(page, f"{name}-light")
    theme(page, "JupyterLab Dark")
    shoot(page, f"{name}-dark")
    theme(page, "JupyterLab Light")
    # 5
    assert watch.outside == []
    assert watch.problems == []
    close_notebook(page)


@every
def test_a_saved_lesson_shows_its_pictures_as_a_page_without_a_network(source: Path, chromium: Browser, tmp_path: Path) -> None:
    """As nbconvert makes it, with nothing behind it: no kernel, no Jupyter, no network."""
    text, _ = nbconvert.HTMLExporter().from_filename(str(notebooks.target(source)))
    (tmp_path / "lesson.html").write_text(text)
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    page = context.new_page()
    page.goto(f"file://{tmp_path}/lesson.html", wait_until="domcontentloaded")
    images = ".jp-OutputArea-output img"
    expect(page.locator(images)).to_have_count(sum(pictures(source)))
    page.wait_for_function(LOADED, arg=images)
    for each in verdicts(source):
        expect(page.locator("body")).to_contain_text(each)
    context.close()


def say(room: Locator, text: str) -> None:
    """The first person of a room says it, and the last has it."""
    line = room.locator(".pane").nth(0).locator(".say input")
    line.fill(text)
    line.press("Enter")
    expect(room.locator(".pane").last.locator(".bubble .text", has_text=text)).to_be_visible()


@pytest.mark.timeout(300)
def test_the_widgets_of_the_tour_are_alive_until_it_ends(lab: Lab, page: Page, watch: Watch) -> None:
    """1 cell by cell, each widget is there once it was shown; 2 what is typed in the room comes out there and on the map; 3 the
    dashboard has all four, in both themes, and takes what is typed; 4 run to the end, the last pictures stay, and no error.
    """
    source = notebooks.SOURCES / "lab-tour.md"
    cells = notebooks.read(source).cells
    code = [n for n, cell in enumerate(cells) if cell.cell_type == "code"]
    where = {word: next(n for n in code if f"= {word}(" in cells[n].source) for word in (*WIDGETS, "Dashboard")}
    last = len(cells) - 1
    page.set_default_timeout(RUN_MILLISECONDS)
    open_notebook(page, address(lab, "lab-tour.ipynb"))
    command(page, "notebook:clear-all-cell-outputs")
    # 1
    run_cells(page, *(n for n in code if n <= where["BrokerPanel"]))
    for word, selector in WIDGETS.items():
        expect(output(page, where[word]).locator(selector)).to_have_count(1)
    # 2
    room = output(page, where["Room"])
    say(room, "Is this alive?")
    shoot(page, "tour-alive-light")
    # 3
    run_cells(page, *(n for n in code if where["BrokerPanel"] < n < last))
    dashboard = output(page, where["Dashboard"])
    for selector in WIDGETS.values():
        expect(dashboard.locator(selector).first).to_be_visible()
    say(dashboard, "And this?")
    shoot(page, "tour-dashboard-light")
    theme(page, "JupyterLab Dark")
    shoot(page, "tour-dashboard-dark")
    theme(page, "JupyterLab Light")
    # 4
    run_cells(page, last)
    expect(page.locator(STILL)).to_have_count(pictures(source)[1])
    assert watch.outside == []
    assert watch.problems == []
    close_notebook(page)
