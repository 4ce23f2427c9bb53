"""Sanity of features: did the quantizer do something, and something sane?"""

from __future__ import annotations

import numpy as np

from clipq.errors import ClipqError

__all__ = ["decibels", "effective_rank", "sqnr_db", "unit", "zero_fraction"]

_ROUNDING = 1e-12
"""Relative spread below which float64 centring leaves nothing but rounding noise."""


def _check(features: np.ndarray) -> None:
    if features.ndim != 2 or features.size == 0:
        raise ClipqError(
            f"features have shape {features.shape}", hint="features are (N, D), neither of them 0"
        )


def unit(features: np.ndarray) -> np.ndarray:
    """Return features (N, D) at unit length, float64; a zero feature stays zero.

    >>> unit(np.array([[3, 4], [0, 0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    wide = features.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.where(norms == 0.0, 1.0, norms))


def sqnr_db(reference: np.ndarray, quantized: np.ndarray) -> float:
    """Signal-to-quantization-noise ratio in dB: 10 log10(sum f^2 / sum (q - f)^2).

    Args:
        reference: FP32 features (N, D).
        quantized: quantized features (N, D) of the same samples.

    Infinite where both are identical (and finite); -inf where only `reference` is all zero; NaN
    where either holds a value that is not finite.

    Raises:
        ClipqError: the shapes differ, or there are no features.

    >>> sqnr_db(np.array([[16.0, 12.0]]), np.array([[16.0, 10.0]]))  # 400 / 4
    20.0
    """
    _check(reference)
    if reference.shape != quantized.shape:
        raise ClipqError(
            f"features of shapes {reference.shape} and {quantized.shape} cannot be compared",
            hint="give features of the same samples and the same embedding size",
        )
    if not (np.isfinite(reference).all() and np.isfinite(quantized).all()):
        return float("nan")
    signal = float(np.square(reference, dtype=np.float64).sum())
    noise = float(np.square(quantized.astype(np.float64) - reference).sum())
    return decibels(signal, noise)


def decibels(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise): infinite without noise, -inf without signal, NaN of NaN.

    >>> decibels(100.0, 1.0), decibels(1.0, 0.0)
    (20.0, inf)
    """
    if np.isnan(signal + noise):
        return float("nan")
    if noise == 0.0:
        return float("inf")
    return 10.0 * float(np.log10(signal / noise)) if signal > 0 else float("-inf")


def zero_fraction(features: np.ndarray) -> float:
    """Share of exactly zero entries, in [0, 1], of features (N, D); NaN where one is not finite.

    >>> zero_fraction(np.array([[0.0, 1.0], [0.0, 0.0]]))
    0.75
    """
    _check(features)
    return float((features == 0).mean()) if np.isfinite(features).all() else float("nan")


def effective_rank(features: np.ndarray) -> float:
    """exp(-sum p log p), p = s^2 / sum s^2, of the centred features (N, D); in [1, min(N, D)].

    Roy & Vetterli 2007 with energies, as in the study's spectral analysis. 1 where all samples
    coincide up to rounding; NaN where a feature is not finite.

    >>> round(effective_rank(np.eye(3)), 6)  # three points span a plane
    2.0
    """
    _check(features)
    if not np.isfinite(features).all():
        return float("nan")
    wide = features.astype(np.float64)
    centred = wide - wide.mean(axis=0)
    if np.abs(centred).max() <= _ROUNDING * np.abs(wide).max():
        return 1.0
    gram = centred.T @ centred if wide.shape[1] <= len(wide) else centred @ centred.T
    energies = np.clip(np.linalg.eigvalsh(gram), 0.0, None)
    total = energies.sum()
    share = energies[energies > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))
