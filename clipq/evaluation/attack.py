"""Adversarial examples against a zero-shot classifier, by the Adversarial Robustness Toolbox.

The attacked function goes from pixels in [0, 1] through normalisation, the image tower and the
zero-shot head to logits. Simulated quantization passes gradients straight through
(`clipq.quant.grids.fake_quantize`), so gradient attacks see the quantized model itself; ``square``
asks for outputs alone and exposes gradients that mask weakness. Budgets are L-infinity, in steps of
1 / 255; adversarial pixels are not rounded to 8 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from clipq.errors import ClipqError, QuantizerError
from clipq.evaluation.predict import Head
from clipq.evaluation.seeding import seeded
from clipq.models import Preprocess
from clipq.provenance import package_versions
from clipq.settings import AttackSettings

__all__ = ["ZeroShotClassifier", "attack_identity", "attacked"]

_VERSION = 2
_STEP = 2.5
"""PGD's step is this many times epsilon / steps (Madry et al. 2018 use 2.5)."""


class ZeroShotClassifier(nn.Module):
    """Logits (N, C) of pixels (N, 3, H, W) in [0, 1].

    Args:
        encoder: whose `encode_image` takes normalised images.
        head: the zero-shot head.
        preprocess: how pixels are normalised.
        columns: which classes of the head stand for each class; None for themselves.
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: Head,
        preprocess: Preprocess,
        columns: tuple[tuple[int, ...], ...] | None = None,
    ) -> None:
        super().__init__()
        # Not as a submodule: a library that moves or trains the classifier must not touch it.
        self._encoder = [encoder]
        self.preprocess = preprocess
        self._columns = columns
        self.scale, self.bias = head.logit_scale, head.logit_bias
        self.register_buffer("embeddings", torch.from_numpy(head.embeddings).float().clone())
        self.embeddings: Tensor

    def features(self, pixels: Tensor) -> Tensor:
        """Return image features (N, D)."""
        encoder: Any = self._encoder[0]
        found: Tensor = encoder.encode_image(self.preprocess.normalise_pixels(pixels))
        return found.float()

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (N, C)."""
        cosine = normalize(self.features(pixels), dim=-1) @ self.embeddings.T
        if self._columns is not None:
            cosine = torch.stack([cosine[:, list(own)].amax(dim=1) for own in self._columns], dim=1)
        return cosine * self.scale + self.bias


def attack_identity(settings: AttackSettings) -> dict[str, Any]:
    """Return what identifies how adversarial examples are made."""
    return {
        "attack": [settings.name, settings.epsilon, settings.steps, settings.against],
        "version": _VERSION,
        "library": package_versions(("adversarial-robustness-toolbox",))[
            "adversarial-robustness-toolbox"
        ],
    }


def attacked(
    classifier: ZeroShotClassifier,
    images: np.ndarray,
    labels: np.ndarray,
    settings: AttackSettings,
    *,
    seed: str,
    device: str = "cpu",
) -> np.ndarray:
    """Return adversarial pixels (N, 3, H, W) float32 in [0, 1].

    Args:
        classifier: what is attacked.
        images: preprocessed pixels (N, H, W, 3) uint8.
        labels: (N,) true classes, which the attack leads away from.
        settings: attack, budget and steps.
        seed: text that every random draw follows from; global generators are left as they were.
        device: where to.

    Raises:
        QuantizerError: the model has no gradient with respect to its input.
        ClipqError: the library is absent.
    """
    pixels = classifier.preprocess.pixels(images).numpy()
    if settings.name != "square":
        _check_gradient(classifier, pixels[:1], labels[:1], device)
    with seeded(seed), torch.enable_grad():
        attack = _attack(classifier, pixels.shape[1:], settings, len(pixels), device)
        found: np.ndarray = attack.generate(
            pixels, np.eye(_classes(classifier), dtype=np.float32)[labels]
        )
    epsilon = settings.epsilon / 255.0
    # Rounding must not exceed the budget.
    bounded = np.clip(found, np.maximum(pixels - epsilon, 0.0), np.minimum(pixels + epsilon, 1.0))
    return np.asarray(bounded, np.float32)


def _attack(
    classifier: ZeroShotClassifier,
    shape: tuple[int, ...],
    settings: AttackSettings,
    batch_size: int,
    device: str,
) -> Any:
    try:
        from art.attacks import evasion

        from clipq.evaluation.attacked_answers import RememberingClassifier
    except ImportError as error:
        raise ClipqError(
            f"attack {settings.name!r} needs the Adversarial Robustness Toolbox: {error}",
            hint="pip install 'pytest-clipq[attacks]'",
        ) from error
    wrapped = RememberingClassifier(
        model=classifier,
        loss=nn.CrossEntropyLoss(),
        input_shape=shape,
        nb_classes=_classes(classifier),
        clip_values=(0.0, 1.0),
        device_type="gpu" if device.startswith("cuda") else "cpu",
    )
    epsilon = settings.epsilon / 255.0
    step = min(_STEP * epsilon / settings.steps, epsilon)
    match settings.name:
        case "fgsm":
            return evasion.FastGradientMethod(wrapped, eps=epsilon, batch_size=batch_size)
        case "pgd":
            return evasion.ProjectedGradientDescentPyTorch(
                wrapped,
                eps=epsilon,
                eps_step=step,
                max_iter=settings.steps,
                num_random_init=1,
                batch_size=batch_size,
                verbose=False,
            )
        case "apgd":
            return evasion.AutoProjectedGradientDescent(
                wrapped,
                eps=epsilon,
                eps_step=2.0 * epsilon,
                max_iter=settings.steps,
                nb_random_init=1,
                loss_type=None,  # the classifier's own, which it remembers
                batch_size=batch_size,
                verbose=False,
            )
        case _:
            return evasion.SquareAttack(
                wrapped,
                eps=epsilon,
                max_iter=settings.steps,
                batch_size=batch_size,
                verbose=False,
            )


def _classes(classifier: ZeroShotClassifier) -> int:
    columns = classifier._columns
    return len(classifier.embeddings if columns is None else columns)


def _check_gradient(
    classifier: ZeroShotClassifier, pixels: np.ndarray, labels: np.ndarray, device: str
) -> None:
    given = torch.from_numpy(pixels).to(device).requires_grad_(True)
    try:
        with torch.enable_grad():
            logits = classifier(given)
            loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels).to(device))
            (gradient,) = torch.autograd.grad(loss, given)
    except RuntimeError as error:
        raise QuantizerError(
            f"no gradient goes through the quantized model: {error}",
            hint="round with clipq.quant.grids.fake_quantize (straight-through), or attack with "
            "attack = 'square', which needs none",
        ) from error
    if not bool(torch.isfinite(gradient).all()) or not bool(gradient.any()):
        raise QuantizerError(
            "the gradient with respect to the image is zero or not finite",
            hint="a rounding without straight-through gradient stops it; attack = 'square' needs "
            "none",
        )
