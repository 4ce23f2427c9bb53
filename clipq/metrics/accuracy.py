"""Accuracy from the rank of the true label."""

from __future__ import annotations

import numpy as np

from clipq.metrics.predictions import Predictions

__all__ = ["top1", "top5"]


def top1(predictions: Predictions) -> float:
    """Share of samples whose true label has the largest logit; in [0, 1].

    Of classes with equal logits the first is predicted, as `torch.argmax` does.

    >>> top1(Predictions({"rank": np.array([0, 2, 0, 7]), "confidence": np.full(4, 0.5)}))
    0.5
    """
    return _within(predictions, 1)


def top5(predictions: Predictions) -> float:
    """Share of samples whose true label is among the five largest logits; in [0, 1].

    Of classes with equal logits those listed first count first.

    >>> top5(Predictions({"rank": np.array([0, 2, 0, 7]), "confidence": np.full(4, 0.5)}))
    0.75
    """
    return _within(predictions, 5)


def _within(predictions: Predictions, k: int) -> float:
    if np.isnan(predictions.samples("confidence")).any():
        return float("nan")  # the rank of a sample without a finite logit means nothing
    return float((predictions.samples("rank") < k).mean())
