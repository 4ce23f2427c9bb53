"""Spectra of image features: where along FP32's principal directions quantization does harm.

The study's analysis: signal and residual energy per rank in FP32's basis, accuracy from bands of
ranks in each model's own basis. Features are the image embeddings that zero-shot heads see.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipq.errors import ClipqError
from clipq.metrics.features import decibels
from clipq.metrics.predictions import Predictions

__all__ = [
    "BANDS",
    "Spectrum",
    "band_energy",
    "band_features",
    "band_name",
    "band_sqnr",
    "band_top1",
    "residual_spectrum",
    "spectra_scalars",
]

BANDS = {"low": (0, 8), "mid": (8, 64), "high": (64, None)}
"""Bands of ranks, from the strongest direction."""


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """Energy per rank in FP32's basis, each (K,): of FP32's features and of the residual.

    The signal is that of centred FP32 features; the residual, quantized minus FP32, is not centred.

    >>> spectrum = Spectrum(signal=np.array([4.0, 1.0]), residual=np.array([0.04, 0.01]))
    >>> round(spectrum.sqnr_db("low"), 6), spectrum.energy_share("low")
    (20.0, 1.0)
    """

    signal: np.ndarray
    residual: np.ndarray

    def sqnr_db(self, band: str) -> float:
        """Signal-to-quantization-noise ratio of a band in dB; infinite without a residual."""
        ranks = slice(*BANDS[band])
        if not len(self.signal[ranks]):
            return float("nan")
        return decibels(float(self.signal[ranks].sum()), float(self.residual[ranks].sum()))

    def energy_share(self, band: str) -> float:
        """Share of the signal's energy in a band, in [0, 1]."""
        total = self.signal.sum()
        return float(self.signal[slice(*BANDS[band])].sum() / total) if total > 0 else 0.0


def residual_spectrum(reference: np.ndarray, quantized: np.ndarray) -> Spectrum:
    """Return signal and residual energy per rank, in the basis of `reference` (N, D).

    Raises:
        ClipqError: the shapes differ.

    >>> reference = np.array([[3.0, 0.0], [1.0, 0.0]])
    >>> spectrum = residual_spectrum(reference, reference + [0.1, 0.0])
    >>> spectrum.signal.round(6).tolist(), spectrum.residual.round(6).tolist()
    ([1.0, 0.0], [0.01, 0.0])
    """
    if reference.shape != quantized.shape or reference.ndim != 2:
        raise ClipqError(
            f"features of shapes {reference.shape} and {quantized.shape} cannot be compared",
            hint="give features of the same samples and the same embedding size",
        )
    if not (np.isfinite(reference).all() and np.isfinite(quantized).all()):
        return Spectrum(*np.full((2, reference.shape[1]), np.nan))
    centred, basis = _basis(reference)
    residual = quantized.astype(np.float64) - reference
    return Spectrum(
        np.square(centred @ basis).mean(axis=0), np.square(residual @ basis).mean(axis=0)
    )


def band_features(features: np.ndarray, band: str) -> np.ndarray:
    """Return features (N, D) with the centred part narrowed to a band of their own ranks.

    The mean is taken away and not put back: what is left is what the band alone says.

    >>> band_features(np.array([[3.0, 1.0], [1.0, 1.0]]), "low").round(6).tolist()
    [[1.0, 0.0], [-1.0, 0.0]]
    """
    if not np.isfinite(features).all():
        return np.full(features.shape, np.nan)
    centred, basis = _basis(features)
    own = basis[:, slice(*BANDS[band])]
    return np.asarray(centred @ own @ own.T)


def spectra_scalars(reference: np.ndarray, quantized: np.ndarray) -> dict[str, float]:
    """Return SQNR per band in FP32's basis, and the energy of each band of the own basis.

    >>> reference = np.array([[3.0, 0.0], [1.0, 0.0]])
    >>> found = spectra_scalars(reference, reference + [0.1, 0.0])
    >>> round(found["sqnr_low_db"], 6), found["low_energy"]
    (20.0, 1.0)
    """
    spectrum = residual_spectrum(reference, quantized)
    own = residual_spectrum(quantized, quantized)
    return {
        **{f"sqnr_{band}_db": spectrum.sqnr_db(band) for band in BANDS},
        **{f"{band}_energy": own.energy_share(band) for band in BANDS},
    }


def band_name(band: str) -> str:
    """Return a band's ranks for people: ``0-8``, ``64+``.

    >>> [band_name(band) for band in BANDS]
    ['0-8', '8-64', '64+']
    """
    low, high = BANDS[band]
    return f"{low}+" if high is None else f"{low}-{high}"


def band_sqnr(predictions: Predictions, *, band: str) -> float:
    """SQNR of a band of ranks in FP32's basis, in dB; NaN where features have no such ranks.

    >>> band_sqnr(Predictions({}, {"sqnr_high_db": 12.0}), band="high")
    12.0
    """
    return predictions.scalar(f"sqnr_{band}_db")


def band_energy(predictions: Predictions, *, band: str) -> float:
    """Share of the features' energy in a band of their own ranks; in [0, 1].

    >>> band_energy(Predictions({}, {"low_energy": 0.75}), band="low")
    0.75
    """
    return predictions.scalar(f"{band}_energy")


def band_top1(predictions: Predictions, *, band: str) -> float:
    """Zero-shot accuracy from one band of ranks alone; in [0, 1].

    >>> band_top1(Predictions({"low_band_wrong": np.array([0, 1, 0, 0])}), band="low")
    0.75
    """
    return float((predictions.samples(f"{band}_band_wrong") < 1).mean())


def _basis(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return centred features and their principal directions (D, D), strongest first."""
    wide = features.astype(np.float64)
    centred = wide - wide.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    return centred, directions[:, ::-1]
