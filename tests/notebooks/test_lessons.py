"""Every lesson runs twice in a row in one kernel: with the solutions, whose checks turn green, and as learners get it.

nbval, beside this, runs each saved lesson in a kernel of its own and compares every cell.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode
from nbval.plugin import coalesce_streams

from scripts import notebooks

SECONDS = 60 * 3  # by the course a lesson takes 60 s of machine time; here the machine does other things, too


def comparable(cell: NotebookNode) -> list[Any]:
    """What nbval would compare: text and HTML, no pictures; the pieces in which a stream came are one."""
    kept = []
    for output in coalesce_streams(deepcopy(cell.outputs)):
        data = output.get("data", {"name": output.get("name"), "text": output.get("text")})
        kept.append({kind: value for kind, value in data.items() if kind not in {"image/png", "application/vnd.plotly.v1+json"}})
    return kept


def shown(cell: NotebookNode) -> str:
    return "\n".join(output.data.get("text/plain", "") for output in cell.outputs if "data" in output)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("source", notebooks.sources(), ids=notebooks.short)
def test_solutions_turn_the_checks_green_and_the_lesson_runs_twice_in_a_row(source: Path) -> None:
    """1 the solutions: every check is right; 2 again in the same kernel, as learners get it: every check says not yet;
    3 what is evidence (all cells that are not tagged) is the same in both runs and in the saved notebook.
    """
    solved, learner, saved = notebooks.read(source, solutions=True), notebooks.read(source), nbformat.read(notebooks.target(source), 4)
    seconds = notebooks.execute(solved, learner)
    # 1 and 2
    checks = [(a, b) for a, b in zip(solved.cells, learner.cells, strict=True) if a.source.startswith("check(")]
    assert checks or not source.stem[0].isdigit(), "only the tour has no exercises"
    for with_solution, without in checks:
        assert shown(with_solution).startswith("✔ Exercise"), shown(with_solution)
        assert shown(without).startswith("… Exercise"), shown(without)
    # 3
    compared = 0
    for with_solution, again, kept in zip(solved.cells, learner.cells, saved.cells, strict=True):
        if kept.cell_type != "code" or "nbval-ignore-output" in kept.metadata.get("tags", []) or kept.source.startswith("check("):
            continue
        compared += bool(kept.outputs)
        assert comparable(with_solution) == comparable(kept), kept.source
        assert comparable(again) == comparable(kept), kept.source
    assert compared >= 8
    assert min(seconds) < SECONDS
