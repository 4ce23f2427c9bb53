"""Images that still show what their captions say: views for robustness.

AugMix (Hendrycks et al. 2020) with operations that bear no likeness to ImageNet-C's kinds, which
robustness is measured on: affine moves, fewer tones, inverted highlights and equalised tones. Its
own list without autocontrast, which is a contrast. As there, `WIDTH` chains of `DEPTH` operations
are mixed by Dirichlet weights, and the result with the image by a uniform weight.

Images are normalised by a preprocessing that is not known here: tones are changed within the range
that an image itself has.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn.functional import affine_grid, grid_sample

__all__ = ["changed"]

WIDTH = 2
DEPTH = 2
_ANGLE = math.radians(30)
_SHEAR = 0.3
_SHIFT = 0.33  # of half a side

Operation = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def changed(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return changed images (N, 3, H, W), each by operations and weights of its own.

    Args:
        images: (N, 3, H, W), normalised.
        generator: of every draw, on the CPU.

    >>> images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    >>> one, same = (changed(images, torch.Generator().manual_seed(2)) for _ in range(2))
    >>> one.shape == images.shape, torch.equal(one, same), torch.equal(one, images)
    (True, True, False)
    """
    mixed = torch.zeros_like(images)
    for weight in _dirichlet(len(images), generator).unbind(dim=1):
        chain = images
        for _ in range(DEPTH):
            chain = _one_each(chain, generator)
        mixed = mixed + _per_image(weight, images) * chain
    share = _per_image(_uniform(len(images), generator), images)
    return share * images + (1 - share) * mixed


def _one_each(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return the images after one operation each, or after none."""
    chosen = torch.randint(len(_OPERATIONS) + 1, (len(images),), generator=generator)
    result = images.clone()
    for index, operation in enumerate(_OPERATIONS):
        places = (chosen == index).nonzero()[:, 0].to(images.device)
        if len(places):
            result[places] = operation(images[places], generator)
    return result


def _moved(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Rotate by up to 30 degrees, shear by up to 0.3, or shift by up to a sixth; edges repeat."""
    count = len(images)
    kind = torch.randint(3, (count,), generator=generator)
    draws = 2 * torch.rand(count, 4, generator=generator) - 1
    angle = draws[:, 0] * _ANGLE * (kind == 0)
    shear = draws[:, 1] * _SHEAR * (kind == 1)
    shift = draws[:, 2:] * _SHIFT * (kind == 2)[:, None]
    cos, sin = angle.cos(), angle.sin()
    rows = [torch.stack([cos, shear - sin], dim=1), torch.stack([sin, cos], dim=1)]
    matrix = torch.cat([torch.stack(rows, dim=1), shift[..., None]], dim=2).to(images)
    grid = affine_grid(matrix, list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


def _fewer_tones(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Posterize to 4, 6 or 9 tones over the image's range."""
    low, width = _range(images)
    steps = torch.randint(2, 5, (len(images),), generator=generator).float() ** 1.5
    steps = _per_image(steps, images)
    return low + ((images - low) / width * steps).round() / steps * width


def _inverted_highlights(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Solarize: mirror what lies above a threshold in the upper half of the image's range."""
    low, width = _range(images)
    threshold = low + width * (0.5 + 0.5 * _per_image(_uniform(len(images), generator), images))
    return torch.where(images > threshold, 2 * low + width - images, images)


def _equalised(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Replace each channel's values by their ranks, over the channel's range."""
    flat = images.flatten(2)
    low, high = flat.amin(dim=2, keepdim=True), flat.amax(dim=2, keepdim=True)
    ranks = flat.argsort(dim=2, stable=True).argsort(dim=2).to(flat.dtype)
    return (low + (high - low) * ranks / max(flat.shape[2] - 1, 1)).view_as(images)


_OPERATIONS: tuple[Operation, ...] = (
    _moved,
    _moved,
    _fewer_tones,
    _inverted_highlights,
    _equalised,
)


def _range(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each image's smallest value and the width of its range, (N, 1, 1, 1)."""
    low, high = images.amin(dim=(1, 2, 3), keepdim=True), images.amax(dim=(1, 2, 3), keepdim=True)
    return low, (high - low).clamp_min(1e-6)


def _uniform(count: int, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(count, generator=generator)


def _dirichlet(count: int, generator: torch.Generator) -> torch.Tensor:
    """Return weights (N, WIDTH), uniform on the simplex."""
    draws = -torch.rand(count, WIDTH, generator=generator).clamp_min(1e-12).log()
    return draws / draws.sum(dim=1, keepdim=True)


def _per_image(values: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1).to(images)
