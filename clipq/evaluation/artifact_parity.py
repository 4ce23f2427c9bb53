"""How near an artifact's features are to those of the FP32 model that it was exported from.

Each tower is compared by itself: a text tower that a bad scale destroyed says nothing of the image
tower, which looks fine, and the pair serves nonsense.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from clipq.runtimes import Finding

__all__ = ["BROKEN", "WEAK", "Thresholds", "TowerParity", "compare", "parity_finding"]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Beyond which features are not those of the same model.

    Args:
        cosine_mean: the mean over samples is at least this.
        cosine_min: the smallest is at least this.
        flips: at most this share of images is given another class.

    >>> BROKEN.passed(TowerParity("text", 64, 24, 0.3, 0.97, 0.94, 0.3))  # 30 % flip
    False
    """

    cosine_mean: float
    cosine_min: float
    flips: float

    def passed(self, found: TowerParity) -> bool:
        """Whether a tower is as near as this; NaN is not."""
        return (
            found.cosine_mean >= self.cosine_mean
            and found.cosine_min >= self.cosine_min
            and found.flips <= self.flips
        )


BROKEN = Thresholds(cosine_mean=0.95, cosine_min=-1.0, flips=0.2)
"""What does not reach these is not a rounded form of the model.

Measured on one CLIP: int8 by five tools changes 0 to 3.1 % of the classes at cosines from 0.992;
a text tower whose mask made a scale infinite changes 96 % at -0.23.
"""
WEAK = Thresholds(cosine_mean=0.99, cosine_min=0.98, flips=0.05)
"""What does not reach these is further from FP32 than 8-bit tools that work are."""


@dataclass(frozen=True, slots=True)
class TowerParity:
    """How near one tower, or both, are.

    Args:
        tower: whose features were replaced: ``image``, ``text`` or ``both``.
        images: how many were classified.
        classes: among how many.
        flips: share of images whose nearest class differs from FP32's, in [0, 1].
        cosine_mean: of features with FP32's, mean over samples; of both towers the lower mean.
        cosine_min: the smallest.
        difference: largest absolute difference of a component, in FP32's own units.

    >>> TowerParity("image", 64, 24, 0.0, 1.0, 1.0, 3e-6).verdict
    'sound'
    """

    tower: str
    images: int
    classes: int
    flips: float
    cosine_mean: float
    cosine_min: float
    difference: float

    @property
    def verdict(self) -> str:
        """``broken``, ``weak`` or ``sound``, by `BROKEN` and `WEAK`."""
        if not BROKEN.passed(self):
            return "broken"
        return "sound" if WEAK.passed(self) else "weak"

    def to_plain(self) -> dict[str, Any]:
        """Return it as strict-JSON values; what is not a number is None."""
        plain = asdict(self) | {"verdict": self.verdict}
        return {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in plain.items()
        }


def compare(
    artifact: Mapping[str, np.ndarray], fp32: Mapping[str, np.ndarray], *, normalised: bool = False
) -> tuple[TowerParity, ...]:
    """Return how near each tower is, and both together where both are replaced.

    Args:
        artifact: of the same images and prompts the features of ``image`` (N, D) and, where it is
            replaced, of ``text`` (C, D).
        fp32: of both.
        normalised: whether the artifact's are of unit length by design, so that lengths are not
            compared.

    >>> rng = np.random.default_rng(0)
    >>> fp32 = {"image": rng.normal(size=(64, 8)), "text": rng.normal(size=(5, 8))}
    >>> found = compare({"image": 2.0 * fp32["image"], "text": -fp32["text"]}, fp32)
    >>> [(one.tower, round(one.cosine_mean, 6), one.verdict) for one in found]
    [('image', 1.0, 'sound'), ('text', -1.0, 'broken'), ('both', -1.0, 'broken')]
    """
    unit = {name: _unit(features) for name, features in fp32.items()}
    given = {name: _unit(features) for name, features in artifact.items()}
    expected = _classes(unit["image"], unit["text"])
    found = []
    for tower, features in given.items():
        cosines = _cosines(features, unit[tower])
        theirs, ours = (
            (features, unit[tower]) if normalised else (artifact[tower], np.asarray(fp32[tower]))
        )
        shown = unit | {tower: features}
        found.append(
            TowerParity(
                tower,
                len(expected),
                len(unit["text"]),
                _flips(shown["image"], shown["text"], expected),
                float(cosines.mean()),
                float(cosines.min()),
                _largest(theirs, ours),
            )
        )
    if len(found) > 1:
        found.append(
            TowerParity(
                "both",
                len(expected),
                len(unit["text"]),
                _flips(given["image"], given["text"], expected),
                _worst([one.cosine_mean for one in found], min),
                _worst([one.cosine_min for one in found], min),
                _worst([one.difference for one in found], max),
            )
        )
    return tuple(found)


def parity_finding(found: TowerParity, mended: str = "") -> Finding:
    """Return what is to be said of a tower that is broken or weak.

    Args:
        found: the tower.
        mended: what would make it sound, where that was found out.

    >>> parity_finding(TowerParity("text", 64, 24, 0.96, -0.23, -0.25, 9.0)).problem[:62]
    "text tower: its features are not FP32's: cosine -0.230 (least "
    """
    broken = found.verdict == "broken"
    said = "its features are not FP32's" if broken else "its features are far from FP32's"
    fix = (
        "are the files of this model and its weights, and io what they take? then look at the "
        "lint: scales, operators; quantize fewer of them, or the tower not at all"
        if broken
        else "more is lost than 8-bit tools that work lose: quantize MatMul, Gemm and Conv alone, "
        "or calibrate on the model's own images; the gate judges whether it is too much"
    )
    return Finding(
        "parity",
        f"{found.tower} tower: {said}: cosine {found.cosine_mean:.3f} (least "
        f"{found.cosine_min:.3f}), {100 * found.flips:.1f} % of {found.images} images get another "
        "class",
        mended or fix,
        wrong=broken,
    )


def _unit(features: np.ndarray) -> np.ndarray:
    found = np.asarray(features, np.float64)
    with np.errstate(all="ignore"):
        unit: np.ndarray = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


def _cosines(theirs: np.ndarray, ours: np.ndarray) -> np.ndarray:
    if theirs.shape != ours.shape:
        return np.full(len(ours), np.nan)
    with np.errstate(all="ignore"):
        found: np.ndarray = np.clip((theirs * ours).sum(axis=1), -1.0, 1.0)
    return found


def _classes(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    nearest: np.ndarray = (images @ texts.T).argmax(axis=1)
    return nearest


def _flips(images: np.ndarray, texts: np.ndarray, expected: np.ndarray) -> float:
    """Return the share of other classes; what is not finite has no class."""
    if images.shape[1] != texts.shape[1]:
        return 1.0
    with np.errstate(all="ignore"):
        scores = images @ texts.T
    lost = ~np.isfinite(scores).all(axis=1)
    other = np.where(np.isfinite(scores), scores, -np.inf).argmax(axis=1) != expected
    return float((lost | other).mean())


def _largest(theirs: np.ndarray, ours: np.ndarray) -> float:
    if theirs.shape != ours.shape:
        return float("nan")
    with np.errstate(all="ignore"):
        return float(np.abs(np.asarray(theirs, np.float64) - ours).max())


def _worst(values: list[float], of: Any) -> float:
    return float("nan") if any(np.isnan(values)) else float(of(values))
