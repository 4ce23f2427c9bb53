"""The sampling error of a sum over samples, from its moments: nothing is drawn, nothing is random.

For a mean, the variance over all bootstrap replicates is known in closed form: drawing them only
adds noise. The same holds for whatever is a sum of one number per sample to first order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from clipq.stats.clusters import effective_units
from clipq.stats.sampling_error import SamplingError

__all__ = ["linear_error", "linked_error"]

_ROUNDING = 1e-14


def linear_error(strata: Iterable[tuple[np.ndarray, np.ndarray | None]]) -> SamplingError:
    """Return the sampling error of the sum, over strata, of the mean of one number per sample.

    In a stratum of G clusters with sums e_g of (d_i - mean) / N, the variance is
    G / (G - 1) sum e_g^2 and the third cumulant sum e_g^3; strata add. Independent samples are
    clusters of one. Degrees of freedom are G - 1, over several strata Satterthwaite's (1946); G
    counts clusters of unequal size as `effective_units` does.

    Args:
        strata: numbers (N,) and clusters (N,), as `cluster_codes` returns them, of each stratum.

    >>> found = linear_error([(np.array([0.0, 1.0, 2.0, 5.0]), None)])
    >>> round(found.standard_error, 4), round(found.skewness, 4), found.freedom
    (1.0801, 0.2232, 3.0)
    >>> pairs = np.array([0, 0, 1, 1])  # two clusters, with means 1/2 and 7/2
    >>> linear_error([(np.array([0.0, 1.0, 2.0, 5.0]), pairs)]).standard_error
    1.5
    """
    variances, thirds, freedoms, rounding = [], [], [], 0.0
    for values, codes in strata:
        parts = (values - values.mean()) / len(values)
        if codes is not None:
            parts = np.bincount(codes, parts)
        rounding = max(rounding, _ROUNDING * float(np.abs(values).max()))
        squares = parts * parts
        count = len(parts)
        variances.append(float(squares.sum()) * count / max(count - 1, 1))
        thirds.append(float(squares @ parts))
        freedoms.append(max(effective_units(codes, len(values)) - 1.0, 1.0))
    variance = sum(variances)
    if variance <= rounding**2:  # equal numbers differ from their mean by rounding
        return SamplingError(0.0, freedom=min(freedoms))
    error = math.sqrt(variance)
    weights = sum(v * v / f for v, f in zip(variances, freedoms, strict=True))
    freedom = variance * variance / weights if weights > 0.0 else min(freedoms)
    return SamplingError(error, skewness=sum(thirds) / error**3, freedom=freedom)


def linked_error(
    inside: tuple[np.ndarray, np.ndarray], outside: tuple[np.ndarray, np.ndarray]
) -> SamplingError:
    """Return the sampling error of the sum of two means, of samples that share clusters.

    To the variance of either mean, as of `linear_error`, twice their covariance is added,
    G / (G - 1) sum e_g f_g over the clusters with samples on both sides, G counting those on either
    (Obuchowski 1997, of clustered ROC curves). Degrees of freedom are those of the side that has
    fewer clusters.

    Args:
        inside: numbers (N,) and clusters (N,), numbered over both sides.
        outside: numbers (M,) and clusters (M,).

    >>> values, codes = np.array([0.0, 1.0, 2.0, 5.0]), np.arange(4)
    >>> linked_error((values, codes), (-values, codes)).standard_error  # what one gains, one loses
    0.0
    >>> apart = linked_error((values, codes), (values, codes + 4)).standard_error
    >>> together = linked_error((values, codes), (values, codes)).standard_error
    >>> round(apart / linear_error([(values, None)]).standard_error, 4), round(together / apart, 4)
    (1.4142, 1.4142)
    """
    count = 1 + max(int(inside[1].max()), int(outside[1].max()))
    parts = [
        np.bincount(codes, (values - values.mean()) / len(values), minlength=count)
        for values, codes in (inside, outside)
    ]
    total = len(np.union1d(inside[1], outside[1]))
    common = total / max(total - 1, 1)
    variance, freedoms = common * float(((parts[0] + parts[1]) ** 2).sum()), []
    for part, (values, codes) in zip(parts, (inside, outside), strict=True):
        own = np.asarray(np.unique(codes, return_inverse=True)[1])
        distinct = int(own.max()) + 1
        variance += (distinct / max(distinct - 1, 1) - common) * float(part @ part)
        freedoms.append(max(effective_units(own, len(values)) - 1.0, 1.0))
    freedom = min(freedoms)
    rounding = _ROUNDING * max(float(np.abs(values).max()) for values, _ in (inside, outside))
    if variance <= rounding**2:
        return SamplingError(0.0, freedom=freedom)
    error = math.sqrt(variance)
    third = float(((parts[0] + parts[1]) ** 3).sum())
    return SamplingError(error, skewness=third / error**3, freedom=freedom)
