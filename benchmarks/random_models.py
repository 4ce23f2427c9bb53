"""Models of random weights, and random images and texts for them: costs do not depend on values."""

from __future__ import annotations

import open_clip
import torch
from torch import Tensor, nn

from clipq.testing import small_clip

__all__ = ["SMALL", "image_size", "random_images", "random_model", "random_texts"]

SMALL = "small"
"""Names a ViT of two layers."""


def random_model(name: str) -> nn.Module:
    """Return the architecture that open_clip knows by `name`, or the `SMALL` one."""
    if name == SMALL:
        return small_clip()
    torch.manual_seed(0)
    return open_clip.create_model(name).eval()


def image_size(model: nn.Module) -> tuple[int, int]:
    """Return height and width of the images that `model` reads."""
    size = model.visual.image_size
    return size if isinstance(size, tuple) else (size, size)


def random_images(model: nn.Module, count: int, *, seed: int = 0) -> Tensor:
    """Return normal images (count, 3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, *image_size(model), generator=generator)


def random_texts(model: nn.Module, count: int, *, seed: int = 0) -> Tensor:
    """Return tokens (count, L); the last is the largest, where CLIP reads the text."""
    generator = torch.Generator().manual_seed(seed)
    size = model.vocab_size
    texts = torch.randint(1, size - 1, (count, model.context_length), generator=generator)
    texts[:, -1] = size - 1
    return texts
