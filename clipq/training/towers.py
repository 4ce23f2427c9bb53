"""The two towers of a model as one module, and features that need computing only once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from clipq.training.worlds import World

__all__ = ["KEPT_BYTES", "Towers", "bias_of", "features_once", "scale_of"]

KEPT_BYTES = 1 << 30
"""Features of one tower are kept where they take at most so many bytes, else computed again."""


_IMAGES = {"image": "images", "more": "more"}


class Towers(nn.Module):
    """A model whose `forward` is what distributed wrappers look after.

    Args:
        model: has `encode_image`, `encode_text`, `logit_scale` and, perhaps, `logit_bias`.
        precision: ``bf16`` for products in bfloat16; features are float32 in any case.

    >>> class Halves(nn.Module):
    ...     logit_scale = torch.zeros(())
    ...
    ...     def encode_image(self, images):
    ...         return images.mean((2, 3)) / 2
    >>> Towers(Halves())({"images": torch.ones(1, 3, 2, 2), "more": torch.zeros(1, 3, 2, 2)})
    {'image': tensor([[0.5000, 0.5000, 0.5000]]), 'more': tensor([[0., 0., 0.]])}
    """

    def __init__(self, model: nn.Module, *, precision: str = "float32") -> None:
        super().__init__()
        self.model: Any = model
        self._bf16 = precision == "bf16"

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return features (B, D) of what is given, and scale and bias where these are learnt.

        Args:
            inputs: ``images`` (B, 3, H, W), ``more`` (E, 3, H, W) and ``tokens`` (B, L), each or
                not; answered by ``image``, ``more`` and ``text``.
        """
        found: dict[str, torch.Tensor] = {}
        images = {to: inputs[of] for to, of in _IMAGES.items() if of in inputs}
        kind = next(iter(inputs.values())).device.type if inputs else "cpu"
        with torch.autocast(kind, torch.bfloat16, enabled=self._bf16):
            if images:
                parts = list(images.values())
                features = self.model.encode_image(torch.cat(parts) if parts[1:] else parts[0])
                features = features.float()
                if parts[1:]:  # wrappers want outputs of their own, not views of one
                    sizes = [len(part) for part in parts]
                    pieces = [each.clone() for each in torch.split_with_sizes(features, sizes)]
                else:
                    pieces = [features]
                found |= dict(zip(images, pieces, strict=True))
            if "tokens" in inputs:
                found["text"] = self.model.encode_text(inputs["tokens"]).float()
        # Parameters are asked: what is made of them without gradients learns nothing.
        if self.model.logit_scale.requires_grad:
            found["scale"] = scale_of(self.model)
        bias = getattr(self.model, "logit_bias", None)
        if bias is not None and bias.requires_grad:
            found["bias"] = bias.float().reshape(())
        return found


def scale_of(model: Any) -> torch.Tensor:
    """Return what a model multiplies cosines by, (), float32."""
    scale: torch.Tensor = model.logit_scale.float().exp().reshape(())
    return scale


def bias_of(model: Any) -> torch.Tensor | None:
    """Return what a SigLIP adds to its logits, (), float32; None of other models."""
    bias = getattr(model, "logit_bias", None)
    return None if bias is None else bias.float().reshape(())


def features_once(
    encode: Callable[[np.ndarray], torch.Tensor],
    *,
    count: int,
    block: int,
    world: World,
    most: int | None = None,
) -> torch.Tensor | None:
    """Return features (N, D) of all rows, without gradients; None where they take too much memory.

    Args:
        encode: returns features (b, D) of rows (b,).
        count: of rows.
        block: rows at a time.
        world: among whose processes the blocks are divided. They are the same blocks for any number
            of processes, so that features are rounded alike.
        most: bytes that may be kept; by default `KEPT_BYTES`.

    >>> def doubled(rows):
    ...     return torch.as_tensor(rows)[:, None] * 2.0
    >>> features_once(doubled, count=3, block=2, world=World()).tolist()
    [[0.0], [2.0], [4.0]]
    >>> features_once(doubled, count=3, block=2, world=World(), most=11) is None
    True
    """
    with torch.no_grad():
        first = encode(np.arange(min(block, count)))
        width = first.shape[1:]
        if count * first[0].numel() * first.element_size() > (KEPT_BYTES if most is None else most):
            return None
        parts = []
        for start in world.share(np.arange(0, count, block)):
            rows = np.arange(start, min(start + block, count))
            found = encode(rows) if start else first
            parts.append(torch.cat([found, found.new_zeros(block - len(found), *width)]))
        return world.gather(torch.cat(parts), count)
