"""What broken quantizers have in common: each begins as one of these, and gets one thing wrong.

A plug-in, as a user would write one: registered by name, given a private copy of the model. The
controls, in which nothing is wrong, must pass wherever the broken ones fail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import clipq
from clipq.quant.explicit import make_explicit
from clipq.quant.observe import watch
from clipq.quant.surgery import plain_layers

LEVELS = 127
CONTROLS: list[str] = []
"""Texts of the quantizers without a bug."""
BROKEN: list[str] = []
"""Texts of the broken quantizers, as a matrix names them."""


def broken(function: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Register under the function's name, hyphenated; it claims no format.

    What is far from rounding to nearest is refused before it is measured. These declare that they
    are, so that metrics have to see them.
    """
    return _register(function, BROKEN, "", exceptions={"nearest": "left to the metrics"})


def claiming(number_format: str) -> Callable[..., Callable[..., nn.Module]]:
    """Register a broken quantizer that is asked for with a format."""
    return lambda function: _register(function, BROKEN, f":{number_format}")


def _register(
    function: Callable[..., nn.Module], texts: list[str], claim: str, **attributes: Any
) -> Callable[..., nn.Module]:
    name = function.__name__.replace("_", "-")
    texts.append(name + claim)
    registered: Callable[..., nn.Module] = clipq.quantizers.register(name, **attributes)(function)
    return registered


def scale_of(weight: Tensor, levels: int = LEVELS) -> Tensor:
    """Return one scale per output channel."""
    top = weight.flatten(1).abs().amax(1).clamp(min=1e-12) / levels
    return top.reshape(-1, *[1] * (weight.dim() - 1))


def rounded(weight: Tensor, levels: int = LEVELS) -> Tensor:
    scale = scale_of(weight, levels)
    return (weight / scale).round().clamp(-levels - 1, levels) * scale


def change_weights(
    model: nn.Module, change: Callable[[Tensor], Tensor] = rounded, towers: Any = "both"
) -> nn.Module:
    """Apply `change` to the weight of every linear layer of the towers."""
    make_explicit(model, towers)
    for layer in plain_layers(model, towers).values():
        layer.weight.data = change(layer.weight.data)
    return model


def input_ranges(
    model: nn.Module, calibration: Any, towers: Any = "vision"
) -> dict[str, tuple[float, float]]:
    """Return the smallest and largest input of every layer of the towers."""
    ranges: dict[str, tuple[float, float]] = {}

    def see(name: str, values: Tensor) -> None:
        low, high = ranges.get(name, (torch.inf, -torch.inf))
        ranges[name] = min(low, float(values.min())), max(high, float(values.max()))

    watch(model, towers, calibration, dict(plain_layers(model, towers)), see)
    return ranges


def quantize_inputs(
    model: Any,
    ranges: dict[str, tuple[float, float]],
    *,
    levels: int = LEVELS,
    code: Callable[[Tensor], Tensor] = torch.round,
) -> Any:
    """Round the inputs of the layers that have ranges to these static ranges."""
    for name, (low, high) in ranges.items():
        scale = max(abs(low), abs(high)) / levels

        def before(_module, inputs, scale=scale):
            return (code(inputs[0] / scale).clamp(-levels - 1, levels) * scale, *inputs[1:])

        model.get_submodule(name).register_forward_pre_hook(before)
    return model


def as_claimed(model: Any, calibration: Any, towers: Any = "both") -> Any:
    """Quantize as w8a8 says, both weights and inputs."""
    change_weights(model, towers=towers)
    return quantize_inputs(model, input_ranges(model, calibration, towers))


def wrap(module: nn.Module, after: Callable[[Tensor], Tensor]) -> None:
    """Change what a module returns."""
    module.register_forward_hook(lambda _module, _inputs, output: after(output))


def replace_images(model: Any, encode: Callable[[Callable[..., Tensor], Tensor], Tensor]) -> Any:
    """Replace `encode_image` by `encode(original, images)`."""
    original = model.encode_image
    model.encode_image = lambda images, normalize=False: encode(original, images)
    return model


def block(model: Any, index: int = 0) -> Any:
    blocks = model.visual.transformer.resblocks
    return blocks[min(index, len(blocks) - 1)]


def faithful(model, spec, calibration):
    """8-bit weights."""
    return change_weights(model)


def faithful_inputs(model, spec, calibration):
    """8-bit weights and 7-bit activations."""
    change_weights(model)
    return quantize_inputs(model, input_ranges(model, calibration), levels=63)


def faithful_claim(model, spec, calibration):
    """8-bit weights and activations, in modules of its own, as it says."""
    return as_claimed(model, calibration)


_register(faithful, CONTROLS, "")
_register(faithful_inputs, CONTROLS, "")
_register(faithful_claim, CONTROLS, ":w8a8")
