"""The saved lessons: what their sources say, readable without a kernel, in the form of the house."""

from __future__ import annotations

import base64
import json
import re
import statistics
import struct
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

from chatlib.lab.quiz import quiz
from chatlib.verdict import COLUMNS
from scripts import check_notebooks, notebooks
from tests.support import ROOT

SOURCES = notebooks.sources()
NUMBERED = [source for source in SOURCES if source.stem[0].isdigit()]  # the tour has no exercises and no quiz
LESSONS = [source for source in NUMBERED if not source.name.startswith("00")]
PICTURE = re.compile(r"^(?:\w+ = )?(topology|\w+_chart|heard|ladder|\w+\.figure)\(", re.MULTILINE)
WIDGET = re.compile(r"<(BrokerPanel|Dashboard|MessageTrace|QueueChart|Room|TopologyMap)>")

every = pytest.mark.parametrize("source", SOURCES, ids=notebooks.short)
numbered = pytest.mark.parametrize("source", NUMBERED, ids=notebooks.short)
lessons = pytest.mark.parametrize("source", LESSONS, ids=notebooks.short)


def saved(source: Path) -> NotebookNode:
    return nbformat.read(notebooks.target(source), 4)


def code(book: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def prose(book: NotebookNode) -> str:
    return "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")


def bundles(cell: NotebookNode) -> list[dict[str, Any]]:
    return [output.data for output in cell.outputs if "data" in output]


def has_picture(bundle: dict[str, Any]) -> bool:
    return notebooks.PNG in bundle


def test_there_is_a_source_for_every_saved_lesson_and_the_other_way_round() -> None:
    assert [notebooks.target(source) for source in SOURCES] == sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert [notebooks.short(source) for source in [*SOURCES[:3], SOURCES[-1]]] == ["00", "01", "02", "tour"]


@every
def test_a_saved_lesson_is_what_its_source_says(source: Path) -> None:
    fresh, book = notebooks.read(source), saved(source)
    fields = [[(cell.id, cell.cell_type, cell.metadata, cell.source) for cell in each.cells] for each in (fresh, book)]
    assert fields[0] == fields[1], f"run: make notebooks ARGS={source.stem}"


@numbered
def test_learners_get_no_solutions_and_teachers_get_all(source: Path) -> None:
    learner, solved = notebooks.read(source), notebooks.read(source, solutions=True)
    text = notebooks.target(source).read_text()
    for mark in ("SOLUTION", "### STUB"):
        assert mark not in text
        assert all(mark not in cell.source for cell in solved.cells)
    differ = [a for a, b in zip(learner.cells, solved.cells, strict=True) if a.source != b.source]
    checks = [cell for cell in code(learner) if cell.source.startswith("check(")]
    assert len(differ) == len(checks) >= 1
    assert all("..." in cell.source for cell in differ)


@every
def test_a_saved_lesson_was_run_from_top_to_bottom_and_carries_nothing_of_the_machine(source: Path) -> None:
    book, text = saved(source), notebooks.target(source).read_text()
    assert check_notebooks.problems(notebooks.target(source)) == []
    assert [cell.execution_count for cell in code(book)] == list(range(1, len(code(book)) + 1))
    assert "widgets" not in book.metadata
    assert notebooks.WIDGET_VIEW not in text
    assert "stderr" not in {output.get("name") for cell in code(book) for output in cell.outputs}
    for private in (str(ROOT), "/home/", "/root", "/tmp/", "site-packages", "amqp://"):  # noqa: S108
        assert private not in text


@every
def test_pictures_are_seen_without_a_kernel(source: Path) -> None:
    """Every chart and every live widget is a PNG of a decent size; a chart is also there for JupyterLab to draw."""
    book = saved(source)
    drawing = [cell for cell in code(book) if PICTURE.search(cell.source)]
    pictures = [bundle for cell in drawing for bundle in bundles(cell) if notebooks.PNG in bundle]
    assert len(pictures) == len(drawing)
    assert all(notebooks.PLOTLY in bundle for bundle in pictures)
    live = [bundle for cell in code(book) for bundle in bundles(cell) if WIDGET.fullmatch(bundle.get("text/plain", ""))]
    assert all(notebooks.PLOTLY in bundle for bundle in live if bundle["text/plain"] == "<QueueChart>")
    assert all("nbval-ignore-output" in cell.metadata.get("tags", []) for cell in code(book) if any(map(has_picture, bundles(cell))))
    assert pictures or live
    for bundle in pictures + live:
        assert "text/html" not in bundle
        png = base64.b64decode(bundle[notebooks.PNG])
        width, height = struct.unpack(">II", png[16:24])
        assert png.startswith(b"\x89PNG")
        assert width >= 600 and height >= 150


