"""From features to the per-sample prediction table (numpy only).

Features are what a tower returned; the table is what metrics, baselines and paired resampling
read. Everything is computed in float64 from float32 features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipq.errors import QuantizerError
from clipq.evaluation.known_labels import KnownLabels
from clipq.evaluation.point_errors import (
    Sides,
    classwise_errors,
    feature_errors,
    groups_of,
    stated,
)
from clipq.metrics import Predictions, scores
from clipq.metrics import features as feature_metrics
from clipq.metrics.calibration import classwise_error
from clipq.metrics.churn import churn_columns
from clipq.metrics.classify import classification_columns
from clipq.metrics.distances import knn, mahalanobis
from clipq.metrics.retrieval import captions_kept, cosine_distance, retrieval_columns
from clipq.metrics.spectra import BANDS, band_features, spectra_scalars
from clipq.metrics.temperature import fit_temperature
from clipq.metrics.temperature_error import confidence_slope, temperature_influence
from clipq.stats import cluster_codes, effective_units

__all__ = [
    "CANDIDATE_VERSION",
    "COLUMNS_VERSION",
    "Encoded",
    "Head",
    "SampleInfo",
    "build_predictions",
    "calibrated_temperature",
    "check_features",
    "cosine_logits",
]

COLUMNS_VERSION = 4
"""Bumped when the meaning or the name of any column changes that baselines store."""
CANDIDATE_VERSION = 3
"""Bumped when what only a candidate's table holds changes: baselines stay valid."""
_CLASSIFIED_ONLY = ("top2_gap", "brier", "ts_confidence", "ts_nll", "ts_brier", "top2_gap_loss")
"""Columns that only the in-distribution probe's metrics read."""


@dataclass(frozen=True, slots=True)
class Head:
    """A zero-shot head: class embeddings (C, D), unit length, and the model's logit map."""

    embeddings: np.ndarray
    logit_scale: float
    logit_bias: float


@dataclass(frozen=True, slots=True)
class SampleInfo:
    """What a probe knows of its samples.

    `labels` are -1 where out of distribution; `clusters` names what samples belong to;
    `columns` says which classes of the head stand for each class of the probe, where they differ;
    `owners` is the image of each caption, where there are captions to retrieve.
    """

    ids: tuple[str, ...]
    labels: np.ndarray
    groups: tuple[str, ...]
    clusters: tuple[str, ...] | None = None
    columns: tuple[tuple[int, ...], ...] | None = None
    owners: np.ndarray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """What one form of a model makes of one probe.

    Args:
        features: image features (N, D).
        head: its zero-shot head.
        known: its features of the calibration split (M, D), for distances and the temperature.
        temperature: fitted on that split.
        texts: caption features, where there are captions to retrieve.
    """

    features: np.ndarray
    head: Head
    known: np.ndarray
    temperature: float = 1.0
    texts: np.ndarray | None = None


def calibrated_temperature(features: np.ndarray, head: Head, known: KnownLabels) -> float:
    """Return the temperature that fits a calibration split; NaN where a logit is not finite.

    Args:
        features: image features (M, D) of the split.
        head: the zero-shot head.
        known: labels (M,) of the split, in the head's classes.
    """
    _, logits = cosine_logits(features, head, known.columns)
    return fit_temperature(logits, known.labels) if np.isfinite(logits).all() else float("nan")


