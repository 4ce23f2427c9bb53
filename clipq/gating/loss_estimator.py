"""How much worse than FP32, and how surely: the paired loss of one case with its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from clipq.errors import StatisticsError
from clipq.estimate import Estimate
from clipq.evaluation.closed_forms import closed_form
from clipq.evaluation.resampling import Resampler
from clipq.evaluation.resolution import resolution
from clipq.gating.decision_lines import could_change
from clipq.gating.loss_offset import calibration_offset, temperature_error
from clipq.gating.point_estimator import error_known, point_estimate
from clipq.gating.verdict import Evidence
from clipq.settings import StatisticsSettings
from clipq.stats import (
    Discordance,
    Interval,
    SamplingError,
    count_discordant,
    discordance_p_value,
    score_interval,
)

__all__ = ["LossEstimator", "discordance"]

_STAGES = (1, 4, 16)
"""Times the settings' replicates: the next stage where the one before might mislead."""


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
    (0.027, 0.09, 0.012)
    """

    def __init__(self, settings: StatisticsSettings, resampler: Resampler) -> None:
        self.settings = settings
        self.resampler = resampler

    def __call__(self, evidence: Evidence, loss: float, *, margin: float) -> Estimate:
        """Return how well a loss is known, and how surely it exceeds a margin.

        Shares of independent samples use the score test of paired proportions, which keeps its
        level with few discordant samples. What is a sum over samples has its error in closed form.
        Everything else is resampled, more often where a few replicates might mislead.

        Raises:
            StatisticsError: a column holds no finite numbers, or some resamples have no value.
        """
        level = 1.0 - self.settings.alpha
        if error_known(evidence):
            return point_estimate(evidence, loss, margin=margin, level=level)
        counts = discordance(evidence)
        if counts is not None:
            bounded = min(max(margin, -1.0), 1.0)
            p_value = discordance_p_value(counts, bounded)
            # Two imagined samples, one changed each way, as in `SamplingError.widened`.
            spread = counts.worse + counts.better + 2 - counts.samples * counts.drop**2
            error = math.sqrt(spread) / counts.samples
            return _estimate(loss, error, score_interval(counts, level=level), p_value, margin)
        offset = calibration_offset(evidence)
        # What holds for the loss at this number of samples and for the population's is sure.
        ends = sorted((loss, loss - (offset or 0.0)))
        found = self._error(evidence, ends, margin)
        low, high = (found.interval(end, level=level) for end in ends)
        interval = Interval(low.low, high.high, level)
        p_value = found.p_value(ends[0], margin=margin)
        estimate = _estimate(loss, found.standard_error, interval, p_value, margin)
        return replace(estimate, offset=offset)

    def _error(self, evidence: Evidence, losses: Sequence[float], margin: float) -> SamplingError:
        metric, observed = evidence.metric, evidence.observed_tables
        worth = resolution(metric, observed, evidence.baseline_tables)
        known = closed_form(metric, evidence.baseline_tables, observed)
        if known is not None:
            return known.widened(worth)
        units = min(observed.units) if metric.needs_id else observed.units[0]
        fitted = temperature_error(evidence)
        drawn: list[np.ndarray] = []
        for stage in _STAGES:
            drawn += [self._piece(evidence, piece) for piece in range(len(drawn), stage)]
            error, blur = _spread(np.concatenate(drawn), units)
            error = error.widened(worth).beside(fitted)
            unsure = any(
                could_change(loss, error, margin=margin, blur=blur, settings=self.settings)
                for loss in losses
            )
            if not unsure or metric.statistic is None:
                break
        return error

    def _piece(self, evidence: Evidence, piece: int) -> np.ndarray:
        metric = evidence.metric
        tables = (evidence.baseline_tables, evidence.observed_tables)
        losses = metric.loss(*(self.resampler.replicates(metric, t, piece=piece) for t in tables))
        undefined = int((~np.isfinite(losses)).sum())
        if undefined:
            raise StatisticsError(
                f"metric {metric.name!r}: {undefined} of {len(losses)} resamples have no value",
                hint="a part of the probe that it divides by has too few samples, or too few right "
                "answers: give it more, or leave the metric out for this probe",
            )
        return losses


def _spread(losses: np.ndarray, units: float) -> tuple[SamplingError, float]:
    """Return the error that replicates (R,) show, and its own relative standard deviation."""
    centred = losses - losses.mean()
    variance, fourth = float((centred**2).mean()), float((centred**4).mean())
    if variance == 0.0:
        return SamplingError(0.0, freedom=units - 1.0), 0.0
    blur = math.sqrt(max(fourth / variance**2 - 1.0, 1.0) / (4.0 * len(losses)))
    # A resample of G clusters shows (G - 1) / G of the variance.
    error = math.sqrt(variance * units / (units - 1.0))
    return SamplingError(error, freedom=units - 1.0), blur


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
    if statistic is None or statistic.kind != "share":
        return None
    if evidence.observed_tables.clusters[0] is not None:
        return None
    below = [
        np.asarray(tables.predictions.samples(statistic.columns[0]) < statistic.below)
        for tables in (evidence.baseline_tables, evidence.observed_tables)
    ]
    if evidence.metric.direction == "lower":
        below = [~outcome for outcome in below]
    return count_discordant(*below)
