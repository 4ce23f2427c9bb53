"""From features to the per-sample prediction table (numpy only).

Features are what a tower returned; the table is what metrics, baselines and paired resampling
read. Everything is computed in float64 from float32 features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipq.errors import QuantizerError
from clipq.metrics import Predictions, scores
from clipq.metrics import features as feature_metrics
from clipq.metrics.churn import churn_columns
from clipq.metrics.classify import classification_columns
from clipq.metrics.temperature import fit_temperature

__all__ = [
    "COLUMNS_VERSION",
    "Head",
    "SampleInfo",
    "build_predictions",
    "calibrated_temperature",
    "cosine_logits",
]

COLUMNS_VERSION = 2
"""Bumped when the meaning of any stored column changes."""


@dataclass(frozen=True, slots=True)
class Head:
    """A zero-shot head: class embeddings (C, D), unit length, and the model's logit map."""

    embeddings: np.ndarray
    logit_scale: float
    logit_bias: float


@dataclass(frozen=True, slots=True)
class SampleInfo:
    """What a probe knows of its samples: ids, labels (-1 where out of distribution), groups."""

    ids: tuple[str, ...]
    labels: np.ndarray
    groups: tuple[str, ...]


def calibrated_temperature(features: np.ndarray, head: Head, labels: np.ndarray) -> float:
    """Return the temperature that fits a calibration split; NaN where a logit is not finite.

    Args:
        features: image features (N, D) of the split.
        head: the zero-shot head.
        labels: (N,) of the split.
    """
    _, logits = cosine_logits(features, head)
    return fit_temperature(logits, labels) if np.isfinite(logits).all() else float("nan")


def cosine_logits(features: np.ndarray, head: Head) -> tuple[np.ndarray, np.ndarray]:
    """Return cosine similarities and logits, both (N, C) float64.

    A zero feature has no direction: its cosines are defined as 0 for every class.
    """
    wide = features.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    cosine = (wide / np.where(norms == 0.0, 1.0, norms)) @ head.embeddings.astype(np.float64).T
    return cosine, cosine * head.logit_scale + head.logit_bias


def build_predictions(
    features: np.ndarray,
    head: Head,
    samples: SampleInfo,
    *,
    temperature: float | None,
    reference_features: np.ndarray,
    reference_head: Head,
    towers: str,
) -> Predictions:
    """Build the prediction table of one model x quantizer on one probe.

    Args:
        features: image features (N, D) of the quantized model.
        head: its zero-shot head.
        samples: ids, labels and groups of the probe.
        temperature: fitted on the calibration split; None for an out-of-distribution probe,
            whose table holds scores only.
        reference_features: FP32 image features (N, D) of the same samples.
        reference_head: the FP32 head.
        towers: which towers are quantized: ``vision``, ``text``, ``both``; ``none`` for FP32.
    """
    cosine, logits = cosine_logits(features, head)
    columns: dict[str, np.ndarray] = {
        "id": np.asarray(samples.ids, dtype=np.str_),
        "label": samples.labels.astype(np.int64),
        "group": np.asarray(samples.groups, dtype=np.str_),
        "mcm": scores.mcm(cosine),
        "max_logit": scores.max_logit(cosine),
        "energy": scores.energy(cosine),
        "neg_entropy": scores.neg_entropy(logits),
    }
    scalars = {
        "sqnr_db": _sqnr_db(features, head, reference_features, reference_head, towers),
        "zero_fraction": feature_metrics.zero_fraction(features),
        "effective_rank": feature_metrics.effective_rank(features),
    }
    if temperature is not None:
        columns |= classification_columns(logits, samples.labels, temperature=temperature)
        _, reference_logits = cosine_logits(reference_features, reference_head)
        columns |= churn_columns(logits, reference_logits, samples.labels)
        scalars["temperature"] = temperature
    return Predictions(columns=columns, scalars=scalars)


def check_features(
    name: str, features: np.ndarray, head: Head, reference: np.ndarray, reference_head: Head
) -> None:
    """Refuse features that make every later number meaningless, or that prove nothing was done.

    Raises:
        QuantizerError: all features are zero, have another shape than FP32's, or features and
            class embeddings are bit-identical to FP32's.
    """
    if features.shape != reference.shape:
        raise QuantizerError(
            f"quantizer {name!r} returned features of shape {features.shape}, FP32 gives "
            f"{reference.shape}",
            hint="encode_image must return one embedding per image, as the FP32 model does",
        )
    if not np.any(features):
        raise QuantizerError(
            f"quantizer {name!r} zeroed every image feature",
            hint="check scales and zero points: a scale far above the data rounds all to zero",
        )
    if np.array_equal(features, reference) and np.array_equal(
        head.embeddings, reference_head.embeddings
    ):
        raise QuantizerError(
            f"quantizer {name!r} changed nothing: features and class embeddings are "
            "bit-identical to FP32",
            hint="return the quantized model from the method; "
            "`clipq list quantizers` shows what each one covers",
        )


def _sqnr_db(
    features: np.ndarray,
    head: Head,
    reference_features: np.ndarray,
    reference_head: Head,
    towers: str,
) -> float:
    """Worst signal-to-quantization-noise ratio over the quantized towers, in dB."""
    found = []
    if towers in ("vision", "both"):
        found.append(feature_metrics.sqnr_db(reference_features, features))
    if towers in ("text", "both"):
        found.append(feature_metrics.sqnr_db(reference_head.embeddings, head.embeddings))
    return min(found, default=float("inf"))
