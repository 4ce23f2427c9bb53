"""Paired estimates between two runs, from the per-sample predictions that both kept."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache
from multiprocessing import get_context
from typing import Any

from threadpoolctl import threadpool_limits

from clipq.cases import Cell
from clipq.errors import ClipqError
from clipq.estimate import Estimate
from clipq.evaluation.resampling import Resampler, Tables
from clipq.evaluation.tables import as_predictions, parse_table
from clipq.gating.loss_estimator import LossEstimator
from clipq.gating.verdict import Evidence
from clipq.metrics import Predictions, metrics
from clipq.records import CaseResult
from clipq.settings import StatisticsSettings

__all__ = ["PairedEstimator", "ReadTable", "tolerance", "with_replicates"]

ReadTable = Callable[[Cell], bytes | None]
"""From a cell to its stored table; None where it is gone."""
_WORTH_A_PROCESS = 400
"""Cases below which a second process costs more than it saves."""

Pair = tuple[CaseResult, CaseResult]


class PairedEstimator:
    """Estimates differences of cases from two runs' tables.

    Args:
        before: tables of the first run.
        after: of the second.
        in_distribution: the probe that out-of-distribution metrics contrast with.
        statistics: error rates, seed and number of replicates.
        processes: how many to share the work.
    """

    def __init__(
        self,
        before: ReadTable,
        after: ReadTable,
        *,
        in_distribution: str,
        statistics: StatisticsSettings,
        processes: int | None = None,
    ) -> None:
        self._tables = before, after
        self._known = in_distribution
        self._statistics = statistics
        self._processes = processes or os.cpu_count() or 1
        self.skipped: dict[str, str] = {}

    def __call__(self, pairs: Sequence[Pair]) -> list[Estimate | None]:
        """Return an estimate per pair; None where a table is gone or nothing can be resampled."""
        cells: dict[Cell, list[int]] = defaultdict(list)
        for index, (_, result) in enumerate(pairs):
            cells[result.case.cell].append(index)
        # The in-distribution table of a pair is read, sent and parsed once for all its probes.
        known_tables = [lru_cache(maxsize=None)(read) for read in self._tables]
        jobs = []
        for cell, indices in cells.items():
            known = cell.on(self._known)
            content = [
                [known_of(known) if cell == known else read(cell), known_of(known)]
                for read, known_of in zip(self._tables, known_tables, strict=True)
            ]
            if any(part is None for parts in content for part in parts):
                self.skipped[str(cell)] = "predictions of a run are not at hand"
                continue
            jobs.append((cell, content, [pairs[i] for i in indices], indices))
        by_pair: list[Estimate | None] = [None] * len(pairs)
        for cell, problem, indices, estimates in self._run(jobs):
            if problem:
                self.skipped[str(cell)] = problem
            for index, estimate in zip(indices, estimates, strict=True):
                by_pair[index] = estimate
        return by_pair

    def _run(self, jobs: list[_Job]) -> list[_Done]:
        cases = sum(len(indices) for *_, indices in jobs)
        if self._processes == 1 or cases < _WORTH_A_PROCESS:
            return _estimate_cells(jobs, self._statistics)
        # Forked: a spawned process would import numpy and scipy again. Neighbouring cells share
        # resamples, so each process takes a run of them.
        method = "fork" if hasattr(os, "fork") else "spawn"
        size = -(-len(jobs) // self._processes)
        parts = [slice(start, start + size) for start in range(0, len(jobs), size)]
        # A forked process has what it is started with: tables need not go through a pipe.
        with ProcessPoolExecutor(
            self._processes,
            mp_context=get_context(method),
            initializer=_given.update,
            initargs=({"jobs": jobs, "statistics": self._statistics},),
        ) as pool:
            return [done for part in pool.map(_estimate_given, parts) for done in part]


_Job = tuple[Cell, list[list[bytes | None]], list[Pair], list[int]]
_Done = tuple[Cell, str, list[int], list[Estimate | None]]


_given: dict[str, Any] = {}
"""In a process that shares the work: all of it."""


def _estimate_given(part: slice) -> list[_Done]:
    return _estimate_cells(_given["jobs"][part], _given["statistics"])


def _estimate_cells(jobs: list[_Job], statistics: StatisticsSettings) -> list[_Done]:
    """Estimate all cases of cells; the metrics of a cell, and equal probes, share resamples."""
    estimate = LossEstimator(statistics, Resampler(statistics))
    parsed: dict[int, Predictions] = {}  # by identity: the jobs keep their contents alive
    with threadpool_limits(1):  # products this small wait for a second thread more than they gain
        return [_estimate_cell(estimate, parsed, *job) for job in jobs]


def _estimate_cell(
    estimate: LossEstimator,
    parsed: dict[int, Predictions],
    cell: Cell,
    content: list[list[bytes | None]],
    pairs: list[Pair],
    indices: list[int],
) -> _Done:
    try:
        sides = [
            Tables(*(_predictions(part or b"", cell, parsed) for part in parts))
            for parts in content
        ]
    except ClipqError as error:
        return cell, error.problem, indices, [None] * len(pairs)
    estimates, problems = [], []
    for pair in pairs:
        try:
            estimates.append(_estimate(estimate, sides, *pair))
        except ClipqError as error:  # the standard errors still bound the difference
            estimates.append(None)
            problems.append(error.problem)
    return cell, problems[0] if problems else "", indices, estimates


def _predictions(content: bytes, cell: Cell, parsed: dict[int, Predictions]) -> Predictions:
    if id(content) not in parsed:
        columns, metadata, _ = parse_table(content, name=f"the predictions of {cell}")
        parsed[id(content)] = as_predictions(columns, metadata)
    return parsed[id(content)]


def _estimate(
    estimate: LossEstimator, sides: Sequence[Tables], first: CaseResult, second: CaseResult
) -> Estimate | None:
    if second.metric not in metrics or second.estimate.standard_error is None:
        return None
    metric = metrics.get(second.metric)
    if metric.version != second.metric_version or metric.statistic is None:
        return None  # another definition than the run's, or one that only its own code can compute
    if metric.statistic.kind == "point":
        return None  # its table says how well the loss against FP32 is known, not this difference
    margin = tolerance(second) or 0.0
    loss = metric.loss(first.observed or 0.0, second.observed or 0.0)
    evidence = Evidence(metric, first.observed, second.observed or 0.0, margin, sides[0], sides[1])
    estimate.resampler.check(sides[0], sides[1], metric)
    return estimate(evidence, loss, margin=margin)


def tolerance(case: CaseResult) -> float | None:
    """Return by how much a case may be worse than in another run: the size of its margin.

    A negative margin, which demands an improvement over FP32, counts by its size as well. None
    where the value is held against a limit and not against FP32: nothing says how much it may move.
    """
    return (
        None if case.baseline is None or case.estimate.margin is None else abs(case.estimate.margin)
    )


def with_replicates(statistics: Mapping[str, object], *, replicates: int) -> StatisticsSettings:
    """Return a record's statistics with another number of replicates."""
    known = {
        key: value
        for key, value in statistics.items()
        if key in StatisticsSettings.__dataclass_fields__
    }
    return replace(StatisticsSettings(**known), replicates=replicates)  # type: ignore[arg-type]
