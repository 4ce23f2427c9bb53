"""Why a case is not decided, and what could decide it.

What is not decided is one of two things, which ask for different deeds:

    beyond the margin   the observed loss exceeds the margin, though not surely: change the
                        candidate, or take more samples
    under-powered       the observed loss is acceptable, but the interval reaches over the margin:
                        more samples, or a wider margin
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from enum import StrEnum

from clipq.records import CaseResult
from clipq.settings import StatisticsSettings
from clipq.verdicts import UNDECIDED, Verdict

__all__ = [
    "AT_MARGIN",
    "Undecided",
    "doubts",
    "needed_text",
    "surely_fails",
    "undecided",
    "urgency",
]

AT_MARGIN = "at the margin"


class Undecided(StrEnum):
    """Why a case could not be decided.

    >>> [why.value for why in Undecided]
    ['beyond the margin', 'under-powered']
    """

    BEYOND = "beyond the margin"
    UNDER_POWERED = "under-powered"


def undecided(case: CaseResult) -> Undecided | None:
    """Return why a case is not decided; None for one that is, or could not be judged at all.

    >>> from clipq.cases import Case
    >>> from clipq.estimate import Estimate
    >>> def case(loss):
    ...     estimate = Estimate(loss=loss, low=loss - 0.02, high=loss + 0.02, margin=0.02)
    ...     return CaseResult(Case.parse("vit/rtn:w4/id.ece"), Verdict.INCONCLUSIVE,
    ...                       baseline=0.1, estimate=estimate)
    >>> undecided(case(0.03)).value, undecided(case(0.01)).value
    ('beyond the margin', 'under-powered')
    """
    if case.verdict not in UNDECIDED:
        return None
    loss, margin = case.estimate.loss, case.estimate.margin
    bound = 0.0 if case.baseline is None else margin  # a loss against a limit counts from there
    beyond = loss is not None and margin is not None and bound is not None and loss > bound
    return (
        Undecided.BEYOND if beyond or case.verdict is Verdict.SUSPECT else Undecided.UNDER_POWERED
    )


def surely_fails(case: CaseResult, statistics: StatisticsSettings) -> bool:
    """Whether a case that was waived would fail, rather than be suspect or inconclusive.

    Its verdict does not say so any more, its numbers do.

    Args:
        case: whose verdict is `waived`.
        statistics: of its run.

    >>> from clipq.cases import Case
    >>> from clipq.estimate import Estimate
    >>> def case(p):
    ...     estimate = Estimate(loss=0.03, p_value=p, adjusted_p=p, margin=0.02)
    ...     return CaseResult(Case.parse("vit/rtn:w4/id.ece"), Verdict.WAIVED, estimate=estimate)
    >>> [surely_fails(case(p), StatisticsSettings()) for p in (0.001, 0.06)]
    [True, False]
    """
    estimate = case.estimate
    if estimate.p_value is not None:
        return estimate.adjusted_p is not None and estimate.adjusted_p <= statistics.tail
    # Compared as it stands: without an interval, against FP32 or against a limit.
    bound = 0.0 if case.baseline is None else estimate.margin
    return estimate.loss is None or bound is None or not estimate.loss <= bound


def urgency(case: CaseResult) -> tuple[int, bool, float, str]:
    """Order what is not decided: suspects, then what lies beyond its margin, then the rest.

    >>> from clipq.cases import Case
    >>> found = [CaseResult(Case.parse("vit/rtn:w4/id.ece"), verdict) for verdict in UNDECIDED]
    >>> sorted(reversed(found), key=urgency) == found
    True
    """
    beyond = undecided(case) is Undecided.BEYOND
    return (UNDECIDED.index(case.verdict), not beyond, -case.severity, case.id)


def needed_text(case: CaseResult) -> str:
    """Return how many samples would decide a case; "-" where that is unknown.

    >>> from clipq.cases import Case
    >>> from clipq.estimate import Estimate
    >>> near = Estimate(loss=0.02, standard_error=0.01, margin=0.02)  # no number is in reach
    >>> case = Case.parse("vit/rtn:w4/id.ece")
    >>> needed_text(CaseResult(case, Verdict.INCONCLUSIVE, estimate=near))
    'at the margin'
    """
    needed = case.estimate.samples_needed
    if needed is not None:
        return f"{needed:,}"
    return AT_MARGIN if case.estimate.standard_error is not None else "-"


def doubts(case: CaseResult) -> Iterator[str]:
    """Yield why a case is not decided, and what could be done; nothing for one that is.

    >>> from clipq.cases import Case
    >>> from clipq.estimate import Estimate
    >>> estimate = Estimate(loss=0.01, low=-0.01, high=0.03, margin=0.02, samples_needed=900)
    >>> case = CaseResult(Case.parse("vit/rtn:w4/id.ece"), Verdict.INCONCLUSIVE, samples=500,
    ...                   baseline=0.1, estimate=estimate)
    >>> for sentence in doubts(case):
    ...     print(sentence)
    the loss lies within the margin, but the interval reaches over it
    500 samples cannot tell; about 900 could
    """
    why, needed = undecided(case), needed_text(case)
    if why is None:
        return
    if case.verdict is Verdict.SUSPECT:
        yield f"probably worse than the margin allows, but not surely{_chances(case)}"
    elif needed == AT_MARGIN:
        pass  # which side the observed loss lies on says nothing
    elif why is Undecided.BEYOND:
        yield "the loss lies beyond the margin, but it may be chance"
    else:
        yield "the loss lies within the margin, but the interval reaches over it"
    if needed == AT_MARGIN:
        yield "the loss lies at the margin: more samples will not tell"
    elif needed != "-":
        yield f"{case.samples:,} samples cannot tell; about {needed} could"
    if case.verdict is Verdict.SUSPECT:
        yield f"or keep in float what `clipq blame {shlex.quote(case.id)}` names"
        yield "or sign a waiver that says why it may stay"


def _chances(case: CaseResult) -> str:
    p_value, corrected = case.estimate.p_value, case.estimate.adjusted_p
    if p_value is None or corrected is None:
        return ""
    return f" (p = {p_value:.2g}, {corrected:.2g} corrected for the candidate's cases)"
