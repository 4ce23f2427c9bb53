"""Bootstrap draws, kept for all metrics and tables of as many samples."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from clipq.provenance import digest
from clipq.settings import StatisticsSettings
from clipq.stats import bootstrap_weights, by_sample

__all__ = ["KeptDraws"]

_KEPT_BYTES = 1 << 27
_TURNED, _TURNED_BYTES = 64, 1 << 20


class KeptDraws:
    """Draws of samples, which follow from seed, number of samples, clusters and strata alone.

    Args:
        settings: how many replicates, from which seed.

    >>> draws = KeptDraws(StatisticsSettings(replicates=100))
    >>> drawn = draws.weights(50)
    >>> drawn.shape, draws.weights(50) is drawn, draws.by_sample(drawn).shape
    ((100, 50), True, (50, 100))
    """

    def __init__(self, settings: StatisticsSettings) -> None:
        self._settings = settings
        self._weights: OrderedDict[tuple[object, ...], np.ndarray] = OrderedDict()
        self._by_sample: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def weights(
        self,
        size: int,
        stream: int = 0,
        piece: int = 0,
        clusters: np.ndarray | None = None,
        strata: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return how often each sample is drawn (R, N); see `clipq.stats.bootstrap_weights`."""
        given = [None if column is None else column.tolist() for column in (clusters, strata)]
        key = (size, stream, piece, None if given == [None, None] else digest(given))
        if key not in self._weights:
            drawn = bootstrap_weights(
                size,
                replicates=self._settings.replicates,
                seed=self._settings.seed,
                stream=stream,
                piece=piece,
                clusters=clusters,
                strata=strata,
            )
            self._weights[key] = drawn
            while sum(kept.nbytes for kept in self._weights.values()) > _KEPT_BYTES:
                forgotten, _ = self._weights.popitem(last=False)
                if forgotten == key:
                    return drawn
        self._weights.move_to_end(key)
        return self._weights[key]

    def by_sample(self, drawn: np.ndarray) -> np.ndarray | None:
        """Return draws (R, N) as (N, R); None where they are too many to be kept twice.

        Args:
            drawn: what `weights` returned.
        """
        if drawn.nbytes > _TURNED_BYTES:
            return None
        if id(drawn) not in self._by_sample:
            # With the draws: their id must stay taken.
            self._by_sample[id(drawn)] = drawn, by_sample(drawn)
            if len(self._by_sample) > _TURNED:
                self._by_sample.popitem(last=False)
        self._by_sample.move_to_end(id(drawn))
        return self._by_sample[id(drawn)][1]
