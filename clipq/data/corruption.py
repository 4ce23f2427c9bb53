"""Corrupted images: the 15 kinds of ImageNet-C at five severities, and occlusion.

Hendrycks & Dietterich 2019, "Benchmarking neural network robustness to common corruptions and
perturbations", as torch-uncertainty renders them. Images are corrupted in memory as they are read,
never saved as JPEG in between. Every draw comes from a seed of its own, made from the image's
bytes, the kind and the severity: an image is corrupted alike in every process and every order.

As in ImageNet-C, an image is converted to RGB as soon as it is decoded, and above 224 pixels it is
first brought to 224 (shorter side to 256, centre crop); smaller ones keep their size. A corrupted
image is RGB, whatever its original is: what lies under transparency is corrupted with the rest.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from clipq.data.decoding import as_rgb
from clipq.data.probe import Probe, hashed_order
from clipq.errors import ProbeError, did_you_mean
from clipq.provenance import digest, package_versions
from clipq.settings import CorruptionSettings

__all__ = ["KINDS", "corrupt", "corrupted", "kinds_matching"]

_CLASSES = {
    "gaussian_noise": "GaussianNoise",
    "shot_noise": "ShotNoise",
    "impulse_noise": "ImpulseNoise",
    "defocus_blur": "DefocusBlur",
    "glass_blur": "GlassBlur",
    "motion_blur": "MotionBlur",
    "zoom_blur": "ZoomBlur",
    "snow": "Snow",
    "frost": "Frost",
    "fog": "Fog",
    "brightness": "Brightness",
    "contrast": "Contrast",
    "elastic_transform": "Elastic",
    "pixelate": "Pixelate",
    "jpeg_compression": "JPEGCompression",
}
KINDS = (*_CLASSES, "occlusion")
"""Every kind of corruption, in ImageNet-C's order; occlusion is not one of ImageNet-C's."""

_VERSION = 1
_RENDERERS = ("torch-uncertainty", "kornia", "opencv-python")
_OCCLUDED_SIDE = (0.2, 0.3, 0.4, 0.5, 0.6)
_LARGEST = 224
_GLOBAL_STATE = threading.Lock()


def kinds_matching(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the kinds that names or globs select, in the order of `KINDS`.

    Raises:
        ProbeError: a pattern selects none.

    >>> kinds_matching(("*_blur", "fog"))
    ('defocus_blur', 'glass_blur', 'motion_blur', 'zoom_blur', 'fog')
    """
    for pattern in patterns:
        if not any(fnmatchcase(kind, pattern) for kind in KINDS):
            raise ProbeError(f"no corruption {pattern!r}", hint=did_you_mean(pattern, KINDS))
    return tuple(kind for kind in KINDS if any(fnmatchcase(kind, p) for p in patterns))


def corrupted(probe: Probe, settings: CorruptionSettings) -> Probe:
    """Return the probe with corrupted versions in place of its images.

    The group of a sample is its kind of corruption and its cluster is the image it was made from. A
    sample's hash stays that of the original image, so that leakage is still found. With `draws`,
    images get (kind, severity) pairs in turn, in an order that follows from their ids: every pair
    is used equally often, give or take one.

    Raises:
        ProbeError: a kind is unknown, or the probe has groups of its own.

    >>> from clipq.data import Images, probe_from_images
    >>> pictures = Images(np.zeros((2, 8, 8, 3), np.uint8), [0, 1], ["cat", "dog"])
    >>> probe = probe_from_images(pictures, name="pets", role="corruption")
    >>> corrupted(probe, CorruptionSettings(kinds=("fog", "snow"), severities=(3,))).ids
    ('0~snow~3', '0~fog~3', '1~snow~3', '1~fog~3')
    """
    if any(probe.groups):
        raise ProbeError(
            f"probe {probe.name!r} has both corruptions and a group",
            hint="remove `group`: samples are grouped by kind of corruption",
        )
    kinds = kinds_matching(settings.kinds)
    pairs = [(kind, severity) for kind in kinds for severity in settings.severities]
    chosen = _dealt(probe, pairs, settings.draws)
    source = [position for position, of_image in enumerate(chosen) for _ in of_image]
    variants = [pair for of_image in chosen for pair in of_image]
    hashes = tuple(probe.sample_hashes[position] for position in source)

    locate = probe.locate or str

    def read() -> Iterator[bytes]:
        for position, encoded in enumerate(probe.read_encoded()):
            for _ in chosen[position]:
                yield encoded

    def alter(image: Image.Image, position: int) -> Image.Image:
        kind, severity = variants[position]
        seed = _seed(hashes[position], kind, severity)
        return corrupt(as_rgb(image), kind, severity, seed=seed)

    return replace(
        probe,
        ids=tuple(
            f"{probe.ids[position]}~{kind}~{severity}"
            for position, (kind, severity) in zip(source, variants, strict=True)
        ),
        labels=probe.labels[source],
        groups=tuple(kind for kind, _ in variants),
        captions=None,
        sample_hashes=hashes,
        fingerprint=digest(
            [
                probe.fingerprint,
                variants,
                _VERSION,
                {name: package_versions(_RENDERERS)[name] for name in _RENDERERS},
            ]
        ),
        read_encoded=read,
        alter=alter,
        locate=None if probe.locate is None else lambda position: locate(source[position]),
        clusters=tuple(probe.ids[position] for position in source),
    )


