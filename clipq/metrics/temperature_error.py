"""How well a fitted temperature is known, and what it moves."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax

from clipq.metrics.temperature import TEMPERATURE_RANGE

__all__ = ["confidence_slope", "temperature_influence"]

_AT_AN_END = 1e-4
"""Distance of log T from an end of its range below which the search has run into that end."""


def temperature_influence(logits: np.ndarray, labels: np.ndarray, temperature: float) -> np.ndarray:
    """Return by how much each sample of the calibration split moves log T, times M; (M,).

    The fitted temperature is an M-estimator of theta = log T: with z = logits / T and p = softmax z
    the derivative of a sample's NLL is psi = z_y - E_p z, its curvature E_p z - z_y + Var_p z, and
    the influence -psi over the mean curvature (Huber 1964; van der Vaart 1998, theorem 5.21). Its
    variance over M is that of log T; the covariance with another form's, over the same samples,
    that of two temperatures. Infinite where the split does not determine a temperature: at an end
    of `TEMPERATURE_RANGE`, or where every temperature is equally good.

    Args:
        logits: (M, C) of the calibration split.
        labels: (M,) int in [0, C).
        temperature: fitted on them.

    >>> logits = np.array([[2.0, 0.0]] * 4) * np.log(3)
    >>> temperature_influence(logits, np.array([0, 0, 0, 1]), 2.0).round(3).tolist()
    [-1.214, -1.214, -1.214, 3.641]
    """
    away = np.abs(np.log(TEMPERATURE_RANGE) - np.log(temperature)).min()
    if not away > _AT_AN_END:
        return np.full(len(logits), np.inf)
    scaled = logits / temperature
    probability = np.exp(log_softmax(scaled, axis=1))
    mean = (probability * scaled).sum(axis=1)
    variance = (probability * (scaled - mean[:, None]) ** 2).sum(axis=1)
    slope = scaled[np.arange(len(labels)), labels] - mean
    curvature = float((variance - slope).mean())
    if not curvature > 0.0:
        return np.full(len(logits), np.inf)
    return np.asarray(-slope / curvature)


def confidence_slope(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Return d confidence / d log T (N,) of softmax(logits / T); never positive.

    confidence * (E_p z - max z), with z = logits / T. NaN where a logit is not finite.

    Args:
        logits: (N, C).
        temperature: T.

    >>> logits = np.log([[0.8, 0.2]])
    >>> confidence_slope(logits, 1.0).round(4).tolist()  # 0.8 * 0.2 * log(4) = 0.2218
    [-0.2218]
    """
    finite = np.isfinite(logits).all(axis=1)
    scaled = np.where(finite[:, None], logits, 0.0) / temperature
    probability = np.exp(log_softmax(scaled, axis=1))
    below = (probability * scaled).sum(axis=1) - scaled.max(axis=1)
    return np.where(finite, probability.max(axis=1) * below, np.nan)
