"""The false-positive rate at 95 % true positives, of many replicates at once.

Only the lowest twentieth of the in-distribution scores decides where the threshold lies, so a
replicate needs running sums over those, and over the other kind's scores around the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from clipq.stats.blocks import by_blocks
from clipq.stats.ranking import paired_weights
from clipq.stats.resampling_weights import check_totals

__all__ = ["false_positive_rates"]

_KEPT = 0.95


def false_positive_rates(
    scores_id: np.ndarray,
    scores_ood: np.ndarray,
    weights_id: np.ndarray,
    weights_ood: np.ndarray,
    *,
    threads: int = 1,
) -> np.ndarray:
    """Return the false-positive rate (R,) at the highest threshold that keeps 95 % in distribution.

    A threshold is an in-distribution score, and what scores at least as high is accepted. Equal to
    scikit-learn's ROC curve with `sample_weight`; scores that are all equal give 1.

    Args:
        scores_id: (N,), finite.
        scores_ood: (M,), finite.
        weights_id: (R, N), not negative.
        weights_ood: (R, M), not negative.
        threads: to work on.

    Raises:
        StatisticsError: one kind of sample is missing, or shapes do not fit.

    >>> known, unknown = np.array([0.9, 0.8]), np.array([0.85, 0.1])
    >>> drawn = np.array([[1, 1], [2, 0]])  # the second drew 0.9 twice, 0.8 never
    >>> false_positive_rates(known, unknown, drawn, np.ones((2, 2))).tolist()
    [0.5, 0.0]
    """
    inside, outside, rows_id, rows_ood = paired_weights(
        scores_id, scores_ood, weights_id, weights_ood
    )
    order_id, order_ood = np.argsort(inside, kind="stable"), np.argsort(outside, kind="stable")
    reach = _reach(len(inside))
    rising, rising_ood = inside[order_id], outside[order_ood]
    strictly_below = np.searchsorted(rising, rising, side="left")
    rejected = np.searchsorted(rising_ood, rising, side="left")

    def worker() -> Callable[[slice], np.ndarray]:
        def work(block: slice) -> np.ndarray:
            at = _threshold(rows_id[block], order_id, strictly_below)
            below = rejected[at]
            first, last = int(below.min()), int(below.max())
            drawn = rows_ood[block]
            total = check_totals(_row_sums(drawn))
            lost = _row_sums(np.take(drawn, order_ood[:first], axis=1))
            around = np.zeros((len(drawn), last - first + 1))
            deciding = np.take(drawn, order_ood[first:last], axis=1)
            np.cumsum(deciding, axis=1, dtype=np.float64, out=around[:, 1:])
            return np.asarray(1.0 - (lost + around[np.arange(len(at)), below - first]) / total)

        return work

    return by_blocks(worker, len(rows_id), reach + len(outside), threads=threads)


def _reach(size: int) -> int:
    """Return how many of the lowest scores nearly always hold the threshold: 5 % and five sigma."""
    lowest = (1.0 - _KEPT) * size
    return min(size, round(lowest + 5.0 * math.sqrt(lowest)) + 8)


def _row_sums(rows: np.ndarray) -> np.ndarray:
    """Return the sum of each row (R,); of counts in whole numbers, which is the same and faster."""
    if rows.dtype == np.uint8:
        return np.asarray(rows.sum(axis=1, dtype=np.uint64), np.float64)
    return np.asarray(np.einsum("ij->i", rows, dtype=np.float64))


def _threshold(rows: np.ndarray, order: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return the position (R,) of the highest score that 95 % of the weight (R, N) reaches."""
    total = check_totals(_row_sums(rows))
    size = len(order)
    tied = not np.array_equal(below, np.arange(size))
    reach = _reach(size)
    while True:
        running = np.zeros((len(rows), reach + 1))
        lowest = np.take(rows, order[:reach], axis=1)
        np.cumsum(lowest, axis=1, dtype=np.float64, out=running[:, 1:])
        lost = running[:, below[:reach]] if tied else running[:, :-1]
        enough = (total[:, None] - lost) / total[:, None] >= _KEPT
        # The highest threshold is found where a higher one that keeps too little was seen.
        if reach == size or not enough[:, -1].any():
            return np.asarray(enough.sum(axis=1) - 1)
        reach = min(size, 2 * reach)
