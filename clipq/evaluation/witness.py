"""What FP32 and clipq's own rounding say now, beside what they said when a model was loaded."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from clipq.quant.activations import DynamicQuantizer
from clipq.quant.formats import Format
from clipq.quant.weights import quantize_weight

if TYPE_CHECKING:
    from collections.abc import Callable

    from clipq.models import LoadedModel

__all__ = ["Witness", "Witnesses"]

_FORMATS = ("w4a8d", "we4m3a4dz")
_TEXT = "a photo of a witness"
_SIDE = 96
_DEVICE_TOLERANCE = 1e-5
"""Largest relative difference on a device whose sums may take another order each time.

TF32 and half precision differ by 1e-4 and more.
"""


class Witness:
    """A fixed image and a fixed text, encoded in FP32, and fixed numbers, rounded.

    Args:
        loaded: the FP32 model, as it was loaded.
        device: where it is.

    >>> from pathlib import Path
    >>> from clipq.models import ModelSource, load_model
    >>> source = ModelSource.parse("local-dir:fixtures/models/vit-clean", base_dir=Path())
    >>> loaded = load_model(source)
    >>> witness = Witness(loaded)
    >>> witness.differs()
    ''
    >>> loaded.model.logit_scale.data += 1.0  # not seen: it is in the head
    >>> loaded.model.visual.proj.data *= 1.001
    >>> witness.differs()
    'the features of an image in FP32'
    """

    def __init__(self, loaded: LoadedModel, device: str = "cpu") -> None:
        self._loaded, self._device = loaded, device
        noise = hashlib.shake_256(b"clipq").digest(_SIDE * _SIDE * 3)
        self._image = Image.frombytes("RGB", (_SIDE, _SIDE), noise)
        self._numbers = torch.frombuffer(bytearray(noise[:4096]), dtype=torch.uint8)
        self._expected = self._observed()

    def differs(self) -> str:
        """Return what is not as it was, "" where everything is.

        On a CPU bit for bit; elsewhere features are compared up to the order of sums.
        """
        for (name, now), was in zip(self._observed().items(), self._expected.values(), strict=True):
            same = now.shape == was.shape and now.dtype == was.dtype and np.array_equal(now, was)
            if not same and not self._nearly(now, was):
                return name
        return ""

    def _nearly(self, now: np.ndarray, was: np.ndarray) -> bool:
        if self._device == "cpu" or now.shape != was.shape:
            return False
        error = np.linalg.norm(now.astype(np.float64) - was)
        return bool(error <= _DEVICE_TOLERANCE * np.linalg.norm(was.astype(np.float64)))

    def _observed(self) -> dict[str, np.ndarray]:
        loaded = self._loaded
        images = loaded.preprocess.normalise(loaded.preprocess.to_uint8(self._image)[None])
        tokens = loaded.tokenizer([_TEXT])
        model = loaded.model
        with torch.inference_mode():
            image = model.encode_image(images.to(self._device))  # type: ignore[operator]
            text = model.encode_text(tokens.to(self._device))  # type: ignore[operator]
            return {
                "the features of an image in FP32": image.float().cpu().numpy(),
                "the features of a text in FP32": text.float().cpu().numpy(),
                "numbers rounded by clipq": self._rounded(),
            }

    def _rounded(self) -> np.ndarray:
        numbers = (self._numbers.float().reshape(16, 256) - 127.5) / 64
        found = []
        for text in _FORMATS:
            number_format = Format.parse(text)
            found.append(quantize_weight(numbers, number_format.weight, name="witness"))
            if number_format.activation is not None:
                rounding = DynamicQuantizer(number_format.activation, over="features")
                found.append(rounding(numbers))
        rounded: np.ndarray = torch.cat(found).numpy()
        return rounded


class Witnesses:
    """The witness of each model, made when it is first asked for.

    Args:
        models: loads a model by its name.
        device: where they are.
        pin: sets this process's threads, on which what a witness says may depend.
    """

    def __init__(
        self, models: Callable[[str], LoadedModel], device: str, *, pin: Callable[[], None]
    ) -> None:
        self._models, self._device, self._pin = models, device, pin
        self._made: dict[str, Witness] = {}

    def of(self, name: str) -> Witness:
        """Return a model's witness."""
        if name not in self._made:
            loaded = self._models(name)
            self._pin()
            self._made[name] = Witness(loaded, self._device)
        return self._made[name]
