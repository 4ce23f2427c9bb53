"""open_clip's inference transform, split where pixels stop being bytes.

The first part (resize, crop, RGB) is slow and depends on the image; its result is uint8 and worth
keeping. The second (scale, normalise) is a cheap tensor operation. Together they are bit-identical
to the transform they come from, for an image of any mode: it must come as it was decoded, for
open_clip resizes in the image's own mode and converts to RGB afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np
import torch
from open_clip.transform import MaybeToTensor, ResizeKeepRatio
from PIL import Image
from torchvision.transforms import Compose, Normalize, Resize
from torchvision.transforms.functional import normalize

from clipq.errors import ModelError, ProbeError
from clipq.provenance import canonical_json

__all__ = ["MOST_PIXELS", "Preprocess"]

MOST_PIXELS = 89_478_485
"""An image is resized to at most so many pixels before the crop: as many as may be decoded.

A resize of the shorter side makes 200 million pixels of 1 x 4,000, of which the crop keeps 50,000.
To make those alone is not known to give the same bits: Pillow takes the box that it resizes from as
single-precision numbers.
"""


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
        """Return an image's pixels (H, W, 3), uint8, after resize, crop and RGB conversion.

        Args:
            image: of any mode, as it was decoded.

        Raises:
            ProbeError: the resize would make more than `MOST_PIXELS` pixels, or the transform
                refuses the image.
        """
        seen = f"an image of mode {image.mode} and {image.width:,} x {image.height:,} pixels"
        try:
            height, width = _resized(self._image_steps[0], image) if self._image_steps else (0, 0)
            if height * width > MOST_PIXELS:
                raise ProbeError(
                    f"{seen} would be resized to {width:,} x {height:,} before the crop, more than "
                    f"{MOST_PIXELS:,} pixels",
                    hint="crop it to its middle, of which the model sees no more than a square, or "
                    "remove it",
                )
            for step in self._image_steps:
                image = step(image)
        except ProbeError:
            raise
        except Exception as error:  # Pillow raises several kinds, by mode and size
            raise ProbeError(
                f"{seen}: open_clip's preprocessing refuses it: {error}",
                hint="save it as RGB in an ordinary size, or remove it",
            ) from error
        return np.asarray(image)

    def normalise(self, images: np.ndarray) -> torch.Tensor:
        """Return images (N, H, W, 3) uint8 as the model's input (N, 3, H, W) float32.

        Raises:
            ModelError: the images are not uint8 pixels.
        """
        step = self._normalise
        # In place, as nobody else has these pixels: each copy of a batch is new pages of memory.
        pixels = self.pixels(images)
        normalised: torch.Tensor = normalize(pixels, step.mean, step.std, inplace=True)
        return normalised

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
        return batch.float().div_(255)

    def normalise_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return pixels (N, 3, H, W), floats in [0, 1], as the model's input; differentiable."""
        normalised: torch.Tensor = self._normalise(pixels)
        return normalised

    def pixels_of(self, normalised: torch.Tensor) -> torch.Tensor:
        """Return the pixels (N, 3, H, W), floats in [0, 1], that were normalised to these."""
        mean, deviation = (
            torch.as_tensor(values, dtype=normalised.dtype, device=normalised.device).view(-1, 1, 1)
            for values in (self._normalise.mean, self._normalise.std)
        )
        return normalised * deviation + mean


def _resized(step: object, image: Image.Image) -> tuple[int, int]:
    """Return the height and width that a first step makes of an image; zeros where unknown."""
    if isinstance(step, ResizeKeepRatio):
        height, width = step.get_params(image, step.size, step.longest)
        return height, width
    if isinstance(step, Resize) and isinstance(step.size, int):  # of the shorter side
        longer = int(step.size * max(image.size) / min(image.size))
        return (longer, step.size) if image.width <= image.height else (step.size, longer)
    return 0, 0
