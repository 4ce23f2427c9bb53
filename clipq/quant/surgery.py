"""Step two of every method: watch the inputs of the plain layers, then swap in quantized twins."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from clipq.errors import QuantizerError
from clipq.quant.activations import DynamicQuantizer, InputQuantizer, StaticQuantizer
from clipq.quant.formats import ActivationFormat, Format
from clipq.quant.methods import Calibration
from clipq.quant.modules import QuantizedConv2d, QuantizedLinear, quantized_twin
from clipq.quant.spec import Towers
from clipq.quant.towers import encode_batches, named_sites
from clipq.quant.weights import quantize_weight

__all__ = ["observe_inputs", "plain_layers", "quantize_layers"]

Ranges = dict[str, tuple[float, float]]


def plain_layers(model: nn.Module, towers: Towers) -> dict[str, nn.Linear | nn.Conv2d]:
    """Return the float linear layers of the towers by name; a shared layer under its first name."""
    names: dict[nn.Linear | nn.Conv2d, str] = {}
    for name, _, _, child in named_sites(model, towers):
        quantized = isinstance(child, QuantizedLinear | QuantizedConv2d)
        if isinstance(child, nn.Linear | nn.Conv2d) and not quantized:
            names.setdefault(child, name)
    return {name: layer for layer, name in names.items()}


def observe_inputs(
    model: nn.Module,
    towers: Towers,
    calibration: Calibration,
    see: Callable[[str, Tensor], None],
) -> None:
    """Run the calibration data once; call ``see(layer name, input)`` before each layer runs."""

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _module, inputs: see(name, inputs[0].detach())

    with ExitStack() as stack, torch.no_grad():
        for name, layer in plain_layers(model, towers).items():
            stack.enter_context(layer.register_forward_pre_hook(watch(name)))
        for _ in encode_batches(model, towers, calibration):
            pass


def observe_ranges(model: nn.Module, towers: Towers, calibration: Calibration) -> Ranges:
    """Return the smallest and largest input value of each layer over the calibration data.

    Raises:
        QuantizerError: no data, a non-finite activation, or a layer that never ran.
    """
    ranges: Ranges = {}

    def see(name: str, values: Tensor) -> None:
        low, high = (float(x) for x in torch.aminmax(values.float()))
        if not (-torch.inf < low <= high < torch.inf):
            raise QuantizerError(
                f"the input of {name} reaches [{low}, {high}] on the calibration data",
                hint="check images, texts and weights for NaN and Inf",
            )
        seen = ranges.get(name, (low, high))
        ranges[name] = min(low, seen[0]), max(high, seen[1])

    observe_inputs(model, towers, calibration, see)
    for name in plain_layers(model, towers):
        if name not in ranges:
            raise QuantizerError(
                f"{name} never ran on the calibration data, so its input has no range",
                hint="use dynamic activations (a8d), or remove the unused layer from the model",
            )
    return ranges


def quantize_layers(
    model: nn.Module, towers: Towers, number_format: Format, calibration: Calibration
) -> None:
    """Round every plain layer of the towers to `number_format`, in place.

    Static activation ranges come from the float model, before any weight is rounded.

    Raises:
        QuantizerError: no range for a static activation, an infinite weight, or a group that is
            larger than the longest weight row.
    """
    layers = plain_layers(model, towers)
    _check_group(layers, number_format.weight.granularity)
    activation = number_format.activation
    static = activation is not None and not activation.dynamic
    ranges = observe_ranges(model, towers, calibration) if static else {}
    twins = {
        layer: quantized_twin(
            layer,
            quantize_weight(layer.weight, number_format.weight, name=name),
            _input_quantizer(layer, activation, ranges.get(name)),
        )
        for name, layer in layers.items()
    }
    for _, parent, attribute, child in named_sites(model, towers):
        if child in twins:
            setattr(parent, attribute, twins[child])


def _input_quantizer(
    layer: nn.Module, activation: ActivationFormat | None, seen: tuple[float, float] | None
) -> InputQuantizer | None:
    if activation is None:
        return None
    if seen is None:
        convolution = isinstance(layer, nn.Conv2d)
        return DynamicQuantizer(activation, over="image" if convolution else "features")
    device = next(layer.parameters()).device
    return StaticQuantizer(activation, low=seen[0], high=seen[1]).to(device)


def _check_group(layers: dict[str, nn.Linear | nn.Conv2d], granularity: str | int) -> None:
    if not isinstance(granularity, int) or not layers:
        return
    row, name = max((layer.weight[0].numel(), name) for name, layer in layers.items())
    if granularity > row:
        raise QuantizerError(
            f"weight group {granularity} is larger than every weight row of the model",
            hint=f"choose a group of at most {row} (the row of {name}), or drop the group",
        )
