"""Spectra of one candidate: per rank, over space, and against sinusoidal gratings.

Measurements, not a mechanism: the study's follow-up refutes the naive reading that a quantized
model filters its input's high frequencies away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clipq.cases import Candidate
from clipq.errors import QuantizerError
from clipq.evaluation.encode import image_batches
from clipq.evaluation.inspection import Table
from clipq.metrics.features import decibels
from clipq.metrics.spectra import BANDS, band_name, residual_spectrum

if TYPE_CHECKING:
    from clipq.evaluation.encoder import Encoder
    from clipq.evaluation.evaluator import Evaluator

__all__ = ["by_band", "by_frequency", "by_grating", "by_rank", "radial_energy"]

_IMAGES = 64
_CONTRAST = 8.0 / 255.0
_RINGS = 8


def by_band(evaluator: Evaluator, candidate: Candidate) -> Table:
    """Return SQNR, accuracy and energy of each band of ranks, FP32 beside quantized."""
    cell = candidate.on(evaluator.settings.in_distribution.name)
    theirs = evaluator.evaluate(cell.reference).predictions
    ours = evaluator.evaluate(cell).predictions
    rows = tuple(
        (
            band_name(band),
            ours.scalar(f"sqnr_{band}_db"),
            *(float((t.column(f"{band}_band_wrong") < 1).mean()) for t in (theirs, ours)),
            *(t.scalar(f"{band}_energy") for t in (theirs, ours)),
        )
        for band in BANDS
    )
    headers = ("ranks", "SQNR dB", "top1 FP32", "top1 quantized", "energy FP32", "energy quantized")
    note = (
        "SQNR in FP32's basis; accuracy and energy in each model's own, centred; effective rank "
        f"{theirs.scalar('effective_rank'):.2f} FP32, {ours.scalar('effective_rank'):.2f} quantized"
    )
    return Table(headers, rows, note)


def by_rank(evaluator: Evaluator, candidate: Candidate) -> Table:
    """Return signal and residual energy of each rank in FP32's basis."""
    cell = candidate.on(evaluator.settings.in_distribution.name)
    spectrum = residual_spectrum(
        evaluator.encodings.features(cell.reference), evaluator.encodings.features(cell)
    )
    energies = zip(spectrum.signal.tolist(), spectrum.residual.tolist(), strict=True)
    rows = tuple(
        (rank, signal, residual, decibels(signal, residual))
        for rank, (signal, residual) in enumerate(energies)
    )
    headers = ("rank", "signal", "residual", "SQNR dB")
    return Table(headers, rows, "mean square along each of FP32's directions")


def by_frequency(evaluator: Evaluator, candidate: Candidate) -> Table:
    """Return the share of energy of the last feature map by spatial frequency.

    The two-dimensional Fourier transform of each channel over the grid of patches, its mean left
    out, summed over rings of equal radius.

    Raises:
        QuantizerError: the image tower exposes no map of features.
    """
    shares = [_map_spectrum(evaluator, form) for form in (candidate.reference, candidate)]
    rows = tuple(
        (f"{low:.3f}-{high:.3f}", float(first), float(second))
        for (low, high), first, second in zip(_rings(len(shares[0])), *shares, strict=True)
    )
    note = f"cycles per patch (0.707 is the corner); {_IMAGES} images, energy around the mean"
    return Table(("frequency", "FP32", "quantized"), rows, note)


