"""Out-of-distribution scores from distances to the calibration split's features.

Both need labelled in-distribution features; the calibration split's, encoded by the same model,
serve. Features are brought to unit length first, as CLIP compares them.
"""

from __future__ import annotations

import numpy as np

from clipq.errors import ClipqError
from clipq.metrics.features import unit

__all__ = ["NEIGHBOURS", "knn", "mahalanobis"]

NEIGHBOURS = 10
_ROWS = 1024


def knn(features: np.ndarray, known: np.ndarray, *, neighbours: int = NEIGHBOURS) -> np.ndarray:
    """Return minus the distance (N,) to the k-th nearest known feature (Sun et al. 2022).

    Args:
        features: (N, D).
        known: in-distribution features (M, D).
        neighbours: k; at most M are used.

    >>> knn(np.eye(2)[:1], known=np.eye(2), neighbours=2).round(3).tolist()  # at a right angle
    [-1.414]
    """
    queries, known = unit(features), unit(known)
    k = min(neighbours, len(known))
    scores = np.empty(len(queries))
    for start in range(0, len(queries), _ROWS):
        cosine = queries[start : start + _ROWS] @ known.T
        nearest = np.partition(cosine, -k, axis=1)[:, -k]
        scores[start : start + _ROWS] = -np.sqrt(np.maximum(2.0 - 2.0 * nearest, 0.0))
    return scores


def mahalanobis(features: np.ndarray, known: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return minus the squared Mahalanobis distance (N,) to the nearest class (Lee et al. 2018).

    One covariance for all classes, of the residuals from the class means, shrunk as Ledoit & Wolf
    2004 do: with fewer known features than dimensions the plain one has no inverse.

    Args:
        features: (N, D).
        known: in-distribution features (M, D).
        labels: (M,) of the known features.

    Raises:
        ClipqError: there is no label for each known feature.

    >>> known = np.array([[5, 1], [5, -1], [1, 5], [-1, 5]])
    >>> queries, labels = np.array([[5, 0], [5, 5]]), np.array([0, 0, 1, 1])
    >>> inside, between = mahalanobis(queries, known, labels)
    >>> bool(inside > between)
    True
    """
    from sklearn.covariance import LedoitWolf

    if labels.shape != known.shape[:1]:
        raise ClipqError(
            f"{len(labels)} labels for {len(known)} features", hint="give one label per feature"
        )
    queries, known = unit(features), unit(known)
    if not (np.isfinite(queries).all() and np.isfinite(known).all()):
        return np.full(len(queries), np.nan)
    classes, codes = np.unique(labels, return_inverse=True)
    means = np.stack([known[codes == code].mean(axis=0) for code in range(len(classes))])
    precision = LedoitWolf(assume_centered=True).fit(known - means[codes]).precision_
    projected, offset = queries @ precision, means @ precision
    squared = (
        (projected * queries).sum(axis=1)[:, None]
        - 2.0 * projected @ means.T
        + (offset * means).sum(axis=1)
    )
    return np.asarray(-np.maximum(squared, 0.0).min(axis=1))
