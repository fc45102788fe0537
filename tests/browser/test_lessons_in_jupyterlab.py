"""Each lesson in JupyterLab, as its reader sees it: saved, without a kernel; then all of it run, to its verdict."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Locator, Page, expect

from scripts import notebooks
from tests.browser.conftest import Lab, Watch
from tests.browser.live import address, close_notebook, command, errors, open_notebook, shoot, theme

RUN_MILLISECONDS = 170_000  # a lesson takes some 20 s; this is for a machine that does other things, too
VERDICTS = {
    "00": "1 attempted, all confirmed, 1 delivery",
    "01": "40 deliveries",
    "02": "115 deliveries",
    "03": "450 deliveries",
    "04": "120 deliveries",
    "05": "20 deliveries: 1 lost",
    "06": "(10 in the dead letters)",
    "07": "3,000 deliveries",
}
CHART = ".jp-RenderedPlotly .plot-container"
PICTURE = ".jp-RenderedPlotly img.plot-img"
LOADED = "selector => [...document.querySelectorAll(selector)].every(each => each.naturalWidth > 500 && each.offsetHeight > 100)"


def charts(source: Path) -> int:
    """How many charts of plotly's the saved lesson shows; those of live widgets among them."""
    cells = nbformat.read(notebooks.target(source), 4).cells
    return sum(notebooks.PLOTLY in output.get("data", {}) for cell in cells for output in cell.get("outputs", []))


def sizes(pictures: Locator) -> list[tuple[int, int]]:
    return [(round(box["width"]), round(box["height"])) for box in (each.bounding_box() for each in pictures.all()) if box]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("source", notebooks.sources(), ids=lambda path: path.stem[:2])
def test_a_lesson_is_read_then_run_to_its_verdict(source: Path, lab: Lab, page: Page, watch: Watch) -> None:
    """1 as saved, the pictures and the verdict are there; 2 all outputs are cleared, and nothing is; 3 all cells run, none
    fails, and everything is there again; 4 the quiz answers a click; 5 nothing left this machine, no error on the console.
    """
    lesson, outputs = source.stem[:2], page.locator(".jp-Notebook .jp-OutputArea-output")
    verdict = outputs.filter(has_text=VERDICTS[lesson])
    # 1
    open_notebook(page, address(lab, f"{source.stem}.ipynb"))
    expect(verdict.first).to_be_visible()
    expect(page.locator(PICTURE)).to_have_count(charts(source))
    page.wait_for_function(LOADED, arg=PICTURE)
    # 2
    command(page, "notebook:clear-all-cell-outputs")
    expect(outputs).to_have_count(0)
    # 3
    page.set_default_timeout(RUN_MILLISECONDS)
    command(page, "notebook:run-all-cells")
    prompts = page.locator(".jp-Notebook .jp-CodeCell .jp-InputPrompt")
    assert [text for text in prompts.all_inner_texts() if "*" in text or text.strip() == "[ ]:"] == []
    assert errors(page) == []
    expect(verdict.first).to_be_visible()
    expect(outputs.filter(has_text="is closed: its broker is stopped")).to_have_count(1)
    expect(page.locator(CHART)).to_have_count(charts(source))
    drawn = sizes(page.locator(CHART))
    assert all(width >= 500 and height >= 150 for width, height in drawn), drawn
    # 4
    answer = outputs.filter(has_text="Click on the answer").locator("details").first
    feedback = answer.locator("div")
    expect(feedback).to_be_hidden()
    answer.locator("summary").click()
    expect(feedback).to_be_visible()
    shoot(page, f"{lesson}-light")
    theme(page, "JupyterLab Dark")
    shoot(page, f"{lesson}-dark")
    theme(page, "JupyterLab Light")
    # 5
    assert watch.outside == []
    assert watch.problems == []
    close_notebook(page)
