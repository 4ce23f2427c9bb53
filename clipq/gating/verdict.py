"""From a baseline value and an observed one to a verdict.

`Judge` is the interface. `clipq.gating.interval` judges by paired confidence intervals; what is one
number per probe is compared as it stands, by `judge_point`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from clipq.estimate import NOTHING_ESTIMATED, Estimate
from clipq.evaluation.resampling import Tables
from clipq.metrics import Metric
from clipq.records import CaseResult, Verdict
from clipq.settings import StatisticsSettings
from clipq.stats import adjusted

__all__ = ["Evidence", "Judge", "Judgement", "finalise", "judge_point", "unusable"]


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

    `noise` is FP32's own, where it exceeds the margin and was applied in its place.

    >>> Judgement(Verdict.PASS, estimate=Estimate(loss=0.01, margin=0.02)).estimate.margins
    0.5
    """

    verdict: Verdict
    reason: str = ""
    estimate: Estimate = NOTHING_ESTIMATED
    noise: float | None = None


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
    improved = margin >= 0 and loss < -margin  # a negative margin demands as much: it is met
    return Judgement(Verdict.IMPROVED if improved else Verdict.PASS, estimate=estimate)


def finalise(
    cases: Sequence[CaseResult],
    settings: StatisticsSettings,
    *,
    command: Callable[[CaseResult], str] = lambda case: "",
) -> tuple[CaseResult, ...]:
    """Return the cases of one run with p-values corrected for how many there are.

    A case was judged before the others were known, by what fails whatever they show. Now that all
    are known, an inconclusive case may turn out to be a failure; nothing else can change.

    Args:
        cases: all of the run.
        settings: error rates and correction.
        command: what to type next after a failure of a case.

    >>> from clipq.cases import Case
    >>> unsure = Estimate(p_value=0.02)
    >>> cases = [CaseResult(Case.parse(f"vit/rtn:w4/id.{name}"), Verdict.INCONCLUSIVE,
    ...                     estimate=unsure) for name in ("ece", "top1")]
    >>> found = finalise(cases, StatisticsSettings(correction="benjamini-hochberg"))
    >>> [(case.verdict.value, case.estimate.adjusted_p) for case in found]
    [('fail', 0.02), ('fail', 0.02)]
    """
    p_values = [case.estimate.p_value for case in cases]
    tested = [i for i, p_value in enumerate(p_values) if p_value is not None]
    corrected = adjusted([p for p in p_values if p is not None], correction=settings.correction)
    judged = list(cases)
    for index, p_value in zip(tested, corrected.tolist(), strict=True):
        case = judged[index]
        estimate = replace(case.estimate, adjusted_p=p_value)
        case = replace(case, estimate=estimate)
        if case.verdict is Verdict.INCONCLUSIVE and p_value <= settings.tail:
            case = replace(
                case,
                verdict=Verdict.FAIL,
                reason=f"worse than the margin, seen with all {len(tested)} cases of the run "
                f"({settings.correction})",
                estimate=replace(estimate, samples_needed=None),
                next_command=command(case),
            )
        judged[index] = case
    return tuple(judged)


def _absolute(metric: Metric, observed: float, limit: float) -> Judgement:
    loss = metric.loss(limit, observed)
    if not loss <= 0:
        reason = f"the limit is {limit:g} {metric.unit}"
        return Judgement(Verdict.FAIL, reason, Estimate(loss=loss, margin=limit))
    known = loss if math.isfinite(loss) else None
    return Judgement(Verdict.PASS, estimate=Estimate(loss=known, margin=limit))
