"""Paired proportions, from how many samples changed and which way.

When two classifiers are run on the same samples, only those that one gets right and the other
wrong say anything about the difference of their accuracies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri

from clipq.errors import StatisticsError
from clipq.stats.intervals import Interval, check_level

__all__ = [
    "Discordance",
    "count_discordant",
    "mcnemar",
    "restricted_chance",
    "score_interval",
    "score_z",
]


@dataclass(frozen=True, slots=True)
class Discordance:
    """Of N samples, how many got worse and how many got better.

    >>> Discordance(worse=30, better=10, samples=1000).drop
    0.02
    """

    worse: int
    better: int
    samples: int

    def __post_init__(self) -> None:
        if min(self.worse, self.better) < 0 or self.worse + self.better > self.samples:
            raise StatisticsError(
                f"{self.worse} worse and {self.better} better of {self.samples} samples",
                hint="counts are not negative and add up to at most the number of samples",
            )
        if self.samples < 1:
            raise StatisticsError("no samples to compare", hint="give at least one pair")

    @property
    def drop(self) -> float:
        """Net share of samples that got worse; in [-1, 1]."""
        return (self.worse - self.better) / self.samples


def count_discordant(before: np.ndarray, after: np.ndarray) -> Discordance:
    """Count samples (N,) whose 0/1 outcome (1 = good) changed.

    >>> count_discordant(before=np.array([1, 1, 1, 0]), after=np.array([1, 0, 0, 1]))
    Discordance(worse=2, better=1, samples=4)
    """
    if np.shape(before) != np.shape(after) or np.ndim(before) != 1:
        raise StatisticsError(
            f"outcomes of shapes {np.shape(before)} and {np.shape(after)} are not paired",
            hint="give one outcome (N,) per sample, in the same order",
        )
    first, second = np.asarray(before, bool), np.asarray(after, bool)
    return Discordance(int((first & ~second).sum()), int((~first & second).sum()), len(first))


def mcnemar(counts: Discordance) -> float:
    """Return the exact two-sided p-value that both are equally good (McNemar 1947).

    Given the number of discordant samples, those that got worse are binomial with probability 1/2.
    With no discordant sample it is 1.

    >>> mcnemar(Discordance(worse=5, better=0, samples=1000))  # 2 / 2**5
    0.0625
    """
    from scipy.stats import binomtest  # half a second to import, and seldom asked for

    total = counts.worse + counts.better
    return float(binomtest(counts.worse, total).pvalue) if total else 1.0


def score_z(counts: Discordance, drop: float) -> float:
    """Return the score statistic of "the true drop is `drop`" (Tango 1998); positive = more.

    z = (b - c - N d) / sqrt(N (2 q + d (1 - d))), with q, the probability of getting better, at its
    maximum likelihood under the hypothesis (`restricted_chance`).

    >>> score_z(Discordance(worse=9, better=0, samples=1000), drop=0.0)  # (b - c) / sqrt(b + c)
    3.0
    """
    samples = counts.samples
    excess = counts.worse - counts.better - samples * drop
    variance = samples * (2 * restricted_chance(counts, drop) + drop * (1 - drop))
    if variance <= 0.0:
        return 0.0 if excess == 0 else math.copysign(math.inf, excess)
    return excess / math.sqrt(variance)


def restricted_chance(counts: Discordance, drop: float) -> float:
    """Return q, the most likely chance of getting better were the true drop `drop` (Tango 1998).

    2N q^2 + (-b - c + (2N - b + c) d) q - c d (1 - d) = 0.

    >>> restricted_chance(Discordance(worse=9, better=0, samples=1000), drop=0.0)  # (b + c) / 2N
    0.0045
    """
    worse, better, samples = counts.worse, counts.better, counts.samples
    linear = -worse - better + (2 * samples - worse + better) * drop
    constant = -better * drop * (1 - drop)
    root = math.sqrt(max(linear**2 - 8 * samples * constant, 0.0))
    return max((root - linear) / (4 * samples), 0.0)


def score_interval(counts: Discordance, *, level: float) -> Interval:
    """Return the drops that the score test does not reject (Tango 1998).

    It keeps its level where normal intervals fail: with few discordant samples, or none. With none
    of N, it is +- z^2 / (N + z^2).

    >>> found = score_interval(Discordance(worse=0, better=0, samples=100), level=0.95)
    >>> round(found.low, 3), round(found.high, 3)  # 1.96**2 / (100 + 1.96**2)
    (-0.037, 0.037)
    """
    check_level(level)
    z = float(ndtri((1 + level) / 2))
    tiny = 1e-12
    low = _root(counts, z, -1 + tiny, min(counts.drop, 1 - tiny))
    high = _root(counts, -z, max(counts.drop, -1 + tiny), 1 - tiny)
    return Interval(low, high, level)


def _root(counts: Discordance, z: float, left: float, right: float) -> float:
    """Return where the score statistic, which falls with the drop, crosses z."""
    if score_z(counts, left) <= z:
        return round(left)
    if score_z(counts, right) >= z:
        return counts.drop if z > 0 else round(right)
    return float(brentq(lambda drop: score_z(counts, drop) - z, left, right, xtol=1e-12))
