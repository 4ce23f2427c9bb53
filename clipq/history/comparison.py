"""Two runs, case by case: what got worse, by how much, and how sure that is.

Where both runs kept their predictions, the same samples are compared and the difference has a
paired interval, as a verdict of the gate has. Where they did not, but were compared with the same
FP32 predictions, the two standard errors bound it: a difference varies by at most their sum. Reads
records and tables; never imports torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

from scipy.special import ndtr, ndtri

from clipq.history.around import Alike, notes, obstacle, same_reference
from clipq.history.pairs import PairedEstimate, tolerance
from clipq.records import CaseResult, RunRecord, Verdict
from clipq.stats import adjusted

__all__ = ["Change", "Comparison", "Difference", "Estimator", "compare"]

Estimator = Callable[[Sequence[tuple[CaseResult, CaseResult]]], list[PairedEstimate | None]]
"""From pairs of cases to paired estimates; None where predictions are not at hand."""


class Change(StrEnum):
    """What became of a case from the first run to the second."""

    REGRESSED = "regressed"
    REMOVED = "removed"
    INCOMPARABLE = "incomparable"
    INCONCLUSIVE = "inconclusive"
    WORSE = "worse"
    BETTER = "better"
    EQUIVALENT = "equivalent"
    IDENTICAL = "identical"
    ADDED = "added"


@dataclass(frozen=True, slots=True)
class Difference:
    """One case in both runs.

    Args:
        case: its id.
        change: what became of it.
        before: the first run's value.
        after: the second run's.
        verdicts: of the gate, before and after; "" where a run lacks the case.
        loss: how much worse the second run is, in `unit`; negative = better.
        low: lower confidence bound of the loss; None where it is a point, or has none.
        high: upper bound.
        margin: how much worse is acceptable: the size of the second run's margin; None where the
            gate holds the value against a limit.
        unit: of all of these.
        interval: ``paired``, ``bounded`` by both runs' standard errors, ``exact`` for equal
            predictions, ``point`` for what is not resampled, "" for none.
        p_value: of the loss being at most the margin, corrected for the cases compared.
        reason: what a reader should know.
    """

    case: str
    change: Change
    before: float | None = None
    after: float | None = None
    verdicts: tuple[str, str] = ("", "")
    loss: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float | None = None
    unit: str = ""
    interval: str = ""
    p_value: float | None = None
    reason: str = ""

    @property
    def severity(self) -> float:
        """The loss in margins; 0 where there is none."""
        return self.loss / self.margin if self.loss is not None and self.margin else 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """All differences between two runs, worst first.

    `before` and `after` identify the runs; `notes` say what differs around the cases.
    """

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()
    alpha: float = 0.05

    @property
    def counts(self) -> dict[str, int]:
        """Cases per change, in the order of `Change`."""
        counted = Counter(difference.change for difference in self.differences)
        return {change.value: counted[change] for change in Change if counted[change]}

    @property
    def compared(self) -> int:
        """How many cases have a value in both runs that could be compared."""
        alone = (Change.ADDED, Change.REMOVED, Change.INCOMPARABLE)
        return sum(difference.change not in alone for difference in self.differences)

    def regressions(self, *, common: bool = False) -> tuple[Difference, ...]:
        """What fails a comparison: regressed cases and, unless `common`, vanished ones."""
        wrong = (Change.REGRESSED,) if common else (Change.REGRESSED, Change.REMOVED)
        return tuple(d for d in self.differences if d.change in wrong)

    def to_plain(self) -> dict[str, Any]:
        """Return the comparison as strict-JSON values."""
        names = [f.name for f in fields(Difference)]
        rows = [
            {name: getattr(d, name) for name in names} | {"change": d.change.value}
            for d in self.differences
        ]
        return {
            "schema": "clipq-comparison/1",
            "before": dict(self.before),
            "after": dict(self.after),
            "alpha": self.alpha,
            "counts": self.counts,
            "notes": list(self.notes),
            "differences": [row | {"verdicts": list(row["verdicts"])} for row in rows],
        }


def compare(before: RunRecord, after: RunRecord, *, paired: Estimator | None = None) -> Comparison:
    """Compare two runs.

    Args:
        before: the run that is held to be good.
        after: the run in question; its policy, margins and error rates apply.
        paired: where paired estimates come from, for cases whose predictions differ; without it,
            standard errors bound differences.
    """
    first = {case.case: case for case in before.cases}
    second = {case.case: case for case in after.cases}
    statistics = after.statistics or {}
    alpha = float(statistics.get("alpha", 0.05))
    found = [_removed(case) for name, case in first.items() if name not in second]
    found += [_added(case) for name, case in second.items() if name not in first]
    pairs = [(first[name], second[name]) for name in first if name in second]
    evidence = before.evidence(), after.evidence()
    alike = Alike(*evidence)
    comparable = []
    for pair in pairs:
        reason = obstacle(*pair, *evidence)
        if reason and _both_infinite(*pair) and alike(pair[1]):
            found.append(_same(*pair))
        elif reason:
            found.append(_unpaired(*pair, after.policy, reason))
        else:
            comparable.append(pair)
    exact = {second.case for _, second in comparable if alike(second)}
    estimated: dict[str, PairedEstimate | None] = {}
    if paired:
        unlike = [pair for pair in comparable if pair[1].case not in exact]
        names = (second.case for _, second in unlike)
        estimated = dict(zip(names, paired(unlike), strict=True))
    measured = [
        _difference(
            *pair,
            estimated.get(pair[1].case),
            alpha,
            exact=pair[1].case in exact,
            bounded=same_reference(*pair, *evidence),
        )
        for pair in comparable
    ]
    correction = str(statistics.get("correction", "holm"))
    found += _decided(measured, comparable, after.policy, alpha / 2, correction)
    order = list(Change)
    found.sort(key=lambda d: (order.index(d.change), -d.severity, d.case))
    return Comparison(
        _identity(before), _identity(after), tuple(found), notes(*evidence), alpha=alpha
    )


def _removed(case: CaseResult) -> Difference:
    reason = "the second run does not have it"
    verdicts = case.verdict.value, ""
    return Difference(
        case.case, Change.REMOVED, case.observed, None, verdicts, unit=case.unit, reason=reason
    )


def _added(case: CaseResult) -> Difference:
    reason = "the first run does not have it"
    verdicts = "", case.verdict.value
    return Difference(
        case.case, Change.ADDED, None, case.observed, verdicts, unit=case.unit, reason=reason
    )


def _both_infinite(first: CaseResult, second: CaseResult) -> bool:
    """Whether neither run has a number although the gate judged both: the SQNR of no noise."""
    without = first.observed is None and second.observed is None
    return without and first.verdict is second.verdict is Verdict.PASS


def _same(first: CaseResult, second: CaseResult) -> Difference:
    verdicts = first.verdict.value, second.verdict.value
    return Difference(
        second.case, Change.IDENTICAL, None, None, verdicts, margin=tolerance(second),
        unit=second.unit, interval="exact",
    )  # fmt: skip


def _unpaired(first: CaseResult, second: CaseResult, policy: str, reason: str) -> Difference:
    newly_blocking = second.verdict.blocks(policy) and not first.verdict.blocks(policy)
    change = Change.REGRESSED if newly_blocking else Change.INCOMPARABLE
    return Difference(
        second.case,
        change,
        first.observed,
        second.observed,
        (first.verdict.value, second.verdict.value),
        margin=tolerance(second),
        unit=second.unit,
        reason=reason,
    )


def _difference(
    first: CaseResult,
    second: CaseResult,
    estimate: PairedEstimate | None,
    alpha: float,
    *,
    exact: bool,
    bounded: bool,
) -> Difference:
    """Return one measured difference; what became of the case is decided later.

    Equal predictions are `exact`; without an estimate, standard errors count if they are `bounded`.
    """
    loss = _loss(first, second)
    plain = Difference(
        second.case,
        Change.EQUIVALENT,
        first.observed,
        second.observed,
        (first.verdict.value, second.verdict.value),
        loss=loss,
        margin=tolerance(second),
        unit=second.unit,
    )
    if exact and loss == 0.0:
        return replace(plain, change=Change.IDENTICAL, low=0.0, high=0.0, interval="exact")
    if estimate is not None:
        low, high, p_value = estimate.low, estimate.high, estimate.p_value
        return replace(plain, low=low, high=high, p_value=p_value, interval="paired")
    if first.standard_error is None or second.standard_error is None:
        return replace(plain, interval="point")
    if not bounded:
        reason = (
            f"FP32 of {second.model} changed, and a run's predictions are not at hand: nothing "
            "bounds the difference"
        )
        return replace(plain, change=Change.INCOMPARABLE, loss=None, reason=reason)
    error = first.standard_error + second.standard_error
    half = -float(ndtri(alpha / 2)) * error
    margin = plain.margin or 0.0
    p_value = float(ndtr((margin - loss) / error)) if error else float(loss <= margin)
    return replace(plain, low=loss - half, high=loss + half, p_value=p_value, interval="bounded")


def _loss(first: CaseResult, second: CaseResult) -> float:
    before, after = first.observed or 0.0, second.observed or 0.0
    if second.direction == "zero":
        return abs(after) - abs(before)
    return before - after if second.direction == "higher" else after - before


def _decided(
    measured: Sequence[Difference],
    pairs: Sequence[tuple[CaseResult, CaseResult]],
    policy: str,
    tail: float,
    correction: str,
) -> list[Difference]:
    """Return what became of each case, with p-values corrected over the cases that differ."""
    tested = [i for i, d in enumerate(measured) if d.p_value is not None]
    values = [measured[i].p_value for i in tested]
    corrected = adjusted([p for p in values if p is not None], correction=correction).tolist()
    p_values = dict(zip(tested, corrected, strict=True))
    found = []
    for index, (difference, (first, second)) in enumerate(zip(measured, pairs, strict=True)):
        p_value = p_values.get(index)
        change, reason = _change(difference, p_value, tail), difference.reason
        if second.verdict.blocks(policy) and not first.verdict.blocks(policy):
            change = Change.REGRESSED
            reason = f"the gate says {second.verdict.value}, before it said {first.verdict.value}"
        found.append(replace(difference, change=change, p_value=p_value, reason=reason))
    return found


def _change(difference: Difference, p_value: float | None, tail: float) -> Change:
    loss, margin = difference.loss or 0.0, difference.margin or 0.0
    if not difference.interval:
        return difference.change
    if difference.interval == "exact":
        return Change.IDENTICAL
    if difference.interval == "point":
        if loss == 0.0:
            return Change.IDENTICAL
        if difference.margin is not None and loss > margin:
            return Change.REGRESSED
        return Change.WORSE if loss > 0 else Change.BETTER
    if p_value is not None and p_value <= tail:
        return Change.REGRESSED
    low, high = difference.low or 0.0, difference.high or 0.0
    if not high < margin:
        return Change.INCONCLUSIVE if loss or high else Change.EQUIVALENT
    if low > 0.0:
        return Change.WORSE
    return Change.BETTER if high < 0.0 else Change.EQUIVALENT


def _identity(record: RunRecord) -> dict[str, Any]:
    return {
        "id": record.to_plain()["id"],
        "started": record.started,
        "commit": dict(record.commit),
        "policy": record.policy,
        "passed": record.passed,
        "cases": len(record.cases),
    }
