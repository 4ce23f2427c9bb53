"""Resampling weights: how often each sample is drawn in each replicate.

A replicate of the bootstrap is a row of counts. Every statistic is a function of counts, so that
one matrix of weights serves all metrics, and FP32 and quantized predictions of the same samples
are resampled alike: that is what makes a comparison *paired*.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clipq.errors import StatisticsError

__all__ = ["bootstrap_weights", "by_sample", "check_totals", "check_weights", "jackknife_weights"]

Counts = NDArray[np.uint8]

_BLOCK = 50
"""Replicates per random stream; fixed, so that no thread or worker count moves a draw."""
_CACHE_LINE = 64  # bytes


def bootstrap_weights(
    size: int,
    *,
    replicates: int,
    seed: int,
    stream: int = 0,
    piece: int = 0,
    clusters: np.ndarray | None = None,
    strata: np.ndarray | None = None,
) -> Counts:
    """Return counts (R, N) of R bootstrap replicates of N samples.

    Each row draws N samples with replacement. With `strata`, each stratum is drawn on its own, so
    that its size stays fixed. With `clusters`, whole clusters are drawn (as many as there are), and
    every member of a cluster has its cluster's count: samples that share a base image are not
    independent.

    Args:
        size: N.
        replicates: R.
        seed: equal seeds give equal counts, on every machine and with any number of workers.
        stream: number of an independent stream, for example 0 for in-distribution samples and 1
            for out-of-distribution ones.
        piece: 0 for the first R rows of a stream, 1 for the R rows after these, and so on, where R
            is a multiple of 50.
        clusters: cluster of each sample (N,), any type.
        strata: stratum of each sample (N,), any type; a cluster lies in one stratum.

    Raises:
        StatisticsError: sizes do not fit, or a cluster lies in two strata.

    >>> bootstrap_weights(1000, replicates=3, seed=0).sum(axis=1).tolist()  # each draws 1000 again
    [1000, 1000, 1000]
    >>> drawn = bootstrap_weights(4, replicates=2, seed=0, clusters=np.array(["a", "a", "b", "b"]))
    >>> drawn.tolist()
    [[2, 2, 0, 0], [1, 1, 1, 1]]
    """
    if size < 1 or replicates < 1:
        raise StatisticsError(
            f"cannot draw {replicates} replicates of {size} samples", hint="give at least one each"
        )
    cluster = _codes(clusters, size, "clusters")
    stratum = _codes(strata, size, "strata")
    units = size if cluster is None else int(cluster.max()) + 1
    pools = _pools(units, cluster, stratum)
    drawn = np.empty((replicates, units), np.uint8)
    blocks = range(0, replicates, _BLOCK)
    for block, start in enumerate(blocks, start=piece * len(blocks)):
        rows = min(_BLOCK, replicates - start)
        generator = np.random.Generator(
            np.random.Philox(np.random.SeedSequence([seed, stream, block]))
        )
        for pool in pools:
            for row in range(start, start + rows):
                picks = generator.integers(0, len(pool), size=len(pool))
                drawn[row, pool] = np.bincount(picks, minlength=len(pool))
    return drawn if cluster is None else np.ascontiguousarray(drawn[:, cluster])


def jackknife_weights(
    size: int, *, groups: int, seed: int, stream: int = 0, clusters: np.ndarray | None = None
) -> Counts:
    """Return 0/1 weights (G, N): row g leaves out group g of a random partition of the samples.

    Args:
        size: N.
        groups: most groups to make; there are never more than samples (or clusters).
        seed, stream: as of `bootstrap_weights`; the partition has its own stream.
        clusters: cluster of each sample (N,); a cluster is left out as a whole.

    >>> jackknife_weights(4, groups=2, seed=0).sum(axis=0).tolist()  # each is left out once
    [1, 1, 1, 1]
    """
    cluster = _codes(clusters, size, "clusters")
    units = size if cluster is None else int(cluster.max()) + 1
    count = min(groups, units)
    generator = np.random.Generator(
        np.random.Philox(np.random.SeedSequence([seed, stream, 0x6A61636B]))
    )
    group = generator.permutation(np.arange(units) % count)
    weights = (group[None, :] != np.arange(count)[:, None]).astype(np.uint8)
    return weights if cluster is None else np.ascontiguousarray(weights[:, cluster])


def by_sample(weights: np.ndarray) -> np.ndarray:
    """Return counts (R, N) as (N, R), single precision: the replicates of one sample side by side.

    Turned in a copy with longer rows: of rows that are a power of two long, the same places share
    lines of the processor's cache, and turning them takes three times as long.

    >>> by_sample(np.array([[0, 2], [1, 1]], np.uint8)).tolist()
    [[0.0, 1.0], [2.0, 1.0]]
    """
    replicates, size = weights.shape
    padded = np.empty((replicates, size + _CACHE_LINE + 3), weights.dtype)
    padded[:, :size] = weights
    return padded[:, :size].T.astype(np.float32, order="C")


def check_weights(weights: np.ndarray, size: int) -> np.ndarray:
    """Return weights as (R, N), refused where they are no weights of N samples.

    Raises:
        StatisticsError: the shape does not fit, or a weight is negative or not finite.

    >>> check_weights(np.array([1, 2]), size=2).tolist()
    [[1, 2]]
    """
    rows = np.atleast_2d(np.asarray(weights))
    if rows.ndim != 2 or rows.shape[1] != size or rows.dtype.kind not in "uif":
        raise StatisticsError(
            f"weights of shape {np.shape(weights)} and type {rows.dtype} for {size} samples",
            hint="give numeric weights (R, N), one row per replicate",
        )
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        raise StatisticsError(
            f"{int((~np.isfinite(rows)).sum())} weights are NaN or infinite",
            hint="weights are finite and not negative",
        )
    if rows.dtype.kind != "u" and rows.min(initial=0) < 0:
        raise StatisticsError(
            f"the smallest weight is {rows.min()}", hint="weights are finite and not negative"
        )
    return rows


def check_totals(totals: np.ndarray) -> np.ndarray:
    """Return the sums of replicates' weights, refused where one is 0: nothing was drawn.

    >>> check_totals(np.array([4.0, 0.0]))
    Traceback (most recent call last):
    clipq.errors.StatisticsError: a replicate has no weight on any sample
      fix: each row needs a positive weight
    """
    if not totals.all():
        raise StatisticsError(
            "a replicate has no weight on any sample", hint="each row needs a positive weight"
        )
    return totals


def _codes(values: np.ndarray | None, size: int, what: str) -> np.ndarray | None:
    if values is None:
        return None
    if np.shape(values) != (size,):
        raise StatisticsError(
            f"{what} of shape {np.shape(values)} for {size} samples", hint="give one per sample"
        )
    return np.asarray(np.unique(values, return_inverse=True)[1])


def _pools(units: int, cluster: np.ndarray | None, stratum: np.ndarray | None) -> list[np.ndarray]:
    """Return the units (samples or clusters) of each stratum."""
    if stratum is None:
        return [np.arange(units)]
    of_unit = stratum
    if cluster is not None:
        of_unit = np.zeros(units, stratum.dtype)
        of_unit[cluster] = stratum
        if not np.array_equal(of_unit[cluster], stratum):
            raise StatisticsError(
                "a cluster lies in more than one stratum",
                hint="samples of one cluster share a stratum: draw by cluster or by stratum",
            )
    return [np.flatnonzero(of_unit == code) for code in range(int(stratum.max()) + 1)]
