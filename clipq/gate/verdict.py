"""From a baseline value and an observed one to a verdict.

`Judge` is the interface; `PointJudge` compares point estimates. An interval-based judge takes the
same arguments: it is given the paired predictions as well as the values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from clipq.metrics import Metric, Predictions
from clipq.records import Verdict

__all__ = ["Evidence", "Judge", "Judgement", "PointJudge"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a judge may look at.

    `baseline` is None for an absolute metric, whose margin is the worst acceptable value.
    """

    metric: Metric
    baseline: float | None
    observed: float
    margin: float
    baseline_predictions: Predictions
    observed_predictions: Predictions


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, the loss behind it (positive = worse) and a sentence where one is needed."""

    verdict: Verdict
    loss: float | None
    reason: str = ""


class Judge(Protocol):
    def __call__(self, evidence: Evidence) -> Judgement: ...


class PointJudge:
    """Pass where the loss of the point estimate is at most the margin."""

    def __call__(self, evidence: Evidence) -> Judgement:
        metric, observed = evidence.metric, evidence.observed
        if math.isnan(observed) or (metric.reference == "baseline" and math.isinf(observed)):
            return Judgement(Verdict.NON_FINITE, None, f"the observed value is {observed}")
        if metric.reference == "absolute":
            return _absolute(metric, observed, evidence.margin)
        if evidence.baseline is None or not math.isfinite(evidence.baseline):
            return Judgement(Verdict.NON_FINITE, None, f"the baseline is {evidence.baseline}")
        loss = metric.loss(evidence.baseline, observed)
        if not loss <= evidence.margin:
            return Judgement(Verdict.FAIL, loss)
        return Judgement(Verdict.IMPROVED if loss < -evidence.margin else Verdict.PASS, loss)


def _absolute(metric: Metric, observed: float, limit: float) -> Judgement:
    loss = metric.loss(limit, observed)
    if not loss <= 0:
        return Judgement(Verdict.FAIL, loss, f"the limit is {limit:g} {metric.unit}")
    return Judgement(Verdict.PASS, loss if math.isfinite(loss) else None)