@every
def test_the_verdict_is_in_every_lesson_in_the_same_columns(source: Path) -> None:
    text = "\n".join(bundle.get("text/plain", "") for cell in code(saved(source)) for bundle in bundles(cell))
    assert re.search(r"\s+".join(COLUMNS), text)


@every
def test_no_cell_is_long(source: Path) -> None:
    lines = [len(cell.source.splitlines()) for cell in code(saved(source))]
    assert max(lines) <= 20
    assert statistics.median(lines) <= 5
    assert lines[0] <= 8, "the setup cell"


@lessons
def test_a_lesson_has_the_size_that_a_learner_can_take(source: Path) -> None:
    book = saved(source)
    words = len(re.findall(r"\w[\w'’-]*", prose(book)))
    texts = len(book.cells) - len(code(book))
    assert 20 <= len(code(book)) <= 35
    assert 1200 <= words <= 2500
    assert 0.7 <= texts / len(code(book)) <= 1.3


@lessons
def test_a_lesson_has_every_part_of_the_house_form(source: Path) -> None:
    book = saved(source)
    text, cells = prose(book), [cell.source for cell in code(book)]
    for part in (
        "After this you can",
        "Needs:",
        "minutes",
        "naive version",
        "## Three rules of thumb",
        "## Exercises",
        "## Quiz",
        "## The mechanism",
    ):
        assert part in text, part
    for part in (
        r"start_lesson\(",
        r"\b(topology|TopologyMap)\(",
        r"predict\(",
        r"\.compare\(",
        r"lesson\.evidence\(\)",
        r"quiz\(",
        r"lesson\.close\(\)",
    ):
        assert any(re.search(part, cell) for cell in cells), part
    rules = text.split("## Three rules of thumb")[1].split("## ")[0]
    assert len(re.findall(r"^\d\. ", rules, re.MULTILINE)) == 3
    verbs = text.split("After this you can")[1].split("\n\n")[1]
    assert len(re.findall(r"^- \*\*\w+\*\*", verbs, re.MULTILINE)) == 3
    mechanism = text.split("## The mechanism")[1].split("\n## ")[0]
    assert len(mechanism.split()) <= 170
    kinds = re.findall(r"^\*\*\d\.\d (Warm-up|Build|Break)\.\*\*", text, re.MULTILINE)
    assert kinds == ["Warm-up", "Warm-up", "Build", "Break"]


@every
def test_prose_has_one_sentence_a_line(source: Path) -> None:
    """So that a change shows as the sentence that was changed."""
    outside = re.sub(r"^```.*?^```$", "", source.read_text(), flags=re.DOTALL | re.MULTILINE)
    long = [line for line in outside.splitlines() if re.search(r"[a-z]\. [A-Z]", line) and not line.startswith(("|", "1.", "2.", "3."))]
    assert long == []


@pytest.mark.parametrize("lesson", [notebooks.short(source) for source in NUMBERED])
def test_a_quiz_can_be_answered(lesson: str) -> None:
    """Every question has exactly one right answer, and each answer says why; 6 to 10 questions in a lesson."""
    questions = quiz(lesson).questions
    assert (4 if lesson == "00" else 6) <= len(questions) <= 10
    for question in questions:
        assert sum(answer.get("correct", False) for answer in question["answers"]) == 1, question["question"]
        assert all(answer["feedback"] for answer in question["answers"])
    html = quiz(lesson)._repr_html_()
    assert html.count("<details") == sum(len(question["answers"]) for question in questions)
    assert "<script" not in html and "http" not in html


def test_the_form_that_makes_learners_cells_keeps_the_code_around_and_the_stub_indented() -> None:
    text = "def f(x):\n    '''Do.'''\n    ### BEGIN SOLUTION\n    return x\n    ### STUB\n    # return ...\n    ### END SOLUTION\n"
    assert notebooks.learner(text) == "def f(x):\n    '''Do.'''\n    return ..."
    assert notebooks.solved(text) == "def f(x):\n    '''Do.'''\n    return x"
    assert notebooks.learner("a = ...\n### BEGIN SOLUTION\na = 1\n### END SOLUTION") == "a = ..."


def test_a_smaller_picture_shows_the_same() -> None:
    """The pixels, once unpacked, are those that were there; only the packing differs."""
    kept = json.loads(notebooks.target(SOURCES[1]).read_text())
    pictures = [
        output["data"]["image/png"] for cell in kept["cells"] for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    once = pictures[0] if isinstance(pictures[0], str) else "".join(pictures[0])
    assert notebooks.smaller(once) == once.strip()
