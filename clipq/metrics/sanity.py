"""Sanity scalars of a prediction table as metrics."""

from __future__ import annotations

from clipq.metrics.predictions import Predictions

__all__ = ["effective_rank", "sqnr", "zero_fraction"]


def sqnr(predictions: Predictions) -> float:
    """Feature SQNR against FP32 in dB; see `clipq.metrics.features.sqnr_db`.

    >>> sqnr(Predictions({}, {"sqnr_db": 20.0}))
    20.0
    """
    return predictions.scalar("sqnr_db")


def zero_fraction(predictions: Predictions) -> float:
    """Share of zero feature entries, in [0, 1].

    >>> zero_fraction(Predictions({}, {"zero_fraction": 0.75}))
    0.75
    """
    return predictions.scalar("zero_fraction")


def effective_rank(predictions: Predictions) -> float:
    """Effective rank of the image features; see `clipq.metrics.features.effective_rank`.

    >>> effective_rank(Predictions({}, {"effective_rank": 12.5}))
    12.5
    """
    return predictions.scalar("effective_rank")
