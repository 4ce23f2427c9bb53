"""FP32's own shares and AUROCs, and how well they are known.

Intervals are Wilson's (1927), of as many independent samples as the samples are worth: all of them,
or, where they come in clusters, as many as would show the same error. That of an AUROC is DeLong's
(1988), by clusters on both sides Obuchowski's (1997).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipq.evaluation.closed_forms import auroc_error, mean_error
from clipq.evaluation.resampling import Tables
from clipq.metrics import Predictions
from clipq.stats import independent_samples, wilson

__all__ = ["Known", "known_auroc", "known_share"]


@dataclass(frozen=True, slots=True)
class Known:
    """A number, its 95 % interval, what it would be by chance, and how much is behind it.

    `worth` is the number of independent samples that would tell as much.

    >>> print(Known(0.25, 0.2, 0.31, chance=0.1, worth=240))
    0.250 [0.200, 0.310]
    """

    value: float
    low: float
    high: float
    chance: float
    worth: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @property
    def by_chance(self) -> bool:
        """Whether it is not surely better than chance."""
        return self.low <= self.chance


def known_share(hits: np.ndarray, table: Predictions, *, chance: float) -> Known:
    """Return the share of a probe's samples that are hits.

    Args:
        hits: true or false of each sample (N,).
        table: the probe's, whose clusters count.
        chance: the share by chance.

    >>> hits = np.repeat([True, False, True], [40, 40, 20])
    >>> print(known_share(hits, Predictions({"rank": np.zeros(100)}), chance=0.1))
    0.600 [0.502, 0.691]
    >>> frames = Predictions({"cluster": np.repeat([f"video={v}" for v in range(10)], 10)})
    >>> print(known_share(hits, frames, chance=0.1))  # ten videos, each right or wrong as a whole
    0.600 [0.267, 0.861]
    """
    tables, values = Tables(table, table), np.asarray(hits, np.float64)
    share, samples = float(values.mean()), float(len(values))
    worth = samples
    if tables.clusters[0] is not None:
        error = mean_error(values, tables)
        known = independent_samples(share, error, samples=len(values), units=tables.units[0])
        worth = min(known, samples)
    return _known(share, worth, chance)


def known_auroc(score: str, table: Predictions, inside: Predictions) -> Known | None:
    """Return a score's AUROC; None where it is not stored, not finite, or of a single sample.

    Args:
        score: a column of both tables, higher in distribution.
        table: of the probe that is out of distribution.
        inside: of the one that is in.

    >>> known = Predictions({"mcm": np.arange(10.0, 50.0)})
    >>> print(known_auroc("mcm", Predictions({"mcm": np.arange(30.0)}), known))
    0.833 [0.709, 0.911]
    """
    ours, theirs = inside.columns.get(score), table.columns.get(score)
    if ours is None or theirs is None or (fewest := min(len(ours), len(theirs))) < 2:
        return None
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return None
    tables = Tables(table, inside)
    value, error = auroc_error((ours, theirs), tables)
    worth = independent_samples(value, error, samples=fewest, units=min(tables.units))
    return _known(value, worth, 0.5)


def _known(value: float, worth: float, chance: float) -> Known:
    found = wilson(value, worth)
    return Known(value, found.low, found.high, chance, worth)
