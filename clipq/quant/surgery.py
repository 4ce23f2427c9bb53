"""Finding the float layers of the towers, and swapping in quantized twins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

from clipq.errors import QuantizerError
from clipq.quant.activations import DynamicQuantizer, InputQuantizer, StaticQuantizer
from clipq.quant.formats import ActivationFormat, Format
from clipq.quant.modules import QuantizedConv2d, QuantizedLinear, quantized_twin
from clipq.quant.spec import Towers
from clipq.quant.towers import named_sites

__all__ = [
    "Layer",
    "check_groups",
    "in_order",
    "input_quantizer",
    "keeping_float_layers",
    "plain_layers",
    "replace_layers",
    "replace_modules",
]

Layer = nn.Linear | nn.Conv2d
_KEPT: ContextVar[dict[str, Layer] | None] = ContextVar("float layers", default=None)


def plain_layers(model: nn.Module, towers: Towers) -> dict[str, Layer]:
    """Return the float linear layers of the towers by name; a shared layer under its first name."""
    names: dict[Layer, str] = {}
    for name, _, _, child in named_sites(model, towers):
        quantized = isinstance(child, QuantizedLinear | QuantizedConv2d)
        if isinstance(child, nn.Linear | nn.Conv2d) and not quantized:
            names.setdefault(child, name)
    return {name: layer for layer, name in names.items()}


def replace_layers(
    model: nn.Module,
    towers: Towers,
    layers: dict[str, Layer],
    weights: dict[str, Tensor],
    inputs: dict[str, InputQuantizer | None],
    *,
    bits: Mapping[str, int],
) -> dict[str, QuantizedLinear | QuantizedConv2d]:
    """Put quantized twins wherever the layers are used, in place; return them by name.

    Args:
        model: where the layers are.
        towers: where to look for them.
        layers: by name.
        weights: the rounded weight of each layer that is replaced.
        inputs: what rounds its input; None leaves it in float.
        bits: what the codes and scales of each rounded weight take.
    """
    twins: dict[nn.Module, QuantizedLinear | QuantizedConv2d] = {
        layers[name]: quantized_twin(layers[name], weight, inputs[name])
        for name, weight in weights.items()
    }
    for name in weights:
        twins[layers[name]].stored_bits = bits[name]
    kept = _KEPT.get()
    if kept is not None:
        kept |= {name: layers[name] for name in weights}
    replace_modules(model, towers, twins)
    return {name: twins[layers[name]] for name in weights}


@contextmanager
def keeping_float_layers() -> Iterator[dict[str, Layer]]:
    """Keep the float layers that `replace_layers` takes out meanwhile, by name.

    They are those that compute what the model computed before rounding: in a rotated or smoothed
    model, the rotated or smoothed ones.
    """
    kept: dict[str, Layer] = {}
    token = _KEPT.set(kept)
    try:
        yield kept
    finally:
        _KEPT.reset(token)


def in_order(layers: Iterable[str], order: list[str]) -> list[str]:
    """Return layers' names as they run; those that never run last, for a clear refusal."""
    at = {name: i for i, name in enumerate(order)}
    return sorted(layers, key=lambda name: at.get(name, len(order)))


def replace_modules(model: nn.Module, towers: Towers, twins: Mapping[Any, nn.Module]) -> None:
    """Put twins wherever the towers use the modules they stand for, in place."""
    for _, parent, attribute, child in list(named_sites(model, towers)):
        if child in twins:
            setattr(parent, attribute, twins[child])


def input_quantizer(
    layer: Layer, activation: ActivationFormat | None, seen: tuple[float, float] | None
) -> InputQuantizer | None:
    """Return what rounds a layer's input.

    Args:
        layer: the float layer.
        activation: how; None for float.
        seen: the calibrated range, for static formats.
    """
    if activation is None:
        return None
    if activation.dynamic or seen is None:
        convolution = isinstance(layer, nn.Conv2d)
        return DynamicQuantizer(activation, over="image" if convolution else "features")
    return StaticQuantizer(activation, low=seen[0], high=seen[1]).to(layer.weight.device)


def check_groups(layers: dict[str, Layer], formats: dict[str, Format]) -> None:
    """Refuse a weight group that is larger than every row it would divide.

    Raises:
        QuantizerError: it is.
    """
    for size in {f.weight.granularity for f in formats.values() if f.weight.number == "int"}:
        if not isinstance(size, int):
            continue
        named = [name for name, f in formats.items() if f.weight.granularity == size]
        row, name = max((layers[name].weight[0].numel(), name) for name in named)
        if size > row:
            raise QuantizerError(
                f"weight group {size} is larger than every weight row of the model",
                hint=f"choose a group of at most {row} (the row of {name}), or drop the group",
            )
