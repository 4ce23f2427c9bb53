"""What reports draw of one model x quantizer on one probe, as plain data of a few kilobytes.

Reports read records and nothing else, so a record carries its figures: the reliability diagram,
accuracy by group, score histograms with the ROC curve, energies by rank. Numbers are rounded to
five significant digits; a value that does not exist is None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from clipq.evaluation.cache import Cache
from clipq.metrics import Predictions
from clipq.metrics.calibration import BINS, bin_of
from clipq.metrics.spectra import residual_spectrum

__all__ = ["detection_figure", "figures", "reliability_bins", "spectrum_figure", "stored_figures"]

SCORES = ("mcm", "max_logit", "energy")
_CELLS = 32
_POINTS = 33
_RANKS = 48
_MOST_GROUPS = 100


def figures(
    role: str,
    table: Predictions,
    *,
    known: Predictions | None = None,
    features: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Return the figures of one cell, by name; which there are depends on the probe's role.

    ``calibration`` and ``groups`` where samples have right answers, ``detection`` out of
    distribution, ``spectrum`` in distribution and quantized. docs/report-schema.md describes each.

    Args:
        role: of the probe.
        table: the cell's predictions.
        known: the same candidate's in distribution, for ``detection``.
        features: image features (N, D) of FP32 and of the candidate, for ``spectrum``.
    """
    drawn: dict[str, Any] = {}
    if "correct" in table.columns and "confidence" in table.columns:
        drawn["calibration"] = _calibration(table)
        drawn |= _groups(table)
    if role == "ood" and known is not None:
        drawn["detection"] = {
            score.replace("_", "-"): detection_figure(known.column(score), table.column(score))
            for score in SCORES
        }
    if role == "in-distribution" and features is not None:
        drawn["spectrum"] = spectrum_figure(*features)
    return drawn


def stored_figures(cache: Cache, keys: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the figures that the cache holds, by cell; cells without any are left out.

    Args:
        cache: where `Evaluator.figures` put them, in whichever process.
        keys: of the figures of each cell.
    """
    read = {cell: cache.read("figures", key) for cell, key in sorted(keys.items())}
    return {cell: entry[1] for cell, entry in read.items() if entry is not None and entry[1]}


def reliability_bins(table: Predictions) -> np.ndarray:
    """Return counts, sums of confidence and sums of correctness per bin of confidence (3, B)."""
    confidence, correct = table.column("confidence"), table.column("correct")
    weights = (None, confidence, correct)
    return np.stack([np.bincount(bin_of(confidence), w, minlength=BINS) for w in weights])


def detection_figure(inside: np.ndarray, outside: np.ndarray) -> dict[str, Any]:
    """Return histograms over one range and the ROC curve of a score; {} where one is not finite.

    Args:
        inside: scores of in-distribution samples (N,), the positive class.
        outside: scores of out-of-distribution samples (M,).
    """
    both = np.concatenate([inside, outside])
    if not np.isfinite(both).all():
        return {}
    low, high = float(both.min()), float(both.max())
    if low == high:
        high = low + 1.0
    # Thresholds from above all scores to below them; at quantiles, so that the curve is even.
    at = np.concatenate([[np.inf], np.quantile(both, np.linspace(1, 0, _POINTS - 1))])
    return {
        "range": [_short(low), _short(high)],
        "inside": np.histogram(inside, _CELLS, (low, high))[0].tolist(),
        "outside": np.histogram(outside, _CELLS, (low, high))[0].tolist(),
        "fpr": [_short((outside >= threshold).mean()) for threshold in at],
        "tpr": [_short((inside >= threshold).mean()) for threshold in at],
    }


def spectrum_figure(reference: np.ndarray, quantized: np.ndarray) -> dict[str, Any]:
    """Return signal and residual energy at ranks spread evenly on a logarithmic scale.

    Args:
        reference: FP32's features (N, D).
        quantized: the quantized model's features (N, D).
    """
    if not (np.isfinite(reference).all() and np.isfinite(quantized).all()):
        return {}
    found = residual_spectrum(reference, quantized)
    count = len(found.signal)
    ranks = np.unique(np.geomspace(1, count, _RANKS).round().astype(int))
    return {
        "rank": ranks.tolist(),
        "signal": [_short(x) for x in found.signal[ranks - 1]],
        "residual": [_short(x) for x in found.residual[ranks - 1]],
    }


def _calibration(table: Predictions) -> dict[str, list[float | int | None]]:
    counts, confidence, correct = reliability_bins(table)
    filled = np.where(counts > 0, counts, np.nan)
    return {
        "samples": counts.astype(int).tolist(),
        "confidence": [_short(x) for x in confidence / filled],
        "accuracy": [_short(x) for x in correct / filled],
    }


def _groups(table: Predictions) -> dict[str, Any]:
    names, member = np.unique(table.column("group"), return_inverse=True)
    if not 2 <= len(names) <= _MOST_GROUPS:
        return {}
    confidence, correct = table.column("confidence"), table.column("correct")
    samples = np.bincount(member)
    cells = member * BINS + bin_of(confidence)
    gaps = np.abs(np.bincount(cells, confidence - correct, minlength=len(names) * BINS))
    ece = gaps.reshape(len(names), BINS).sum(1) / samples
    top1 = np.bincount(member, correct) / samples
    rows = zip(names.tolist(), samples.tolist(), top1, ece, strict=True)
    return {
        "groups": {
            str(name): {"samples": count, "top1": _short(share), "ece": _short(error)}
            for name, count, share, error in rows
        }
    }


def _short(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None
