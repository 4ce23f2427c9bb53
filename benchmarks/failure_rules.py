"""Rules by which a candidate's cases fail together, and what a policy then says of the candidate.

Each rule takes the scores (D, K) of D candidates' K cases, standard normal where a loss is at its
margin and larger where it is worse, and says which cases fail (D, K). A case that does not fail is
`suspect` where its own p-value is below the level of suspicion, passes where the upper bound lies
below the margin, and is inconclusive otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import ndtr, ndtri

__all__ = ["RULES", "Decisions", "Rule", "decide", "maximum"]

Rule = Callable[[np.ndarray, float], np.ndarray]


def alone(scores: np.ndarray, tail: float) -> np.ndarray:
    """Every case by itself."""
    return ndtr(-scores) <= tail


def holm(scores: np.ndarray, tail: float, *, among: float = 1.0) -> np.ndarray:
    """Holm 1979; with `among` below 1, only among cases whose p-value is at most that.

    The p-values kept are divided by `among`: given that it is at most `among`, the p-value of a
    case at its margin is uniform below it, and that of a case inside its margin lies higher still
    (Zhao, Small and Su 2019; Ellis, Pecanka and Goeman 2020). Cases well inside their margins drop
    out and cost the others nothing.
    """
    p_values = ndtr(-scores)
    kept = p_values <= among
    p_values = np.where(kept, p_values / among, 1.0)
    order = np.argsort(p_values, axis=1)
    steps = kept.sum(axis=1, keepdims=True) - np.arange(scores.shape[1])
    passing = np.take_along_axis(p_values, order, axis=1) * np.maximum(steps, 1) <= tail
    return _at(order, np.logical_and.accumulate(passing, axis=1)) & kept


def benjamini_hochberg(scores: np.ndarray, tail: float) -> np.ndarray:
    """Benjamini and Hochberg 1995: bounds the share of false failures, not their chance."""
    order = np.argsort(-scores, axis=1)
    steps = np.arange(1, scores.shape[1] + 1) / scores.shape[1]
    below = ndtr(-np.take_along_axis(scores, order, axis=1)) <= tail * steps
    found = np.logical_or.accumulate(below[:, ::-1], axis=1)[:, ::-1]
    return _at(order, found)


def maximum(scores: np.ndarray, tail: float, *, null: np.ndarray) -> np.ndarray:
    """Step down over the maximum (Westfall and Young 1993), with scores (B, K) under the null."""
    failed = np.zeros(scores.shape, bool)
    first = np.quantile(null.max(axis=1), 1 - tail, method="higher")
    for row in np.flatnonzero(scores.max(axis=1) > first):
        order = np.argsort(-scores[row])
        for at, case in enumerate(order):
            least = np.quantile(null[:, order[at:]].max(axis=1), 1 - tail, method="higher")
            if scores[row, case] <= least:
                break
            failed[row, case] = True
    return failed


def _at(order: np.ndarray, values: np.ndarray) -> np.ndarray:
    found = np.empty_like(values)
    np.put_along_axis(found, order, values, axis=1)
    return found


RULES: dict[str, Rule] = {
    "Holm": holm,
    "Holm, p <= 0.5": partial(holm, among=0.5),
    "Holm, p <= 0.2": partial(holm, among=0.2),
    "Benjamini-Hochberg": benjamini_hochberg,
    "none": alone,
}
"""By what tables call them; `maximum` needs to be told of the null."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """What becomes of D candidates, each in the first of these groups that applies: shares.

    `blocked` is what policy `ci` exits with 1 for: a failure or a suspicion.
    """

    failed: float
    suspect: float
    inconclusive: float

    @property
    def blocked(self) -> float:
        return self.failed + self.suspect


def decide(
    scores: np.ndarray, *, tail: float, suspicion: float, rule: Rule, only: int | None = None
) -> Decisions:
    """Return how often candidates fail, are suspect or inconclusive; of one case with `only`."""
    failed = rule(scores, tail)
    suspect, open_ = scores > -ndtri(suspicion), scores >= ndtri(tail)
    if only is not None:
        failed, suspect, open_ = failed[:, [only]], suspect[:, [only]], open_[:, [only]]
    first = failed.any(axis=1)
    second = suspect.any(axis=1) & ~first
    third = open_.any(axis=1) & ~first & ~second
    return Decisions(float(first.mean()), float(second.mean()), float(third.mean()))
