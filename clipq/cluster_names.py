"""What clusters of samples are called, so that they mean the same in every probe's table.

A cluster that a probe's settings name is called ``COLUMN=VALUE``, as in ``patient=p017``: two
probes that name the same column and hold the same value share it. A base image, of which one probe
holds several corrupted versions, is called by its id, and is one of its own source alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

__all__ = ["cluster_column", "image_cluster", "in_place", "named_clusters"]

_SIGN = "="


def named_clusters(column: str, values: Iterable[str]) -> tuple[str, ...]:
    """Return what the clusters of samples are called, from a column of the probe's attributes.

    Args:
        column: its name, not empty.
        values: of each sample (N,).

    >>> named_clusters("patient", ["p017", "p018"])
    ('patient=p017', 'patient=p018')
    """
    return tuple(f"{column}{_SIGN}{value}" for value in values)


def image_cluster(sample: str) -> str:
    """Return what a base image is called as a cluster: its id, never mistaken for a named one.

    >>> image_cluster("0001"), image_cluster("x=1.png")
    ('0001', '=x=1.png')
    """
    return f"{_SIGN}{sample}" if _SIGN in sample else sample


def cluster_column(clusters: Sequence[str] | np.ndarray | None) -> str:
    """Return the column that a probe's clusters are named by; "" where they are base images.

    >>> cluster_column(["patient=p017"]), cluster_column(["0001"]), cluster_column(None)
    ('patient', '', '')
    """
    if clusters is None or not len(clusters):
        return ""
    column, sign, _ = str(clusters[0]).partition(_SIGN)
    return column if sign else ""


def in_place(clusters: np.ndarray, place: str) -> np.ndarray:
    """Return clusters (N,) as they are called among several probes: base images by their source.

    Args:
        clusters: of one probe: all named by a column, or all base images.
        place: what the source of its images is called.

    >>> [in_place(np.array([name]), "id").tolist() for name in ("0001", "patient=1")]
    [['id/0001'], ['patient=1']]
    """
    return clusters if cluster_column(clusters) else np.char.add(f"{place}/", clusters)
