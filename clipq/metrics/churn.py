"""Churn: what changed between FP32 and the quantized model, sample by sample.

Equal accuracy can hide that one sample in twenty is decided otherwise. The columns compare each
sample's prediction with FP32's; for FP32 itself all of these metrics are 0.
"""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax

from clipq.errors import ClipqError
from clipq.metrics.places import ranks
from clipq.metrics.predictions import Predictions

__all__ = ["churn_columns", "flip_rate", "kl_to_fp32", "negative_flips", "top2_gap_shrinkage"]


def churn_columns(
    logits: np.ndarray, reference_logits: np.ndarray, labels: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the columns that compare a model with FP32, each (N,).

    ``agrees``: 1 where both predict the same class. ``stays_correct``: 0 where FP32 is right and
    the model is not, else 1. ``kl``: KL(softmax FP32 || softmax model), in nats.
    ``top2_gap_loss``: FP32's gap between its two largest probabilities minus the model's.
    ``fp32_correct``: 1 where FP32 is right. A sample with a non-finite logit agrees with nothing
    and has NaN in ``kl`` and ``top2_gap_loss``.

    Args:
        logits: (N, C) of the model.
        reference_logits: (N, C) of FP32 on the same samples.
        labels: (N,) int.

    >>> ours, theirs = np.array([[0.0, 2.0], [2.0, 0.0]]), np.array([[2.0, 0.0], [2.0, 0.0]])
    >>> columns = churn_columns(ours, theirs, labels=np.array([0, 1]))
    >>> [columns[name].round(2).tolist() for name in ("agrees", "stays_correct", "kl")]
    [[0, 1], [0, 1], [1.52, 0.0]]
    """
    if logits.shape != reference_logits.shape or logits.ndim != 2:
        raise ClipqError(
            f"logits of shape {logits.shape} cannot be compared with FP32's "
            f"{reference_logits.shape}",
            hint="both hold one row per sample and one column per class",
        )
    finite = np.isfinite(logits).all(axis=1)
    safe = np.where(finite[:, None], logits, 0.0)
    ours, theirs = log_softmax(safe, axis=1), log_softmax(reference_logits, axis=1)
    divergence = (np.exp(theirs) * (theirs - ours)).sum(axis=1)
    right = _right(logits, labels)
    reference_right = _right(reference_logits, labels)
    lost = reference_right & ~right
    return {
        "agrees": (finite & (safe.argmax(axis=1) == reference_logits.argmax(axis=1))).astype(
            np.int64
        ),
        "stays_correct": (~lost).astype(np.int64),
        "fp32_correct": reference_right.astype(np.int64),
        "kl": np.where(finite, np.maximum(divergence, 0.0), np.nan),
        "top2_gap_loss": np.where(finite, _gap(theirs) - _gap(ours), np.nan),
    }


def flip_rate(predictions: Predictions) -> float:
    """Share of samples whose predicted class differs from FP32's; in [0, 1].

    >>> flip_rate(Predictions({"agrees": np.array([1, 0, 0, 1]), "kl": np.zeros(4)}))
    0.5
    """
    return _share_of_zeros(predictions, "agrees")


def negative_flips(predictions: Predictions) -> float:
    """Share of samples that FP32 gets right and the model wrong (Yan et al. 2021); in [0, 1].

    >>> negative_flips(Predictions({"stays_correct": np.array([1, 0, 1, 1]), "kl": np.zeros(4)}))
    0.25
    """
    return _share_of_zeros(predictions, "stays_correct")


def kl_to_fp32(predictions: Predictions) -> float:
    """Mean KL(FP32 || model) of the classifier's softmax, in nats; at least 0.

    >>> kl_to_fp32(Predictions({"kl": np.array([0.0, 0.5])}))
    0.25
    """
    return float(predictions.samples("kl").mean())


def top2_gap_shrinkage(predictions: Predictions) -> float:
    """Mean of FP32's top-two probability gap minus the model's; in [-1, 1].

    >>> top2_gap_shrinkage(Predictions({"top2_gap_loss": np.array([0.75 - 0.25, 0.0])}))
    0.25
    """
    return float(predictions.samples("top2_gap_loss").mean())


def _share_of_zeros(predictions: Predictions, column: str) -> float:
    if np.isnan(predictions.samples("kl")).any():
        return float("nan")  # a sample without a finite logit has no prediction to compare
    return float((predictions.samples(column) < 1).mean())


def _right(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.asarray((ranks(logits, labels) == 0) & np.isfinite(logits).all(axis=1))


def _gap(log_probability: np.ndarray) -> np.ndarray:
    largest = np.exp(np.partition(log_probability, -2, axis=1)[:, -2:])
    return np.asarray(largest[:, 1] - largest[:, 0])
