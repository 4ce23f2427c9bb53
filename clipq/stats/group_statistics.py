"""Statistics of groups, from sums by cell: a rate of each group, then one number of all rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from clipq.errors import StatisticsError
from clipq.statistic_kinds import KINDS
from clipq.stats.statistics import bin_of, finite_column

__all__ = ["Cells", "Layout", "group_layout", "group_rates", "of_rates", "rates_of"]

_HALF = 0.5


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the samples of a table lie, and what is summed there.

    Args:
        groups: names (G,), sorted.
        cell: of each sample (N,): group * kinds + kind of cell.
        kinds: K, of cells in a group: bins, classes, or one.
        values: columns (V, N) to be summed.

    >>> columns, groups = {"correct": np.array([1, 1, 0])}, np.array(["b", "a", "b"])
    >>> found = group_layout("group-min", columns, groups, bins=15)
    >>> found.groups, found.cell.tolist()
    (('a', 'b'), [1, 0, 1])
    """

    groups: tuple[str, ...]
    cell: np.ndarray
    kinds: int
    values: np.ndarray


@dataclass(frozen=True, slots=True)
class Cells:
    """Weight (R, G, K) and weighted sums of columns (V, R, G, K) by group and kind of cell.

    >>> cells = Cells(np.full((1, 1, 2), 4.0), np.array([[[[4.0, 2.0]]]]))
    >>> cells.mean(0).tolist()
    [[0.75]]
    """

    weight: np.ndarray
    sums: np.ndarray

    def mean(self, column: int) -> np.ndarray:
        """Mean of a column by group (R, G); NaN where a group has no weight."""
        return _ratio(self.sums[column].sum(axis=2), self.weight.sum(axis=2))


def group_layout(
    kind: str, columns: Mapping[str, np.ndarray], groups: np.ndarray, *, bins: int
) -> Layout:
    """Return the cells that a statistic of groups is computed from.

    Args:
        kind: one of the family ``groups`` in `clipq.statistic_kinds.KINDS`.
        columns: (N,) each, by the names that the table gives them.
        groups: (N,) text.
        bins: of calibration errors.

    Raises:
        StatisticsError: a column is not finite.

    >>> columns = {"confidence": np.array([0.1, 0.9]), "correct": np.array([0, 1])}
    >>> group_layout("group-ece-range", columns, np.array(["a", "b"]), bins=2).cell.tolist()
    [0, 3]
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
    return Layout(tuple(names.tolist()), codes * kinds + within, kinds, np.stack(values))


def group_rates(kind: str, cells: Cells) -> np.ndarray:
    """Return the rate of each group (R, G); NaN where a group has no weight.

    >>> cells = Cells(np.full((1, 2, 1), 4.0), np.array([[[[4.0], [2.0]]]]))
    >>> group_rates("group-min", cells).tolist()
    [[1.0, 0.5]]
    """
    return np.asarray(_RATES.get(kind, _accuracy)(cells))


def rates_of(kind: str) -> str:
    """Return which rates a statistic of groups combines: equal for kinds that share them.

    >>> rates_of("group-min") == rates_of("group-std") != rates_of("group-ece-range")
    True
    """
    return kind if kind in _RATES else "accuracy"


def of_rates(kind: str, rates: np.ndarray, groups: tuple[str, ...]) -> np.ndarray:
    """Return the statistic (R,) of the groups' rates (R, G); groups without weight are left out.

    Raises:
        StatisticsError: a group that the statistic needs is missing, or none of its samples is
            right, so that nothing can be relative to it.

    >>> of_rates("group-range", np.array([[0.75, 0.5]]), ("a", "b")).tolist()
    [0.25]
    """
    return np.asarray(_COMBINED[kind](rates, groups))


def _accuracy(cells: Cells) -> np.ndarray:
    return cells.mean(0)


def _calibration_error(cells: Cells) -> np.ndarray:
    return _ratio(np.abs(cells.sums[0]).sum(axis=2), cells.weight.sum(axis=2))


def _true_positives(cells: Cells) -> np.ndarray:
    present = cells.weight > 0
    rates = np.where(present, _ratio(cells.sums[0], cells.weight), 0.0)
    return _ratio(rates.sum(axis=2), present.sum(axis=2))


def _degradation(cells: Cells) -> np.ndarray:
    ours, reference = cells.mean(0), cells.mean(1)
    return _ratio(reference - ours, reference)


def _relative_errors(cells: Cells) -> np.ndarray:
    weight = cells.weight.sum(axis=2)
    # Below half a sample, a ratio of counts would be 0 / 0 or infinite.
    ours, reference = (np.maximum(weight - column.sum(axis=2), _HALF) for column in cells.sums)
    return np.asarray(np.where(weight > 0, ours / reference, np.nan))


def _spread(rates: np.ndarray, groups: tuple[str, ...]) -> np.ndarray:
    return np.asarray(np.nanmax(rates, axis=1) - np.nanmin(rates, axis=1))


def _relative_gap(rates: np.ndarray, groups: tuple[str, ...]) -> np.ndarray:
    common, counter = _cues(rates, groups)
    return _ratio(common - counter, common)


def _added(rates: np.ndarray, groups: tuple[str, ...]) -> np.ndarray:
    common, counter = _cues(rates, groups)
    return np.asarray(counter - common)


def _cues(rates: np.ndarray, groups: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the rates (R,) of the groups between which spurious cues are judged."""
    for name in ("common", "counter"):
        if name not in groups:
            raise StatisticsError(
                f"no group {name!r} among {', '.join(groups)}",
                hint="spurious cues are judged between the groups 'common' and 'counter'",
            )
    return rates[:, groups.index("common")], rates[:, groups.index("counter")]


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    empty = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.asarray(np.divide(numerator, denominator, out=empty, where=denominator > 0))


_RATES: dict[str, Callable[[Cells], np.ndarray]] = {
    "group-ece-range": _calibration_error,
    "group-tpr-range": _true_positives,
    "added-vulnerability": _degradation,
    "corruption-error": _relative_errors,
}
_COMBINED: dict[str, Callable[[np.ndarray, tuple[str, ...]], np.ndarray]] = {
    "group-min": lambda rates, groups: np.nanmin(rates, axis=1),
    "group-range": _spread,
    "group-std": lambda rates, groups: np.nanstd(rates, axis=1),
    "group-ece-range": _spread,
    "group-tpr-range": _spread,
    "relative-gap": _relative_gap,
    "added-vulnerability": _added,
    "corruption-error": lambda rates, groups: np.nanmean(rates, axis=1),
}
