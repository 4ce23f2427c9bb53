"""Whether weights are those of the configuration, and numbers that a model can have.

open_clip fits what it loads to the configuration: positional embeddings of another length are
interpolated, and a missing logit bias becomes zero. That is another model than the one that was
trained, and nothing says so: here it is an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import safe_open
from torch import nn

from clipq.errors import ModelError, listed

__all__ = ["LARGEST_SCALE", "SMALLEST_SCALE", "check_numbers", "check_shapes", "stored_shapes"]

LARGEST_SCALE = 1000.0
"""CLIP's training keeps the logit scale below 100, SigLIP's ends at 110 to 130: ten times that is
no trained scale, and makes a softmax one-hot."""
SMALLEST_SCALE = 0.001
"""Below this all classes are equally likely, whatever an image shows."""

Shapes = Mapping[str, tuple[int, ...]]


def check_numbers(model: nn.Module, name: str) -> None:
    """Refuse a model with parameters that are no numbers, or whose logit scale is none.

    Args:
        model: an open_clip model; its `logit_scale` is the logarithm of the scale.
        name: what messages call it.

    Raises:
        ModelError: a tensor holds NaN or infinity, or the scale is outside of `SMALLEST_SCALE` to
            `LARGEST_SCALE`.

    >>> model = nn.Module()
    >>> model.logit_scale = nn.Parameter(torch.tensor(30.8))
    >>> check_numbers(model, "mine")
    Traceback (most recent call last):
    clipq.errors.ModelError: model mine: logit_scale 30.8 is a scale of exp(30.8) = 2.38e+13
      fix: allowed: 0.001 to 1000; open_clip stores the logarithm, ...
    """
    broken, trained = [], {tensor for tensor, _ in model.named_parameters()}
    for tensor, values in model.state_dict().items():
        if not values.is_floating_point() or values.is_meta:
            continue
        wrong = ~torch.isfinite(values)
        if tensor not in trained:
            wrong &= values != -math.inf  # an attention mask holds it on purpose
        if wrong.any():
            count = int(wrong.sum())
            broken.append(f"{tensor} ({count:,} of {values.numel():,} values)")
    if broken:
        raise ModelError(
            f"model {name}: NaN or infinity in {listed(broken)}",
            hint="the checkpoint is damaged, or was written after training had diverged: take an "
            "earlier one",
        )
    own: Any = getattr(model, "logit_scale", None)
    if own is None:
        return
    stored = float(own.detach())
    scale = math.exp(stored) if stored < 700 else math.inf
    if not SMALLEST_SCALE <= scale <= LARGEST_SCALE:
        raise ModelError(
            f"model {name}: logit_scale {stored:.4g} is a scale of exp({stored:.4g}) = {scale:.3g}",
            hint=f"allowed: {SMALLEST_SCALE:g} to {LARGEST_SCALE:g}; open_clip stores the "
            "logarithm, of CLIP log(100) = 4.605: store log(scale) where the scale itself was",
        )


def stored_shapes(checkpoint: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in a checkpoint; {} where its kind does not tell.

    Nothing is read of safetensors but the header, and nothing is unpickled but plain tensors.

    >>> shapes = stored_shapes(Path("fixtures/models/vit-clean/open_clip_model.safetensors"))
    >>> shapes["positional_embedding"], shapes["logit_scale"]
    ((16, 64), ())
    """
    if checkpoint.suffix == ".safetensors":
        with safe_open(checkpoint, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    try:
        mapped = is_zipfile(checkpoint)  # then no weight is read
        loaded: Any = torch.load(checkpoint, map_location="meta", weights_only=True, mmap=mapped)
    except (
        Exception
    ):  # other formats (numpy's, TorchScript's); what is damaged does not load at all
        return {}
    found = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    if not isinstance(found, Mapping):
        return {}
    return {
        str(name).removeprefix("module."): tuple(values.shape)
        for name, values in found.items()
        if isinstance(values, torch.Tensor)
    }


def check_shapes(model: nn.Module, stored: Shapes, *, name: str, config: Path) -> None:
    """Refuse a loaded model whose tensors are not shaped as those it was loaded from.

    Args:
        model: as open_clip has made it.
        stored: shapes in its checkpoint.
        name: what messages call it.
        config: the configuration that it was made by.

    Raises:
        ModelError: a positional embedding was interpolated, or a logit bias invented.

    >>> model = nn.Module()
    >>> model.context_length, model.positional_embedding = 77, nn.Parameter(torch.zeros(77, 8))
    >>> trained = {"positional_embedding": (64, 8)}
    >>> check_shapes(model, trained, name="mine", config=Path("c.json"))
    Traceback (most recent call last):
    clipq.errors.ModelError: model mine: the weights hold positional_embedding of shape (64, 8),
    c.json makes it (77, 8): text_cfg.context_length 77, trained with 64
    ...
    """
    own = {tensor: tuple(values.shape) for tensor, values in model.state_dict().items()}
    for tensor, shape in stored.items():
        made = own.get(tensor, own.get(f"text.{tensor}", shape))
        if math.prod(made) != math.prod(shape):
            raise ModelError(
                f"model {name}: the weights hold {tensor} of shape {shape}, {config} makes it "
                f"{made}{_field(model, tensor, shape)}",
                hint="open_clip would interpolate in silence; write what the weights were trained "
                "with, or, where another size is meant, save the resized model and evaluate that",
            )
    if stored and "logit_bias" in own and "logit_bias" not in stored:
        raise ModelError(
            f"model {name}: {config} sets init_logit_bias, the weights hold no logit_bias",
            hint="remove init_logit_bias from the configuration, or store the trained bias",
        )


def _field(model: nn.Module, tensor: str, shape: tuple[int, ...]) -> str:
    """Return which setting of the configuration a positional embedding contradicts."""
    visual: Any = getattr(model, "visual", None)
    if tensor == "visual.positional_embedding":
        patch, grid = getattr(visual, "patch_size", None), math.isqrt(max(shape[0] - 1, 0))
        if patch is None or grid * grid != shape[0] - 1:
            return " (vision_cfg.image_size)"
        size, own = patch[0] if isinstance(patch, tuple) else patch, visual.image_size
        own = own[0] if isinstance(own, tuple) else own
        return f": vision_cfg.image_size {own}, trained with {grid * size}"
    if tensor.endswith("positional_embedding"):
        own = getattr(model, "context_length", None)
        return f": text_cfg.context_length {own}, trained with {shape[0]}"
    return ""
