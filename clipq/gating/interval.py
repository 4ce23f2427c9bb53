"""Non-inferiority by paired confidence intervals.

Pass: the loss is surely below the margin. Fail: surely above it, corrected for the number of cases.
Otherwise the samples cannot tell, and the verdict says how many could. "Surely" is an error rate of
alpha / 2 on each side. A pass needs no correction: a gate passes only if every case does, so it
passes wrongly no more often than its worst case does (Berger 1982, intersection-union).
"""

from __future__ import annotations

import math
from dataclasses import replace

from clipq.estimate import Estimate
from clipq.evaluation.resampling import Resampler
from clipq.gating.loss_estimator import LossEstimator
from clipq.gating.point_estimator import error_known, samples_behind
from clipq.gating.verdict import Evidence, Judgement, judge_point, unusable
from clipq.records import Verdict
from clipq.settings import StatisticsSettings
from clipq.stats import minimum_detectable_effect, samples_needed, single_step

__all__ = ["IntervalJudge"]


class IntervalJudge:
    """Judges the paired loss of one case.

    Args:
        settings: error rates, correction and noise factor.
        resampler: where replicates come from.
        cases: number of cases in the run, for the correction.

    >>> from clipq.evaluation.resampling import Tables
    >>> from clipq.metrics import Predictions, metrics
    >>> def tables(right):  # of 200 samples
    ...     columns = {"id": np.arange(200), "rank": np.repeat([0, 1], [right, 200 - right])}
    ...     return Tables(*[Predictions(columns)] * 2)
    >>> settings, fp32, observed = StatisticsSettings(), tables(190), tables(185)
    >>> judge = IntervalJudge(settings, Resampler(settings))
    >>> [judge(Evidence(metrics.get("top1"), 0.95, 0.925, margin, fp32, observed)).verdict.value
    ...  for margin in (0.1, 0.03, 0.001)]
    ['pass', 'inconclusive', 'fail']
    """

    def __init__(
        self, settings: StatisticsSettings, resampler: Resampler, *, cases: int = 1
    ) -> None:
        self.settings = settings
        self.resampler = resampler
        self.estimator = LossEstimator(settings, resampler)
        self._fails_at = single_step(settings.tail, cases, correction=settings.correction)

    def __call__(self, evidence: Evidence) -> Judgement:
        """Return the verdict on one case.

        Raises:
            StatisticsError: the tables are not paired, too small, or FP32 separates nothing.
        """
        metric = evidence.metric
        if (metric.judged_by == "limit" or _is_point(evidence)) and not error_known(evidence):
            return judge_point(evidence)
        blocked = unusable(evidence)
        if blocked is not None:
            return blocked
        self.resampler.check(evidence.baseline_tables, evidence.observed_tables, metric)
        if metric.judged_by == "limit":
            return self._against_limit(evidence)
        noise = self.settings.noise_factor * evidence.noise
        drowned = noise > abs(evidence.margin)  # a negative margin demands an improvement
        margin = noise if drowned else evidence.margin
        loss = metric.loss(evidence.baseline or 0.0, evidence.observed)
        estimate = self.estimator(evidence, loss, margin=margin)
        verdict = self._verdict(estimate, margin)
        if verdict is Verdict.INCONCLUSIVE:
            estimate = self._with_samples(evidence, estimate, margin - loss)
        if not drowned:
            return Judgement(verdict, _split_reason(evidence, verdict), estimate)
        return Judgement(verdict, _noise_reason(evidence.margin, noise), estimate, noise=noise)

    def _against_limit(self, evidence: Evidence) -> Judgement:
        """Return the verdict on a value that may not be worse than its limit, FP32's aside."""
        metric, limit = evidence.metric, evidence.margin
        loss = metric.loss(limit, evidence.observed)
        estimate = self.estimator(evidence, loss, margin=0.0)
        verdict = self._verdict(estimate, 0.0)
        if verdict is Verdict.IMPROVED:  # nothing is better than a limit by more than a margin
            verdict = Verdict.PASS
        if verdict is Verdict.INCONCLUSIVE:
            estimate = self._with_samples(evidence, estimate, -loss)
        reason = "" if verdict is Verdict.PASS else f"the limit is {limit:g} {metric.unit}"
        return Judgement(verdict, reason, replace(estimate, margin=limit))

    def _with_samples(self, evidence: Evidence, estimate: Estimate, distance: float) -> Estimate:
        """Return an estimate with how many samples decide a loss so far from the margin."""
        point, error = error_known(evidence), estimate.standard_error or 0.0
        samples = samples_behind(evidence) if point else len(evidence.observed_tables.predictions)
        if not math.isfinite(error):
            return estimate
        tail = self.settings.tail if distance > 0 else self._fails_at
        power = self.settings.power
        # An offset against the decision falls with the root of the number of samples, as errors do.
        against = max(0.0, -(estimate.offset or 0.0) if distance > 0 else estimate.offset or 0.0)
        error += against / minimum_detectable_effect(1.0, tail=tail, power=power)
        needed = samples_needed(samples, error, distance, tail=tail, power=power)
        return replace(estimate, samples_needed=needed)

    def _verdict(self, estimate: Estimate, margin: float) -> Verdict:
        # NaN is beyond every bound: it neither fails nor passes.
        p_value, high = estimate.p_value, estimate.high
        if p_value is not None and p_value <= self._fails_at:
            return Verdict.FAIL
        if high is None or not high < margin:
            return Verdict.INCONCLUSIVE
        return Verdict.IMPROVED if high < -margin else Verdict.PASS


def _is_point(evidence: Evidence) -> bool:
    statistic = evidence.metric.statistic
    return statistic is not None and statistic.kind == "point"


def _split_reason(evidence: Evidence, verdict: Verdict) -> str:
    """Return which samples cannot tell, where they are not the probe's."""
    if verdict is not Verdict.INCONCLUSIVE or not error_known(evidence):
        return ""
    samples = samples_behind(evidence)
    if samples == len(evidence.observed_tables.predictions):
        return ""
    return f"what counts are the {samples:,} calibration samples that temperatures are fitted on"


def _noise_reason(margin: float, noise: float) -> str:
    return f"FP32's own noise exceeds the margin {margin:g}: {noise:.2g} is applied instead"
