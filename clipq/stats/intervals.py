"""Confidence intervals from replicates: percentiles, plain and corrected.

Verdicts use `clipq.stats.SamplingError`, centred on the estimate; these are here to be compared
with it. benchmarks/error_rates.py does, and docs/statistics.md shows the outcome. In short: for
means and areas all three cover alike; for the calibration errors, which are sums and maxima of
absolute values, percentile and BCa intervals are shifted by the bias that resampling adds a second
time, and miss by up to 15 points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from clipq.errors import StatisticsError

__all__ = [
    "Interval",
    "bca_interval",
    "check_level",
    "percentile_interval",
]


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided confidence interval; `level` is its nominal coverage, for example 0.95.

    >>> Interval(low=0.01, high=0.03, level=0.95).high < 0.05  # the margin: this loss passes
    True
    """

    low: float
    high: float
    level: float


def percentile_interval(replicates: np.ndarray, *, level: float) -> Interval:
    """Return the replicates' quantiles (Efron 1979).

    >>> found = percentile_interval(np.arange(101.0), level=0.9)
    >>> round(found.low, 6), round(found.high, 6)
    (5.0, 95.0)
    """
    check_level(level)
    low, high = np.quantile(_finite(replicates), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level)


def bca_interval(
    estimate: float, replicates: np.ndarray, jackknife: np.ndarray, *, level: float
) -> Interval:
    """Return the bias-corrected and accelerated interval (Efron 1987).

    Args:
        estimate: the statistic of the sample itself.
        replicates: the statistic of bootstrap replicates (R,).
        jackknife: the statistic with each group of samples left out (G,); gives the acceleration
            a = sum d^3 / (6 (sum d^2)^1.5), d = mean - value.
        level: nominal coverage.

    >>> found = bca_interval(50.0, np.arange(101.0), np.array([-1.0, 0.0, 1.0]), level=0.9)
    >>> round(found.low, 6), round(found.high, 6)  # without bias and skewness: the percentiles
    (5.0, 95.0)
    """
    check_level(level)
    values = np.sort(_finite(replicates))
    below = (values < estimate).mean() + 0.5 * (values == estimate).mean()
    bias = ndtri(np.clip(below, 1 / (2 * len(values)), 1 - 1 / (2 * len(values))))
    left_out = _finite(jackknife)
    away = left_out.mean() - left_out
    spread = (away**2).sum()
    acceleration = 0.0 if spread == 0 else (away**3).sum() / (6 * spread**1.5)
    at = bias + ndtri([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(values, ndtr(bias + at / (1 - acceleration * at)))
    return Interval(float(low), float(high), level)


def check_level(level: float) -> None:
    """Refuse a level that is no probability.

    Raises:
        StatisticsError: it does not lie between 0 and 1, both excluded.

    >>> check_level(95)
    Traceback (most recent call last):
    clipq.errors.StatisticsError: a level of 95
      fix: levels and powers lie between 0 and 1, for example 0.95
    """
    if not 0.0 < level < 1.0:
        raise StatisticsError(
            f"a level of {level}", hint="levels and powers lie between 0 and 1, for example 0.95"
        )


def _finite(replicates: np.ndarray) -> np.ndarray:
    values = np.asarray(replicates, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise StatisticsError(
            f"replicates of shape {values.shape} with "
            f"{int((~np.isfinite(values)).sum())} that are NaN or infinite",
            hint="give at least two finite replicates (R,)",
        )
    return values
