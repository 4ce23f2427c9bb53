"""Intervals of one share, or one AUROC, of samples that need not be independent.

Wilson's interval (1927) keeps its level near 0 and 1, and asks how many independent samples there
are. Clustered ones are worth as many as would show the same standard error (Korn and Graubard
1998), fewer where that error itself hangs on few clusters.
"""

from __future__ import annotations

import math

from scipy.special import ndtri, stdtrit

from clipq.stats.intervals import Interval, check_level
from clipq.stats.sampling_error import SamplingError

__all__ = ["independent_samples", "wilson"]

_FEWEST = 2.0
"""Units below which nobody sees how far they differ."""


def wilson(share: float, size: float, *, level: float = 0.95) -> Interval:
    """Return Wilson's score interval of a share of independent samples.

    Args:
        share: in [0, 1].
        size: how many samples, above 0; clustered ones as `independent_samples` counts them.
        level: of confidence, in (0, 1).

    >>> found = wilson(0.5, 100)
    >>> round(found.low, 4), round(found.high, 4)
    (0.4038, 0.5962)
    """
    check_level(level)
    z = float(ndtri((1.0 + level) / 2.0))
    spread = z * math.sqrt(share * (1.0 - share) / size + z * z / (4.0 * size * size))
    centre, scale = share + z * z / (2.0 * size), 1.0 + z * z / size
    low, high = (centre - spread) / scale, (centre + spread) / scale
    return Interval(max(low, 0.0), min(high, 1.0), level)


def independent_samples(
    share: float, error: SamplingError, *, samples: int, units: float, level: float = 0.95
) -> float:
    """Return as how many independent samples a share is known.

    They are ``share (1 - share) / SE^2``, times the square of a normal over a t quantile for the
    degrees of freedom of SE. Where hardly a sample is a hit, or hardly one is none, SE shows
    nothing of how clusters hold together: one imagined sample is added, whose cluster is a hit as a
    whole, so that a share of 0 or 1 counts clusters. Two clusters' worth at least must be seen.

    Args:
        share: in [0, 1], or an AUROC.
        error: its sampling error, from clusters.
        samples: how many it is of; of an AUROC, those of the side that has fewer.
        units: as `effective_units` counts them; of an AUROC, those of the side that has fewer.
        level: of the interval that it is for.

    >>> import numpy as np
    >>> from clipq.stats import linear_error
    >>> hits = np.repeat([1.0, 0.0], [75, 25])
    >>> for clusters in (None, np.arange(100) // 5):  # the latter all hits, or none
    ...     error, units = linear_error([(hits, clusters)]), 100 if clusters is None else 20
    ...     print(round(independent_samples(0.75, error, samples=100, units=units), 1))
    96.6
    16.7
    """
    if units < _FEWEST:
        return units
    variance = share * (1.0 - share) + 1.0 / samples
    size = variance / (error.standard_error**2 + 1.0 / (samples * units))
    tail = (1.0 + level) / 2.0
    return float(size * (ndtri(tail) / stdtrit(error.freedom, tail)) ** 2)
