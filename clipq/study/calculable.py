"""Numbers that a study can calculate with: it adds them up, takes squares and divides by margins.

Beyond 1e100 a square, and soon a sum, is no number of a computer any more. No metric comes near it:
what does is damage, and counts as what is infinite does, as not measured.
"""

from __future__ import annotations

import math
from dataclasses import replace

from clipq.estimate import number
from clipq.records import CaseResult

__all__ = ["LARGEST", "calculable", "calculable_result", "is_beyond"]

LARGEST = 1e100
"""What a study calculates with; of what it divides by, the inverse is the smallest."""


def calculable(value: float | None) -> float | None:
    """Return a number, or None where it is missing, NaN, infinite or beyond `LARGEST`.

    >>> calculable(0.5), calculable(1e308), calculable(float("nan")), calculable(10**400)
    (0.5, None, None, None)
    """
    return value if value is not None and abs(value) <= LARGEST else None


def calculable_result(result: CaseResult) -> CaseResult:
    """Return a result without numbers that nothing can be calculated of.

    >>> from clipq.cases import Case
    >>> from clipq.verdicts import Verdict
    >>> case = CaseResult(Case.parse("vit/rtn:w4/id.ece"), Verdict.PASS, observed=1e308)
    >>> calculable_result(case).observed is None, is_beyond(case)
    (True, True)
    """
    if all(one is None or abs(one) <= LARGEST for one in _numbers(result)):
        return result
    given = result.estimate.finite()
    estimate = replace(
        given,
        loss=calculable(given.loss),
        low=calculable(given.low),
        high=calculable(given.high),
        standard_error=calculable(given.standard_error),
        margin=calculable(given.margin),
    )
    return replace(
        result,
        baseline=calculable(number(result.baseline)),
        observed=calculable(number(result.observed)),
        estimate=estimate,
    )


def is_beyond(result: CaseResult) -> bool:
    """Whether one of a result's numbers is one, and too large."""
    return any(
        one is not None and math.isfinite(one) and abs(one) > LARGEST for one in _numbers(result)
    )


def _numbers(result: CaseResult) -> tuple[float | None, ...]:
    given = result.estimate
    bounds = (given.loss, given.low, given.high, given.standard_error, given.margin)
    return (result.baseline, result.observed, *bounds)
