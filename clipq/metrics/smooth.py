"""Smooth calibration error of one table, by smoothing on a grid with the kernel's own images."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.optimize import brentq

from clipq.errors import ClipqError
from clipq.metrics.predictions import Predictions

__all__ = ["smooth_ece"]

_GRID, _TERMS = 1024, 512
_SMALLEST = 0.004
_ROWS = 256


def smooth_ece(predictions: Predictions) -> float:
    """Smooth calibration error (Blasiok & Nakkiran 2023); in [0, 1].

    The integral of the absolute smoothed residual |confidence - correct|, under a Gaussian kernel
    reflected at 0 and 1, at the bandwidth that equals the error itself (at least 0.004).

    >>> always_half_sure = {"confidence": np.full(10, 0.5), "correct": np.zeros(10)}
    >>> round(smooth_ece(Predictions(always_half_sure)), 3)  # and always wrong
    0.5
    """
    confidence = predictions.samples("confidence").astype(np.float64)
    correct = predictions.samples("correct")
    if not np.isfinite(confidence).all():
        return float("nan")
    if confidence.min() < 0.0 or confidence.max() > 1.0:
        raise ClipqError(
            f"confidence goes from {confidence.min()} to {confidence.max()}",
            hint="confidences are probabilities in [0, 1], never logits",
        )
    residual = confidence - correct
    terms = np.arange(_TERMS)
    coefficients = np.zeros(len(terms))
    for start in range(0, len(confidence), _ROWS):
        part = slice(start, start + _ROWS)
        coefficients += residual[part] @ np.cos(np.pi * np.outer(confidence[part], terms))
    coefficients /= len(confidence)
    coefficients[1:] *= 2.0
    series = _series()

    def error(bandwidth: float) -> float:
        decay = np.exp(-0.5 * (np.pi * terms * bandwidth) ** 2)
        return float(np.abs(series @ (coefficients * decay)).mean())

    if error(_SMALLEST) <= _SMALLEST:
        return error(_SMALLEST)
    return error(float(brentq(lambda s: error(s) - s, _SMALLEST, 1.0, xtol=1e-9)))


@cache
def _series() -> np.ndarray:
    """Return the cosines (grid, terms) at the midpoints of the grid."""
    return np.cos(np.pi * np.outer((np.arange(_GRID) + 0.5) / _GRID, np.arange(_TERMS)))
