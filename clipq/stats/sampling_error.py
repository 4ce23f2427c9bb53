"""From how far an estimate spreads to its interval and its p-value.

Studentised means of skewed samples are skewed the other way: where a heavy tail was missed, both
the mean and its standard error are too small. Hall's transformation takes that out (Hall 1992, "On
the removal of skewness by transformation", equation 3.1; its first terms are Johnson's, 1978).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr, stdtrit

from clipq.stats.intervals import Interval, check_level

__all__ = ["SamplingError"]

_SYMMETRIC = 1e-9


@dataclass(frozen=True, slots=True)
class SamplingError:
    """How far an estimate lies from its expected value.

    With T = (estimate - truth) / SE and l the estimate's skewness, T + l T^2 / 3 + l^2 T^3 / 27 +
    l / 6 is taken for a Student t. A sample knows its skewness too low, the lower the heavier the
    tail, so l (1 + |l|) stands for l: chosen by simulation (docs/statistics.md), it vanishes where
    the sample is large. The correction may only widen: where a few large differences of either sign
    are all that is seen, their skewness is chance, and T itself stands.

    Args:
        standard_error: SE, in the estimate's unit.
        skewness: l, the third central moment of the estimate over SE^3; of a mean of n samples,
            theirs over sqrt(n).
        freedom: degrees of freedom of SE.

    >>> SamplingError(0.01).p_value(0.02, margin=0.02)
    0.5
    """

    standard_error: float
    skewness: float = 0.0
    freedom: float = math.inf

    def widened(self, resolution: float) -> SamplingError:
        """Return the error with two imagined samples added, one changed each way.

        Where hardly a sample changes, a sample shows hardly any variance: twenty samples of which
        none changed do not show that none ever will. SE^2 + 2 r^2, with r what one sample is worth
        (Agresti and Min 2005 add as much to a table of discordant pairs). With no change at all,
        the interval is about +- 2.8 / N, close to the "rule of three".

        Args:
            resolution: r, in the estimate's unit.

        >>> round(SamplingError(0.0).widened(1 / 100).standard_error, 4)
        0.0141
        """
        return self.beside(math.sqrt(2.0) * resolution)

    def beside(self, other: float) -> SamplingError:
        """Return the error of the sum with something independent of standard error `other`.

        >>> SamplingError(0.03).beside(0.04).standard_error
        0.05
        """
        error = math.hypot(self.standard_error, other)
        third = self.skewness * (self.standard_error / error) ** 3 if error else 0.0
        return replace(self, standard_error=error, skewness=third)

    def scaled(self, factor: float) -> SamplingError:
        """Return the error with a standard error so many times as large.

        >>> SamplingError(0.01).scaled(2.0).standard_error
        0.02
        """
        return replace(self, standard_error=self.standard_error * factor)

    def interval(self, estimate: float, *, level: float) -> Interval:
        """Return the values of the truth that the test does not reject.

        It is centred on the estimate, not on replicates, so a statistic's finite-sample bias enters
        once, as it does in the estimate itself: the target is the statistic's expected value at
        this number of samples.

        >>> found = SamplingError(0.005).interval(0.02, level=0.95)
        >>> round(found.low, 4), round(found.high, 4)
        (0.0102, 0.0298)
        >>> found = SamplingError(0.005, skewness=0.3).interval(0.02, level=0.95)
        >>> round(found.low, 4), round(found.high, 4)  # a missed tail may lie above
        (0.0102, 0.0356)
        """
        check_level(level)
        reach = float(stdtrit(self.freedom, (1.0 + level) / 2.0))
        ends = [at for end in (reach, -reach) for at in (end, self._untwist(end))]
        low, high = (estimate - self.standard_error * at for at in (max(ends), min(ends)))
        return Interval(low, high, level)

    def p_value(self, estimate: float, *, margin: float) -> float:
        """Return the chance of such an estimate, or a larger one, were the truth the margin.

        >>> error = SamplingError(0.005, freedom=30)
        >>> round(error.p_value(error.interval(0.0, level=0.95).high, margin=0.0), 6)
        0.025
        """
        if not self.standard_error:
            return float(estimate <= margin)
        ratio = (estimate - margin) / self.standard_error
        return float(stdtr(self.freedom, -min(ratio, self._twist(ratio))))

    @property
    def _applied(self) -> float:
        return self.skewness * (1.0 + abs(self.skewness))

    def _twist(self, ratio: float) -> float:
        skew = self._applied
        if abs(skew) < _SYMMETRIC:
            return ratio
        # T + l T^2 / 3 + l^2 T^3 / 27 is a cube, so it rises everywhere.
        return ((1.0 + skew * ratio / 3.0) ** 3 - 1.0) / skew + skew / 6.0

    def _untwist(self, normal: float) -> float:
        skew = self._applied
        if abs(skew) < _SYMMETRIC:
            return normal
        return float(3.0 * (np.cbrt(1.0 + skew * (normal - skew / 6.0)) - 1.0) / skew)
