"""Statistics of groups on many replicates at once: sums per cell, then a few numbers per row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from clipq.errors import StatisticsError
from clipq.statistic_kinds import KINDS
from clipq.stats.blocks import by_blocks, rows_per_block
from clipq.stats.resampling_weights import check_weights
from clipq.stats.statistics import bin_of, finite_column

__all__ = ["cell_sums", "grouped_statistic"]

_HALF = 0.5


@dataclass(frozen=True, slots=True)
class _Cells:
    """Weight (R, G, K) and weighted sums of columns (R, G, K) by group and kind of cell."""

    groups: tuple[str, ...]
    weight: np.ndarray
    sums: tuple[np.ndarray, ...]

    def mean(self, column: int = 0) -> np.ndarray:
        """Mean of a column by group (R, G); NaN where a group has no weight."""
        return _ratio(self.sums[column].sum(axis=2), self.weight.sum(axis=2))

    def named(self, values: np.ndarray, group: str) -> np.ndarray:
        """Values (R, G) of one group (R,)."""
        if group not in self.groups:
            raise StatisticsError(
                f"no group {group!r} among {', '.join(self.groups)}",
                hint="spurious cues are judged between the groups 'common' and 'counter'",
            )
        return values[:, self.groups.index(group)]


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
    names, codes = np.unique(groups, return_inverse=True)
    within, kinds = np.zeros(len(codes), np.int64), 1
    values = [finite_column(columns[name], name) for name in KINDS[kind].columns]
    if kind == "group-ece-range":
        within, kinds = bin_of(values[0], bins), bins
        values = [values[0] - values[1]]
    if kind == "group-tpr-range":
        labels, within = np.unique(values[1], return_inverse=True)
        kinds, values = len(labels), values[:1]
    sums = cell_sums(
        codes * kinds + within, np.stack(values), weights, len(names) * kinds, threads=threads
    )
    shaped = sums.reshape(len(sums), sums.shape[1], len(names), kinds)
    cells = _Cells(tuple(names.tolist()), shaped[0], tuple(shaped[1:]))
    return np.asarray(_REDUCE[kind](cells))


def _smallest(cells: _Cells) -> np.ndarray:
    return np.asarray(np.nanmin(cells.mean(), axis=1))


def _spread(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.nanmax(values, axis=1) - np.nanmin(values, axis=1))


def _ece_range(cells: _Cells) -> np.ndarray:
    return _spread(_ratio(np.abs(cells.sums[0]).sum(axis=2), cells.weight.sum(axis=2)))


def _tpr_range(cells: _Cells) -> np.ndarray:
    rates = _ratio(cells.sums[0], cells.weight)
    present = cells.weight > 0
    filled = np.where(present, rates, 0.0).sum(axis=2)
    return _spread(_ratio(filled, present.sum(axis=2)))


def _relative_gap(cells: _Cells) -> np.ndarray:
    accuracy = cells.mean()
    common, counter = cells.named(accuracy, "common"), cells.named(accuracy, "counter")
    return _ratio(common - counter, common)


def _added_vulnerability(cells: _Cells) -> np.ndarray:
    ours, reference = cells.mean(0), cells.mean(1)
    degradation = _ratio(reference - ours, reference)
    return np.asarray(cells.named(degradation, "counter") - cells.named(degradation, "common"))


def _corruption_error(cells: _Cells) -> np.ndarray:
    weight = cells.weight.sum(axis=2)
    # Below half a sample, a ratio of counts would be 0 / 0 or infinite.
    ours, reference = (np.maximum(weight - column.sum(axis=2), _HALF) for column in cells.sums)
    ratio = np.where(weight > 0, ours / reference, np.nan)
    return np.asarray(np.nanmean(ratio, axis=1))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    empty = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.asarray(np.divide(numerator, denominator, out=empty, where=denominator > 0))


_REDUCE: dict[str, Callable[[_Cells], np.ndarray]] = {
    "group-min": _smallest,
    "group-range": lambda cells: _spread(cells.mean()),
    "group-std": lambda cells: np.nanstd(cells.mean(), axis=1),
    "group-ece-range": _ece_range,
    "group-tpr-range": _tpr_range,
    "relative-gap": _relative_gap,
    "added-vulnerability": _added_vulnerability,
    "corruption-error": _corruption_error,
}