def cosine_logits(
    features: np.ndarray, head: Head, columns: tuple[tuple[int, ...], ...] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return cosine similarities and logits, both (N, C) float64.

    A zero feature has no direction: its cosines are defined as 0 for every class. Classes with one
    embedding have exactly the same cosines. With `columns`,
    C is their number, and a class is as similar as the nearest of the head's classes that stand for
    it.
    """
    cosine = feature_metrics.unit(features) @ head.embeddings.astype(np.float64).T
    first: dict[bytes, int] = {}
    same = [first.setdefault(row.tobytes(), at) for at, row in enumerate(head.embeddings)]
    if len(first) < len(same):
        cosine = cosine[:, same]  # where a matrix product ends its blocks, equal columns may differ
    if columns is not None:
        cosine = np.stack([cosine[:, list(own)].max(axis=1) for own in columns], axis=1)
    return cosine, cosine * head.logit_scale + head.logit_bias


def build_predictions(
    role: str,
    samples: SampleInfo,
    observed: Encoded,
    reference: Encoded,
    *,
    known: KnownLabels,
    towers: str,
    known_clusters: tuple[str, ...] | None = None,
) -> Predictions:
    """Build the prediction table of one model x quantizer on one probe.

    Args:
        role: of the probe: what is computed.
        samples: of the probe.
        observed: what the quantized model makes of it.
        reference: what FP32 makes of it; `observed` itself for FP32.
        known: labels of the calibration split (M,), in the head's classes.
        towers: which towers are quantized: ``vision``, ``text``, ``both``; ``none`` for FP32.
        known_clusters: of the samples of the calibration split (M,).
    """
    columns: dict[str, np.ndarray] = {
        "id": np.asarray(samples.ids, dtype=np.str_),
        "label": samples.labels.astype(np.int64),
        "group": np.asarray(samples.groups, dtype=np.str_),
    }
    if samples.clusters is not None:
        columns["cluster"] = np.asarray(samples.clusters, dtype=np.str_)
    match role:
        case "retrieval":
            columns |= _retrieval(samples, observed, reference)
            return Predictions(columns, {})
        case "ood":
            columns |= _detection(observed, known)
            return Predictions(columns, _sanity(observed, reference, towers))
        case "in-distribution":
            columns |= _detection(observed, known)
            columns |= _classification(samples, observed, reference)
            columns |= _bands(samples, observed)
            columns["cosine_distance"] = cosine_distance(observed.features, reference.features)
            scalars = _sanity(observed, reference, towers) | _whole(samples, observed, reference)
            if observed is not reference:
                columns |= _slopes(samples, observed, reference)
                codes = _codes(known_clusters, len(known))
                scalars |= _temperature_errors(observed, reference, known, codes)
                scalars |= _point_errors(samples, observed, reference, towers)
            return Predictions(columns, scalars)
        case _:
            found = _classification(samples, observed, reference)
            columns |= {name: found[name] for name in found if name not in _CLASSIFIED_ONLY}
            return Predictions(columns, {})


def _detection(observed: Encoded, known: KnownLabels) -> dict[str, np.ndarray]:
    cosine, logits = cosine_logits(observed.features, observed.head)
    return {
        "mcm": scores.mcm(cosine),
        "max_logit": scores.max_logit(cosine),
        "energy": scores.energy(cosine),
        "neg_entropy": scores.neg_entropy(logits),
        "knn": knn(observed.features, observed.known),
        "mahalanobis": mahalanobis(observed.features, observed.known, known.labels),
    }


def _classification(
    samples: SampleInfo, observed: Encoded, reference: Encoded
) -> dict[str, np.ndarray]:
    _, logits = cosine_logits(observed.features, observed.head, samples.columns)
    _, theirs = cosine_logits(reference.features, reference.head, samples.columns)
    return {
        **classification_columns(logits, samples.labels, temperature=observed.temperature),
        **churn_columns(logits, theirs, samples.labels),
    }


def _bands(samples: SampleInfo, observed: Encoded) -> dict[str, np.ndarray]:
    """Return, per band of ranks, the rank of the true label from that band alone."""
    found = {}
    for band in BANDS:
        _, logits = cosine_logits(band_features(observed.features, band), observed.head)
        columns = classification_columns(logits, samples.labels, temperature=1.0)
        found[f"{band}_band_wrong"] = (columns["rank"] > 0).astype(np.int64)
    return found


def _retrieval(samples: SampleInfo, observed: Encoded, reference: Encoded) -> dict[str, np.ndarray]:
    owners = samples.owners
    if observed.texts is None or reference.texts is None or owners is None:
        raise QuantizerError(
            "retrieval without captions", hint="encode the captions, and say whose they are"
        )
    found = retrieval_columns(observed.features, observed.texts, owners)
    return found | {
        "captions_kept": captions_kept(observed.texts, reference.texts, owners),
        "cosine_distance": cosine_distance(observed.features, reference.features),
    }


def _sanity(observed: Encoded, reference: Encoded, towers: str) -> dict[str, float]:
    return {
        "sqnr_db": _sqnr_db(observed, reference, towers),
        "zero_fraction": feature_metrics.zero_fraction(observed.features),
        "effective_rank": feature_metrics.effective_rank(observed.features),
    }


def _whole(samples: SampleInfo, observed: Encoded, reference: Encoded) -> dict[str, float]:
    """Return what no column can give, of the in-distribution probe as a whole."""
    _, logits = cosine_logits(observed.features, observed.head, samples.columns)
    return {
        "temperature": observed.temperature,
        "temperature_log_ratio": float(np.log(observed.temperature / reference.temperature)),
        "classwise_ece": classwise_error(logits, samples.labels),
        **spectra_scalars(reference.features, observed.features),
    }


def _slopes(samples: SampleInfo, observed: Encoded, reference: Encoded) -> dict[str, np.ndarray]:
    """Return how both forms' scaled confidences move with the log of their own temperature."""
    return {
        name: confidence_slope(
            cosine_logits(form.features, form.head, samples.columns)[1], form.temperature
        )
        for name, form in (("ts_slope", observed), ("fp32_ts_slope", reference))
    }


def _temperature_errors(
    observed: Encoded, reference: Encoded, split: KnownLabels, codes: np.ndarray | None
) -> dict[str, float]:
    """Return variances and covariance of both forms' log T, and the error of their ratio."""
    size = len(split)
    units = effective_units(codes, size)
    moved = []
    for form in (observed, reference):
        _, logits = cosine_logits(form.known, form.head, split.columns)
        lost = not np.isfinite(logits).all()
        moved.append(
            np.full(size, np.nan)
            if lost
            else temperature_influence(logits, split.labels, form.temperature)
        )
    known = bool(np.isfinite(moved).all())
    ours, theirs = moved
    same = np.array_equal(observed.known, reference.known) and np.array_equal(
        observed.head.embeddings, reference.head.embeddings
    )
    unknown = 0.0 if same else float("inf")
    error = float(np.sqrt(_shared(ours - theirs, ours - theirs, codes))) if known else unknown
    found = {
        "log_temperature.variance": _shared(ours, ours, codes),
        "log_temperature.fp32_variance": _shared(theirs, theirs, codes),
        "log_temperature.covariance": _shared(ours, theirs, codes) if known else np.inf,
    }
    if codes is not None:
        found["log_temperature.clusters"] = units
    return found | stated("temperature_log_ratio", error, units - 1.0)


def _shared(first: np.ndarray, second: np.ndarray, codes: np.ndarray | None) -> float:
    """Return the covariance of two means, over samples (M,) or over clusters of them."""
    size = len(first)
    if codes is None:
        return float((first * second).mean() / size)
    sums = [np.bincount(codes, values) for values in (first, second)]
    return float(sums[0] @ sums[1]) / size**2 * len(sums[0]) / max(len(sums[0]) - 1, 1)


def _codes(clusters: tuple[str, ...] | None, size: int) -> np.ndarray | None:
    return cluster_codes(None if clusters is None else np.asarray(clusters, np.str_), size)


def _point_errors(
    samples: SampleInfo, observed: Encoded, reference: Encoded, towers: str
) -> dict[str, float]:
    """Return how well the scalars are known that images give."""
    size = len(samples.ids)
    groups = groups_of(size, _codes(samples.clusters, size))
    logits = Sides(
        *(
            cosine_logits(form.features, form.head, samples.columns)[1]
            for form in (reference, observed)
        )
    )
    text = _sqnr_db(observed, reference, "text") if towers in ("text", "both") else float("inf")
    return {
        **classwise_errors(logits, samples.labels, groups),
        **feature_errors(Sides(reference.features, observed.features), groups, sqnr_cap=text),
    }


def check_features(
    name: str,
    features: np.ndarray,
    head: Head,
    reference: np.ndarray,
    reference_head: Head,
    *,
    may_equal: bool = False,
) -> None:
    """Refuse features that make every later number meaningless, or that prove nothing was done.

    Args:
        name: text of the quantizer, or name of the artifact.
        features: image features (N, D) of the candidate.
        head: its zero-shot head.
        reference: FP32's features (N, D).
        reference_head: FP32's head.
        may_equal: whether FP32's very own bits may come back, as from float graphs.

    Raises:
        QuantizerError: all features are zero, have another shape than FP32's, or features and
            class embeddings are bit-identical to FP32's.
    """
    called = f"{'artifact' if may_equal else 'quantizer'} {name!r}"
    if features.shape != reference.shape:
        raise QuantizerError(
            f"{called} returned features of shape {features.shape}, FP32 gives {reference.shape}",
            hint="there must be one embedding per image, as long as the FP32 model's",
        )
    if not np.any(features):
        raise QuantizerError(
            f"{called} zeroed every image feature",
            hint="check scales and zero points: a scale far above the data rounds all to zero",
        )
    same = np.array_equal(features, reference)
    if not may_equal and same and np.array_equal(head.embeddings, reference_head.embeddings):
        raise QuantizerError(
            f"quantizer {name!r} changed nothing: features and class embeddings are "
            "bit-identical to FP32",
            hint="return the quantized model from the method; "
            "`clipq list quantizers` shows what each one covers",
        )


def _sqnr_db(observed: Encoded, reference: Encoded, towers: str) -> float:
    """Worst signal-to-quantization-noise ratio over the quantized towers, in dB."""
    found = []
    if towers in ("vision", "both"):
        found.append(feature_metrics.sqnr_db(reference.features, observed.features))
    if towers in ("text", "both"):
        found.append(feature_metrics.sqnr_db(reference.head.embeddings, observed.head.embeddings))
    return min(found, default=float("inf"))
