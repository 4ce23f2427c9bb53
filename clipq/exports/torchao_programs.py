"""Exported programs in 8 bits by torchao.

torchao changes modules of the type `nn.Linear`, and by itself misses a third of a CLIP: the
`in_proj_weight` of `nn.MultiheadAttention` and the raw matrices `proj` and `text_projection`. It
also breaks the attention pool of a `ModifiedResNet`, which transposes weights. The model's products
are therefore made modules first. Convolutions stay in float: torchao has no int8 of them.
"""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

from torch import nn

from clipq.exports.exported_programs import exported, write_program
from clipq.exports.recipes import Made, Recipe
from clipq.exports.tower_source import Source
from clipq.quant.explicit import make_explicit

__all__ = ["TORCHAO_INT8_DYNAMIC", "TORCHAO_INT8_WEIGHT_ONLY", "quantized_by_torchao"]

_FORMATS = {"w8a8d": "Int8DynamicActivationInt8WeightConfig", "w8": "Int8WeightOnlyConfig"}


def quantized_by_torchao(model: nn.Module, number_format: str) -> nn.Module:
    """Quantize an FP32 open_clip model in place, and return it.

    Args:
        model: in eval mode.
        number_format: ``w8a8d`` or ``w8``.
    """
    import torchao.quantization

    make_explicit(model, "both")
    torchao.quantization.quantize_(model, getattr(torchao.quantization, _FORMATS[number_format])())
    return model


def _write(source: Source, folder: Path, *, number_format: str) -> Made:
    model = quantized_by_torchao(copy.deepcopy(source.model), number_format)
    for tower in source.of(model).towers:
        write_program(exported(tower), folder / f"{tower.kind}.pt2")
    for tower in source.towers:
        write_program(exported(tower), folder / f"{tower.kind}-float.pt2")
    return Made("image.pt2", "text.pt2", "image-float.pt2", "text-float.pt2")


TORCHAO_INT8_DYNAMIC = Recipe(
    "torch-export",
    partial(_write, number_format="w8a8d"),
    format="w8a8d",
    extra="torchao",
    packages=("torchao",),
)
"""Weights in 8 bits per channel, activations in 8 bits per token, as they come."""

TORCHAO_INT8_WEIGHT_ONLY = Recipe(
    "torch-export",
    partial(_write, number_format="w8"),
    format="w8",
    extra="torchao",
    packages=("torchao",),
)
"""Weights in 8 bits per channel; activations stay in float."""
