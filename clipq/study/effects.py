r"""Effects with intervals over samples and over seeds.

A configuration drawn with K seeds has K measured effects d_k = theta + b_k + e_k. b_k is what the
seed does, with variance tau^2; e_k is the error of the samples, of which every record states its
standard error s_k. All seeds are evaluated on the same samples, so that the errors e_k go
together, and how much is not known. Of the mean over seeds,

    Var(mean d) = tau^2 / K + Var(mean e),    sd(mean e) <= mean s_k,

whatever the correlation. The spread between seeds, S^2 = sum (d_k - mean d)^2 / (K - 1), expects
tau^2 + sigma^2 (1 - rho), which is at least tau^2. So S^2 / K, with K - 1 degrees of freedom, and
(mean s_k)^2 together are no less than the variance, and the interval is

    mean d  -+  sqrt( (z mean s_k)^2 + (t_{K-1})^2 S^2 / K ):

half-widths of independent parts in quadrature (Howe 1974), which holds where adding variances under
one quantile would not, K being small. Coverage is simulated in benchmarks/seed_coverage.py.

What is made of several configurations (a mean, a difference) is first made of those with the same
seed, then summarised over seeds: what they share of a seed is then neither lost nor counted twice.
Standard errors of what is added or subtracted add up, which holds for any correlation; where the
predictions of both are at hand, a paired standard error takes the place of the sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from scipy.special import ndtri, stdtrit

__all__ = ["TAIL", "Effect", "Point", "Series", "difference", "mean_of", "summarise", "total"]

TAIL = 0.025
"""Error rate of each side."""
_STEPS = 60

Paired = Callable[[str, str], float | None]
"""From two cases to the standard error of their difference; None where it is not known."""


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured with one seed: a value, its standard error, and of which cases."""

    value: float
    error: float
    cases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Series:
    """What was measured of one configuration, by seed.

    Args:
        points: by seed; of what draws nothing, one under seed 0.
        draws: whether the seed changes anything.
    """

    points: Mapping[int, Point]
    draws: bool = False

    @property
    def cases(self) -> tuple[str, ...]:
        """The cases that it rests on."""
        return tuple(dict.fromkeys(case for p in self.points.values() for case in p.cases))


@dataclass(frozen=True, slots=True)
class Effect:
    """A mean over seeds and how sure it is.

    Args:
        value: the mean.
        sampling: its standard error over samples, at most.
        drawn: S^2 / K, of the mean over seeds; 0 where nothing is drawn.
        seeds: K.
        cases: what it rests on.

    >>> effect = Effect(0.02, sampling=0.005, drawn=0.003**2, seeds=3)
    >>> [round(bound, 4) for bound in effect.interval()]  # t with 2 degrees is 4.30
    [0.0038, 0.0362]
    >>> round(effect.p_above(0.0), 3), round(effect.p_below(0.0), 3)
    (0.015, 0.985)
    """

    value: float
    sampling: float
    drawn: float = 0.0
    seeds: int = 1
    cases: tuple[str, ...] = field(default=(), repr=False)

    def half(self, tail: float = TAIL) -> float:
        """Return the half-width of the interval that leaves `tail` on either side."""
        sampled = float(ndtri(tail)) * self.sampling
        drawn = 0.0
        if self.drawn > 0.0:
            drawn = float(stdtrit(self.seeds - 1, tail)) ** 2 * self.drawn
        return math.sqrt(sampled * sampled + drawn)

    def interval(self, tail: float = TAIL) -> tuple[float, float]:
        """Return both bounds, each of which errs at most `tail` of the time."""
        half = self.half(tail)
        return self.value - half, self.value + half

    def p_above(self, threshold: float) -> float:
        """Return the p-value of "the effect is at most `threshold`": small = surely above."""
        distance = self.value - threshold
        if distance == 0.0:
            return 0.5
        low, high = 0.0, 0.5  # the tail at which the interval ends at the threshold
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._reaches(middle, distance) else (low, middle)
        return high if distance > 0 else 1.0 - high

    def p_below(self, threshold: float) -> float:
        """Return the p-value of "the effect is at least `threshold`": small = surely below."""
        return 1.0 - self.p_above(threshold)

    def _reaches(self, tail: float, distance: float) -> bool:
        return self.half(max(tail, 1e-300)) > abs(distance)

    def flipped(self, sign: int) -> Effect:
        """Return the effect times `sign`."""
        return Effect(sign * self.value, self.sampling, self.drawn, self.seeds, self.cases)


def total(terms: Sequence[tuple[float, Series]]) -> Series | None:
    """Return a weighted sum of series, seed by seed; None where no seed is common to all.

    What draws nothing counts with every seed of what does.

    >>> rotated = Series({0: Point(0.03, 0.01), 1: Point(0.05, 0.01)}, draws=True)
    >>> plain = Series({0: Point(0.02, 0.01)})
    >>> {seed: round(p.value, 3) for seed, p in total([(1, rotated), (-1, plain)]).points.items()}
    {0: 0.01, 1: 0.03}
    """
    drawing = [series for _, series in terms if series.draws]
    seeds = set.intersection(*(set(s.points) for s in drawing)) if drawing else {0}
    points = {}
    for seed in sorted(seeds):
        chosen = [(weight, _at(series, seed)) for weight, series in terms]
        points[seed] = Point(
            sum(weight * point.value for weight, point in chosen),
            sum(abs(weight) * point.error for weight, point in chosen),
            tuple(dict.fromkeys(case for _, point in chosen for case in point.cases)),
        )
    return Series(points, bool(drawing)) if points else None


def mean_of(series: Iterable[Series]) -> Series | None:
    """Return the mean of series, seed by seed; None of none, or where no seed is common."""
    given = list(series)
    return total([(1 / len(given), each) for each in given]) if given else None


def difference(one: Series, other: Series, paired: Paired | None = None) -> Series | None:
    """Return `one` minus `other`, seed by seed, each of one case."""
    found = total([(1.0, one), (-1.0, other)])
    if found is None or paired is None:
        return found
    points = {}
    for seed, point in found.points.items():
        first, second = (_at(series, seed).cases for series in (one, other))
        error = None
        if len(first) == len(second) == 1:
            error = paired(first[0], second[0])
        points[seed] = point if error is None else Point(point.value, error, point.cases)
    return Series(points, found.draws)


def summarise(series: Series | None) -> Effect | None:
    """Return the mean over seeds; None where the seed matters and only one was measured.

    >>> summarise(Series({0: Point(0.1, 0.02)}))
    Effect(value=0.1, sampling=0.02, drawn=0.0, seeds=1)
    >>> summarise(Series({0: Point(0.1, 0.02)}, draws=True)) is None
    True
    """
    if series is None or not series.points or (series.draws and len(series.points) < 2):
        return None
    points = list(series.points.values())
    count = len(points)
    value = sum(point.value for point in points) / count
    spread = sum((point.value - value) ** 2 for point in points) / max(1, count - 1)
    return Effect(
        value,
        sum(point.error for point in points) / count,
        spread / count if count > 1 else 0.0,
        count,
        series.cases,
    )


def _at(series: Series, seed: int) -> Point:
    return series.points[seed] if series.draws else next(iter(series.points.values()))