def by_grating(evaluator: Evaluator, candidate: Candidate) -> Table:
    """Return how far features move when a sinusoidal grating is laid over the image.

    After Yin et al. 2019: ||f(x + g) - f(x)|| / ||f(x)||, averaged over images and orientations,
    for gratings of an amplitude of 8 / 255 at eight frequencies.
    """
    images = _first_images(evaluator, candidate)
    size = images.shape[1]
    frequencies = np.unique(np.linspace(1, size // 2, _RINGS).round().astype(int))
    moved = []
    for form in (candidate.reference, candidate):
        encoder = evaluator.encoders.encoder(form)
        with evaluator.encoders.contained(form, "encoding gratings"):
            moved.append([_moved(encoder, images, int(count)) for count in frequencies])
    rows = tuple(
        (f"{frequency / size:.3f}", first, second)
        for frequency, first, second in zip(frequencies, *moved, strict=True)
    )
    note = f"cycles per pixel; {len(images)} images, 4 orientations, amplitude 8/255"
    return Table(("frequency", "FP32", "quantized"), rows, note)


def radial_energy(maps: np.ndarray, rings: int) -> np.ndarray:
    """Return the share of energy (rings,) of maps (N, C, H, W) by spatial frequency.

    The mean of each map is left out; a map without variation adds nothing.
    """
    spectrum = np.abs(np.fft.fft2(maps - maps.mean(axis=(2, 3), keepdims=True))) ** 2
    vertical = np.fft.fftfreq(maps.shape[2])[:, None]
    horizontal = np.fft.fftfreq(maps.shape[3])[None, :]
    radius = np.hypot(vertical, horizontal)
    index = np.minimum((radius / np.sqrt(0.5) * rings).astype(int), rings - 1)
    energy = np.bincount(index.ravel(), spectrum.sum(axis=(0, 1)).ravel(), minlength=rings)
    return np.asarray(energy / energy.sum()) if energy.sum() > 0 else energy


def _rings(count: int) -> list[tuple[float, float]]:
    edges = np.sqrt(0.5) * np.arange(count + 1) / count
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def _map_spectrum(evaluator: Evaluator, candidate: Candidate) -> np.ndarray:
    images = _first_images(evaluator, candidate)
    encoder = evaluator.encoders.encoder(candidate)
    visual: Any = getattr(encoder.module, "visual", None)
    if not hasattr(visual, "forward_intermediates"):
        raise QuantizerError(
            f"image tower {type(visual).__name__} exposes no map of features",
            hint="the Fourier spectrum needs a tower with forward_intermediates, as open_clip's",
        )
    batches = image_batches(
        images, encoder.loaded.preprocess, batch_size=_IMAGES, device=encoder.device
    )
    contained = evaluator.encoders.contained(candidate, "encoding maps of features")
    with contained, torch.inference_mode():
        features = visual.forward_intermediates(
            next(iter(batches)), indices=1, intermediates_only=True, output_fmt="NCHW"
        )["image_intermediates"][-1]
    maps = features.double().cpu().numpy()
    return radial_energy(maps, max(2, min(_RINGS, maps.shape[2] // 2 + 1)))


def _first_images(evaluator: Evaluator, candidate: Candidate) -> np.ndarray:
    known = evaluator.settings.in_distribution.name
    preprocess = evaluator.encoders.model(candidate.model).preprocess
    return evaluator.inputs.images(known, preprocess, first=_IMAGES)


def _moved(encoder: Encoder, images: np.ndarray, cycles: int) -> float:
    module: Any = encoder.module
    preprocess, size = encoder.loaded.preprocess, images.shape[1]
    pixels = preprocess.pixels(images)
    grid = 2.0 * np.pi * cycles * np.arange(size) / size
    shares = []
    with torch.inference_mode():

        def features(values: torch.Tensor) -> torch.Tensor:
            normalised = preprocess.normalise_pixels(values.to(encoder.device))
            encoded: torch.Tensor = module.encode_image(normalised)
            return encoded.double()

        plain = features(pixels)
        for across, down in ((1, 0), (0, 1), (1, 1), (1, -1)):
            # Off phase: at the highest frequency a plain sine falls on its zeros.
            wave = np.sin(across * grid[None, :] + down * grid[:, None] + np.pi / 4.0)
            grating = torch.from_numpy(wave).float() * _CONTRAST
            moved = features((pixels + grating).clamp(0.0, 1.0)) - plain
            shares.append((moved.norm(dim=1) / plain.norm(dim=1)).mean().item())
    return float(np.mean(shares))
