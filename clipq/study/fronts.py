"""Draws of losses with their errors, and which configurations are on a front in each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from clipq.study.effects import Effect

__all__ = ["Losses", "front", "joint_front"]

_AT_ONCE = 50
"""Draws that are in memory together."""


class Losses:
    """Losses of N configurations in M criteria, as draws of what they may truly be.

    Numbers of one criterion that are equal to the last digit share their draws: they are of the
    same predictions.

    Args:
        effects: of each configuration, one per criterion.
        seed: of the draws.

    >>> losses = Losses([[Effect(0.01, sampling=0.005)], [Effect(0.03, sampling=0.005)]])
    >>> losses.share(lambda drawn: (drawn <= 0.02).all(axis=2), 4000)  # 2 standard errors away
    [0.97..., 0.02...]
    """

    def __init__(self, effects: Sequence[Sequence[Effect]], *, seed: int = 0) -> None:
        table = np.array(
            [[(e.value, e.sampling, e.drawn**0.5, e.seeds) for e in row] for row in effects]
        )
        self._value, self._sampling, self._drawn, self._seeds = np.moveaxis(table, 2, 0)
        # The first configuration with the same numbers: draws of Student's t have its freedom.
        self._same = np.stack([_first_of(own) for own in np.moveaxis(table, 1, 0)], axis=1)
        self._seed = seed

    def share(self, judged: Callable[[np.ndarray], np.ndarray], draws: int) -> list[float]:
        """Return in which share of draws each configuration is judged true.

        Args:
            judged: from draws (D, N, M) to truths (D, N).
            draws: how many; the same ones at every call.
        """
        generator = np.random.default_rng(self._seed)
        true = np.zeros(len(self._value))
        for start in range(0, draws, _AT_ONCE):
            true += judged(self._draw(generator, min(_AT_ONCE, draws - start))).sum(axis=0)
        return [float(share) for share in (true / draws).round(4)]

    def _draw(self, generator: np.random.Generator, count: int) -> np.ndarray:
        shape = (count, *self._value.shape)
        columns = np.arange(shape[2])
        normal = generator.standard_normal(shape)[:, self._same, columns]
        student = generator.standard_t(np.maximum(1.0, self._seeds - 1.0), shape)
        found: np.ndarray = (
            self._value + self._sampling * normal + self._drawn * student[:, self._same, columns]
        )
        return found


def _first_of(rows: np.ndarray) -> np.ndarray:
    """Return of each row (N, ...) the place of the first that is equal to it."""
    _, first, same = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    places: np.ndarray = first[same.ravel()]
    return places


def front(costs: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Return which configurations (D, N) nothing beats in cost and one loss.

    Args:
        costs: of configurations (N,).
        losses: of draws (D, N).

    >>> front(np.array([4.0, 8.0, 8.0]), np.array([[0.02, 0.01, 0.03], [0.02, 0.02, 0.01]]))
    array([[ True,  True, False],
           [ True, False,  True]])
    """
    on = np.empty(losses.shape, bool)
    least = np.full(len(losses), np.inf)  # of what is cheaper
    for cost in np.unique(costs):
        own = costs == cost
        best = losses[:, own].min(axis=1)
        on[:, own] = (losses[:, own] < least[:, None]) & (losses[:, own] <= best[:, None])
        least = np.minimum(least, best)
    return on


def joint_front(costs: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Return which configurations (D, N) nothing beats in cost and all losses together.

    Args:
        costs: of configurations (N,).
        losses: of draws (D, N, M).

    >>> losses = np.array([[[0.1, 0.2], [0.2, 0.1], [0.2, 0.2]]])
    >>> joint_front(np.array([4.0, 4.0, 4.0]), losses)
    array([[ True,  True, False]])
    >>> joint_front(np.array([4.0, 4.0, 2.0]), losses)  # the last is the cheapest
    array([[ True,  True,  True]])
    """
    on = np.ones(losses.shape[:2], bool)
    for place, cost in enumerate(costs):
        others = losses[:, costs <= cost]
        own = losses[:, place, None, :]
        strictly = (costs[costs <= cost] < cost)[None, :] | (others < own).any(axis=2)
        on[:, place] = ~((others <= own).all(axis=2) & strictly).any(axis=1)
    return on
