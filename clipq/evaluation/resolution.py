"""What one sample is worth in a metric: no change among N samples is not certainty."""

from __future__ import annotations

import math

import numpy as np

from clipq.evaluation.resampling import Tables
from clipq.metrics import Metric, Statistic
from clipq.metrics.calibration import BINS
from clipq.statistic_kinds import KINDS
from clipq.stats import (
    bin_resolution,
    changing_share,
    group_resolution,
    placements,
    skewness_resolution,
)

__all__ = ["resolution"]

_OVER_ALL = ("auroc", "aupr", "aupr-out")


def resolution(metric: Metric, tables: Tables, baseline: Tables | None = None) -> float:
    """Return what one sample is worth in a metric that counts samples, in its unit.

    1 / N for shares, means of shares and ECE, and for FPR95 with N the smaller kind of samples; 1
    over all samples for areas, where one sample moves only its own place; what one sample of each
    group that decides a statistic of groups moves it (`clipq.stats.group_resolution`); more for ACE
    and MCE, where the fullness of the bins decides (`clipq.stats.bin_resolution`); what another
    sample in the place of one is worth in a skewness; 0 for means of continuous columns, which do
    not move in steps.

    Where samples come in clusters, N counts those, and what changes is the share of a cluster that
    is seen to change together (`clipq.stats.changing_share`); of areas, by how much of the other
    side its samples' places move.

    Args:
        metric: which.
        tables: of the model that is judged.
        baseline: FP32's; without them a cluster is taken to change as a whole.

    >>> from clipq.metrics import Predictions, metrics
    >>> table = Predictions({"rank": np.zeros(200), "nll": np.ones(200)})
    >>> [resolution(metrics.get(name), Tables(table, table)) for name in ("top1", "nll")]
    [0.005, 0.0]
    """
    statistic = metric.statistic
    if statistic is None or not KINDS[statistic.kind].counts:
        return 0.0
    kind, table, units = KINDS[statistic.kind], tables.predictions, tables.units
    share = _together(statistic, tables, baseline)
    if kind.family == "groups":
        return group_resolution(
            statistic.kind,
            dict(zip(kind.columns, map(table.samples, statistic.columns), strict=True)),
            table.samples("group"),
            bins=BINS,
            clusters=tables.clusters[0],
            together=share,
        )
    if statistic.kind in _OVER_ALL:
        size = len(table) + len(tables.in_distribution)
        return max(_moved_together(statistic, tables, baseline) / sum(units), 1.0 / size)
    # As if there were as many samples fewer as change together.
    fewer = max(1.0, share * math.sqrt(len(table) / units[0]))
    if statistic.kind in ("ace", "mce"):
        return fewer * bin_resolution(table.samples(statistic.columns[0]), bins=BINS)
    if statistic.kind == "skewness":
        return fewer * skewness_resolution(table.samples(statistic.columns[0]))
    return share / (min(units) if metric.needs_id else units[0])


def _together(statistic: Statistic, tables: Tables, baseline: Tables | None) -> float:
    """Return which share of a cluster changes together; 1 where samples are independent."""
    codes, columns = tables.clusters[0], KINDS[statistic.kind].columns
    if codes is None or baseline is None:
        return 1.0
    if "correct" in columns:
        name = statistic.columns[columns.index("correct")]
    elif statistic.kind in ("share", "mean-share"):
        name = statistic.columns[0]
    else:
        return 1.0
    before, after = (
        values < statistic.below if statistic.below is not None else values
        for values in (t.predictions.samples(name).astype(np.float64) for t in (baseline, tables))
    )
    return changing_share(np.abs(after * 1.0 - before * 1.0), codes)


def _moved_together(statistic: Statistic, tables: Tables, baseline: Tables | None) -> float:
    """Return how far the places of a cluster's samples move together; 1 without clusters."""
    if baseline is None or all(codes is None for codes in tables.clusters):
        return 1.0
    name = statistic.columns[0]
    before, after = (
        placements(one.in_distribution.column(name), one.predictions.column(name))
        for one in (baseline, tables)
    )
    sides = zip(before, after, reversed(tables.clusters), strict=True)
    return max(
        changing_share(np.abs(last - first), codes)
        for first, last, codes in sides
        if codes is not None
    )
