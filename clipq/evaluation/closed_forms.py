"""Losses whose sampling error follows from one number per sample: nothing need be resampled.

Means, shares of clustered samples and gaps between means are sums over samples; an AUROC is one to
first order (DeLong et al. 1988), and so is an average precision (its infinitesimal jackknife). The
variance over all bootstrap replicates is then known, and so is the skewness. No draw is involved,
so no seed moves a verdict.
"""

from __future__ import annotations

import numpy as np

from clipq.evaluation.resampling import Tables
from clipq.metrics import Metric, Statistic
from clipq.stats import (
    SamplingError,
    finite_column,
    linear_error,
    linked_error,
    placements,
    precision_influence,
)

__all__ = ["auroc_error", "closed_form", "mean_error"]

_MEANS = ("mean", "mean-share", "mean-gap", "share")
_RANKINGS = {"auroc": placements, "aupr": precision_influence, "aupr-out": precision_influence}
_SURELY_SIGNED = 4.0


def closed_form(metric: Metric, baseline: Tables, observed: Tables) -> SamplingError | None:
    """Return the sampling error of a paired loss; None where it must be resampled.

    A metric that is best at zero is linear only where both values are surely on one side of it:
    four standard errors away.

    Raises:
        StatisticsError: a column holds no finite numbers.

    >>> from clipq.metrics import Predictions, metrics
    >>> fp32, ours = (Tables(*[Predictions({"nll": np.array(values)})] * 2)
    ...               for values in ([0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 2.0, 4.0]))
    >>> found = closed_form(metrics.get("nll"), fp32, ours)
    >>> round(found.standard_error, 4)  # of the mean of 1, 0, 0, 1
    0.2887
    """
    statistic = metric.statistic
    if statistic is None:
        return None
    if statistic.kind in _RANKINGS:
        return _ranked(statistic, baseline, observed)
    if statistic.kind not in _MEANS:
        return None
    before, after = (_values(statistic, tables) for tables in (baseline, observed))
    if metric.direction == "zero":
        signs = [_sign(values, observed) for values in (before, after)]
        if not all(signs):
            return None
        before, after = (sign * values for sign, values in zip(signs, (before, after), strict=True))
    worse = before - after if metric.direction == "higher" else after - before
    return mean_error(worse, observed)


def mean_error(values: np.ndarray, tables: Tables) -> SamplingError:
    """Return the error of the mean of values (N,) of a probe, drawn by cluster and stratum.

    >>> from clipq.metrics import Predictions
    >>> table = Predictions({"cluster": np.repeat(["patient=1", "patient=2"], 2)})
    >>> mean_error(np.array([0.0, 1.0, 2.0, 5.0]), Tables(table, table)).standard_error
    1.5
    """
    codes, strata = tables.clusters[0], tables.predictions.columns.get("stratum")
    if strata is None:
        return linear_error([(values, codes)])
    # The mean over all is a sum of strata's means, each with its stratum's share.
    parts = []
    for own in (strata == name for name in np.unique(strata)):
        within = None if codes is None else np.unique(codes[own], return_inverse=True)[1]
        parts.append((values[own] * own.mean(), within))
    return linear_error(parts)


def _values(statistic: Statistic, tables: Tables) -> np.ndarray:
    columns = [finite_column(tables.predictions.samples(n), n) for n in statistic.columns]
    if statistic.kind == "share":
        return np.asarray(columns[0] < statistic.below, np.float64)
    return np.asarray(np.subtract(*columns)) if statistic.kind == "mean-gap" else columns[0]


def _sign(values: np.ndarray, tables: Tables) -> int:
    """Return the side of zero on which the mean surely lies; 0 where that is not sure."""
    mean = float(values.mean())
    sure = abs(mean) > _SURELY_SIGNED * mean_error(values, tables).standard_error
    return (1 if mean > 0.0 else -1) if sure else 0


def _ranked(statistic: Statistic, baseline: Tables, observed: Tables) -> SamplingError:
    before, after = (_influence(statistic, tables) for tables in (baseline, observed))
    return _two_sided((before[0] - after[0], before[1] - after[1]), observed)


def auroc_error(
    scores: tuple[np.ndarray, np.ndarray], tables: Tables
) -> tuple[float, SamplingError]:
    """Return an AUROC and its sampling error, by clusters on both sides (Obuchowski 1997).

    Args:
        scores: of the samples in distribution (N,), which are to score higher, and outside (M,).
        tables: whose clusters count.

    >>> from clipq.metrics import Predictions
    >>> known, other = Predictions({"x": np.zeros(4)}), Predictions({"x": np.zeros(2)})
    >>> scores = np.array([3.0, 2.0, 2.0, 1.0]), np.array([0.0, 2.0])
    >>> value, error = auroc_error(scores, Tables(other, known))
    >>> value, round(error.standard_error, 4)
    (0.75, 0.27)
    """
    sides = placements(*(finite_column(side, "scores") for side in scores))
    return float(sides[0].mean()), _two_sided(sides, tables)


def _two_sided(parts: tuple[np.ndarray, np.ndarray], tables: Tables) -> SamplingError:
    """Return the error of a sum of means, in distribution (N,) and outside (M,)."""
    if tables.linked is not None:
        return linked_error(*zip(parts, tables.linked, strict=True))
    outside, inside = tables.clusters
    return linear_error([(parts[0], inside), (parts[1], outside)])


def _influence(statistic: Statistic, tables: Tables) -> tuple[np.ndarray, np.ndarray]:
    """Return what each sample adds, in distribution (N,) and outside (M,)."""
    name = statistic.columns[0]
    inside, outside = (
        finite_column(table.column(name), name)
        for table in (tables.in_distribution, tables.predictions)
    )
    if statistic.kind == "aupr-out":  # the other class is positive: turned scores
        outside, inside = precision_influence(-outside, -inside)
        return inside, outside
    return _RANKINGS[statistic.kind](inside, outside)
