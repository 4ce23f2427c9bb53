"""DeLong's covariance of two paired AUROCs (DeLong et al. 1988; fast form of Sun and Xu 2014)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipq.errors import StatisticsError
from clipq.stats.statistics import finite_column

__all__ = ["PairedAuroc", "delong", "placements"]


@dataclass(frozen=True, slots=True)
class PairedAuroc:
    """Two AUROCs of the same samples and the standard error of first - second.

    >>> found = PairedAuroc(first=0.75, second=0.5, standard_error=0.125)
    >>> (found.first - found.second) / found.standard_error
    2.0
    """

    first: float
    second: float
    standard_error: float


def delong(
    first_id: np.ndarray, first_ood: np.ndarray, second_id: np.ndarray, second_ood: np.ndarray
) -> PairedAuroc:
    """Compare two scores on the same N in-distribution and M out-of-distribution samples.

    The variance of the difference is that of the mean difference of `placements`.

    Args:
        first_id, second_id: scores (N,), paired.
        first_ood, second_ood: scores (M,), paired.

    Raises:
        StatisticsError: scores are not paired, or fewer than two of a kind.

    >>> known, unknown = np.array([3.0, 2.0]), np.array([1.0, 0.0])
    >>> found = delong(known, unknown, np.array([3.0, 1.0]), np.array([2.0, 0.0]))
    >>> found.first, found.second, round(found.standard_error, 4)
    (1.0, 0.75, 0.3536)
    """
    columns = [
        finite_column(scores, "scores") for scores in (first_id, first_ood, second_id, second_ood)
    ]
    sizes = [len(column) for column in columns]
    if sizes[:2] != sizes[2:] or min(sizes) < 2:
        raise StatisticsError(
            f"scores of {sizes[:2]} and {sizes[2:]} samples",
            hint="give the same samples, at least two of each kind, to both",
        )
    a, b = placements(*columns[:2]), placements(*columns[2:])
    variance = sum(np.var(p - q, ddof=1) / len(p) for p, q in zip(a, b, strict=True))
    return PairedAuroc(float(a[0].mean()), float(b[0].mean()), float(np.sqrt(variance)))


def placements(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of samples of the other kind that each is ordered rightly against.

    In-distribution samples are to score higher; ties count half. The mean of either kind's
    placements is the AUROC.

    Args:
        inside: scores (N,) of in-distribution samples.
        outside: scores (M,) of out-of-distribution samples.

    >>> above, below = placements(np.array([3.0, 1.0]), np.array([1.0, 0.0]))
    >>> above.tolist(), below.tolist()
    ([1.0, 0.75], [0.75, 1.0])
    """
    rising_id, rising_ood = np.sort(inside), np.sort(outside)
    above = _rank(rising_ood, inside) / len(outside)
    below = 1.0 - _rank(rising_id, outside) / len(inside)
    return above, below


def _rank(rising: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return how many of the sorted numbers lie below each value, ties half."""
    left, right = (np.searchsorted(rising, values, side=side) for side in ("left", "right"))
    return np.asarray((left + right) / 2.0)
