"""Selective classification: is the model right where it is sure?"""

from __future__ import annotations

import numpy as np

from clipq.metrics.predictions import Predictions

__all__ = ["RISK", "augrc", "aurc", "coverage_at_risk"]

RISK = 0.05
"""Accepted share of errors of `coverage_at_risk`."""


def aurc(predictions: Predictions) -> float:
    """Area under the risk-coverage curve (Geifman & El-Yaniv 2017); in [0, 1].

    The risk at coverage k / N is the share of errors among the k most confident samples; the area
    is taken by the trapezoid rule from 1 / N to 1 and divided by 1 - 1 / N.

    >>> sure, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 1, 0, 1])
    >>> round(aurc(Predictions({"confidence": sure, "correct": right})), 4)  # risks 0, 0, 1/3, 1/4
    0.1528
    """
    risks, coverage = _curve(predictions)
    return _area(risks, coverage)


def augrc(predictions: Predictions) -> float:
    """Area under the generalised risk-coverage curve (Traub et al. 2024); in [0, 1/2].

    As `aurc`, of the risk times the coverage: the share of samples that are accepted and wrong.

    >>> sure, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 1, 0, 1])
    >>> augrc(Predictions({"confidence": sure, "correct": right}))
    0.125
    """
    risks, coverage = _curve(predictions)
    return _area(risks * coverage, coverage)


def coverage_at_risk(predictions: Predictions) -> float:
    """Largest coverage whose risk is at most 5 %; in [0, 1], 0 where there is none.

    >>> sure, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 1, 0, 1])
    >>> coverage_at_risk(Predictions({"confidence": sure, "correct": right}))
    0.5
    """
    risks, coverage = _curve(predictions)
    accepted = coverage[risks <= RISK]
    return float(accepted[-1]) if len(accepted) else _nan_or_zero(risks)


def _curve(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return risk and coverage (N,); among equal confidences, errors come first."""
    confidence = predictions.samples("confidence")
    correct = predictions.samples("correct")
    accepted = np.arange(1, len(confidence) + 1)
    if not np.isfinite(confidence).all():
        return np.full(len(accepted), np.nan), accepted / len(accepted)
    order = np.lexsort((correct, -confidence))
    return np.cumsum(1 - correct[order]) / accepted, accepted / len(accepted)


def _area(values: np.ndarray, coverage: np.ndarray) -> float:
    return float(np.trapezoid(values, coverage) / (1 - coverage[0]))


def _nan_or_zero(risks: np.ndarray) -> float:
    return 0.0 if np.isfinite(risks).all() else float("nan")
