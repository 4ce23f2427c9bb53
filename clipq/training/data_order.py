"""Which pairs a step takes, and which are never trained on: pure functions, nothing to resume.

Every draw has a generator of its own, seeded by the recipe's seed, what it is for, and the epoch or
step. So a run that was cut off at any step takes the same pairs, captions and noise from there on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from clipq.errors import TrainingError

__all__ = ["PairOrder", "caption_shares", "split_held_out", "step_generator"]

_EPOCH, _CAPTION, _STEP = 1, 2, 3


def split_held_out(ids: Sequence[str], share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return rows to train on and rows to hold out, both ascending.

    Held out are those with the smallest hashes of their ids, 2 or more, until the share is reached.
    It depends on neither the order of the data nor a seed, so that runs of several seeds are
    compared on the same pairs; an image that occurs twice is on one side with both.

    Args:
        ids: of N pairs.
        share: of them to hold out, from 0 to 1.

    Raises:
        TrainingError: fewer than 2 images would be left on either side.

    >>> train, held_out = split_held_out([f"image-{i}" for i in range(20)], 0.2)
    >>> len(train), len(held_out), set(train) & set(held_out)
    (16, 4, set())
    """
    wanted = max(2, round(len(ids) * share))
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(ids):
        rows.setdefault(name, []).append(row)
    held: list[int] = []
    chosen = 0
    for name in sorted(rows, key=_hash):
        if len(held) >= wanted and chosen >= 2:
            break
        held += rows[name]
        chosen += 1
    train = np.setdiff1d(np.arange(len(ids)), held)
    if len(rows) - chosen < 2:
        raise TrainingError(
            f"{len(ids):,} pairs of {len(rows):,} images cannot be divided: {len(held):,} are held "
            f"out to choose the checkpoint, and {len(train):,} are left to train on",
            hint="give more image-caption pairs; 4 different images are the least",
        )
    return train, np.sort(np.array(held, np.int64))


def _hash(name: str) -> bytes:
    return hashlib.sha256(f"held-out:{name}".encode()).digest()


class PairOrder:
    """The rows of each step: in every epoch another permutation, cut into whole batches.

    What is left over at an epoch's end is passed over, since a batch that reached into the next
    epoch might hold an image twice, once as the other's negative.

    Args:
        rows: (N,) that are trained on.
        batch: pairs a step.
        seed: of the recipe.

    >>> order = PairOrder(np.arange(5), batch=2, seed=0)
    >>> len({*order.at(0), *order.at(1)}), order.at(7).tolist() == order.at(7).tolist()
    (4, True)
    """

    def __init__(self, rows: np.ndarray, *, batch: int, seed: int) -> None:
        if len(rows) < batch:
            raise TrainingError(
                f"a batch takes {batch:,} pairs, and {len(rows):,} are left to train on",
                hint=f"give more pairs, or batch={len(rows)} or less",
            )
        self._rows, self._batch, self._seed = rows, batch, seed
        self._epoch, self._permuted = -1, rows

    def at(self, step: int) -> np.ndarray:
        """Return the rows (B,) of a step, counted from 0."""
        epoch, place = divmod(step, len(self._rows) // self._batch)
        if epoch != self._epoch:
            drawn = np.random.default_rng([self._seed, _EPOCH, epoch]).permutation(len(self._rows))
            self._epoch, self._permuted = epoch, self._rows[drawn]
        return self._permuted[place * self._batch : (place + 1) * self._batch]


def caption_shares(batch: int, *, seed: int, step: int) -> np.ndarray:
    """Return for each pair (B,) of a step which of its captions it takes, as a share of the list.

    >>> shares = caption_shares(2, seed=0, step=7)
    >>> shares.tolist() == caption_shares(2, seed=0, step=7).tolist(), shares.max() < 1
    (True, np.True_)
    """
    return np.random.default_rng([seed, _CAPTION, step]).random(batch)


def step_generator(seed: int, step: int, *, held_out: bool = False) -> torch.Generator:
    """Return the generator of a step, or of a block of held-out pairs, on the CPU.

    >>> a, b = step_generator(0, 5), step_generator(0, 5)
    >>> torch.equal(torch.rand(3, generator=a), torch.rand(3, generator=b))
    True
    """
    words = np.random.SeedSequence([seed, _STEP, step, int(held_out)]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))
