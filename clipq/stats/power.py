"""What a number of samples can decide, and what number decides a question."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from clipq.errors import StatisticsError
from clipq.stats.intervals import check_level

__all__ = [
    "minimum_detectable_effect",
    "samples_needed",
    "swap_rows",
    "unpaired_accuracy_error",
]


_BEYOND_REACH = 1e9
# A pilot knows its standard error to 3 to 5 % (standard deviation over pilots of 2,000 samples,
# benchmarks/error_rates.py); a promise made from its mean would be missed by every second pilot.
_PILOT_ALLOWANCE = 1.08


def _quantile(tail: float) -> float:
    """Return the normal quantile z that leaves `tail` above it."""
    check_level(tail)
    return float(-ndtri(tail))


def minimum_detectable_effect(error: float, *, tail: float, power: float) -> float:
    """Return the distance from the margin that is decided with probability `power`.

    (z_tail + z_power) SE: a quantizer whose true loss lies that far below the margin passes, and
    one that lies that far above fails, with that probability.

    Args:
        error: standard error of the paired loss.
        tail: one-sided error rate.
        power: probability of deciding.

    >>> round(minimum_detectable_effect(0.01, tail=0.025, power=0.95), 4)  # (1.96 + 1.645) * 0.01
    0.036
    """
    check_level(power)
    return (_quantile(tail) + float(ndtri(power))) * error


def samples_needed(
    samples: int, error: float, distance: float, *, tail: float, power: float
) -> int | None:
    """Return the number of samples that decides a loss `distance` from the margin.

    The standard error falls with the root of the number of samples, and 8 % are added to it for
    what the pilot does not know. None where a billion would not suffice, as where the distance
    is 0.

    Args:
        samples: of the pilot that `error` was estimated from.
        error: the pilot's standard error of the paired loss.
        distance: between the true loss and the margin.
        tail: one-sided error rate.
        power: probability of deciding.

    >>> samples_needed(1000, 0.01, 0.02, tail=0.025, power=0.95)  # 1000 (1.08 * 0.036 / 0.02)**2
    3790
    """
    if samples < 1 or error < 0 or not math.isfinite(error):
        raise StatisticsError(
            f"{samples} samples with a standard error of {error}", hint="give a pilot's figures"
        )
    if distance == 0 or not math.isfinite(distance):
        return None
    cautious = _PILOT_ALLOWANCE * error
    needed = samples * (minimum_detectable_effect(cautious, tail=tail, power=power) / distance) ** 2
    return max(1, math.ceil(needed)) if needed < _BEYOND_REACH else None


def swap_rows(size: int, share: float, *, seed: int, stream: int = 0) -> np.ndarray:
    """Return an index (N,) that permutes a random share of the samples among themselves.

    Applied to FP32's table it makes a stand-in for a quantizer that does no harm but disagrees:
    every value is someone's FP32 value, so each metric is exactly FP32's, while a share of the
    samples changed. Its paired standard error is what planning needs, before any quantizer ran.

    >>> index = swap_rows(1000, 0.02, seed=0)
    >>> int((index != np.arange(1000)).sum()), bool((np.sort(index) == np.arange(1000)).all())
    (20, True)
    """
    if not 0.0 <= share <= 1.0:
        raise StatisticsError(f"a share of {share}", hint="allowed: 0 to 1")
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, stream, size])))
    index = np.arange(size)
    chosen = generator.permutation(size)[: round(share * size)]
    index[chosen] = np.roll(chosen, 1)
    return index


def unpaired_accuracy_error(first: float, second: float, samples: int) -> float:
    """Return the standard error of a difference of accuracies of two *different* sets of N samples.

    What an evaluation that keeps accuracies but no predictions has to work with.

    >>> round(unpaired_accuracy_error(0.9, 0.9, 1800), 6)  # sqrt(2 * 0.09 / 1800)
    0.01
    """
    return math.sqrt((first * (1 - first) + second * (1 - second)) / samples)
