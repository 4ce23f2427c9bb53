"""Losses and standard errors of every case of a candidate, in each of many draws of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from candidates import Candidate, counted, repeated
from closed_errors import Pair, closed_error

from clipq.cases import Case
from clipq.evaluation.resampling import Resampler, Tables
from clipq.evaluation.resolution import resolution
from clipq.metrics import Metric, Predictions, metrics
from clipq.metrics.calibration import BINS
from clipq.stats import bin_resolution

__all__ = ["Drawn", "drawn_errors"]

_BLOCK = 50
"""Draws resampled at a time."""


class Drawn(Resampler):
    """Replicates are the given draws, whatever the settings say."""

    def __init__(self, counts: Mapping[str, np.ndarray], candidate: Candidate) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self._counts = {
            id(table): counts[probe] for probe, pair in candidate.tables.items() for table in pair
        }

    def _drawn(self, table: Predictions, stream: int, piece: int) -> np.ndarray:
        return self._counts[id(table)]

    def losses(self, metric: Metric, pair: Sequence[Tables]) -> np.ndarray:
        """Return the loss in each draw (D,)."""
        return metric.loss(*(self.replicates(metric, tables) for tables in pair))


def drawn_errors(
    candidate: Candidate,
    counts: Mapping[str, np.ndarray],
    rng: np.random.Generator,
    replicates: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return standard errors (D, K), and which cases (K,) have them from replicates.

    Args:
        candidate: with K cases.
        counts: (D, N) by probe, how often each row was drawn.
        rng: of what is resampled.
        replicates: per draw, of the few statistics whose error has no closed form.
    """
    error = np.empty((len(counts[candidate.known]), len(candidate.cases)))
    both = [
        Pair(*candidate.pair(case), counts[case.probe], counts[candidate.known])
        for case in candidate.cases
    ]
    nested = []
    for at, (case, pair) in enumerate(zip(candidate.cases, both, strict=True)):
        spread = closed_error(metrics.get(case.metric).statistic, pair, rng)
        if spread is None:
            nested.append(at)
        else:
            error[:, at] = spread
    if nested:
        cases = [candidate.cases[at] for at in nested]
        error[:, nested] = _nested(cases, candidate, counts, rng, replicates)
    for at, (case, pair) in enumerate(zip(candidate.cases, both, strict=True)):
        worth = _resolutions(metrics.get(case.metric), pair)
        error[:, at] = np.sqrt(error[:, at] ** 2 + 2.0 * worth**2)
    return error, np.isin(np.arange(len(candidate.cases)), nested)


def _nested(
    cases: Sequence[Case],
    candidate: Candidate,
    counts: Mapping[str, np.ndarray],
    rng: np.random.Generator,
    replicates: int,
) -> np.ndarray:
    """Bootstrap every draw: its rows are drawn once more. Return the spreads (D, cases)."""
    probes = {candidate.known, *(case.probe for case in cases)}
    spread = []
    for start in range(0, len(counts[candidate.known]), _BLOCK):
        weights = dict.fromkeys(candidate.tables, np.empty((0, 0)))
        for probe in sorted(probes):
            block = counts[probe][start : start + _BLOCK]
            weights[probe] = _again(block, replicates, rng)
        drawn = Drawn(weights, candidate)
        losses = [drawn.losses(metrics.get(c.metric), candidate.pair(c)) for c in cases]
        values = np.stack(losses, axis=1).reshape(-1, replicates, len(cases))
        spread.append(values.std(axis=1, ddof=1))
    return np.concatenate(spread)


def _again(counts: np.ndarray, replicates: int, rng: np.random.Generator) -> np.ndarray:
    """Return counts (D * R, N) of resamples of draws (D, N)."""
    rows = np.stack([np.repeat(np.arange(counts.shape[1]), row) for row in counts])
    size = rows.shape[1]
    picked = rng.integers(0, size, (len(rows), replicates * size))
    drawn = np.take_along_axis(rows, picked, axis=1).reshape(-1, size)
    return counted(drawn, counts.shape[1])


def _resolutions(metric: Metric, both: Pair) -> np.ndarray:
    """Return what one sample is worth in each draw (D,); `clipq.evaluation.resolution` says why."""
    kind, tables, own = metric.statistic.kind, both.quantized, both.counts
    if kind in ("ace", "mce"):
        sure = tables.predictions.column(metric.statistic.columns[0])
        return np.array([bin_resolution(np.repeat(sure, row), bins=BINS) for row in own])
    return np.full(len(own), resolution(metric, _sized(tables, own, both.counts_id)))


def _sized(tables: Tables, own: np.ndarray, known: np.ndarray) -> Tables:
    first, second = (
        repeated(t, c[0])
        for t, c in zip((tables.predictions, tables.in_distribution), (own, known), strict=True)
    )
    return Tables(first, second)
