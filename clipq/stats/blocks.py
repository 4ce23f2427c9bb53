"""Work through the replicates in blocks that fit a processor's cache, on one or more threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

__all__ = ["by_blocks", "rows_per_block"]

_ELEMENTS = 1 << 17
"""Weights per block: with its temporaries it stays within a megabyte or two of cache."""


def rows_per_block(size: int) -> int:
    """Return how many replicates of `size` samples make a block.

    >>> rows_per_block(2048)
    64
    """
    return max(1, _ELEMENTS // max(size, 1))


def by_blocks(
    worker: Callable[[], Callable[[slice], np.ndarray]],
    replicates: int,
    size: int,
    *,
    threads: int = 1,
) -> np.ndarray:
    """Return what a worker gives for consecutive slices of the replicates, joined at the end.

    NumPy releases the interpreter's lock in long loops, so threads run side by side. Blocks do not
    depend on the number of threads, and neither does any result.

    Args:
        worker: called once per thread; returns the function of a slice. It owns its buffers:
            arrays that are made anew for every block cost more than the arithmetic.
        replicates: R.
        size: samples per replicate.
        threads: at least 1.

    >>> by_blocks(lambda: lambda rows: np.arange(rows.start, rows.stop) ** 2, 4, size=100).tolist()
    [0, 1, 4, 9]
    """
    rows = rows_per_block(size)
    slices = [slice(s, min(s + rows, replicates)) for s in range(0, replicates, rows)]

    def run(part: list[slice]) -> list[np.ndarray]:
        work = worker()
        return [work(each) for each in part]

    if threads == 1 or len(slices) < 2 * threads:
        return np.concatenate(run(slices), axis=-1)
    bounds = np.linspace(0, len(slices), threads + 1).astype(int)
    parts = [slices[a:b] for a, b in pairwise(bounds)]
    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate([block for part in pool.map(run, parts) for block in part], axis=-1)
