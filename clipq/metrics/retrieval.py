"""Retrieval between images and captions: CLIP's other job.

Ranks are 0-based. Of captions, or images, that are equally similar the first stands first, as for
argmax: two images with one caption between them share its credit by their order.
"""

from __future__ import annotations

import numpy as np

from clipq.errors import ClipqError
from clipq.metrics.features import unit
from clipq.metrics.places import ranks
from clipq.metrics.predictions import Predictions

__all__ = [
    "DEPTHS",
    "KEPT_COSINE",
    "captions_kept",
    "cosine_distance",
    "embedding_distance",
    "hubness",
    "image_to_text",
    "lost_captions",
    "retrieval_columns",
    "text_to_image",
]

DEPTHS = (1, 5, 10)
"""The k of recall@k."""
KEPT_COSINE = 0.9
"""Below this cosine with FP32's, a caption's embedding is another's."""
_HUB_DEPTH = 10
_ROWS = 512


def retrieval_columns(
    images: np.ndarray, texts: np.ndarray, owner: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the retrieval columns, each (N,).

    ``i2t_rank``: how many captions of other images stand before the best of the image's own.
    ``t2i_1``, ``t2i_5``, ``t2i_10``: the share of its captions by which the image
    is among the first k images. ``occurrences``: for how many captions it is among the first ten.

    Args:
        images: features (N, D).
        texts: caption features (M, D).
        owner: (M,) image of each caption; every image has one at least.

    Raises:
        ClipqError: shapes do not fit, or an image has no caption.

    >>> images, captions = np.eye(2), np.array([[1.0, 0.0], [0.8, 0.6]])
    >>> columns = retrieval_columns(images, captions, owner=np.array([0, 1]))
    >>> columns["t2i_1"].tolist()  # the second caption is nearer to the first image
    [1.0, 0.0]
    """
    count = len(images)
    if owner.shape != texts.shape[:1] or set(owner.tolist()) != set(range(count)):
        raise ClipqError(
            f"{len(texts)} captions of {len(set(owner.tolist()))} images for {count} images",
            hint="give every image at least one caption",
        )
    finite = bool(np.isfinite(images).all() and np.isfinite(texts).all())
    pictures, captions = (unit(np.nan_to_num(x, posinf=0.0, neginf=0.0)) for x in (images, texts))
    matching, text_rank = np.empty(len(texts)), np.empty(len(texts), np.int64)
    occurrences = np.zeros(count, np.int64)
    for start in range(0, len(texts), _ROWS):
        part = slice(start, min(start + _ROWS, len(texts)))
        cosine = captions[part] @ pictures.T
        matching[part] = cosine[np.arange(len(cosine)), owner[part]]
        text_rank[part] = ranks(cosine, owner[part])
        nearest = np.argsort(-cosine, axis=1, kind="stable")[:, : min(_HUB_DEPTH, count)]
        occurrences += np.bincount(nearest.ravel(), minlength=count)
    best = np.full(count, -np.inf)
    np.maximum.at(best, owner, matching)
    first, own = np.full(count, len(texts)), np.flatnonzero(matching == best[owner])
    np.minimum.at(first, owner[own], own)
    image_rank = np.zeros(count, np.int64)
    for start in range(0, len(texts), _ROWS):
        part = slice(start, min(start + _ROWS, len(texts)))
        cosine = captions[part] @ pictures.T
        before = np.arange(part.start, part.stop)[:, None] < first
        near = (cosine > best) | ((cosine == best) & before)
        near[np.arange(len(near)), owner[part]] = False
        image_rank += near.sum(axis=0)
    per_image = np.bincount(owner, minlength=count)
    columns = {
        "i2t_rank": image_rank,
        "occurrences": occurrences.astype(np.float64),
        **{
            f"t2i_{k}": np.bincount(owner, text_rank < k, minlength=count) / per_image
            for k in DEPTHS
        },
    }
    if not finite:
        columns |= {name: np.full(count, np.nan) for name in columns if name != "i2t_rank"}
    return columns


def cosine_distance(features: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return 1 - cosine (N,) between features (N, D) and FP32's of the same samples; in [0, 2].

    >>> cosine_distance(np.array([[1.0, 0.0]]), np.array([[0.6, 0.8]])).tolist()
    [0.4]
    """
    return np.asarray(1.0 - (unit(features) * unit(reference)).sum(axis=1))


def captions_kept(texts: np.ndarray, reference: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Return (N,) int: 1 where every caption of an image has a cosine of 0.9 or more with FP32's.

    Rounding to 8 bits leaves a cosine of 0.998 and more, to 4 bits of weights 0.98; a caption that
    was answered with another's features has about that of two captions. A feature that is not
    finite is not kept.

    Args:
        texts: caption features (M, D).
        reference: FP32's of the same captions.
        owner: (M,) image of each caption, 0 to N - 1.

    >>> ours, theirs = np.array([[1.0, 0.0], [1.0, 0.0]]), np.eye(2)
    >>> captions_kept(ours, theirs, owner=np.array([0, 1])).tolist()
    [1, 0]
    """
    kept = np.ones(owner.max() + 1, np.int64)
    with np.errstate(invalid="ignore"):
        lost = ~(1.0 - cosine_distance(texts, reference) >= KEPT_COSINE)
    kept[owner[lost]] = 0
    return kept


def image_to_text(predictions: Predictions, *, k: int) -> float:
    """Share of images with a caption of their own among the first k; in [0, 1].

    >>> table = Predictions({"i2t_rank": np.array([0, 3]), "occurrences": np.ones(2)})
    >>> image_to_text(table, k=1), image_to_text(table, k=5)
    (0.5, 1.0)
    """
    if np.isnan(predictions.samples("occurrences")).any():
        return float("nan")
    return float((predictions.samples("i2t_rank") < k).mean())


def text_to_image(predictions: Predictions, *, k: int) -> float:
    """Share of captions whose image is among the first k; in [0, 1].

    Averaged over each image's captions first: with equally many of each, the mean over captions.

    >>> text_to_image(Predictions({"t2i_1": np.array([1.0, 0.5])}), k=1)
    0.75
    """
    return float(predictions.samples(f"t2i_{k}").mean())


def lost_captions(predictions: Predictions) -> float:
    """Share of images one of whose captions has another embedding than FP32's; in [0, 1].

    >>> lost_captions(Predictions({"captions_kept": np.array([1, 0]), "occurrences": np.ones(2)}))
    0.5
    """
    if np.isnan(predictions.samples("occurrences")).any():
        return float("nan")
    return float((predictions.samples("captions_kept") < 1).mean())


def embedding_distance(predictions: Predictions) -> float:
    """Mean of 1 - cosine between an image's embedding and FP32's; in [0, 2], 0 for FP32.

    >>> embedding_distance(Predictions({"cosine_distance": np.array([0.0, 0.5])}))
    0.25
    """
    return float(predictions.samples("cosine_distance").mean())


def hubness(predictions: Predictions) -> float:
    """Skewness of how often an image is among a caption's ten nearest (Radovanovic et al. 2010).

    >>> round(hubness(Predictions({"occurrences": np.array([1, 1, 1, 5])})), 3)  # 6 / 3**1.5
    1.155
    """
    from scipy.stats import skew

    values = predictions.samples("occurrences")
    return float(skew(values)) if np.ptp(values) > 0 or np.isnan(values).any() else 0.0
