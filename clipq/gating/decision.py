"""From the estimates of one release candidate to verdicts.

A candidate (model x quantizer) is what a team ships or does not, so failures are corrected over its
cases and over nothing else: its verdicts are the same alone and beside others.

    fail          the corrected p-value of "the loss is at most the margin" is at most the tail
    suspect       not that sure, but the p-value itself is below the level of suspicion
    pass          the upper confidence bound lies below the margin; improved: below minus the margin
    inconclusive  none of these: the samples cannot tell

A pass needs no correction: a candidate passes only if every case does, so it passes wrongly no more
often than its worst case does (Berger 1982, intersection-union).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from clipq.estimate import Estimate
from clipq.records import CaseResult
from clipq.settings import StatisticsSettings
from clipq.stats import (
    adjusted,
    counted,
    minimum_detectable_effect,
    samples_needed,
    single_step,
)
from clipq.verdicts import UNDECIDED, Verdict

__all__ = ["decide", "verdict_of"]

_COMPARED = (Verdict.PASS, Verdict.IMPROVED, Verdict.FAIL)
"""Verdicts on numbers that were compared as they stand, without a p-value."""
_OUT_OF_REACH = 50
"""So many times the samples at hand are no advice: the loss lies at the margin."""


def decide(
    results: Sequence[CaseResult], statistics: StatisticsSettings, *, whole: int = 0
) -> tuple[CaseResult, ...]:
    """Return the results of one candidate with the verdicts that hold for all of them together.

    Results without a p-value (nothing was estimated, or nothing could be measured) keep theirs.

    Args:
        results: of the cases that were measured, of one candidate.
        statistics: error rates, correction and level of suspicion.
        whole: how many cases the candidate has. Those that were left out count as cases that might
            have failed, so a part is never judged more surely than the whole.

    >>> from clipq.cases import Case
    >>> unsure = {"ece": 0.0001, "top1": 0.03, "nll": 0.5}
    >>> results = [
    ...     CaseResult(Case.parse(f"vit/rtn:w4/id.{name}"), Verdict.PASS, samples=100, baseline=0.9,
    ...                estimate=Estimate(loss=0.1, high=0.2, p_value=p, margin=0.1))
    ...     for name, p in unsure.items()]
    >>> [result.verdict.value for result in decide(results, StatisticsSettings())]
    ['fail', 'suspect', 'inconclusive']
    >>> [result.verdict.value for result in decide(results, StatisticsSettings(), whole=1000)]
    ['suspect', 'suspect', 'inconclusive']
    """
    tested = [result for result in results if result.estimate.p_value is not None]
    # What could not be judged might have failed, as might what was left out.
    unjudged = [
        result
        for result in results
        if result.estimate.p_value is None and result.verdict not in _COMPARED
    ]
    unknown = max(0, whole - len(results)) + len(unjudged)
    p_values = [result.estimate.p_value or 0.0 for result in tested]
    corrected = adjusted(p_values, correction=statistics.correction, unknown=unknown).tolist()
    by_case = {result.case: p for result, p in zip(tested, corrected, strict=True)}
    among = counted(p_values, correction=statistics.correction, unknown=unknown)
    fails_at = single_step(statistics.tail, max(among, 1), correction=statistics.correction)
    return tuple(
        _decided(result, by_case[result.case], statistics, fails_at)
        if result.case in by_case
        else result
        for result in results
    )


def verdict_of(
    estimate: Estimate, statistics: StatisticsSettings, *, limit: bool = False
) -> Verdict:
    """Return the verdict on an estimate whose `adjusted_p` is known.

    Args:
        estimate: of a loss against FP32, or of the distance to a limit.
        statistics: error rates and level of suspicion.
        limit: whether the margin is the worst acceptable value and the loss is counted from there.

    >>> statistics = StatisticsSettings()
    >>> verdict_of(Estimate(high=0.01, p_value=0.9, adjusted_p=1.0, margin=0.02), statistics).value
    'pass'
    """
    p_value, adjusted_p = estimate.p_value, estimate.adjusted_p
    high, margin = estimate.high, estimate.margin
    # What is missing or NaN is beyond every bound: it neither fails nor passes.
    if adjusted_p is not None and adjusted_p <= statistics.tail:
        return Verdict.FAIL
    if p_value is not None and p_value < statistics.suspicion:
        return Verdict.SUSPECT
    if high is None or margin is None or not _within(high, 0.0 if limit else margin, estimate):
        return Verdict.INCONCLUSIVE
    # A negative margin demands an improvement: to meet it, or a limit, is to pass.
    return Verdict.IMPROVED if not limit and 0.0 <= margin < -high else Verdict.PASS


def _within(high: float, bound: float, estimate: Estimate) -> bool:
    """Whether a loss surely lies within a bound; what is known exactly may lie on it."""
    return high < bound or (estimate.standard_error == 0.0 and high == bound)


def _decided(
    result: CaseResult, adjusted_p: float, statistics: StatisticsSettings, fails_at: float
) -> CaseResult:
    estimate = replace(result.estimate, adjusted_p=adjusted_p, samples_needed=None)
    limit = result.baseline is None
    verdict = verdict_of(estimate, statistics, limit=limit)
    if verdict in UNDECIDED:
        distance = _distance(estimate, limit=limit)
        needed = _needed(result.samples, distance, estimate, statistics, fails_at)
        estimate = replace(estimate, samples_needed=needed)
    return replace(result, verdict=verdict, estimate=estimate)


def _distance(estimate: Estimate, *, limit: bool) -> float | None:
    """Return how far within its margin or limit the loss lies; negative beyond."""
    if estimate.loss is None or estimate.margin is None:
        return None
    return -estimate.loss if limit else estimate.margin - estimate.loss


def _needed(
    samples: int,
    distance: float | None,
    estimate: Estimate,
    statistics: StatisticsSettings,
    fails_at: float,
) -> int | None:
    """Return how many samples would decide were the observed loss the true one, or None."""
    error = estimate.standard_error
    if not samples or distance is None or error is None or not math.isfinite(error):
        return None
    tail, power = statistics.tail if distance > 0.0 else fails_at, statistics.power
    # An offset against the decision falls with the root of the number of samples, as errors do.
    offset = estimate.offset or 0.0
    against = max(0.0, -offset if distance > 0.0 else offset)
    error += against / minimum_detectable_effect(1.0, tail=tail, power=power)
    needed = samples_needed(samples, error, distance, tail=tail, power=power)
    return needed if needed is not None and needed <= _OUT_OF_REACH * samples else None
