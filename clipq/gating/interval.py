"""Non-inferiority by paired confidence intervals.

Pass: the loss is surely below the margin. Fail: surely above it, corrected for the number of cases.
Otherwise the samples cannot tell, and the verdict says how many could. "Surely" is an error rate of
alpha / 2 on each side. A pass needs no correction: a gate passes only if every case does, so it
passes wrongly no more often than its worst case does (Berger 1982, intersection-union).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from clipq.evaluation.resampling import Resampler, resolution
from clipq.gating.verdict import Evidence, Judgement, judge_point, unusable
from clipq.records import Verdict
from clipq.settings import StatisticsSettings
from clipq.stats import (
    Discordance,
    Interval,
    count_discordant,
    normal_interval,
    samples_needed,
    score_interval,
    score_z,
    single_step,
    standard_error,
)

__all__ = ["Estimate", "IntervalJudge", "discordance"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Standard error and interval of a paired loss; p-value of "it is at most the margin"."""

    standard_error: float
    interval: Interval
    p_value: float


class IntervalJudge:
    """Judges the paired loss of one case.

    Args:
        settings: error rates, correction and noise factor.
        resampler: where replicates come from.
        cases: number of cases in the run, for the correction.
    """

    def __init__(
        self, settings: StatisticsSettings, resampler: Resampler, *, cases: int = 1
    ) -> None:
        self.settings = settings
        self.resampler = resampler
        self._fails_at = single_step(settings.tail, cases, correction=settings.correction)

    def __call__(self, evidence: Evidence) -> Judgement:
        """Return the verdict on one case.

        Raises:
            StatisticsError: the tables are not paired, too small, or FP32 separates nothing.
        """
        metric = evidence.metric
        if metric.reference == "absolute" or _is_point(evidence):
            return judge_point(evidence)
        blocked = unusable(evidence)
        if blocked is not None:
            return blocked
        self.resampler.check(evidence.baseline_sample, evidence.observed_sample, metric)
        noise = self.settings.noise_factor * evidence.noise
        drowned = noise > abs(evidence.margin)  # a negative margin demands an improvement
        margin = noise if drowned else evidence.margin
        loss = metric.loss(evidence.baseline or 0.0, evidence.observed)
        found = self.estimate(evidence, loss, margin=margin)
        verdict = self._verdict(found, margin)
        needed = None
        if verdict is Verdict.INCONCLUSIVE:
            needed = samples_needed(
                len(evidence.observed_sample.predictions),
                found.standard_error,
                margin - loss,
                tail=self.settings.tail if loss < margin else self._fails_at,
                power=self.settings.power,
            )
        return Judgement(
            verdict,
            loss,
            _noise_reason(evidence.margin, noise) if drowned else "",
            margin=margin,
            low=found.interval.low,
            high=found.interval.high,
            p_value=found.p_value,
            standard_error=found.standard_error,
            samples_needed=needed,
        )

    def _verdict(self, found: Estimate, margin: float) -> Verdict:
        if found.p_value <= self._fails_at:
            return Verdict.FAIL
        if not found.interval.high < margin:
            return Verdict.INCONCLUSIVE
        return Verdict.IMPROVED if found.interval.high < -margin else Verdict.PASS

    def estimate(self, evidence: Evidence, loss: float, *, margin: float) -> Estimate:
        """Return how well the loss is known, and how surely it exceeds a margin.

        Shares of independent samples use the score test of paired proportions, which keeps its
        level with few discordant samples; everything else the paired bootstrap.
        """
        level = 1.0 - self.settings.alpha
        counts = discordance(evidence)
        if counts is not None:
            bounded = min(max(margin, -1.0), 1.0)
            p_value = float(ndtr(-score_z(counts, bounded)))
            # Two imagined samples, one changed each way, as in `standard_error`.
            spread = counts.worse + counts.better + 2 - counts.samples * counts.drop**2
            error = math.sqrt(spread) / counts.samples
            return Estimate(error, score_interval(counts, level=level), p_value)
        metric = evidence.metric
        replicates = metric.loss(
            self.resampler.replicates(metric, evidence.baseline_sample),
            self.resampler.replicates(metric, evidence.observed_sample),
        )
        worth = resolution(metric, evidence.observed_sample)
        error = standard_error(replicates, resolution=worth)
        interval = normal_interval(loss, error, level=level)
        p_value = float(ndtr((margin - loss) / error)) if error else float(loss <= margin)
        return Estimate(error, interval, p_value)


def discordance(evidence: Evidence) -> Discordance | None:
    """Return how many samples changed, for a share of independent samples; None for others."""
    statistic = evidence.metric.statistic
    table = evidence.observed_sample.predictions
    if statistic is None or statistic.kind != "share" or "cluster" in table.columns:
        return None
    below = [
        np.asarray(sample.predictions.samples(statistic.columns[0]) < statistic.below)
        for sample in (evidence.baseline_sample, evidence.observed_sample)
    ]
    if evidence.metric.direction == "lower":
        below = [~outcome for outcome in below]
    return count_discordant(*below)


def _is_point(evidence: Evidence) -> bool:
    statistic = evidence.metric.statistic
    return statistic is not None and statistic.kind == "point"


def _noise_reason(margin: float, noise: float) -> str:
    return f"FP32's own noise exceeds the margin {margin:g}: {noise:.2g} is applied instead"
