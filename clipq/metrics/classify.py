"""The classification columns of a prediction table, from logits and labels."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax

from clipq.errors import ClipqError
from clipq.metrics.places import ranks

__all__ = ["classification_columns"]


def classification_columns(
    logits: np.ndarray, labels: np.ndarray, *, temperature: float
) -> dict[str, np.ndarray]:
    """Return the in-distribution columns, each (N,).

    Args:
        logits: (N, C) float64, before any softmax.
        labels: (N,) int in [0, C).
        temperature: divides the logits of the ``ts_`` twins.

    ``rank`` is the true label's place, 0 for the predicted class; see `clipq.metrics.places.ranks`.
    ``top2_gap`` is the largest minus the second largest probability; ``brier`` is the sum over
    classes of the squared difference to the one-hot label, in [0, 2]. A sample with a non-finite
    logit has NaN in every float column and is not correct.

    Raises:
        ClipqError: there are fewer than two classes, or labels do not fit.

    >>> logits = np.log([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]])
    >>> columns = classification_columns(logits, np.array([0, 2]), temperature=1.0)
    >>> [columns[name].round(6).tolist() for name in ("rank", "confidence", "top2_gap")]
    [[0, 1], [0.7, 0.6], [0.5, 0.3]]
    """
    if logits.ndim != 2 or logits.shape[1] < 2 or labels.shape != logits.shape[:1]:
        raise ClipqError(
            f"logits of shape {logits.shape} and labels of shape {labels.shape} do not make a "
            "classification",
            hint="give logits (N, C) of at least two classes and labels (N,)",
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < logits.shape[1]:
        raise ClipqError(
            f"labels go from {labels.min()} to {labels.max()}",
            hint=f"allowed: 0 to {logits.shape[1] - 1}",
        )
    finite = np.isfinite(logits).all(axis=1)
    safe = np.where(finite[:, None], logits, 0.0)
    rank = np.where(finite, ranks(safe, labels), logits.shape[1]).astype(np.int64)
    floats = _probabilistic(safe, labels)
    twins = _probabilistic(safe / temperature, labels)
    floats |= {f"ts_{name}": twins[name] for name in ("confidence", "nll", "brier")}
    return {
        "prediction": np.where(finite, safe.argmax(axis=1), -1).astype(np.int64),
        "rank": rank,
        "correct": (rank == 0).astype(np.int64),
        **{name: np.where(finite, values, np.nan) for name, values in floats.items()},
    }


def _probabilistic(logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    rows = np.arange(len(labels))
    log_probability = log_softmax(logits, axis=1)
    probability = np.exp(log_probability)
    largest = np.partition(probability, -2, axis=1)[:, -2:]
    truth = probability[rows, labels]
    return {
        "confidence": largest[:, 1],
        "top2_gap": largest[:, 1] - largest[:, 0],
        "nll": -log_probability[rows, labels],
        "brier": (probability**2).sum(axis=1) - 2 * truth + 1,
    }
