"""Selective classification on many replicates: risk over coverage, by sorted order.

A replicate draws whole samples, so it is written out sample by sample: the curve's points are
counts, and a drawn sample makes as many points as it was drawn.
"""

from __future__ import annotations

import numpy as np

from clipq.errors import StatisticsError
from clipq.stats.resampling_weights import check_totals, check_weights
from clipq.stats.statistics import finite_column

__all__ = ["selective_risks"]

_NAMES = ("aurc", "augrc", "coverage")


def selective_risks(
    confidence: np.ndarray, correct: np.ndarray, weights: np.ndarray, *, risk: float
) -> dict[str, np.ndarray]:
    """Return ``aurc``, ``augrc`` and ``coverage``, each (R,), for counts (R, N).

    With the drawn samples by falling confidence and r_k the share of errors among the first k of n:
    AURC is the area under r_k over k / n and AUGRC that under r_k k / n, by the trapezoid rule from
    1 / n to 1, divided by 1 - 1 / n; coverage is the largest k / n whose r_k is at most `risk`, 0
    where there is none. Among equal confidences errors come first: a tie counts against the model.

    Args:
        confidence: (N,).
        correct: (N,) 0 or 1.
        weights: (R, N) whole numbers.
        risk: accepted share of errors, for the coverage.

    Raises:
        StatisticsError: shapes do not fit, or a weight is no count.

    >>> sure, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 1, 0, 1])
    >>> found = selective_risks(sure, right, np.ones((1, 4), int), risk=0.05)
    >>> {name: values.round(4).tolist() for name, values in found.items()}
    {'aurc': [0.1528], 'augrc': [0.125], 'coverage': [0.5]}
    """
    sure, right = finite_column(confidence, "confidence"), finite_column(correct, "correct")
    if len(sure) != len(right):
        raise StatisticsError(
            f"{len(sure)} confidences for {len(right)} outcomes", hint="one of each per sample"
        )
    rows = check_weights(weights, len(sure))
    if rows.dtype.kind == "f":
        raise StatisticsError(
            "weights that are no counts", hint="risk over coverage is defined on whole samples"
        )
    order = np.lexsort((right, -sure))
    wrong = 1.0 - right[order]
    check_totals(rows.sum(axis=1))
    statistics = np.array([_one(np.repeat(wrong, row[order]), risk) for row in rows])
    return dict(zip(_NAMES, statistics.T, strict=True))


def _one(wrong: np.ndarray, risk: float) -> tuple[float, float, float]:
    size = len(wrong)
    errors = np.cumsum(wrong)
    covered = np.arange(1, size + 1)
    risks = errors / covered
    accepted = np.flatnonzero(risks <= risk)
    coverage = (accepted[-1] + 1) / size if len(accepted) else 0.0
    if size < 2:
        return float("nan"), float("nan"), coverage
    areas = (
        (values.sum() - (values[0] + values[-1]) / 2) / size for values in (risks, errors / size)
    )
    aurc, augrc = (float(area) / (1 - 1 / size) for area in areas)
    return aurc, augrc, coverage