def corrupt(image: Image.Image, kind: str, severity: int, *, seed: int) -> Image.Image:
    """Return a corrupted copy of an RGB image.

    Args:
        image: RGB.
        kind: one of `KINDS`.
        severity: 1 to 5.
        seed: of whatever the corruption draws; global generators are left as they were.

    >>> pixels = np.asarray(corrupt(Image.new("RGB", (10, 10)), "occlusion", 5, seed=0))
    >>> int((pixels[..., 0] == 127).sum())  # a grey square of 6 x 6
    36
    """
    image = _at_most(image)
    if kind == "occlusion":
        return _occluded(image, severity, np.random.default_rng(seed))
    import torch
    from torchvision.transforms.v2.functional import to_image

    pixels = to_image(image).float().div(255.0)
    # The transforms draw from torch's global generator, which threads share.
    with _GLOBAL_STATE, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transform = _transform(kind, severity)
        if hasattr(transform, "rng"):
            transform.rng = np.random.default_rng(seed)
        transformed = transform(pixels.clone())
    values = transformed.reshape(pixels.shape).double().mul(255.0).round().clamp(0, 255)
    return Image.fromarray(values.byte().permute(1, 2, 0).contiguous().numpy())


@cache
def _transform(kind: str, severity: int) -> Any:
    try:
        from torch_uncertainty.transforms import corruption
    except ImportError as error:
        raise ProbeError(
            f"corruption {kind!r} needs torch-uncertainty's image extra: {error}",
            hint="pip install 'torch-uncertainty[cpu,image]'",
        ) from error
    make: Callable[..., Any] = getattr(corruption, _CLASSES[kind])
    return make(severity)


def _dealt(
    probe: Probe, pairs: list[tuple[str, int]], draws: int
) -> list[tuple[tuple[str, int], ...]]:
    """Return the (kind, severity) pairs of each image."""
    if draws == 0 or draws >= len(pairs):
        return [tuple(pairs)] * len(probe)
    chosen: list[tuple[tuple[str, int], ...]] = [()] * len(probe)
    for turn, position in enumerate(hashed_order(probe)):
        indices = {(turn * draws + draw) % len(pairs) for draw in range(draws)}
        chosen[position] = tuple(pairs[index] for index in sorted(indices))
    return chosen


def _seed(image: str, kind: str, severity: int) -> int:
    text = f"{_VERSION}|{image}|{kind}|{severity}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])


def _at_most(image: Image.Image) -> Image.Image:
    if min(image.size) <= _LARGEST:
        return image
    from torchvision.transforms.functional import center_crop, resize

    shown: Image.Image = center_crop(resize(image, [256]), [_LARGEST, _LARGEST])
    return shown


def _occluded(image: Image.Image, severity: int, rng: np.random.Generator) -> Image.Image:
    """Cover a grey square, 20 % to 60 % of the shorter side, at a random place."""
    pixels = np.array(image)
    height, width = pixels.shape[:2]
    side = max(1, round(min(height, width) * _OCCLUDED_SIDE[severity - 1]))
    top = int(rng.integers(0, height - side + 1))
    left = int(rng.integers(0, width - side + 1))
    pixels[top : top + side, left : left + side] = 127
    return Image.fromarray(pixels)
