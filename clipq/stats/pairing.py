"""Samples of two tables, matched by id, or refused."""

from __future__ import annotations

import numpy as np

from clipq.errors import StatisticsError
from clipq.stats.clusters import effective_units

__all__ = ["MINIMUM_CLUSTERS", "MINIMUM_SAMPLES", "check_paired", "check_size", "check_units"]

MINIMUM_SAMPLES = 50
"""Fewest samples of a kind that a verdict is based on; below, intervals do not keep their level."""
MINIMUM_CLUSTERS = 25
"""Fewest clusters of samples (base images, say) that a verdict is based on."""


def check_paired(first: np.ndarray, second: np.ndarray) -> None:
    """Refuse ids (N,) that are not the same samples in the same order.

    Raises:
        StatisticsError: an id repeats, is missing from one of the two, or the order differs.

    >>> check_paired(np.array(["a", "b"]), np.array(["b", "a"]))
    Traceback (most recent call last):
    clipq.errors.StatisticsError: the tables hold the same samples in another order, ...
    """
    same = np.array_equal(first, second)
    for name, ids in (("first", first), ("second", second))[: 1 if same else 2]:
        distinct, counts = np.unique(ids, return_counts=True)
        if len(distinct) and counts.max() > 1:
            raise StatisticsError(
                f"sample id {str(distinct[counts.argmax()])!r} occurs {counts.max()} times in the "
                f"{name} table",
                hint="ids identify samples: make them unique",
            )
    if same:
        return
    only = np.setxor1d(first, second)
    if len(only):
        raise StatisticsError(
            f"the tables are not paired: {len(only)} samples are in one of them only, for example "
            f"{str(only[0])!r}",
            hint="a paired comparison needs the same samples in both",
        )
    at = int(np.flatnonzero(first != second)[0])
    raise StatisticsError(
        f"the tables hold the same samples in another order, first at row {at}: "
        f"{str(first[at])!r} and {str(second[at])!r}",
        hint="sort both by the probe's order",
    )


def check_size(samples: int, what: str, *, minimum: int = MINIMUM_SAMPLES) -> None:
    """Refuse fewer samples than intervals need.

    Raises:
        StatisticsError: `samples` is below `minimum`.

    >>> check_size(20, "top1")
    Traceback (most recent call last):
    clipq.errors.StatisticsError: top1: 20 samples are too few for a verdict
    ...
    """
    if samples < minimum:
        raise StatisticsError(
            f"{what}: {samples} samples are too few for a verdict",
            hint=f"give at least {minimum}; `clipq power` tells how many decide which margin",
        )


def check_units(clusters: np.ndarray | None, samples: int, what: str) -> None:
    """Refuse fewer samples, or fewer clusters of samples, than intervals need.

    Args:
        clusters: cluster of each sample (N,), as `clipq.stats.cluster_codes` returns them.
        samples: N.
        what: the metric, for the message.

    Raises:
        StatisticsError: there are fewer than 50 samples, or, counted as `effective_units` does,
            fewer than 25 clusters.

    >>> check_units(np.repeat([0, 1], 400), 800, "top1")
    Traceback (most recent call last):
    clipq.errors.StatisticsError: top1: 800 samples of 2 independent clusters are too few ...
      fix: give at least 25 clusters: samples of one cluster err together and count once
    """
    check_size(samples, what)
    units = effective_units(clusters, samples)
    if clusters is not None and units < MINIMUM_CLUSTERS - 1e-6:
        distinct = int(clusters.max()) + 1
        count = f"{distinct} independent clusters"
        if round(units) < distinct:
            count = f"{distinct} clusters, worth {units:.3g} of equal size,"
        raise StatisticsError(
            f"{what}: {samples} samples of {count} are too few for a verdict",
            hint=f"give at least {MINIMUM_CLUSTERS} clusters: samples of one cluster err together "
            "and count once",
        )
