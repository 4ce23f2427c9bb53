"""Smooth calibration error of many replicates at once, in the cosine basis.

Blasiok & Nakkiran 2023, "Smooth ECE: principled reliability diagrams via kernel smoothing". The
reflected Gaussian kernel on [0, 1] is the heat kernel with insulated ends, so its eigenfunctions
are cosines: smoothing multiplies the k-th coefficient by exp(-(pi k sigma)^2 / 2). The coefficients
of the residuals are one matrix product for all replicates; each bandwidth is one cosine transform.

A bandwidth s needs the terms up to k = 6.43 / (pi s): later ones are below 1e-9. Few serve errors
above 0.016, so that only replicates that are calibrated better pay for all 512.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.fft import dct

from clipq.errors import StatisticsError
from clipq.stats.resampling_weights import check_totals, check_weights
from clipq.stats.statistics import finite_column

__all__ = ["smooth_ece"]

_FEW, _ALL = 128, 512  # terms
_GRID = 1024
_SMALLEST = 0.004
_WIDE = _SMALLEST * _ALL / _FEW  # the smallest bandwidth for which few terms do
_STEPS = 30
_EXACT = 1e-9
_ROWS = 64
_KEPT = 1 << 19  # numbers: four megabytes


def smooth_ece(confidence: np.ndarray, correct: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the smooth calibration error (R,) for weights (R, N); in [0, 1].

    smECE_s is the integral over t in [0, 1] of |sum_i w_i K_s(t, c_i) (c_i - y_i)| / sum_i w_i. It
    falls with the bandwidth s; the smooth calibration error is its value where it equals s, at
    least 0.004.

    Args:
        confidence: (N,) in [0, 1].
        correct: (N,) 0 or 1.
        weights: (R, N), finite and not negative.

    Raises:
        StatisticsError: a confidence lies outside [0, 1], or shapes do not fit.

    >>> sure, wrong = np.full(10, 0.5), np.zeros(10)
    >>> smooth_ece(sure, wrong, np.ones((1, 10))).round(3).tolist()
    [0.5]
    """
    sure, right = finite_column(confidence, "confidence"), finite_column(correct, "correct")
    if len(sure) != len(right) or sure.min() < 0.0 or sure.max() > 1.0:
        raise StatisticsError(
            f"{len(sure)} confidences from {sure.min()} to {sure.max()} for {len(right)} outcomes",
            hint="give probabilities in [0, 1], one per sample",
        )
    rows = check_weights(weights, len(sure))
    few = _coefficients(sure, sure - right, rows, _FEW)
    wide = _smoothed(few, np.full(len(few), _WIDE)) > _WIDE
    errors = np.empty(len(rows))
    errors[wide] = _fixed_point(few[wide], _WIDE)
    if not wide.all():
        errors[~wide] = _fixed_point(
            _coefficients(sure, sure - right, rows[~wide], _ALL), _SMALLEST
        )
    return errors


def _coefficients(
    sure: np.ndarray, residual: np.ndarray, rows: np.ndarray, terms: int
) -> np.ndarray:
    """Return the cosine coefficients (R, K) of the weighted mean residual along the confidence."""
    waves = _kept_waves if len(sure) * terms <= _KEPT else _waves
    basis = waves(sure.tobytes(), terms) * residual[:, None]
    coefficients = np.empty((len(rows), terms))
    for start in range(0, len(rows), _ROWS):
        block = rows[start : start + _ROWS].astype(np.float64)
        totals = check_totals(block.sum(axis=1))
        coefficients[start : start + _ROWS] = block @ basis / totals[:, None]
    return coefficients


def _waves(sure: bytes, terms: int) -> np.ndarray:
    """Return cos(pi k c) (N, K) of confidences c: the basis at each sample."""
    return np.cos(np.pi * np.outer(np.frombuffer(sure), np.arange(terms)))


# Both sides of a comparison, whose offset and replicates are asked for one after the other.
_kept_waves = lru_cache(maxsize=2)(_waves)


def _fixed_point(coefficients: np.ndarray, least: float) -> np.ndarray:
    """Return the error at the bandwidth that equals it, for coefficients (R, K).

    The error falls with the bandwidth, so the fixed point lies between any bandwidth and the error
    there. Replicates lie close together: the first one's fixed point starts all others. Between two
    bandwidths: false position, with the value at an end that stays halved (the Illinois rule).
    Where the error is below the `least` bandwidth already there, it is returned.
    """
    if not len(coefficients):
        return np.empty(0)
    start = np.array([least])
    for _ in range(_STEPS):
        before, start = start, np.maximum(_smoothed(coefficients[:1], start), least)
        if before == start:
            break
    first = np.repeat(start, len(coefficients))
    errors = _smoothed(coefficients, first)
    second = np.maximum(errors, least)
    low, high = np.minimum(first, second), np.maximum(first, second)
    there = _smoothed(coefficients, second) - second
    at_low, at_high = np.where(second < first, (there, errors - first), (errors - first, there))
    left, side = np.arange(len(coefficients)), np.zeros(len(coefficients))
    errors = np.where(np.abs(there) < np.abs(errors - first), there + second, errors)
    # Where it would rise from the least bandwidth on, that is where the error stands.
    errors = np.where((second <= least) & (there <= 0.0), there + second, errors)
    open_ = (at_low > _EXACT) & (at_high < -_EXACT)
    for _ in range(_STEPS):
        left, side = left[open_], side[open_]
        low, high, at_low, at_high = (ends[open_] for ends in (low, high, at_low, at_high))
        if not len(left):
            break
        guess = (low * at_high - high * at_low) / (at_high - at_low)
        errors[left] = _smoothed(coefficients[left], guess)
        value = errors[left] - guess
        rises = value > 0.0
        at_high = np.where(rises & (side > 0), at_high / 2.0, at_high)
        at_low = np.where(~rises & (side < 0), at_low / 2.0, at_low)
        side = np.where(rises, 1.0, -1.0)
        low, at_low = np.where(rises, guess, low), np.where(rises, value, at_low)
        high, at_high = np.where(rises, high, guess), np.where(rises, at_high, value)
        open_ = np.abs(value) > _EXACT
    return errors


def _smoothed(coefficients: np.ndarray, bandwidth: np.ndarray) -> np.ndarray:
    terms = coefficients.shape[1]
    decay = np.exp(-0.5 * (np.pi * np.arange(terms) * bandwidth[:, None]) ** 2)
    padded = np.zeros((len(coefficients), _GRID))
    padded[:, :terms] = coefficients * decay
    # The third cosine transform is the series itself, at the midpoints (j + 1/2) / grid.
    return np.asarray(np.abs(dct(padded, type=3, axis=1, overwrite_x=True)).mean(axis=1))
