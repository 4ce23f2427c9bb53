"""What a classifier has answered during an attack, so that it is asked once for each image.

Of the Adversarial Robustness Toolbox's attacks, Square asks three times in each step: for all
images, for those that still resist as they are, and for those as they might be. Only the last are
new. APGD asks for the loss of the images that it moved to, and in the next step for the gradient
there: one forward pass has both.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor
from torch.nn.functional import cross_entropy

__all__ = ["RememberingClassifier"]

_CALLS = 4
"""How many calls are remembered: the last step's, whose images the next step starts from."""


class RememberingClassifier(PyTorchClassifier):  # type: ignore[misc]
    """A classifier whose model sees no image twice within a few calls.

    An image's answer is what the model gave when it first saw it, in that batch; where all images
    of a call are new, it is the library's own.

    >>> import torch
    >>> asked = []
    >>> class Model(torch.nn.Module):
    ...     def forward(self, x):
    ...         asked.append(len(x))
    ...         return x.flatten(1)[:, :2]
    >>> loss, shape = torch.nn.CrossEntropyLoss(), (1, 2, 2)
    >>> made = RememberingClassifier(Model(), loss=loss, input_shape=shape, nb_classes=2)
    >>> images = np.arange(12, dtype=np.float32).reshape(3, 1, 2, 2)
    >>> made.predict(images[:2]).tolist(), made.predict(images[::-1]).tolist()
    ([[0.0, 1.0], [4.0, 5.0]], [[8.0, 9.0], [4.0, 5.0], [0.0, 1.0]])
    >>> asked
    [2, 1]
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._answers: deque[dict[bytes, np.ndarray]] = deque(maxlen=_CALLS)
        self._last: _Forward | None = None
        self._alike: bool | None = None

    def predict(self, x: np.ndarray, *arguments: Any, **named: Any) -> np.ndarray:
        """Return logits (N, C) of pixels (N, 3, H, W)."""
        keys = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in x]
        known = {key: answer for call in self._answers for key, answer in call.items()}
        new = [place for place, key in enumerate(keys) if key not in known]
        if new:
            found = super().predict(x[new], *arguments, **named)
            known |= {keys[place]: answer for place, answer in zip(new, found, strict=True)}
        answers = {key: known[key] for key in keys}
        self._answers.append(answers)
        return np.stack([answers[key] for key in keys])

    def compute_loss(
        self, x: np.ndarray, y: np.ndarray, reduction: str = "none", **named: Any
    ) -> np.ndarray:
        """Return the cross-entropy (N,) of pixels (N, 3, H, W) and one-hot labels (N, C)."""
        logits = self._logits(torch.from_numpy(x).to(self._device))
        labels = torch.from_numpy(y).to(self._device).argmax(dim=1)
        losses: np.ndarray = cross_entropy(logits, labels, reduction=reduction).cpu().numpy()
        return losses

    def loss_gradient(self, x: Any, y: Any, *arguments: Any, **named: Any) -> Any:
        """Return the gradient of the mean cross-entropy; array or tensor (N, 3, H, W), as `x`.

        Parameters get no gradient, which the library would add to theirs in each step.
        """
        given, labels = (
            torch.from_numpy(one) if isinstance(one, np.ndarray) else one.detach() for one in (x, y)
        )
        pixels = given.to(self._device)
        last, self._last = self._last, None
        if last is None or last.spent or not torch.equal(last.pixels, pixels):
            last = self._forward(pixels)
        loss = cross_entropy(last.logits, labels.to(self._device).argmax(dim=1))
        (gradient,) = torch.autograd.grad(loss, last.pixels)
        self._last = _Forward(last.pixels.detach(), last.logits.detach(), spent=True)
        return gradient.cpu().numpy() if isinstance(x, np.ndarray) else gradient

    def _logits(self, pixels: Tensor) -> Tensor:
        """Return the logits of pixels, from a pass that has their gradient too where it may.

        torch computes FP32's attention otherwise where a gradient is followed; then it may not.
        """
        if self._alike is True:
            return self._followed(pixels)
        plain: Tensor = self._model(pixels)[-1].detach()
        if self._alike is None:
            self._alike = torch.equal(plain, self._followed(pixels))
        return plain

    def _followed(self, pixels: Tensor) -> Tensor:
        if self._last is None or not torch.equal(self._last.pixels, pixels):
            self._last = self._forward(pixels)
        return self._last.logits.detach()

    def _forward(self, pixels: Tensor) -> _Forward:
        followed = pixels.clone().requires_grad_(True)
        return _Forward(followed, self._model(followed)[-1])


@dataclass(frozen=True, slots=True, eq=False)
class _Forward:
    """A forward pass: pixels, their logits, and whether its gradient was taken."""

    pixels: Tensor
    logits: Tensor
    spent: bool = False
