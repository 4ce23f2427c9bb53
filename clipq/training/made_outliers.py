"""Images that show nothing that a caption says, made from a batch's own: outliers without data.

Outlier exposure (Hendrycks et al. 2019) wants a set of outliers; a proxy has none. What makes an
image belong to its caption is the arrangement of its parts, so each kind here keeps the statistics
of images and destroys the arrangement: patches in another order, the spectrum's amplitudes with
random phases, halves of two images.
"""

from __future__ import annotations

import math

import torch

__all__ = ["outliers"]

_CELLS = 4


def outliers(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return as many outliers (N, 3, H, W): a third of each kind.

    Args:
        images: (N, 3, H, W), normalised.
        generator: of every draw, on the CPU.

    >>> images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    >>> made = outliers(images, torch.Generator().manual_seed(2))
    >>> made.shape == images.shape
    True
    >>> torch.equal(made[0].flatten().sort().values, images[0].flatten().sort().values)  # patches
    True
    """
    kinds = (_other_order, _random_phases, _two_halves)
    made = [
        kind(part, generator)
        for kind, part in zip(kinds, images.tensor_split(len(kinds)), strict=True)
        if len(part)
    ]
    return torch.cat(made) if made else images


def _other_order(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Exchange the 16 cells of a grid; what is left at the lower and right edge stays."""
    height, width = (side // _CELLS for side in images.shape[-2:])
    if not height or not width:
        return images.flip(-1, -2)
    count, channels = images.shape[:2]
    inner = images[..., : height * _CELLS, : width * _CELLS]
    cells = inner.reshape(count, channels, _CELLS, height, _CELLS, width)
    cells = cells.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    order = torch.rand(count, _CELLS**2, generator=generator).argsort(dim=1).to(images.device)
    cells = cells[torch.arange(count, device=images.device)[:, None], order]
    cells = cells.view(count, _CELLS, _CELLS, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    result = images.clone()
    result[..., : height * _CELLS, : width * _CELLS] = cells.reshape(inner.shape)
    return result


def _random_phases(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Turn each frequency's phase by a random angle, the same in all channels; means stay."""
    spectrum = torch.fft.rfft2(images.float())
    turned = torch.rand(len(images), 1, *spectrum.shape[2:], generator=generator) * 2 * math.pi
    turned[..., 0, 0] = 0
    angle = turned.to(images.device)
    made: torch.Tensor = torch.fft.irfft2(spectrum * torch.exp(1j * angle), s=images.shape[-2:])
    return made.to(images.dtype).clamp(images.amin(), images.amax())


def _two_halves(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Put one half of the next image beside, or below, a half of this one."""
    other = images.roll(1, dims=0)
    height, width = (side // 2 for side in images.shape[-2:])
    beside = torch.cat([images[..., :width], other[..., width:]], dim=3)
    below = torch.cat([images[..., :height, :], other[..., height:, :]], dim=2)
    upright = torch.rand(len(images), generator=generator).view(-1, 1, 1, 1) < 0.5
    return torch.where(upright.to(images.device), below, beside)
