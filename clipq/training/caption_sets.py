"""The batch's captions, each distinct one once: the classes that images are told apart by."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from clipq.training.objective import Features

__all__ = ["distinct_captions", "distinct_logits"]


def distinct_captions(captions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first place (K,) of each distinct caption, and the place in it of each (B,).

    >>> [part.tolist() for part in distinct_captions(torch.tensor([7, 3, 7]))]
    [[1, 0], [1, 0, 1]]
    """
    kinds, own = torch.unique(captions, return_inverse=True)
    places = torch.arange(len(captions), device=captions.device)
    first = torch.full_like(kinds, len(captions)).scatter_reduce(0, own, places, "amin")
    return first, own


def distinct_logits(
    features: Features, captions: torch.Tensor, images: torch.Tensor | None = None
) -> torch.Tensor:
    """Return scaled cosines (N, K) of images with each distinct caption of a batch, without bias.

    Args:
        features: whose scale and captions.
        captions: (B,) which captions are equal.
        images: features (N, D) of other images; None for the batch's own.

    >>> twice = Features(torch.eye(2), torch.ones(2, 2), scale=torch.tensor(2.0).sqrt())
    >>> distinct_logits(twice, torch.tensor([4, 4])).round(decimals=4).tolist()
    [[1.0], [1.0]]
    """
    first, _ = distinct_captions(captions)
    rows = normalize(features.image if images is None else images, dim=-1)
    return features.scale * rows @ normalize(features.text[first.to(rows.device)], dim=-1).T
