"""Sanity scalars of a prediction table as metrics."""

from __future__ import annotations

from clipq.metrics.predictions import Predictions

__all__ = ["effective_rank", "sqnr", "zero_fraction"]


def sqnr(predictions: Predictions) -> float:
    """Feature SQNR against FP32 in dB; see `clipq.metrics.features.sqnr_db`."""
    return predictions.scalar("sqnr_db")


def zero_fraction(predictions: Predictions) -> float:
    """Share of zero feature entries, in [0, 1]."""
    return predictions.scalar("zero_fraction")


def effective_rank(predictions: Predictions) -> float:
    """Effective rank of the image features; see `clipq.metrics.features.effective_rank`."""
    return predictions.scalar("effective_rank")
