"""Models in 8 bits by optimum-quanto, as a function for the runtime `torch`.

torch.export cannot trace quanto's activation tensors, so what is written is a file of Python whose
function quantizes the FP32 model again and loads the scales and codes that calibration gave.

quanto changes modules of the types `nn.Linear`, `nn.Conv2d` and `nn.LayerNorm`, and by itself
misses `in_proj_weight` of `nn.MultiheadAttention` and the raw matrices `proj` and
`text_projection`. The model's products are therefore made modules first, by clipq, which the file
imports.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from clipq.exports.recipes import Made, Recipe
from clipq.exports.tower_source import Source
from clipq.quant.explicit import make_explicit
from clipq.quant.modules import Projection

__all__ = ["QUANTO_W8A8", "Product", "quantized_by_quanto"]

_STATE = "quanto.safetensors"
_CODE = f'''\
"""A CLIP in 8 bits by optimum-quanto. Made by clipq."""

from pathlib import Path

from safetensors.torch import load_file

from clipq.exports.quanto_programs import quantized_by_quanto

FILES = ("{_STATE}",)


def build(model):
    """Return `model`, an FP32 open_clip model, quantized as it was calibrated."""
    return quantized_by_quanto(model, load_file(Path(__file__).with_name(FILES[0])))
'''


class Product(nn.Module):
    """A linear layer that also works where open_clip writes ``features @ matrix``.

    quanto puts a module of its own in the place of `layer`; this one stays around it.

    >>> import torch
    >>> product = Product(nn.Linear(3, 2, bias=False))
    >>> (torch.zeros(1, 3) @ product).shape
    torch.Size([1, 2])
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        self.layer.weight, self.layer.bias = layer.weight, layer.bias

    def forward(self, features: Tensor) -> Tensor:
        """Return (..., out) of (..., in)."""
        result: Tensor = self.layer(features)
        return result

    def __rmatmul__(self, features: Tensor) -> Tensor:
        return self(features)  # type: ignore[no-any-return]


def quantized_by_quanto(model: nn.Module, state: dict[str, Tensor] | None = None) -> Any:
    """Quantize an FP32 open_clip model in place, and return it.

    Args:
        model: in eval mode.
        state: of the calibrated model; None where it is to be calibrated yet.
    """
    from optimum.quanto import freeze, qint8, quantize

    make_explicit(model, "both")
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is Projection:
                setattr(parent, name, Product(child).train(child.training))
    quantize(model, weights=qint8, activations=qint8)
    if state is not None:
        freeze(model)
        model.load_state_dict(state)
    return model


def _write(source: Source, folder: Path) -> Made:
    from optimum.quanto import Calibration, freeze
    from safetensors.torch import save_file

    model = quantized_by_quanto(copy.deepcopy(source.model))
    with Calibration():
        for batch in source.image.batches:
            model.encode_image(batch)
        for batch in source.text.batches:
            model.encode_text(batch)
    freeze(model)
    state = {name: values.contiguous() for name, values in model.state_dict().items()}
    save_file(state, folder / _STATE)
    (folder / "quanto.py").write_text(_CODE, encoding="utf-8")
    return Made("quanto.py:build")


QUANTO_W8A8 = Recipe(
    "torch", _write, format="w8a8", extra="quanto", packages=("optimum-quanto", "safetensors")
)
"""Weights in 8 bits per channel, activations in 8 bits, their ranges calibrated."""
