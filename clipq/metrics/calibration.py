"""Calibration of the top-label confidence.

Binned errors come from netcal, on (confidence, correct) pairs. Bin b of B holds
[b / B, (b + 1) / B): an edge belongs to the upper bin, except that the last bin also holds 1.0, so
that a saturated confidence never gets a bin of its own. netcal moves 0 and 1 inward by one epsilon
(2.2e-16), so a perfect score reads 2.2e-16, not 0.
"""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

from clipq.errors import ClipqError
from clipq.metrics.predictions import Predictions

__all__ = [
    "BINS",
    "ace",
    "bin_of",
    "brier",
    "classwise_ece",
    "classwise_error",
    "confidence_gap",
    "ece",
    "mce",
    "nll",
    "temperature_log_ratio",
    "ts_ece",
]

BINS = 15
"""Number of equal-width bins over [0, 1]."""


def confidence_gap(predictions: Predictions) -> float:
    """Mean confidence - accuracy; in [-1, 1], positive = over-confident.

    >>> sure, right = np.array([0.9, 0.9, 0.9, 0.7]), np.array([1, 1, 1, 0])
    >>> round(confidence_gap(Predictions({"confidence": sure, "correct": right})), 6)  # 0.85 - 0.75
    0.1
    """
    return _mean(predictions, "confidence") - _mean(predictions, "correct")


def ece(predictions: Predictions) -> float:
    """Expected calibration error (Naeini et al. 2015): sum_b n_b / N |acc_b - conf_b|.

    >>> sure, right = np.array([0.9, 0.9, 0.9, 0.7]), np.array([1, 1, 1, 0])
    >>> round(ece(Predictions({"confidence": sure, "correct": right})), 6)  # 3/4 * 0.1 + 1/4 * 0.7
    0.25
    """
    return _binned("ECE", predictions, "confidence")


def ace(predictions: Predictions) -> float:
    """Average calibration error (Neumann et al. 2018): mean over bins of |acc_b - conf_b|.

    >>> sure, right = np.array([0.9, 0.9, 0.9, 0.7]), np.array([1, 1, 1, 0])
    >>> round(ace(Predictions({"confidence": sure, "correct": right})), 6)  # (0.1 + 0.7) / 2
    0.4
    """
    return _binned("ACE", predictions, "confidence")


def mce(predictions: Predictions) -> float:
    """Maximum calibration error (Naeini et al. 2015): max over bins of |acc_b - conf_b|.

    >>> sure, right = np.array([0.9, 0.9, 0.9, 0.7]), np.array([1, 1, 1, 0])
    >>> round(mce(Predictions({"confidence": sure, "correct": right})), 6)  # max(0.1, 0.7)
    0.7
    """
    return _binned("MCE", predictions, "confidence")


def ts_ece(predictions: Predictions) -> float:
    """Expected calibration error of the temperature-scaled confidence.

    >>> sure, right = np.array([0.7, 0.7]), np.array([1, 1])
    >>> round(ts_ece(Predictions({"ts_confidence": sure, "correct": right})), 6)
    0.3
    """
    return _binned("ECE", predictions, "ts_confidence")


def nll(predictions: Predictions) -> float:
    """Mean negative log-likelihood of the true label, in nats.

    >>> probability = np.array([0.5, 0.125])  # of the true labels: log 2 and 3 log 2
    >>> round(nll(Predictions({"nll": -np.log(probability)})), 4)
    1.3863
    """
    return _mean(predictions, "nll")


def brier(predictions: Predictions) -> float:
    """Mean Brier score, summed over classes; in [0, 2].

    >>> columns = {"brier": np.array([0.5**2 + 0.5**2, 0.0])}  # one at 50:50, one sure and right
    >>> brier(Predictions(columns))
    0.25
    """
    return _mean(predictions, "brier")


def temperature_log_ratio(predictions: Predictions) -> float:
    """log(T / T_FP32) of the temperatures fitted on the calibration split; 0 for FP32.

    Positive: quantization made the model more confident than it may be.

    >>> scalars = {"temperature_log_ratio": float(np.log(1.8 / 1.5))}  # T is 1.8, FP32's 1.5
    >>> round(temperature_log_ratio(Predictions({}, scalars)), 3)
    0.182
    """
    return predictions.scalar("temperature_log_ratio")


def classwise_ece(predictions: Predictions) -> float:
    """Classwise expected calibration error; see `classwise_error`. In [0, 1].

    >>> undecided = classwise_error(np.zeros((2, 2)), np.array([0, 0]))
    >>> classwise_ece(Predictions({}, {"classwise_ece": undecided}))
    0.5
    """
    return predictions.scalar("classwise_ece")


def classwise_error(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over classes of the expected calibration error of that class's probability.

    Kull et al. 2019: 1 / C sum_k sum_b n_bk / N |share of class k in bin b - mean p_k in bin b|,
    with the bins of this module. NaN where a logit is not finite.

    Args:
        logits: (N, C) of the classifier's softmax.
        labels: (N,) int in [0, C).

    >>> logits = np.zeros((2, 2))  # every class has probability 1/2
    >>> classwise_error(logits, np.array([0, 1])), classwise_error(logits, np.array([0, 0]))
    (0.0, 0.5)
    """
    if not np.isfinite(logits).all():
        return float("nan")
    probability = softmax(logits, axis=1)
    errors = []
    for index in range(probability.shape[1]):
        of_class = probability[:, index]
        gap = of_class - (labels == index)
        errors.append(
            np.abs(np.bincount(bin_of(of_class), gap, minlength=BINS)).sum() / len(of_class)
        )
    return float(np.mean(errors))


def bin_of(confidence: np.ndarray) -> np.ndarray:
    """Return the bin (N,) of each confidence; an edge belongs to the upper bin, 1 to the last.

    >>> bin_of(np.array([0.0, 0.5, 0.99, 1.0])).tolist()
    [0, 7, 14, 14]
    """
    edges = np.linspace(0.0, 1.0, BINS + 1)
    return np.asarray(np.minimum(np.searchsorted(edges, confidence, side="right") - 1, BINS - 1))


def _mean(predictions: Predictions, column: str) -> float:
    return float(predictions.samples(column).mean())


def _binned(kind: str, predictions: Predictions, column: str) -> float:
    from netcal.metrics import confidence as netcal_metrics

    confidence = predictions.samples(column)
    correct = predictions.samples("correct")
    if not (np.isfinite(confidence).all() and np.isfinite(correct).all()):
        return float("nan")  # netcal drops such samples without a word
    if confidence.min() < 0.0 or confidence.max() > 1.0:
        raise ClipqError(
            f"{column} goes from {confidence.min()} to {confidence.max()}",
            hint="confidences are probabilities in [0, 1], never logits; netcal would clip them",
        )
    measure = getattr(netcal_metrics, kind)(bins=BINS)
    return float(measure.measure(confidence.astype(np.float64), correct.astype(np.int64)))
