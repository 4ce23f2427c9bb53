"""From a baseline value and an observed one to a verdict.

`Judge` is the interface. `clipq.gating.interval` judges by paired confidence intervals; what is one
number per probe is compared as it stands, by `judge_point`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from clipq.estimate import NOTHING_ESTIMATED, Estimate
from clipq.evaluation.resampling import Tables
from clipq.metrics import Metric
from clipq.verdicts import Verdict

__all__ = ["Evidence", "Judge", "Judgement", "judge_point", "unusable"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a judge may look at.

    `baseline` is None for a metric judged by a limit: its margin is the worst acceptable value.
    `noise` is how far FP32 itself moves between batch sizes and thread counts, in the metric's
    unit.

    >>> from clipq.metrics import Predictions, metrics
    >>> nothing = Tables(Predictions({}), Predictions({}))  # one number per probe needs no samples
    >>> evidence = Evidence(metrics.get("zero-fraction"), 0.25, 0.5, 0.125, nothing, nothing)
    >>> evidence.metric.loss(evidence.baseline, evidence.observed)
    0.25
    """

    metric: Metric
    baseline: float | None
    observed: float
    margin: float
    baseline_tables: Tables
    observed_tables: Tables
    noise: float = 0.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, and the estimate of the loss behind it.

    `noise` is FP32's own, times the noise factor, where it exceeds the margin; `samples` says how
    many the value was made of, where they are not the probe's.

    >>> Judgement(Verdict.PASS, estimate=Estimate(loss=0.01, margin=0.02)).estimate.margins
    0.5
    """

    verdict: Verdict
    reason: str = ""
    estimate: Estimate = NOTHING_ESTIMATED
    noise: float | None = None
    samples: int | None = None


class Judge(Protocol):
    def __call__(self, evidence: Evidence) -> Judgement: ...


def unusable(evidence: Evidence) -> Judgement | None:
    """Return the verdict on a value that is no number, else None.

    >>> from clipq.metrics import Predictions, metrics
    >>> nothing = Tables(Predictions({}), Predictions({}))
    >>> metric = metrics.get("zero-fraction")
    >>> unusable(Evidence(metric, 0.25, math.nan, 0.125, nothing, nothing)).verdict.value
    'non-finite'
    """
    metric, observed = evidence.metric, evidence.observed
    if math.isnan(observed) or (metric.judged_by == "baseline" and math.isinf(observed)):
        return Judgement(Verdict.NON_FINITE, f"the observed value is {observed}")
    stored = evidence.baseline
    if metric.judged_by == "baseline" and (stored is None or not math.isfinite(stored)):
        return Judgement(Verdict.NON_FINITE, f"the baseline is {stored}")
    return None


def judge_point(evidence: Evidence) -> Judgement:
    """Compare two values as they stand: pass where the loss is at most the margin.

    >>> from clipq.metrics import Predictions, metrics
    >>> nothing = Tables(Predictions({}), Predictions({}))
    >>> metric, baseline = metrics.get("zero-fraction"), 0.25
    >>> [judge_point(Evidence(metric, baseline, observed, 0.125, nothing, nothing)).verdict.value
    ...  for observed in (0.25, 0.375, 0.5, 0.0)]
    ['pass', 'pass', 'fail', 'improved']
    """
    blocked = unusable(evidence)
    if blocked is not None:
        return blocked
    metric, observed, margin = evidence.metric, evidence.observed, evidence.margin
    if evidence.baseline is None:
        return _absolute(metric, observed, margin)
    loss = metric.loss(evidence.baseline, observed)
    estimate = Estimate(loss=loss, margin=margin)
    if not loss <= margin:
        return Judgement(Verdict.FAIL, estimate=estimate)
    better = margin >= 0.0 and loss < -margin  # to meet a negative margin, a demand, is to pass
    return Judgement(Verdict.IMPROVED if better else Verdict.PASS, estimate=estimate)


def _absolute(metric: Metric, observed: float, limit: float) -> Judgement:
    loss = metric.loss(limit, observed)
    if not loss <= 0:
        reason = f"the limit is {limit:g} {metric.unit}"
        return Judgement(Verdict.FAIL, reason, Estimate(loss=loss, margin=limit))
    known = loss if math.isfinite(loss) else None
    return Judgement(Verdict.PASS, estimate=Estimate(loss=known, margin=limit))
