"""Many cases at once: which of them can be called failures without calling too many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clipq.errors import StatisticsError
from clipq.settings import CORRECTIONS

__all__ = ["CONDITION", "adjusted", "counted", "single_step"]

CONDITION = 0.5
"""Cases with a larger p-value lie within their margins, and are none that could be false alarms."""


def adjusted(p_values: Sequence[float], *, correction: str, unknown: int = 0) -> np.ndarray:
    """Return adjusted p-values (m,): a case is an alarm where its own is at most the error rate.

    Args:
        p_values: of one family, in any order.
        correction: ``conditional`` (Zhao, Small and Su 2019: cases with p > `CONDITION` are set
            aside, and Holm's correction is applied to p / `CONDITION` of the others; as sure as
            Holm's for independent or positively dependent cases, and far more powerful where most
            lie well within their margins), ``holm`` (Holm 1979: bounds the chance of any false
            alarm, whatever the dependence), ``benjamini-hochberg`` (1995: bounds the expected share
            of false alarms among the alarms, for independent or positively dependent cases) or
            ``none``.
        unknown: how many more cases belong to the family, of which no p-value is known; each is
            taken for what makes alarms hardest.

    Raises:
        StatisticsError: a p-value is no probability, or the correction is unknown.

    >>> adjusted([0.04, 0.01, 0.03], correction="holm").round(6).tolist()  # 1, 3 and 2 times
    [0.06, 0.03, 0.06]
    >>> adjusted([0.01, 0.6, 0.9], correction="conditional").tolist()  # of one case, 0.01 / 0.5
    [0.02, 1.0, 1.0]
    """
    _known(correction)
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise StatisticsError("p-values that are no probabilities", hint="give numbers in [0, 1]")
    if not len(values) or correction == "none":
        return values
    if correction == "benjamini-hochberg":
        from scipy.stats import false_discovery_control  # half a second to import

        whole = np.append(values, np.ones(unknown))
        return np.asarray(false_discovery_control(whole, method="bh"))[: len(values)]
    if correction == "holm":
        return _holm(values, unknown)
    corrected = np.ones_like(values)
    kept = values <= CONDITION
    corrected[kept] = _holm(values[kept] / CONDITION, unknown)
    return corrected


def _holm(values: np.ndarray, unknown: int) -> np.ndarray:
    order = np.argsort(values, kind="stable")
    steps = values[order] * (unknown + np.arange(len(values), 0, -1))
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def single_step(rate: float, cases: int, *, correction: str) -> float:
    """Return the p-value at or below which a case is an alarm whatever the other cases show.

    Holm and Benjamini-Hochberg both reject at least what Bonferroni does; so does ``conditional``,
    of p / `CONDITION`.

    >>> [single_step(0.025, 100, correction=name) for name in ("conditional", "holm", "none")]
    [0.000125, 0.00025, 0.025]
    """
    _known(correction)
    if cases < 1:
        raise StatisticsError(f"a family of {cases} cases", hint="it has at least one case")
    if correction == "conditional":
        rate *= CONDITION
    return rate if correction == "none" else rate / cases


def counted(p_values: Sequence[float], *, correction: str, unknown: int = 0) -> int:
    """Return how many cases a correction counts: all, or those that it does not set aside.

    >>> [counted([0.01, 0.6, 0.9], correction=name, unknown=2) for name in ("conditional", "holm")]
    [3, 5]
    """
    _known(correction)
    kept = p_values
    if correction == "conditional":
        kept = [p_value for p_value in p_values if p_value <= CONDITION]
    return len(kept) + unknown


def _known(correction: str) -> None:
    if correction not in CORRECTIONS:
        raise StatisticsError(
            f"unknown correction {correction!r}", hint=f"allowed: {', '.join(CORRECTIONS)}"
        )
