"""AUROC and average precision of many replicates at once, by sorted order.

The samples are sorted once. A replicate then needs two running sums: true positives and all
accepted, at every threshold. The positive class is in-distribution and higher scores are more
in-distribution, as everywhere in clipq.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from clipq.errors import StatisticsError
from clipq.stats.blocks import by_blocks, rows_per_block
from clipq.stats.resampling_weights import check_totals, check_weights
from clipq.stats.statistics import finite_column

__all__ = ["paired_weights", "ranking"]

_NAMES = ("auroc", "aupr")


def ranking(
    scores_id: np.ndarray,
    scores_ood: np.ndarray,
    weights_id: np.ndarray,
    weights_ood: np.ndarray,
    *,
    threads: int = 1,
) -> dict[str, np.ndarray]:
    """Return ``auroc`` and ``aupr``, each (R,), for R replicates.

    Equal to scikit-learn's with `sample_weight` in every replicate: ties count half in the AUROC,
    and average precision is step-wise. Scores that are all equal give 0.5, and the share of
    in-distribution weight.

    Args:
        scores_id: (N,), finite.
        scores_ood: (M,), finite.
        weights_id: (R, N), not negative.
        weights_ood: (R, M), not negative.

    Raises:
        StatisticsError: one kind of sample is missing, or shapes do not fit.

    >>> known, unknown = np.array([0.9, 0.8]), np.array([0.85, 0.1])
    >>> found = ranking(known, unknown, np.array([[1, 1], [2, 0]]), np.ones((2, 2)))
    >>> found["auroc"].tolist()  # the second drew 0.9 twice, 0.8 never
    [0.75, 1.0]
    """
    inside, outside, rows_id, rows_ood = paired_weights(
        scores_id, scores_ood, weights_id, weights_ood
    )
    whole = rows_id.dtype == rows_ood.dtype == np.uint8
    if not whole:
        rows_id, rows_ood = rows_id.astype(np.float64), rows_ood.astype(np.float64)
    total = np.dtype(np.int32 if whole else np.float64)
    smallest = total.type(1 if whole else 1e-300)
    order_id, order_ood = np.argsort(-inside, kind="stable"), np.argsort(-outside, kind="stable")
    falling_id, falling_ood = -inside[order_id], -outside[order_ood]
    # How many of the one kind a threshold at a sample of the other kind accepts.
    ood_accepted = np.searchsorted(falling_ood, falling_id, side="right")
    id_above = np.searchsorted(falling_id, falling_ood, side="left")
    id_accepted = np.searchsorted(falling_id, falling_ood, side="right")
    tied_id = np.searchsorted(falling_id, falling_id, side="right")
    without_ties = bool((tied_id == np.arange(1, len(inside) + 1)).all())
    exact = np.array_equal(id_above, id_accepted)

    def worker() -> Callable[[slice], np.ndarray]:
        most = rows_per_block(len(inside) + len(outside))
        weight_id = np.empty((most, len(inside)), rows_id.dtype)
        weight_ood = np.empty((most, len(outside)), rows_ood.dtype)
        true = np.zeros((most, len(inside) + 1), total)
        false = np.zeros((most, len(outside) + 1), total)
        at_id = np.empty((most, len(inside)), total)
        at_ood = np.empty((most, len(outside)), total)
        precision, wide = np.empty((most, len(inside))), np.empty((most, len(inside)))

        def work(block: slice) -> np.ndarray:
            count = block.stop - block.start
            drawn_id, drawn_ood = weight_id[:count], weight_ood[:count]
            _take(rows_id[block], order_id, drawn_id)
            _take(rows_ood[block], order_ood, drawn_ood)
            np.cumsum(drawn_id, axis=1, dtype=total, out=true[:count, 1:])
            np.cumsum(drawn_ood, axis=1, dtype=total, out=false[:count, 1:])
            all_id = check_totals(true[:count, -1].astype(np.float64))
            all_ood = check_totals(false[:count, -1].astype(np.float64))

            below = _take(true[:count], id_above, at_ood[:count]).astype(np.float64)
            if not exact:
                below += _take(true[:count], id_accepted, at_ood[:count])
                below /= 2.0
            auroc = np.einsum("ij,ij->i", drawn_ood.astype(np.float64), below)

            hits = true[:count, 1:] if without_ties else np.take(true[:count], tied_id, axis=1)
            alarms = _take(false[:count], ood_accepted, at_id[:count])
            ratio, divisor = precision[:count], wide[:count]
            np.add(alarms, hits, out=alarms)
            # Where nothing is accepted yet, no weight meets the ratio: any divisor will do.
            np.maximum(alarms, smallest, out=alarms)
            np.copyto(ratio, hits)
            np.copyto(divisor, alarms)
            ratio /= divisor
            np.copyto(divisor, drawn_id)
            aupr = np.einsum("ij,ij->i", divisor, ratio) / all_id
            return np.stack([auroc / (all_id * all_ood), aupr])

        return work

    statistics = by_blocks(worker, len(rows_id), len(inside) + len(outside), threads=threads)
    return dict(zip(_NAMES, statistics, strict=True))


def paired_weights(
    scores_id: np.ndarray, scores_ood: np.ndarray, weights_id: np.ndarray, weights_ood: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return scores (N,), (M,) and weights (R, N), (R, M) of two kinds of sample, or refuse them.

    Raises:
        StatisticsError: one kind of sample is missing, or shapes do not fit.

    >>> found = paired_weights(np.zeros(3), np.ones(2), np.ones((4, 3)), np.ones((4, 2)))
    >>> [array.shape for array in found]
    [(3,), (2,), (4, 3), (4, 2)]
    """
    inside = finite_column(scores_id, "in-distribution scores")
    outside = finite_column(scores_ood, "out-of-distribution scores")
    rows_id = check_weights(weights_id, len(inside))
    rows_ood = check_weights(weights_ood, len(outside))
    if len(rows_id) != len(rows_ood):
        raise StatisticsError(
            f"{len(rows_id)} replicates of in-distribution weights, {len(rows_ood)} of "
            "out-of-distribution ones",
            hint="both are drawn for the same replicates",
        )
    return inside, outside, rows_id, rows_ood


def _take(rows: np.ndarray, columns: np.ndarray, out: np.ndarray) -> np.ndarray:
    return np.take(rows, columns, axis=1, out=out, mode="clip")  # clip: no buffer for errors
