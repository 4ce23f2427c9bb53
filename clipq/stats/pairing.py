"""Samples of two tables, matched by id, or refused."""

from __future__ import annotations

import numpy as np

from clipq.errors import StatisticsError

__all__ = ["MINIMUM_SAMPLES", "check_paired", "check_size"]

MINIMUM_SAMPLES = 50
"""Fewest samples of a kind that a verdict is based on; below, intervals do not keep their level."""


def check_paired(first: np.ndarray, second: np.ndarray) -> None:
    """Refuse ids (N,) that are not the same samples in the same order.

    Raises:
        StatisticsError: an id repeats, is missing from one of the two, or the order differs.

    >>> check_paired(np.array(["a", "b"]), np.array(["b", "a"]))
    Traceback (most recent call last):
    clipq.errors.StatisticsError: the tables hold the same samples in another order, ...
    """
    for name, ids in (("first", first), ("second", second)):
        distinct, counts = np.unique(ids, return_counts=True)
        if len(distinct) and counts.max() > 1:
            raise StatisticsError(
                f"sample id {str(distinct[counts.argmax()])!r} occurs {counts.max()} times in the "
                f"{name} table",
                hint="ids identify samples: make them unique",
            )
    if np.array_equal(first, second):
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
