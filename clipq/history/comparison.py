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
from typing import TYPE_CHECKING, Any

from scipy.special import ndtr, ndtri

from clipq.estimate import NOTHING_ESTIMATED, Estimate
from clipq.estimate import loss as loss_of
from clipq.history.around import Alike, notes, obstacle, same_reference
from clipq.history.pairs import tolerance
from clipq.records import CaseResult, RunRecord
from clipq.stats import adjusted
from clipq.verdicts import Policy, Verdict

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparison", "Difference", "Estimator", "Outcome", "compare"]

Estimator = Callable[[Sequence[tuple[CaseResult, CaseResult]]], list[Estimate | None]]
"""From pairs of cases to paired estimates; None where predictions are not at hand."""


class Outcome(StrEnum):
    """What became of a case from the first run to the second.

    >>> [outcome.value for outcome in Outcome][:2]  # what fails a comparison
    ['regressed', 'removed']
    """

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
        outcome: what became of it.
        before: the first run's value.
        after: the second run's.
        verdicts: of the gate, before and after; "" where a run lacks the case.
        estimate: how much worse the second run is, in `unit`, negative = better; its margin is the
            size of the second run's, None where the gate holds the value against a limit, and its
            p-value is of the loss being at most the margin.
        unit: of all of these.
        interval: ``paired``, ``bounded`` by both runs' standard errors, ``exact`` for equal
            predictions, ``point`` for what is not resampled, "" for none.
        reason: what a reader should know.

    >>> estimate = Estimate(loss=0.03, low=0.02, high=0.04, margin=0.02)
    >>> Difference("vit/rtn:w8/id.top1", Outcome.REGRESSED, 0.9, 0.87, estimate=estimate).severity
    1.5
    """

    case: str
    outcome: Outcome
    before: float | None = None
    after: float | None = None
    verdicts: tuple[str, str] = ("", "")
    estimate: Estimate = NOTHING_ESTIMATED
    unit: str = ""
    interval: str = ""
    reason: str = ""

    @property
    def severity(self) -> float:
        """The loss in margins; 0 where there is none."""
        return self.estimate.margins or 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """All differences between two runs, worst first.

    `before` and `after` identify the runs; `notes` say what differs around the cases.

    >>> gone = Difference("vit/rtn:w8/id.top1", Outcome.REMOVED, before=0.9)
    >>> comparison = Comparison({}, {}, (gone,))
    >>> comparison.counts, len(comparison.regressions()), len(comparison.regressions(common=True))
    ({'removed': 1}, 1, 0)
    """

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()
    alpha: float = 0.05

    @property
    def counts(self) -> dict[str, int]:
        """Cases per outcome, in the order of `Outcome`."""
        counted = Counter(difference.outcome for difference in self.differences)
        return {outcome.value: counted[outcome] for outcome in Outcome if counted[outcome]}

    @property
    def compared(self) -> int:
        """How many cases have a value in both runs that could be compared."""
        alone = (Outcome.ADDED, Outcome.REMOVED, Outcome.INCOMPARABLE)
        return sum(difference.outcome not in alone for difference in self.differences)

    def regressions(self, *, common: bool = False) -> tuple[Difference, ...]:
        """What fails a comparison: regressed cases and, unless `common`, vanished ones."""
        wrong = (Outcome.REGRESSED,) if common else (Outcome.REGRESSED, Outcome.REMOVED)
        return tuple(d for d in self.differences if d.outcome in wrong)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per case, worst first, indexed by its id."""
        import pandas as pd

        rows = [
            {"case": d.case, "outcome": d.outcome.value, "before": d.before, "after": d.after}
            | d.estimate.to_plain()
            | {"unit": d.unit, "interval": d.interval, "reason": d.reason}
            for d in self.differences
        ]
        columns = ["case", "outcome", "before", "after", *Estimate.__dataclass_fields__]
        frame = pd.DataFrame(rows, columns=[*columns, "unit", "interval", "reason"])
        return frame.set_index("case")

    def to_plain(self) -> dict[str, Any]:
        """Return the comparison as strict-JSON values."""
        names = [f.name for f in fields(Difference)]
        rows = [
            {name: getattr(d, name) for name in names}
            | {"outcome": d.outcome.value, "estimate": d.estimate.to_plain()}
            for d in self.differences
        ]
        return {
            "schema": "clipq-comparison/2",
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

    >>> from clipq.cases import Case
    >>> case = Case.parse("vit/rtn:w8/id.top1")
    >>> runs = [RunRecord("ci", 1, (CaseResult(case, verdict, observed=value),))
    ...         for verdict, value in ((Verdict.PASS, 0.9), (Verdict.FAIL, 0.8))]
    >>> compare(*runs).differences[0].reason
    'the gate says fail, before it said pass'
    """
    first = {case.id: case for case in before.cases}
    second = {case.id: case for case in after.cases}
    statistics = after.statistics or {}
    alpha = float(statistics.get("alpha", 0.05))
    differences = [_removed(case) for name, case in first.items() if name not in second]
    differences += [_added(case) for name, case in second.items() if name not in first]
    pairs = [(first[name], second[name]) for name in first if name in second]
    evidence = before.evidence(), after.evidence()
    alike = Alike(*evidence)
    comparable = []
    for pair in pairs:
        reason = obstacle(*pair, *evidence)
        if reason and _both_infinite(*pair) and alike(pair[1]):
            differences.append(_same(*pair))
        elif reason:
            differences.append(_unpaired(*pair, after.rule, reason))
        else:
            comparable.append(pair)
    exact = {second.id for _, second in comparable if alike(second)}
    estimated: dict[str, Estimate | None] = {}
    if paired:
        unlike = [pair for pair in comparable if pair[1].id not in exact]
        names = (second.id for _, second in unlike)
        estimated = dict(zip(names, paired(unlike), strict=True))
    measured = [
        _difference(
            *pair,
            estimated.get(pair[1].id),
            alpha,
            exact=pair[1].id in exact,
            bounded=same_reference(*pair, *evidence),
        )
        for pair in comparable
    ]
    correction = str(statistics.get("correction", "holm"))
    differences += _decided(measured, comparable, after.rule, alpha / 2, correction)
    order = list(Outcome)
    differences.sort(key=lambda d: (order.index(d.outcome), -d.severity, d.case))
    return Comparison(
        _identity(before), _identity(after), tuple(differences), notes(*evidence), alpha=alpha
    )


def _removed(case: CaseResult) -> Difference:
    reason = "the second run does not have it"
    verdicts = case.verdict.value, ""
    return Difference(
        case.id, Outcome.REMOVED, case.observed, None, verdicts, unit=case.unit, reason=reason
    )


def _added(case: CaseResult) -> Difference:
    reason = "the first run does not have it"
    verdicts = "", case.verdict.value
    return Difference(
        case.id, Outcome.ADDED, None, case.observed, verdicts, unit=case.unit, reason=reason
    )


def _both_infinite(first: CaseResult, second: CaseResult) -> bool:
    """Whether neither run has a number although the gate judged both: the SQNR of no noise."""
    without = first.observed is None and second.observed is None
    return without and first.verdict is second.verdict is Verdict.PASS


def _same(first: CaseResult, second: CaseResult) -> Difference:
    verdicts = first.verdict.value, second.verdict.value
    return Difference(
        second.id, Outcome.IDENTICAL, None, None, verdicts,
        estimate=Estimate(margin=tolerance(second)), unit=second.unit, interval="exact",
    )  # fmt: skip


def _unpaired(first: CaseResult, second: CaseResult, policy: Policy, reason: str) -> Difference:
    newly_blocking = policy.blocks(second.verdict) and not policy.blocks(first.verdict)
    outcome = Outcome.REGRESSED if newly_blocking else Outcome.INCOMPARABLE
    return Difference(
        second.id,
        outcome,
        first.observed,
        second.observed,
        (first.verdict.value, second.verdict.value),
        estimate=Estimate(margin=tolerance(second)),
        unit=second.unit,
        reason=reason,
    )


def _difference(
    first: CaseResult,
    second: CaseResult,
    estimate: Estimate | None,
    alpha: float,
    *,
    exact: bool,
    bounded: bool,
) -> Difference:
    """Return one measured difference; what became of the case is decided later.

    Equal predictions are `exact`; without an estimate, standard errors count if they are `bounded`.
    """
    loss = loss_of(second.direction, first.observed or 0.0, second.observed or 0.0)
    plain = Difference(
        second.id,
        Outcome.EQUIVALENT,
        first.observed,
        second.observed,
        (first.verdict.value, second.verdict.value),
        estimate=Estimate(loss=loss, margin=tolerance(second)),
        unit=second.unit,
    )
    unbounded = plain.estimate
    if exact and loss == 0.0:
        bounds = replace(unbounded, low=0.0, high=0.0)
        return replace(plain, outcome=Outcome.IDENTICAL, estimate=bounds, interval="exact")
    if estimate is not None:
        # A limit is no margin for a difference, though the estimate had to be made at some margin.
        return replace(
            plain, estimate=replace(estimate, margin=unbounded.margin), interval="paired"
        )
    if first.estimate.standard_error is None or second.estimate.standard_error is None:
        return replace(plain, interval="point")
    if not bounded:
        reason = (
            f"FP32 of {second.model} changed, and a run's predictions are not at hand: nothing "
            "bounds the difference"
        )
        unknown = replace(unbounded, loss=None)
        return replace(plain, outcome=Outcome.INCOMPARABLE, estimate=unknown, reason=reason)
    error = first.estimate.standard_error + second.estimate.standard_error
    half = -float(ndtri(alpha / 2)) * error
    margin = unbounded.margin or 0.0
    p_value = float(ndtr((margin - loss) / error)) if error else float(loss <= margin)
    bounded_by = replace(unbounded, low=loss - half, high=loss + half, p_value=p_value)
    return replace(plain, estimate=bounded_by, interval="bounded")


def _decided(
    measured: Sequence[Difference],
    pairs: Sequence[tuple[CaseResult, CaseResult]],
    policy: Policy,
    tail: float,
    correction: str,
) -> list[Difference]:
    """Return what became of each case, with p-values corrected over the cases that differ."""
    values = [difference.estimate.p_value for difference in measured]
    tested = [i for i, p_value in enumerate(values) if p_value is not None]
    corrected = adjusted([p for p in values if p is not None], correction=correction).tolist()
    p_values = dict(zip(tested, corrected, strict=True))
    decided = []
    for index, (difference, (first, second)) in enumerate(zip(measured, pairs, strict=True)):
        p_value = p_values.get(index)
        outcome, reason = _outcome(difference, p_value, tail), difference.reason
        if policy.blocks(second.verdict) and not policy.blocks(first.verdict):
            outcome = Outcome.REGRESSED
            reason = f"the gate says {second.verdict.value}, before it said {first.verdict.value}"
        estimate = replace(difference.estimate, adjusted_p=p_value)
        decided.append(replace(difference, outcome=outcome, estimate=estimate, reason=reason))
    return decided


def _outcome(difference: Difference, p_value: float | None, tail: float) -> Outcome:
    estimate = difference.estimate
    loss, margin = estimate.loss or 0.0, estimate.margin or 0.0
    if not difference.interval:
        return difference.outcome
    if difference.interval == "exact":
        return Outcome.IDENTICAL
    if difference.interval == "point":
        if loss == 0.0:
            return Outcome.IDENTICAL
        if estimate.margin is not None and loss > margin:
            return Outcome.REGRESSED
        return Outcome.WORSE if loss > 0 else Outcome.BETTER
    if p_value is not None and p_value <= tail:
        return Outcome.REGRESSED
    low, high = estimate.low or 0.0, estimate.high or 0.0
    if not high < margin:
        return Outcome.INCONCLUSIVE if loss or high else Outcome.EQUIVALENT
    if low > 0.0:
        return Outcome.WORSE
    return Outcome.BETTER if high < 0.0 else Outcome.EQUIVALENT


def _identity(record: RunRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "started": record.started,
        "commit": dict(record.commit),
        "policy": record.policy,
        "passed": record.passed,
        "cases": len(record.cases),
    }
