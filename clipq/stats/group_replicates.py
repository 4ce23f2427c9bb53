"""Statistics of groups on many replicates at once: sums per cell, then a few numbers per row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

from clipq.stats.blocks import by_blocks, rows_per_block
from clipq.stats.group_statistics import Cells, group_layout, group_rates, of_rates
from clipq.stats.resampling_weights import by_sample, check_weights

__all__ = ["CellSums", "GroupedReplicates", "grouped_statistic"]

_EXACT = 1 << 24
"""Whole numbers below this are exact in single precision."""


class CellSums:
    """Weights and weighted sums of columns by cell, of fixed samples and any number of replicates.

    Args:
        cell: (N,) int in [0, count).
        columns: (V, N), finite.
        count: number of cells; one without a sample holds zeros.

    >>> sums = CellSums(np.array([0, 1, 1]), np.array([[5.0, 2.0, 3.0]]), count=2)
    >>> sums(np.ones((1, 3))).tolist()  # weights, then sums
    [[[1.0, 2.0]], [[5.0, 5.0]]]
    """

    def __init__(self, cell: np.ndarray, columns: np.ndarray, count: int) -> None:
        self._cell, self._columns, self._count = cell, columns, count

    def __call__(
        self, weights: np.ndarray, turned: np.ndarray | None = None, *, threads: int = 1
    ) -> np.ndarray:
        """Return weights and weighted sums of the columns by cell: (1 + V, R, cells).

        Args:
            weights: (R, N).
            turned: what `by_sample` makes of them, where it is at hand.
            threads: to work on.
        """
        rows = check_weights(weights, len(self._cell))
        # Whole numbers that single precision holds: no order of adding them moves a bit.
        exact = rows.dtype == np.uint8 and rows.shape[1] * np.iinfo(np.uint8).max < _EXACT
        if exact and self._binary:
            return self._counted(rows, turned, threads)
        sums = np.empty((1 + len(self._columns), len(rows), self._count))
        sums[1:] = self._added(rows, self._columns, threads)
        sums[:1] = (
            self._weights_alone._counted(rows, turned, threads)
            if exact
            else self._added(rows, np.ones((1, rows.shape[1])), threads)
        )
        return sums

    @cached_property
    def _binary(self) -> bool:
        return bool(np.isin(self._columns, (0.0, 1.0)).all())

    @cached_property
    def _weights_alone(self) -> CellSums:
        return CellSums(self._cell, self._columns[:0], self._count)

    @cached_property
    def _in_state(self) -> csr_array:
        """Which sample (N) is in which cell and has which columns of zeros and ones (S, N)."""
        states = 1 << len(self._columns)
        bits = 1 << np.arange(len(self._columns))
        state = self._cell * states + bits @ self._columns.astype(np.int64)
        ends = np.cumsum(np.bincount(state, minlength=self._count * states))
        order = np.argsort(state, kind="stable")
        one = np.ones(len(order), np.float32)
        shape = (self._count * states, len(order))
        return csr_array((one, order, np.append(0, ends)), shape=shape)

    def _counted(self, rows: np.ndarray, turned: np.ndarray | None, threads: int) -> np.ndarray:
        """Return the sums of columns of zeros and ones, however many cells there are."""
        in_state, states = self._in_state, 1 << len(self._columns)

        def work(block: slice) -> np.ndarray:
            return np.asarray(in_state @ by_sample(rows[block]))

        if turned is not None:
            sums = np.asarray(in_state @ turned)
        else:
            sums = by_blocks(lambda: work, len(rows), rows.shape[1], threads=threads)
        by_state = sums.reshape(self._count, states, len(rows)).astype(np.float64)
        has = [np.arange(states) & (1 << bit) > 0 for bit in range(len(self._columns))]
        found = [by_state[:, chosen].sum(axis=1).T for chosen in (np.ones(states, bool), *has)]
        return np.ascontiguousarray(np.stack(found))  # weights, then each column's

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Samples in the order of their cells, which cells have some, and where they start."""
        order = np.argsort(self._cell, kind="stable")
        return order, *np.unique(self._cell[order], return_index=True)

    def _added(self, rows: np.ndarray, columns: np.ndarray, threads: int) -> np.ndarray:
        """Return the sums (V, R, cells) of columns (V, N) of any numbers, added in one order."""
        order, present, starts = self._sorted
        ordered, size = columns[:, order], len(order)

        def worker() -> Callable[[slice], np.ndarray]:
            drawn = np.empty((rows_per_block(size), size), rows.dtype)
            wide = np.empty(drawn.shape)

            def work(block: slice) -> np.ndarray:
                taken, product = drawn[: block.stop - block.start], wide[: block.stop - block.start]
                np.take(rows[block], order, axis=1, out=taken, mode="clip")
                block_sums = np.zeros((self._count, len(columns), len(taken)))
                for index, column in enumerate(ordered):
                    np.multiply(taken, column, out=product)
                    block_sums[present, index] = np.add.reduceat(product, starts, axis=1).T
                return block_sums

            return work

        # by_blocks joins along the last axis, so replicates are last until here.
        sums = by_blocks(worker, len(rows), size, threads=threads)
        return np.ascontiguousarray(sums.transpose(1, 2, 0))


class GroupedReplicates:
    """Statistics of groups of a table, for any number of weights; see `grouped_statistic`.

    Kinds that combine the same rates share one.

    Args:
        kind: one of the family ``groups`` in `clipq.statistic_kinds.KINDS`.
        columns: (N,) each, by the names that the table gives them.
        groups: (N,) text.
        bins: of calibration errors.

    Raises:
        StatisticsError: a column is not finite.

    >>> right, groups = {"correct": np.array([1, 1, 1, 0])}, np.array(["a", "a", "b", "b"])
    >>> replicates = GroupedReplicates("group-min", right, groups)
    >>> rates = replicates.rates(np.array([[1, 1, 1, 1], [1, 1, 3, 1]]))
    >>> rates.tolist(), replicates.combined("group-range", rates).tolist()
    ([[1.0, 0.5], [1.0, 0.75]], [0.5, 0.25])
    """

    def __init__(
        self, kind: str, columns: Mapping[str, np.ndarray], groups: np.ndarray, *, bins: int = 15
    ) -> None:
        self._kind = kind
        layout = self._layout = group_layout(kind, columns, groups, bins=bins)
        self._sums = CellSums(layout.cell, layout.values, len(layout.groups) * layout.kinds)

    def rates(
        self, weights: np.ndarray, turned: np.ndarray | None = None, *, threads: int = 1
    ) -> np.ndarray:
        """Return the rate of each group (R, G) for weights; NaN for one without weight.

        Args:
            weights: (R, N).
            turned: what `by_sample` makes of them, where it is at hand.
            threads: to work on.
        """
        sums = self._sums(weights, turned, threads=threads)
        shape = *sums.shape[:2], len(self._layout.groups), self._layout.kinds
        shaped = sums.reshape(shape)
        return group_rates(self._kind, Cells(shaped[0], shaped[1:]))

    def combined(self, kind: str, rates: np.ndarray) -> np.ndarray:
        """Return a statistic (R,) of rates (R, G).

        Raises:
            StatisticsError: a group that the statistic needs is missing.
        """
        return of_rates(kind, rates, self._layout.groups)


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
    replicates = GroupedReplicates(kind, columns, groups, bins=bins)
    return replicates.combined(kind, replicates.rates(weights, threads=threads))
