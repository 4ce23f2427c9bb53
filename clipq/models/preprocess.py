"""open_clip's inference transform, split where pixels stop being bytes.

The first part (resize, crop, RGB) is slow and depends on the image; its result is uint8 and worth
keeping. The second (scale, normalise) is a cheap tensor operation. Together they are bit-identical
to the transform they come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np
import torch
from open_clip.transform import MaybeToTensor
from PIL import Image
from torchvision.transforms import Compose, Normalize

from clipq.errors import ModelError
from clipq.provenance import canonical_json

__all__ = ["Preprocess"]


class Preprocess:
    """The two stages of an inference transform.

    Args:
        transform: open_clip's inference transform: image steps, to-tensor, normalise.
        config: the preprocessing configuration it was made from.

    >>> from open_clip.transform import PreprocessCfg, image_transform_v2
    >>> config = PreprocessCfg(size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    >>> preprocess = Preprocess(image_transform_v2(config, is_train=False), config)
    >>> pixels = preprocess.to_uint8(Image.new("L", (64, 48), color=255))
    >>> pixels.shape, float(preprocess.normalise(pixels[None]).max())  # (1 - 0.5) / 0.5
    ((32, 32, 3), 1.0)
    """

    def __init__(self, transform: Compose, config: object) -> None:
        steps = list(transform.transforms)
        if (
            len(steps) < 2
            or not isinstance(steps[-1], Normalize)
            or not isinstance(steps[-2], MaybeToTensor)
        ):
            raise ModelError(
                f"unexpected preprocessing {transform}",
                hint="clipq understands open_clip's inference transforms: ..., ToTensor, Normalize",
            )
        self._image_steps: Sequence[Any] = steps[:-2]
        self._normalise: Normalize = steps[-1]
        plain = asdict(config) if is_dataclass(config) and not isinstance(config, type) else config
        self.identity: str = canonical_json(plain)

    def to_uint8(self, image: Image.Image) -> np.ndarray:
        """Return an image's pixels (H, W, 3), uint8, after resize, crop and RGB conversion."""
        for step in self._image_steps:
            image = step(image)
        return np.asarray(image)

    def normalise(self, images: np.ndarray) -> torch.Tensor:
        """Return images (N, H, W, 3) uint8 as the model's input (N, 3, H, W) float32.

        Raises:
            ModelError: the images are not uint8 pixels.
        """
        return self.normalise_pixels(self.pixels(images))

    def pixels(self, images: np.ndarray) -> torch.Tensor:
        """Return images (N, H, W, 3) uint8 as (N, 3, H, W) float32 in [0, 1].

        Raises:
            ModelError: the images are not uint8 pixels; floats are never guessed to be in [0, 1].
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise ModelError(
                f"cannot normalise images of type {images.dtype} and shape {images.shape}",
                hint="give uint8 pixels (N, H, W, 3), as `to_uint8` returns them",
            )
        batch = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).contiguous()
        return batch.float().div(255)

    def normalise_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return pixels (N, 3, H, W), floats in [0, 1], as the model's input; differentiable."""
        normalised: torch.Tensor = self._normalise(pixels)
        return normalised
