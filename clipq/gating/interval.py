"""Non-inferiority by paired confidence intervals: what one case's samples say of its loss."""

from __future__ import annotations

from dataclasses import replace

from clipq.cluster_names import cluster_column
from clipq.evaluation.resampling import Resampler
from clipq.gating.decision import verdict_of
from clipq.gating.loss_estimator import LossEstimator
from clipq.gating.point_estimator import error_known, error_lost, samples_behind
from clipq.gating.verdict import Evidence, Judgement, judge_point, unusable
from clipq.settings import StatisticsSettings
from clipq.verdicts import Verdict

__all__ = ["IntervalJudge"]


class IntervalJudge:
    """Estimates the paired loss of one case, and judges it as if it were alone.

    What a case means among the others of its candidate is `clipq.gating.decision`'s to say.

    Args:
        settings: error rates and noise factor.
        resampler: where replicates come from.

    >>> import numpy as np
    >>> from clipq.evaluation.resampling import Tables
    >>> from clipq.metrics import Predictions, metrics
    >>> def tables(right):  # of 200 samples
    ...     columns = {"id": np.arange(200), "rank": np.repeat([0, 1], [right, 200 - right])}
    ...     return Tables(*[Predictions(columns)] * 2)
    >>> settings, fp32, observed = StatisticsSettings(), tables(190), tables(185)
    >>> judge = IntervalJudge(settings, Resampler(settings))
    >>> [judge(Evidence(metrics.get("top1"), 0.95, 0.925, margin, fp32, observed)).verdict.value
    ...  for margin in (0.1, 0.03, 0.01, 0.001)]
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
        drowned = self._drowned(evidence)
        if drowned is not None:
            return drowned
        if (metric.judged_by == "limit" or _is_point(evidence)) and not error_known(evidence):
            return _without_error(evidence)
        blocked = unusable(evidence)
        if blocked is not None:
            return blocked
        self.resampler.check(evidence.baseline_tables, evidence.observed_tables, metric)
        if metric.judged_by == "limit":
            return self._against_limit(evidence)
        loss = metric.loss(evidence.baseline or 0.0, evidence.observed)
        estimate = self.estimator(evidence, loss, margin=evidence.margin)
        estimate = replace(estimate, adjusted_p=estimate.p_value)
        verdict = verdict_of(estimate, self.settings)
        samples = samples_behind(evidence) if error_known(evidence) else None
        reason = _split_reason(evidence, verdict, samples)
        return Judgement(verdict, reason, estimate, samples=samples)

    def _drowned(self, evidence: Evidence) -> Judgement | None:
        """Return the verdict where FP32's own noise exceeds the margin, which then decides nothing.

        An error, and no wider margin in its place: what may be lost is for a review to say.
        """
        noise = self.settings.noise_factor * evidence.noise
        if evidence.metric.judged_by == "limit" or noise <= abs(evidence.margin):
            return None  # a negative margin demands an improvement
        reason = (
            f"FP32's own noise, {evidence.noise:.2g}, times noise_factor "
            f"{self.settings.noise_factor:g} exceeds the margin {evidence.margin:g}: widen the "
            "margin in a review, or give the probe more samples and approve its baseline anew"
        )
        return Judgement(Verdict.ERROR, reason, noise=noise)

    def _against_limit(self, evidence: Evidence) -> Judgement:
        """Return the verdict on a value that may not be worse than its limit, FP32's aside."""
        metric, limit = evidence.metric, evidence.margin
        estimate = self.estimator(evidence, metric.loss(limit, evidence.observed), margin=0.0)
        estimate = replace(estimate, adjusted_p=estimate.p_value, margin=limit)
        verdict = verdict_of(estimate, self.settings, limit=True)
        reason = "" if verdict is Verdict.PASS else f"the limit is {limit:g} {metric.unit}"
        return Judgement(verdict, reason, estimate, samples=samples_behind(evidence))


def _without_error(evidence: Evidence) -> Judgement:
    """Compare a number as it stands; one whose error was looked for and not found cannot pass."""
    judged = judge_point(evidence)
    if not error_lost(evidence) or judged.verdict not in (Verdict.PASS, Verdict.IMPROVED):
        return judged
    reason = "its standard error is not known: without some samples it has no finite value"
    return replace(judged, verdict=Verdict.INCONCLUSIVE, reason=reason)


def _is_point(evidence: Evidence) -> bool:
    statistic = evidence.metric.statistic
    return statistic is not None and statistic.kind == "point"


def _split_reason(evidence: Evidence, verdict: Verdict, samples: int | None) -> str:
    """Return what counts, where it is not each of the probe's samples."""
    table = evidence.observed_tables.predictions
    if verdict in (Verdict.PASS, Verdict.IMPROVED):
        return ""
    if samples in (None, len(table)):
        codes = evidence.observed_tables.clusters[0]
        column = cluster_column(table.columns.get("cluster"))
        if codes is None or not column:
            return ""
        count = int(codes.max()) + 1
        return f"what counts are the {count:,} clusters (by {column!r}) that its samples come in"
    clusters = "log_temperature.clusters" in evidence.observed_tables.predictions.scalars
    what = "clusters of calibration samples" if clusters else "calibration samples"
    return f"what counts are the {samples:,} {what} that temperatures are fitted on"
