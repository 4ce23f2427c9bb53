"""Verdicts of a record, derived again from its own numbers: one that was edited disagrees.

A record's id says only that it is whole; whoever edits one can compute another. What a case's loss,
interval, p-values and margin say is `clipq.gating.decision`'s to tell, here as in the gate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from clipq.cases import Candidate
from clipq.errors import RecordError
from clipq.estimate import loss as loss_of
from clipq.gating.decision import verdict_of
from clipq.metrics import metrics
from clipq.records import CaseResult, RunRecord
from clipq.settings import StatisticsSettings
from clipq.stats import adjusted
from clipq.verdicts import EXCUSABLE, Verdict

__all__ = ["check_complete", "check_verdicts", "disagreements"]

_DERIVED = (
    *(Verdict.PASS, Verdict.IMPROVED, Verdict.WAIVED),
    *(Verdict.INCONCLUSIVE, Verdict.SUSPECT, Verdict.FAIL),
)
"""Verdicts that follow from numbers; the others say why there are none, and always block."""
_TOLERANCE = 1e-9


def check_verdicts(record: RunRecord, *, source: object = "the run record") -> None:
    """Refuse a record whose verdicts do not follow from its numbers.

    Args:
        record: a run that was read.
        source: what messages call it.

    Raises:
        RecordError: a case's verdict, or a number behind it, is not what the others say.

    >>> from clipq.cases import Case
    >>> from clipq.estimate import Estimate
    >>> lost = Estimate(loss=0.1, low=0.05, high=0.2, p_value=1e-6, adjusted_p=2e-6, margin=0.02)
    >>> case = Case.parse("vit/rtn:w4/id.top1")
    >>> failed = CaseResult(case, Verdict.FAIL, baseline=0.9, estimate=lost)
    >>> check_verdicts(RunRecord("ci", 1, (failed,)))
    >>> passed = CaseResult(case, Verdict.PASS, baseline=0.9, estimate=lost)
    >>> check_verdicts(RunRecord("ci", 1, (passed,)), source="report.json")
    Traceback (most recent call last):
    clipq.errors.RecordError: report.json: vit/rtn:w4/id.top1 is 'pass', its numbers say 'fail'
    ...
    """
    found = disagreements(record)
    if found:
        more = f" (and {len(found) - 1:,} more cases)" if len(found) > 1 else ""
        raise RecordError(
            f"{source}: {found[0]}{more}",
            hint="the record was edited, or written by another clipq: run the gate again",
        )


def check_complete(record: RunRecord, *, source: object = "the run record") -> None:
    """Refuse a record that neither reports a planned case nor says that it was never reported.

    Args:
        record: a run that was read.
        source: what messages call it.

    Raises:
        RecordError: cases are missing.

    >>> check_complete(RunRecord("ci", 1, (), unreported=("vit/rtn:w4/id.top1",)))
    >>> check_complete(RunRecord("ci", 1, ()), source="report.json")
    Traceback (most recent call last):
    clipq.errors.RecordError: report.json: 1 case was planned, and it accounts for 0
    ...
    """
    # Kernel checks that were never reported are listed beside cases: KERNEL/CHECK.
    lost = {name for name in record.unreported if name.count("/") > 1}
    known = len({result.id for result in record.cases} | lost)
    if known < record.planned:
        were = "case was" if record.planned == 1 else "cases were"
        raise RecordError(
            f"{source}: {record.planned:,} {were} planned, and it accounts for {known:,}",
            hint="the record was edited: run the gate again",
        )


def disagreements(record: RunRecord) -> tuple[str, ...]:
    """Return a sentence for each case whose verdict does not follow from its numbers, by case.

    What can be told from one record is: the loss from both values, the correction from the p-values
    of a candidate (between two bounds where a part of its cases was left out), the verdict from all
    of them, and a waived case from the waivers. Whether a margin is the reviewed one is not.
    """
    statistics = _statistics(record.statistics)
    left_out = len(record.unreported) + sum(record.withheld.values())
    left_out += max(0, record.selection.get("of", 0) - len(record.cases))
    by_candidate: dict[Candidate, list[CaseResult]] = {}
    for result in record.cases:
        by_candidate.setdefault(result.case.candidate, []).append(result)
    found = []
    for results in by_candidate.values():
        bounds = _corrected(results, statistics, left_out)
        for result in results:
            wrong = next(_wrong(result, bounds.get(result.id), statistics, record), None)
            if wrong:
                found.append(f"{result.id} {wrong}")
    return tuple(found)


def _statistics(plain: Mapping[str, Any]) -> StatisticsSettings:
    known = StatisticsSettings.__dataclass_fields__
    return StatisticsSettings(**{key: plain[key] for key in plain if key in known})


def _corrected(
    results: Sequence[CaseResult], statistics: StatisticsSettings, left_out: int
) -> dict[str, tuple[float, float]]:
    """Return between which bounds each corrected p-value lies, by case id."""
    tested = [result for result in results if result.estimate.p_value is not None]
    unjudged = [result for result in results if _unjudged(result)]
    p_values = [min(1.0, max(0.0, result.estimate.p_value or 0.0)) for result in tested]
    low, high = (
        adjusted(p_values, correction=statistics.correction, unknown=unknown).tolist()
        for unknown in (len(unjudged), len(unjudged) + left_out)
    )
    bounds = zip(low, high, strict=True)
    return {result.id: pair for result, pair in zip(tested, bounds, strict=True)}


def _unjudged(result: CaseResult) -> bool:
    """Whether a case counted as one that might have failed when its candidate was decided."""
    if result.estimate.p_value is not None:
        return False
    if result.verdict is Verdict.WAIVED:  # it was a failure, or it could not be told
        return _compared(result) is not Verdict.FAIL
    return result.verdict not in (Verdict.PASS, Verdict.IMPROVED, Verdict.FAIL)


def _wrong(
    result: CaseResult,
    bounds: tuple[float, float] | None,
    statistics: StatisticsSettings,
    record: RunRecord,
) -> Iterator[str]:
    """Yield what of a case does not follow from the rest of it."""
    if result.verdict not in _DERIVED:
        return
    yield from _wrong_numbers(result)
    estimate = result.estimate
    if bounds is None:
        yield from _wrong_without_p_value(result)
        derived = _compared(result)
        if derived in (Verdict.PASS, Verdict.IMPROVED) and result.verdict is Verdict.INCONCLUSIVE:
            derived = Verdict.INCONCLUSIVE  # its error was looked for, and not found
        if derived is not Verdict.FAIL and result.verdict is Verdict.WAIVED:
            derived = Verdict.INCONCLUSIVE
    else:
        corrected = -1.0 if estimate.adjusted_p is None else estimate.adjusted_p
        if not bounds[0] * (1 - _TOLERANCE) <= corrected <= bounds[1] * (1 + _TOLERANCE):
            yield (
                f"has the corrected p-value {estimate.adjusted_p}, its candidate's cases give "
                f"{bounds[0]:.6g}"
            )
        derived = verdict_of(estimate, statistics, limit=result.baseline is None)
    if not _follows(result, derived):
        yield f"is {result.verdict.value!r}, its numbers say {derived.value!r}"
    if result.verdict is Verdict.WAIVED and not _excused(result, record):
        yield "is 'waived', and no waiver or expected failure of the record says so"


def _follows(result: CaseResult, derived: Verdict) -> bool:
    if result.verdict is Verdict.WAIVED:
        return derived in EXCUSABLE
    if result.verdict is Verdict.FAIL and result.reason.startswith("expected to fail ("):
        return derived in (Verdict.PASS, Verdict.IMPROVED)
    return result.verdict is derived


def _wrong_numbers(result: CaseResult) -> Iterator[str]:
    estimate = result.estimate
    held_against = estimate.margin if result.baseline is None else result.baseline
    observed, stated = result.observed, estimate.loss
    if result.direction and not (held_against is None or observed is None or stated is None):
        own = loss_of(result.direction, held_against, observed)
        if not math.isclose(own, stated, rel_tol=1e-6, abs_tol=_TOLERANCE):
            yield f"has the loss {stated:g}, its values differ by {own:g}"
    if estimate.low is None or estimate.high is None:
        return
    if estimate.low > estimate.high:
        yield f"has the interval [{estimate.low:g}, {estimate.high:g}]"
    margin = 0.0 if result.baseline is None else estimate.margin
    if margin is None or estimate.p_value is None:
        return
    # Both come from the same samples: an interval on one side has its p-value there.
    if estimate.p_value < 0.5 and estimate.high < margin:
        yield f"lies below its margin, and its p-value is {estimate.p_value:g}"
    if estimate.p_value > 0.5 and estimate.low > margin:
        yield f"lies above its margin, and its p-value is {estimate.p_value:g}"


def _wrong_without_p_value(result: CaseResult) -> Iterator[str]:
    if result.metric not in metrics:
        return
    metric = metrics.get(result.metric)
    point = metric.statistic is not None and metric.statistic.kind == "point"
    if metric.judged_by == "baseline" and not point:
        yield f"is {result.verdict.value!r} without a p-value, which {metric.name} has"
    if result.baseline is None and metric.judged_by == "baseline":
        yield f"is {result.verdict.value!r} without FP32's value"


def _compared(result: CaseResult) -> Verdict:
    """Return the verdict on numbers that were compared as they stand."""
    loss, margin = result.estimate.loss, result.estimate.margin
    if result.baseline is None:
        infinite = loss is None and result.observed is None and margin is not None
        return Verdict.PASS if infinite or (loss is not None and loss <= 0.0) else Verdict.FAIL
    if loss is None or margin is None or not loss <= margin:
        return Verdict.FAIL
    return Verdict.IMPROVED if margin >= 0.0 and loss < -margin else Verdict.PASS


def _excused(result: CaseResult, record: RunRecord) -> bool:
    if not result.waived_by:
        return result.reason.startswith("expected: ")
    return any(
        waiver["owner"] == result.waived_by
        and result.id in waiver["waived"]
        and any(fnmatchcase(result.id, pattern) for pattern in waiver["cases"])
        and (not record.started or record.started[:10] <= waiver["expires"])
        for waiver in record.waivers
    )
