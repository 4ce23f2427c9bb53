"""What each sample adds to an average precision, to first order."""

from __future__ import annotations

import numpy as np

__all__ = ["precision_influence"]


def precision_influence(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return N and M times the derivative of average precision by each sample's weight.

    AP = sum_i w_i p_i / sum_i w_i over positives, with p_i = T_i / (T_i + F_i) and T_i, F_i the
    positives and negatives that score at least as high as i. So a positive k has (p_k - AP) + sum
    of F_i / (T_i + F_i)^2 over the positives i that score at most as high, and a negative minus the
    sum of T_i / (T_i + F_i)^2: the infinitesimal jackknife (Efron 1982).

    Args:
        inside: scores (N,) of positives, which are to score higher.
        outside: scores (M,) of negatives.

    Returns:
        (N,) for positives and (M,) for negatives; each has mean 0 over both kinds together.

    >>> above, below = precision_influence(np.array([3.0, 1.0]), np.array([2.0]))
    >>> above.round(3).tolist(), below.round(3).tolist()
    ([0.278, -0.056], [-0.111])
    """
    count = len(inside)
    order = np.argsort(-inside, kind="stable")
    falling = -inside[order]
    true = np.searchsorted(falling, falling, side="right").astype(np.float64)
    false = np.searchsorted(np.sort(-outside), falling, side="right").astype(np.float64)
    accepted = true + false
    precision = true / accepted
    # Sums over positives that score at most as high: from a position to the end.
    gained, lost = (_from_here(part / accepted**2) for part in (false, true))
    first = np.searchsorted(falling, falling, side="left")
    above = np.empty(count)
    above[order] = precision - precision.mean() + gained[first]
    below = -lost[np.searchsorted(falling, -outside, side="left")] * len(outside) / count
    return above, below


def _from_here(values: np.ndarray) -> np.ndarray:
    """Return sums of values (N,) from each position to the end (N + 1,)."""
    return np.concatenate([np.cumsum(values[::-1])[::-1], [0.0]])
