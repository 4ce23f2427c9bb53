"""What one sample is worth in a statistic of groups: only groups that decide it count."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from clipq.stats.group_statistics import Cells, group_layout, group_rates, of_rates

__all__ = ["group_resolution"]


def group_resolution(
    kind: str,
    columns: Mapping[str, np.ndarray],
    groups: np.ndarray,
    *,
    bins: int = 15,
    clusters: np.ndarray | None = None,
    together: float = 1.0,
) -> float:
    """Return what one sample is worth, in the statistic's unit.

    Samples of different groups change independently, so r^2 is the sum over groups of e^2, with e
    the effect on the statistic of one more or one fewer right answer in that group, whichever moves
    it more. In a group of several cells (bins, classes) the sample lies in each with the cell's
    share of the group, so e^2 is the mean over cells.

    A group far from the worst has no effect on the worst group's accuracy, and so is worth nothing
    there; each of K groups has about 1 / K of its own on a mean over groups.

    Args:
        kind: one of the family ``groups`` in `clipq.statistic_kinds.KINDS`.
        columns: (N,) each, by the names that the table gives them; ``correct`` is 0 or 1.
        groups: (N,) text.
        bins: of calibration errors.
        clusters: cluster of each sample (N,): of one of mean size, a share changes, not a sample.
        together: that share.

    >>> groups = np.repeat(["few", "many"], [5, 500])
    >>> right = np.concatenate([np.ones(5), np.arange(500) % 2])
    >>> round(group_resolution("group-min", {"correct": right}, groups), 6)  # 1 / 500
    0.002
    """
    layout = group_layout(kind, columns, groups, bins=bins)
    count = len(layout.groups)
    shape = (1, count, layout.kinds)
    size = count * layout.kinds

    def summed(values: np.ndarray) -> np.ndarray:
        return np.bincount(layout.cell, values, minlength=size).reshape(shape)

    members = summed(np.ones(len(layout.cell)))
    right = summed(np.asarray(columns["correct"], np.float64))
    whole = Cells(members, np.stack([summed(values) for values in layout.values]))
    rates = group_rates(kind, whole)
    before = of_rates(kind, rates, layout.groups)
    # A right answer lowers confidence - correctness, and raises every other sum.
    sign = -1.0 if kind == "group-ece-range" else 1.0
    total = 0.0
    for group in range(count):
        own = members[0, group]
        step = _step(layout.cell // layout.kinds == group, clusters, together)
        changes = np.concatenate(
            [
                np.diag(np.minimum(step, own - right[0, group])),
                -np.diag(np.minimum(step, right[0, group])),
            ]
        )[:, None, :]
        sums = np.repeat(whole.sums[:, :, [group]], len(changes), axis=1)
        sums[0] += sign * changes
        weight = np.repeat(members[:, [group]], len(changes), axis=0)
        moved = np.repeat(rates, len(changes), axis=0)
        moved[:, group] = group_rates(kind, Cells(weight, sums))[:, 0]
        effects = np.abs(of_rates(kind, moved, layout.groups) - before)
        effects = np.where(np.isfinite(effects), effects, 0.0).reshape(2, -1).max(axis=0)
        total += float((own / own.sum()) @ effects**2)
    return math.sqrt(total)


def _step(inside: np.ndarray, clusters: np.ndarray | None, together: float) -> float:
    """Return how many samples of a group change together."""
    if clusters is None:
        return 1.0
    return max(1.0, together * float(inside.sum()) / len(np.unique(clusters[inside])))
