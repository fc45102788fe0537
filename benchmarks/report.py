"""What a run has shown, as Markdown. Pure: from the JSON object of `run_all` and the cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.cases import Case, Goal
from benchmarks.figures import Spread, ratios, spread

__all__ = ["Verdict", "markdown", "show", "values", "verdicts"]

Samples = Mapping[str, Sequence[Mapping[str, float] | None]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal with what came out. figure: the ratio (of chatlib's own value where `goal` is None). met: None where nothing is demanded."""

    case: Case
    goal: Goal | None
    figure: Spread
    met: bool | None

    @property
    def text(self) -> str:
        """What was compared, and what was demanded."""
        if self.goal is None:
            return f"{self.case.title}: chatlib, at most {self._limit}"
        metric = f", {self.goal.metric}" if len(self.case.metrics) > 1 else ""
        return f"{self.case.title}{metric}: {self.goal.of} to {self.goal.to}{f' ({self.goal.source})' if self.goal.source else ''}"

    @property
    def _limit(self) -> str:
        return f"{show(self.case.limit or 0)} {next(iter(self.case.metrics.values()))}"

    @property
    def demanded(self) -> str:
        """What was demanded, in words of a table."""
        if self.goal is None:
            return f"≤ {self._limit}"
        if self.goal.at_least is not None:
            return f"≥ {show(self.goal.at_least)}"
        return f"≤ {show(self.goal.at_most)}" if self.goal.at_most is not None else ""


def show(value: float) -> str:
    """Return a number with up to three significant digits, whole from 1,000 on: "12,345", "123", "1.2", "0.0123"."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def values(samples: Samples, contestant: str, metric: str) -> list[float | None]:
    """Return one metric of one contestant round by round; None where the round failed."""
    return [None if sample is None else sample[metric] for sample in samples.get(contestant, ())]


def verdicts(case: Case, samples: Samples) -> Iterator[Verdict]:
    """Yield every goal of a case for which there are figures of both sides."""
    if case.limit is not None:
        metric = next(iter(case.metrics))
        own = spread([value for value in values(samples, "chatlib", metric) if value is not None])
        if own:
            yield Verdict(case, None, own, own.median <= case.limit)
    for goal in case.goals:
        if goal.of not in samples or goal.to not in samples:
            continue  # no C client here
        figure = spread(ratios(values(samples, goal.of, goal.metric), values(samples, goal.to, goal.metric)))
        if figure:
            yield Verdict(case, goal, figure, goal.met(figure.median))


def markdown(document: Mapping[str, Any], cases: Sequence[Case], plot: str | None = None) -> str:
    """Return the whole report. plot: the file name of the picture, if there is one."""
    shown = [case for case in cases if case.name in document["cases"]]
    parts = ["# Benchmark results", _head(document)]
    if plot:
        parts.append(f"![Medians with the smallest and the largest round]({plot})")
    parts += ["## What was to be reached", _goals(document, shown)]
    for case in shown:
        parts += [f"## {case.title}", case.what, _table(case, document["cases"][case.name])]
    if document["failures"]:
        parts += ["## What failed", "\n".join(f"- {failure}" for failure in document["failures"])]
    return "\n\n".join(parts) + "\n"


def _head(document: Mapping[str, Any]) -> str:
    machine = document["machine"]
    rounds = document["rounds"]
    lines = [
        f"Measured {document['when']}, `{document['mode']}`, {rounds} interleaved round{'s' if rounds != 1 else ''}, "
        f"on {machine['cores']} cores ({machine['processor']}), {machine['memory'] / 2**30:.0f} GiB, {machine['system']}; "
        f"load average before the run {machine['load']}.",
        "Values are medians (smallest – largest) over the rounds; ratios are taken within each round, then their median.",
        f"Versions: {', '.join(f'{name} {version}' for name, version in document['versions'].items())}.",
        *document["notes"],
    ]
    return "\n".join(lines)


def _goals(document: Mapping[str, Any], cases: Sequence[Case]) -> str:
    rows = [
        [verdict.text, verdict.demanded, _spread(verdict.figure), {True: "yes", False: "**no**", None: ""}[verdict.met]]
        for case in cases
        for verdict in verdicts(case, document["cases"][case.name])
    ]
    return _rows(["figure", "demanded", "ratio (or value)", "reached"], rows)


def _table(case: Case, samples: Samples) -> str:
    notes = {contestant.name: contestant.note for contestant in case.contestants}
    names = list(samples)
    header = ["", *[f"{metric} ({unit})" if unit and unit != metric else metric for metric, unit in case.metrics.items()], "note"]
    rows = []
    for name in names:
        cells = [spread([value for value in values(samples, name, metric) if value is not None]) for metric in case.metrics]
        rows.append([name, *[_spread(cell) if cell else "failed" for cell in cells], notes.get(name, "")])
    return _rows(header, rows)


def _spread(figure: Spread) -> str:
    return show(figure.median) if figure.rounds == 1 else f"{show(figure.median)} ({show(figure.low)} – {show(figure.high)})"


def _rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
