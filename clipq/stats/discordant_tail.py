"""How surely a difference of paired proportions exceeds a margin, exact in the far tail.

The score test is approximate: of p-values around 1e-5, where a correction over many cases looks,
there are several times too many. The "estimated" p-value (Lloyd 2008) is the exact chance of a
score statistic at least as large, among all outcomes of N pairs, with the nuisance at its
restricted maximum likelihood.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import betainc, gammaln, ndtr, xlogy

from clipq.stats.discordant import Discordance, restricted_chance, score_z

__all__ = ["discordance_p_value", "estimated_p_value"]

_EXACT_BELOW = 0.05
_REACH, _LEAST = 12.0, 40
_TIE = 1e-9


def discordance_p_value(counts: Discordance, drop: float) -> float:
    """Return the chance of such a net drop, or a larger one, were the true one `drop`.

    The score test's p-value; below 0.05, the exact one, which is then never above 0.05, so that a
    smaller score never makes a smaller p-value across the border.

    >>> round(discordance_p_value(Discordance(worse=12, better=8, samples=1000), 0.0), 4)
    0.1855
    >>> round(discordance_p_value(Discordance(worse=9, better=0, samples=1000), 0.0), 5)
    0.0006
    """
    score = float(ndtr(-score_z(counts, drop)))
    return min(estimated_p_value(counts, drop), _EXACT_BELOW) if score < _EXACT_BELOW else score


def estimated_p_value(counts: Discordance, drop: float) -> float:
    """Return P(Z >= z) at the margin, Z the score statistic of N pairs and z the observed one.

    For each number c of pairs that got better, the smallest number b of those that got worse with
    Z(b, c) >= z is found by bisection; b is binomial given c, so its tail is one incomplete beta
    function.

    Args:
        counts: what was observed.
        drop: the margin, in [-1, 1].

    >>> found = estimated_p_value(Discordance(worse=3, better=0, samples=3), drop=0.0)
    >>> round(found, 6)  # all three changed and got worse: 1 / 2**3
    0.125
    """
    samples, observed = counts.samples, score_z(counts, drop)
    chance = restricted_chance(counts, drop)
    worse = min(max(chance + drop, 0.0), 1.0 - chance)
    spread = _REACH * math.sqrt(samples * chance * (1.0 - chance)) + _LEAST if chance > 0.0 else 0.0
    first = max(0, math.floor(samples * chance - spread))
    last = min(samples, math.ceil(samples * chance + spread))
    better = np.arange(first, last + 1, dtype=np.float64)
    left = samples - better
    low, high = np.full(len(better), -1.0), left + 1.0  # Z is too small at low, enough at high
    enough = observed - _TIE * (1.0 + abs(observed))
    for _ in range(samples.bit_length() + 1):
        middle = np.floor((low + high) / 2.0)
        inside = (middle > low) & (middle <= left)
        reached = inside & (_scores(np.where(inside, middle, 0.0), better, samples, drop) >= enough)
        low, high = np.where(inside & ~reached, middle, low), np.where(reached, middle, high)
    share = min(worse / (1.0 - chance), 1.0) if chance < 1.0 else 0.0
    tail = betainc(np.maximum(high, 1.0), np.maximum(left - high + 1.0, 1.0), share)
    tail = np.where(high <= 0.0, 1.0, np.where(high > left, 0.0, tail))
    log_chance = (
        gammaln(samples + 1.0)
        - gammaln(better + 1.0)
        - gammaln(left + 1.0)
        + xlogy(better, chance)
        + xlogy(left, 1.0 - chance)
    )
    return min(float(np.exp(log_chance) @ tail), 1.0)


def _scores(worse: np.ndarray, better: np.ndarray, samples: int, drop: float) -> np.ndarray:
    """Return `score_z` of many outcomes."""
    excess = worse - better - samples * drop
    linear = -worse - better + (2 * samples - worse + better) * drop
    root = np.sqrt(np.maximum(linear**2 + 8 * samples * better * drop * (1 - drop), 0.0))
    chance = np.maximum((root - linear) / (4 * samples), 0.0)
    variance = samples * (2 * chance + drop * (1 - drop))
    certain = np.where(excess == 0, 0.0, np.copysign(np.inf, excess))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(variance > 0, excess / np.sqrt(variance), certain))
