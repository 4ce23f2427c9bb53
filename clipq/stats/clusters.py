"""Clusters: samples that share a base image, say, and therefore err together."""

from __future__ import annotations

import numpy as np

from clipq.errors import StatisticsError

__all__ = ["changing_share", "cluster_codes", "effective_units", "linked_codes", "side_strata"]

_SMALLEST_KIND = 10
"""Clusters that are drawn among themselves: a few show too little variance."""


def cluster_codes(clusters: np.ndarray | None, size: int) -> np.ndarray | None:
    """Return the number (N,) of each sample's cluster; None where samples are independent.

    Samples are independent where there is no column of clusters, and where each is one of its own.

    Args:
        clusters: cluster of each sample (N,), any type.
        size: N.

    Raises:
        StatisticsError: there is not one per sample.

    >>> cluster_codes(np.array(["b", "a", "b"]), 3).tolist()
    [1, 0, 1]
    >>> cluster_codes(np.array(["c", "a", "b"]), 3) is None  # one sample each
    True
    """
    if clusters is None:
        return None
    if np.shape(clusters) != (size,):
        raise StatisticsError(
            f"clusters of shape {np.shape(clusters)} for {size} samples", hint="give one per sample"
        )
    distinct, codes = np.unique(clusters, return_inverse=True)
    return None if len(distinct) == size else np.asarray(codes)


def linked_codes(
    inside: np.ndarray | None, outside: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return numbers (N,), (M,) of clusters over two tables; None where they share none.

    Args:
        inside: clusters of one table's samples (N,); None where these are independent.
        outside: of the other's (M,).

    >>> first, second = linked_codes(np.array(["p1", "p2"]), np.array(["p2", "p3"]))
    >>> first.tolist(), second.tolist()
    ([0, 1], [1, 2])
    >>> linked_codes(np.array(["p1"]), np.array(["p2"])) is None
    True
    """
    if inside is None or outside is None or not np.isin(inside, outside).any():
        return None
    codes = np.unique(np.concatenate([inside, outside]), return_inverse=True)[1]
    return np.asarray(codes[: len(inside)]), np.asarray(codes[len(inside) :])


def side_strata(inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Return on which sides (N + M,) each sample's cluster has samples: inside, outside or both.

    Clusters are drawn among those alike, so that both sides keep about their size. A kind of fewer
    than 10 is drawn with the largest one.

    Args:
        inside: clusters of one side (N,), as `linked_codes` returns them.
        outside: of the other (M,).

    >>> side_strata(np.repeat(np.arange(20), 2), np.arange(10, 30)).tolist()[::10]
    [1, 1, 3, 3, 3, 2]
    """
    count = 1 + max(int(inside.max()), int(outside.max()))
    sides = np.zeros(count, np.int64)
    sides[inside] |= 1
    sides[outside] |= 2
    sizes = np.bincount(sides, minlength=4)
    for kind in (1, 2, 3):
        if sizes[kind] < _SMALLEST_KIND:
            sides[sides == kind] = sizes[1:].argmax() + 1
    return np.concatenate([sides[inside], sides[outside]])


def effective_units(codes: np.ndarray | None, size: int) -> float:
    """Return how many independent units the samples make: N, or the number of clusters.

    Clusters of unequal size count as (sum n)^2 / sum n^2 (Kish 1965): one that holds nearly all
    samples is nearly alone.

    Args:
        codes: as `cluster_codes` returns them.
        size: N.

    >>> effective_units(None, 100), effective_units(np.array([0, 0, 1, 1]), 4)
    (100.0, 2.0)
    >>> round(effective_units(np.array([0] * 97 + [1, 2, 3]), 100), 2)
    1.06
    """
    if codes is None:
        return float(size)
    members = np.bincount(codes).astype(np.float64)
    return float(members.sum() ** 2 / (members**2).sum())


def changing_share(changes: np.ndarray, codes: np.ndarray) -> float:
    """Return which share of a cluster changes together, where it changes at all; in (0, 1].

    The root mean square over the clusters that changed and an imagined one that changed as a whole:
    1 where none did, for nobody knows then how much of one would.

    Args:
        changes: of each sample (N,); 0 for no change, 1 for a change.
        codes: as `cluster_codes` returns them.

    >>> codes = np.repeat([0, 1], 4)
    >>> changing_share(np.zeros(8), codes)
    1.0
    >>> round(changing_share(np.array([1, 0, 0, 0, 0, 1, 0, 0]), codes), 4)  # sqrt(9 / 8 / 3)
    0.6124
    """
    shares = np.bincount(codes, changes) / np.bincount(codes)
    changed = shares[shares > 0.0]
    return float(np.sqrt((1.0 + changed @ changed) / (1.0 + len(changed))))
