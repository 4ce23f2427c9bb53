"""From a baseline value and an observed one to a verdict.

`Judge` is the interface. `clipq.gating.interval` judges by paired confidence intervals; what is one
number per probe is compared as it stands, by `judge_point`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from clipq.evaluation.resampling import Sample
from clipq.metrics import Metric
from clipq.records import CaseResult, Verdict
from clipq.settings import StatisticsSettings
from clipq.stats import adjusted

__all__ = ["Evidence", "Judge", "Judgement", "finalise", "judge_point", "unusable"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a judge may look at.

    `baseline` is None for an absolute metric, whose margin is the worst acceptable value. `noise`
    is how far FP32 itself moves between batch sizes and thread counts, in the metric's unit.
    """

    metric: Metric
    baseline: float | None
    observed: float
    margin: float
    baseline_sample: Sample
    observed_sample: Sample
    noise: float = 0.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, the loss behind it (positive = worse) and how sure it is.

    `low` and `high` bound the loss; `p_value` is the probability of a loss at least as large were
    the true one at the margin; `samples_needed` would decide an inconclusive case. They are None
    where nothing was resampled. `margin` is the one that was applied.
    """

    verdict: Verdict
    loss: float | None
    reason: str = ""
    margin: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    standard_error: float | None = None
    samples_needed: int | None = None


class Judge(Protocol):
    def __call__(self, evidence: Evidence) -> Judgement: ...


def unusable(evidence: Evidence) -> Judgement | None:
    """Return the verdict on a value that is no number, else None."""
    metric, observed = evidence.metric, evidence.observed
    if math.isnan(observed) or (metric.reference == "baseline" and math.isinf(observed)):
        return Judgement(Verdict.NON_FINITE, None, f"the observed value is {observed}")
    stored = evidence.baseline
    if metric.reference == "baseline" and (stored is None or not math.isfinite(stored)):
        return Judgement(Verdict.NON_FINITE, None, f"the baseline is {stored}")
    return None


def judge_point(evidence: Evidence) -> Judgement:
    """Compare two values as they stand: pass where the loss is at most the margin."""
    blocked = unusable(evidence)
    if blocked is not None:
        return blocked
    metric, observed, margin = evidence.metric, evidence.observed, evidence.margin
    if evidence.baseline is None:
        return _absolute(metric, observed, margin)
    loss = metric.loss(evidence.baseline, observed)
    if not loss <= margin:
        return Judgement(Verdict.FAIL, loss, margin=margin)
    verdict = Verdict.IMPROVED if loss < -margin else Verdict.PASS
    return Judgement(verdict, loss, margin=margin)


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
    """
    tested = [i for i, case in enumerate(cases) if case.p_value is not None]
    corrected = adjusted(
        [case.p_value for case in cases if case.p_value is not None],
        correction=settings.correction,
    )
    found = list(cases)
    for index, p_value in zip(tested, corrected.tolist(), strict=True):
        case = replace(found[index], adjusted_p=p_value)
        if case.verdict is Verdict.INCONCLUSIVE and p_value <= settings.tail:
            case = replace(
                case,
                verdict=Verdict.FAIL,
                reason=f"worse than the margin, seen with all {len(tested)} cases of the run "
                f"({settings.correction})",
                samples_needed=None,
                next_command=command(case),
            )
        found[index] = case
    return tuple(found)


def _absolute(metric: Metric, observed: float, limit: float) -> Judgement:
    loss = metric.loss(limit, observed)
    if not loss <= 0:
        reason = f"the limit is {limit:g} {metric.unit}"
        return Judgement(Verdict.FAIL, loss, reason, margin=limit)
    return Judgement(Verdict.PASS, loss if math.isfinite(loss) else None, margin=limit)
