"""Non-inferiority by paired confidence intervals: what one case's samples say of its loss."""

from __future__ import annotations

from dataclasses import replace

from clipq.evaluation.resampling import Resampler
from clipq.gating.decision import verdict_of
from clipq.gating.loss_estimator import LossEstimator
from clipq.gating.verdict import Evidence, Judgement, judge_point, unusable
from clipq.settings import StatisticsSettings

__all__ = ["IntervalJudge"]


class IntervalJudge:
    """Estimates the paired loss of one case, and judges it as if it were alone.

    What a case means among the others of its candidate is `clipq.gating.decision`'s to say.

    Args:
        settings: error rates and noise factor.
        resampler: where replicates come from.

    >>> from clipq.evaluation.resampling import Tables
    >>> from clipq.metrics import Predictions, metrics
    >>> def tables(right):  # of 200 samples
    ...     columns = {"id": np.arange(200), "rank": np.repeat([0, 1], [right, 200 - right])}
    ...     return Tables(*[Predictions(columns)] * 2)
    >>> settings, fp32, observed = StatisticsSettings(), tables(190), tables(185)
    >>> judge = IntervalJudge(settings, Resampler(settings))
    >>> [judge(Evidence(metrics.get("top1"), 0.95, 0.925, margin, fp32, observed)).verdict.value
    ...  for margin in (0.1, 0.03, 0.015, 0.001)]
    ['pass', 'inconclusive', 'suspect', 'fail']
    """

    def __init__(self, settings: StatisticsSettings, resampler: Resampler) -> None:
        self.settings = settings
        self.resampler = resampler
        self.estimator = LossEstimator(settings, resampler)

    def __call__(self, evidence: Evidence) -> Judgement:
        """Return the estimate of one case, with the verdict that it would have alone.

        Raises:
            StatisticsError: the tables are not paired, too small, or FP32 separates nothing.
        """
        metric = evidence.metric
        if metric.judged_by == "limit" or _is_point(evidence):
            return judge_point(evidence)
        blocked = unusable(evidence)
        if blocked is not None:
            return blocked
        self.resampler.check(evidence.baseline_tables, evidence.observed_tables, metric)
        noise = self.settings.noise_factor * evidence.noise
        drowned = noise > abs(evidence.margin)  # a negative margin demands an improvement
        margin = noise if drowned else evidence.margin
        loss = metric.loss(evidence.baseline or 0.0, evidence.observed)
        estimate = self.estimator(evidence, loss, margin=margin)
        estimate = replace(estimate, adjusted_p=estimate.p_value)
        verdict = verdict_of(estimate, self.settings)
        if not drowned:
            return Judgement(verdict, estimate=estimate)
        return Judgement(verdict, _noise_reason(evidence.margin, noise), estimate, noise=noise)


def _is_point(evidence: Evidence) -> bool:
    statistic = evidence.metric.statistic
    return statistic is not None and statistic.kind == "point"


def _noise_reason(margin: float, noise: float) -> str:
    return f"FP32's own noise exceeds the margin {margin:g}: {noise:.2g} is applied instead"
