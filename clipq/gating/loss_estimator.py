"""How much worse than FP32, and how surely: the paired loss of one case with its uncertainty."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from scipy.special import ndtr

from clipq.estimate import Estimate
from clipq.evaluation.resampling import Resampler, resolution
from clipq.gating.loss_offset import calibration_offset, temperature_error
from clipq.gating.point_estimator import error_known, point_estimate
from clipq.gating.verdict import Evidence
from clipq.settings import StatisticsSettings
from clipq.stats import (
    Discordance,
    Interval,
    count_discordant,
    normal_interval,
    score_interval,
    score_z,
    standard_error,
)

__all__ = ["LossEstimator", "discordance"]


class LossEstimator:
    """Estimates paired losses: intervals at the settings' level, p-values at a margin.

    Args:
        settings: error rates.
        resampler: where replicates come from.

    >>> from clipq.evaluation.resampling import Tables
    >>> from clipq.metrics import Predictions, metrics
    >>> fp32, ours = (Tables(*[Predictions({"rank": np.repeat([0, 1], [right, 200 - right])})] * 2)
    ...               for right in (190, 180))
    >>> evidence = Evidence(metrics.get("top1"), 0.95, 0.9, 0.02, fp32, ours)
    >>> found = LossEstimator(StatisticsSettings(), Resampler(StatisticsSettings()))(
    ...     evidence, 0.05, margin=0.02)
    >>> round(found.low, 3), round(found.high, 3), round(found.p_value, 3)
    (0.027, 0.09, 0.003)
    """

    def __init__(self, settings: StatisticsSettings, resampler: Resampler) -> None:
        self.settings = settings
        self.resampler = resampler

    def __call__(self, evidence: Evidence, loss: float, *, margin: float) -> Estimate:
        """Return how well a loss is known, and how surely it exceeds a margin.

        Shares of independent samples use the score test of paired proportions, which keeps its
        level with few discordant samples; everything else the paired bootstrap.
        """
        level = 1.0 - self.settings.alpha
        if error_known(evidence):
            return point_estimate(evidence, loss, margin=margin, level=level)
        counts = discordance(evidence)
        if counts is not None:
            bounded = min(max(margin, -1.0), 1.0)
            p_value = float(ndtr(-score_z(counts, bounded)))
            # Two imagined samples, one changed each way, as in `standard_error`.
            spread = counts.worse + counts.better + 2 - counts.samples * counts.drop**2
            error = math.sqrt(spread) / counts.samples
            return _estimate(loss, error, score_interval(counts, level=level), p_value, margin)
        metric = evidence.metric
        replicates = metric.loss(
            self.resampler.replicates(metric, evidence.baseline_tables),
            self.resampler.replicates(metric, evidence.observed_tables),
        )
        worth = resolution(metric, evidence.observed_tables)
        error = standard_error(replicates, resolution=worth)
        error = math.hypot(error, temperature_error(evidence))
        offset = calibration_offset(evidence)
        # What holds for the loss at this number of samples and for the population's is sure.
        low, high = sorted((loss, loss - (offset or 0.0)))
        reach = normal_interval(0.0, error, level=level)
        interval = Interval(low + reach.low, high + reach.high, level)
        p_value = float(ndtr((margin - low) / error)) if error else float(low <= margin)
        return replace(_estimate(loss, error, interval, p_value, margin), offset=offset)


def _estimate(
    loss: float, error: float, interval: Interval, p_value: float, margin: float
) -> Estimate:
    return Estimate(
        loss=loss,
        low=interval.low,
        high=interval.high,
        p_value=p_value,
        standard_error=error,
        margin=margin,
    )


def discordance(evidence: Evidence) -> Discordance | None:
    """Return how many samples changed, for a share of independent samples; None for others.

    >>> from clipq.evaluation.resampling import Tables
    >>> from clipq.metrics import Predictions, metrics
    >>> fp32, ours = (Tables(*[Predictions({"rank": np.array(ranks)})] * 2)
    ...               for ranks in ([0, 0, 0, 1], [0, 2, 1, 0]))
    >>> discordance(Evidence(metrics.get("top1"), 0.75, 0.5, 0.01, fp32, ours))
    Discordance(worse=2, better=1, samples=4)
    """
    statistic = evidence.metric.statistic
    table = evidence.observed_tables.predictions
    if statistic is None or statistic.kind != "share" or "cluster" in table.columns:
        return None
    below = [
        np.asarray(tables.predictions.samples(statistic.columns[0]) < statistic.below)
        for tables in (evidence.baseline_tables, evidence.observed_tables)
    ]
    if evidence.metric.direction == "lower":
        below = [~outcome for outcome in below]
    return count_discordant(*below)
