"""The ladder of a loss in words and cells, for every form of the report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from clipq.records import CaseResult
from clipq.report.ladder import Ladder

__all__ = ["HEADERS", "REST", "ladder_rows", "missing_rungs"]

HEADERS = ("case", "loss", "of it export", "simulated", "rest", "rest / margin", "unit")
REST = (
    "rest: the artifact's loss less its rungs', with both of them the simulation gap; a difference "
    "of point values, of which no interval is known; ~: no more than the intervals of its parts "
    "together, so that it may be nothing"
)


def ladder_rows(found: Iterable[Ladder], *, each: int) -> list[tuple[str, ...]]:
    """Return texts of the first steps of each ladder: case, losses with intervals, rest, margins.

    A rest that is no more than the intervals of its parts has "~" before it.

    Args:
        found: the ladders.
        each: how many steps of one.

    >>> ladder_rows([], each=3)
    []
    """
    return [
        (
            step.case.id,
            _with_interval(step.case),
            _with_interval(step.export),
            _with_interval(step.simulated),
            f"{'' if step.beyond_intervals else '~ '}{step.rest:+.4g}",
            "-" if math.isnan(step.margins) else f"{step.margins:.2f}",
            step.case.unit,
        )
        for ladder in found
        for step in ladder.steps[:each]
    ]


def missing_rungs(found: Sequence[Ladder]) -> list[str]:
    """Return a sentence for each rung that a ladder lacks.

    >>> from clipq.cases import Candidate
    >>> missing_rungs([Ladder(Candidate("vit", "ort"))])
    ['vit/ort: neither its float graphs nor a simulation is in this run: its losses are not ...']
    """
    lines = []
    for ladder in found:
        if ladder.export or ladder.simulated:
            lines += [f"{ladder.candidate}: {why}" for why in ladder.missing]
        else:
            lines.append(
                f"{ladder.candidate}: neither its float graphs nor a simulation is in this run: "
                "its losses are not taken apart"
            )
    return lines


def _with_interval(case: CaseResult | None) -> str:
    if case is None:
        return "-"
    low, high = case.estimate.low, case.estimate.high
    between = "" if low is None or high is None else f" [{low:+.3g}, {high:+.3g}]"
    return f"{case.estimate.loss or 0.0:+.4g}{between}"
