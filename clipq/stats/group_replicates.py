"""Statistics of groups on many replicates at once: sums per cell, then a few numbers per row."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from clipq.stats.blocks import by_blocks, rows_per_block
from clipq.stats.group_statistics import Cells, group_layout, group_rates, of_rates
from clipq.stats.resampling_weights import check_weights

__all__ = ["cell_sums", "grouped_statistic"]

_EXACT = 1 << 24
"""Whole numbers below this are exact in single precision."""
_MOST_STATES = 256
"""So many cells, times what a sample in one can be; of more, adding in order is faster."""
_MOST_ELEMENTS = 1 << 24


def cell_sums(
    cell: np.ndarray, columns: np.ndarray, weights: np.ndarray, count: int, *, threads: int = 1
) -> np.ndarray:
    """Return weights and weighted sums of columns by cell: (1 + V, R, cells).

    Args:
        cell: (N,) int in [0, count).
        columns: (V, N), finite.
        weights: (R, N).
        count: number of cells; one without a sample holds zeros.
        threads: to work on.

    >>> cell, column = np.array([0, 1, 1]), np.array([5.0, 2.0, 3.0])
    >>> cell_sums(cell, column[None], np.ones((1, 3)), count=2).tolist()  # weights, then sums
    [[[1.0, 2.0]], [[5.0, 5.0]]]
    """
    rows = check_weights(weights, len(cell))
    if _countable(columns, rows, count):
        return _counted(cell, columns, rows, count, threads=threads)
    order = np.argsort(cell, kind="stable")
    present, starts = np.unique(cell[order], return_index=True)
    ordered = columns[:, order]

    def worker() -> Callable[[slice], np.ndarray]:
        wide = np.empty((rows_per_block(len(cell)), len(cell)))

        def work(block: slice) -> np.ndarray:
            taken = wide[: block.stop - block.start]
            np.copyto(taken, rows[block][:, order])
            block_sums = np.zeros((count, 1 + len(columns), block.stop - block.start))
            for index, column in enumerate([None, *ordered]):
                values = taken if column is None else taken * column
                block_sums[present, index] = np.add.reduceat(values, starts, axis=1).T
            return block_sums

        return work

    # by_blocks joins along the last axis, so replicates are last until here.
    sums = by_blocks(worker, len(rows), len(cell), threads=threads)
    return np.ascontiguousarray(sums.transpose(1, 2, 0))


def _countable(columns: np.ndarray, rows: np.ndarray, count: int) -> bool:
    """Whether sums are whole numbers that single precision holds, and their cells are few.

    No order of adding them then moves a bit: drawn samples, of which each is right or wrong.
    """
    states = count << len(columns)
    return (
        rows.dtype == np.uint8
        and states <= _MOST_STATES
        and states * rows.shape[1] <= _MOST_ELEMENTS
        and rows.shape[1] * np.iinfo(np.uint8).max < _EXACT
        and bool(np.isin(columns, (0.0, 1.0)).all())
    )


def _counted(
    cell: np.ndarray, columns: np.ndarray, rows: np.ndarray, count: int, *, threads: int
) -> np.ndarray:
    """Return the same as `cell_sums`, for columns of zeros and ones: one product of matrices."""
    states = 1 << len(columns)
    bits = 1 << np.arange(len(columns))
    state = cell * states + bits @ columns.astype(np.int64)
    in_state = np.zeros((len(cell), count * states), np.float32)
    in_state[np.arange(len(cell)), state] = 1.0

    def work(block: slice) -> np.ndarray:
        return np.asarray((rows[block].astype(np.float32) @ in_state).T)

    sums = by_blocks(lambda: work, len(rows), len(cell), threads=threads)
    by_state = sums.reshape(count, states, len(rows)).astype(np.float64)
    holds = [np.ones(states, bool), *((np.arange(states) & bit) > 0 for bit in bits)]
    found = [by_state[:, chosen].sum(axis=1).T for chosen in holds]  # weights, then each column's
    return np.ascontiguousarray(np.stack(found))


def grouped_statistic(
    kind: str,
    columns: Mapping[str, np.ndarray],
    groups: np.ndarray,
    weights: np.ndarray,
    *,
    bins: int = 15,
    threads: int = 1,
) -> np.ndarray:
    """Return a statistic of groups (R,) for weights (R, N).

    Groups without weight in a replicate are left out of it.

    Args:
        kind: one of the family ``groups`` in `clipq.statistic_kinds.KINDS`.
        columns: (N,) each, by the names that the table gives them.
        groups: (N,) text.
        weights: (R, N).
        bins: of calibration errors.
        threads: to work on.

    Raises:
        StatisticsError: a column is not finite, or a group that the statistic needs is missing.

    >>> columns, groups = {"correct": np.array([1, 1, 1, 0])}, np.array(["a", "a", "b", "b"])
    >>> weights = np.array([[1, 1, 1, 1], [1, 1, 3, 1]])
    >>> grouped_statistic("group-min", columns, groups, weights).tolist()
    [0.5, 0.75]
    """
    layout = group_layout(kind, columns, groups, bins=bins)
    count = len(layout.groups)
    sums = cell_sums(layout.cell, layout.values, weights, count * layout.kinds, threads=threads)
    shaped = sums.reshape(len(sums), sums.shape[1], count, layout.kinds)
    return of_rates(kind, group_rates(kind, Cells(shaped[0], shaped[1:])), layout.groups)
