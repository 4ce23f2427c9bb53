"""Image-caption pairs as the trainer takes them: images on demand, captions as tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from clipq.errors import TrainingError, listed

__all__ = ["Pairs"]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Images, each with one caption or several.

    Captions are told apart by what the model sees of them: two texts of the same tokens are one.

    Args:
        ids: N identifiers; an image that occurs twice has one.
        images: returns float images (B, 3, H, W), normalised, of rows (B,) int64.
        tokens: (M, L) int64, one line per caption.
        owners: (M,) int64, row of the image that each line belongs to.
        captions: (M,) int64, derived: equal where lines are.

    Raises:
        TrainingError: there are no pairs, an image has no caption, or a caption no image.

    >>> tokens = torch.tensor([[5, 1], [6, 1], [5, 1]])
    >>> pairs = Pairs(("a", "b"), lambda rows: torch.zeros(len(rows), 3, 2, 2), tokens,
    ...     np.array([0, 1, 1]))
    >>> len(pairs), pairs.captions.tolist(), pairs.lines(np.array([1, 0]), np.zeros(2)).tolist()
    (2, [0, 1, 0], [1, 0])
    """

    ids: Sequence[str]
    images: Callable[[np.ndarray], torch.Tensor]
    tokens: torch.Tensor
    owners: np.ndarray
    captions: np.ndarray = field(init=False)
    _sorted: np.ndarray = field(init=False, repr=False)
    _first: np.ndarray = field(init=False, repr=False)
    _counts: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not len(self.ids):
            raise TrainingError(
                "there are no image-caption pairs to train on",
                hint="name a probe of role 'proxy' whose images have captions",
            )
        rows = np.asarray(self.owners, np.int64)
        if self.tokens.ndim != 2 or rows.shape != (len(self.tokens),):
            raise TrainingError(
                f"captions of shape {tuple(self.tokens.shape)} with {rows.shape} owners",
                hint="give tokens (M, L), and for each line the row of its image",
            )
        strange = np.flatnonzero((rows < 0) | (rows >= len(self.ids)))
        if len(strange):
            raise TrainingError(
                f"caption {strange[0]} belongs to image {rows[strange[0]]} of {len(self.ids):,}",
                hint="owners count images from 0",
            )
        counts = np.bincount(rows, minlength=len(self.ids))
        if not counts.all():
            bare = [self.ids[row] for row in np.flatnonzero(counts == 0).tolist()]
            raise TrainingError(
                f"{len(bare):,} of {len(self.ids):,} images have no caption: {listed(bare)}",
                hint="leave them out, or caption them",
            )
        _, same = np.unique(self.tokens.cpu().numpy(), axis=0, return_inverse=True)
        derive = object.__setattr__
        derive(self, "owners", rows)
        derive(self, "captions", same.reshape(-1).astype(np.int64))
        derive(self, "_sorted", np.argsort(rows, kind="stable"))
        derive(self, "_counts", counts)
        derive(self, "_first", np.cumsum(counts) - counts)

    def __len__(self) -> int:
        return len(self.ids)

    def lines(self, rows: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """Return one line (B,) of each image's: the one at a share of its list.

        Args:
            rows: (B,) of images.
            shares: (B,) from 0, for the first, to 1, which is not reached.
        """
        counts = self._counts[rows]
        chosen = np.minimum((shares * counts).astype(np.int64), counts - 1)
        lines: np.ndarray = self._sorted[self._first[rows] + chosen]
        return lines

    @property
    def fingerprint(self) -> str:
        """The sha256 (hex) of identifiers, captions and whose they are."""
        total = hashlib.sha256()
        for name in self.ids:
            total.update(f"{len(name)}:{name}".encode())
        total.update(np.ascontiguousarray(self.owners).tobytes())
        total.update(f"{tuple(self.tokens.shape)}".encode())
        total.update(self.tokens.cpu().to(torch.int64).contiguous().numpy().tobytes())
        return total.hexdigest()
