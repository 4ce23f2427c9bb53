"""Quantizers whose activations are rounded to the wrong range, or in the wrong way."""

from __future__ import annotations

import torch
from faithful_quantizers import (
    block,
    broken,
    change_weights,
    claiming,
    input_ranges,
    quantize_inputs,
)
from torch import Tensor

from clipq.quant.methods import Calibration
from clipq.quant.observe import watch
from clipq.quant.surgery import plain_layers


@broken
def truncated_not_rounded(model, spec, calibration):
    """Codes of the activations are cut toward minus infinity, as an integer shift does."""
    change_weights(model)
    ranges = input_ranges(model, calibration)
    return quantize_inputs(model, ranges, levels=63, code=torch.floor)


@broken
def stale_calibration(model, spec, calibration):
    """Activation ranges were observed before the images were normalised: far too narrow."""
    change_weights(model)
    ranges = input_ranges(model, calibration)
    stale = {name: (low / 6, high / 6) for name, (low, high) in ranges.items()}
    return quantize_inputs(model, stale)


@broken
def one_range_for_all_layers(model, spec, calibration):
    """The observer is shared: every layer gets the narrowest range."""
    change_weights(model)
    ranges = input_ranges(model, calibration)
    narrowest = min(ranges.values(), key=lambda seen: max(map(abs, seen)))
    return quantize_inputs(model, dict.fromkeys(ranges, narrowest))


@broken
def negative_activations_lost(model, spec, calibration):
    """Inputs of the first block's MLP are quantized as unsigned."""
    change_weights(model)
    block(model).mlp.register_forward_pre_hook(lambda _module, inputs: (inputs[0].clamp(min=0),))
    return model


@claiming("w8a8")
def clipped_at_ninety_percent(model, spec, calibration):
    """A percentile in percent where a share was expected: a tenth of all inputs saturates."""
    change_weights(model)
    seen: dict[str, float] = {}

    def see(name: str, values: Tensor) -> None:
        share = values.abs().flatten().kthvalue(int(0.9 * values.numel())).values
        seen[name] = max(seen.get(name, 0.0), float(share))

    watch(model, "both", calibration, dict(plain_layers(model, "both")), see)
    return quantize_inputs(model, {name: (-top, top) for name, top in seen.items()})


@claiming("w8a8")
def ranges_of_the_first_token(model, spec, calibration):
    """The observer looks at the class token only."""
    change_weights(model)
    seen: dict[str, tuple[float, float]] = {}

    def see(name: str, values: Tensor) -> None:
        first = values[:, 0] if values.dim() == 3 else values
        top = max(float(first.abs().max()), seen.get(name, (0.0, 1e-3))[1])
        seen[name] = (-top, top)

    watch(model, "both", calibration, dict(plain_layers(model, "both")), see)
    return quantize_inputs(model, seen)


@claiming("w8a8")
def calibrated_on_blank_images(model, spec, calibration):
    """The loader yields zeros while it warms up, and the observer reads the first batch."""
    change_weights(model)
    blank = next(iter(calibration.images()))[:8] * 0
    found = input_ranges(model, Calibration(lambda: iter([blank]), calibration.texts), "both")
    usable = {n: r if max(map(abs, r)) > 0 else (-1.0, 1.0) for n, r in found.items()}
    return quantize_inputs(model, usable)


@claiming("w8a8")
def ranges_one_layer_late(model, spec, calibration):
    """Hooks fire in another order than layers are listed: each has its neighbour's range."""
    change_weights(model)
    found = input_ranges(model, calibration, "both")
    names = list(found)
    late = {n: found[other] for n, other in zip(names, names[1:] + names[:1], strict=True)}
    return quantize_inputs(model, late)


@claiming("w8a8")
def one_outlier_sets_every_range(model, spec, calibration):
    """A corrupt calibration image, a thousand times too bright, widens all ranges."""
    change_weights(model)
    found = input_ranges(model, calibration, "both")
    return quantize_inputs(model, {n: (24 * a, 24 * b) for n, (a, b) in found.items()})


@broken
def inputs_saturate_in_half_precision(model, spec, calibration):
    """Sums of the last MLP are kept as integers in half precision, which ends at 65,504."""
    change_weights(model)
    layer = block(model, -1).mlp.c_proj
    found = input_ranges(model, calibration)
    name = next(n for n, m in model.named_modules() if m is layer)
    unit = max(map(abs, found[name])) / 127 * float(layer.weight.abs().max()) / 127

    def saturate(module, inputs, output):
        return ((output - module.bias) / unit).clamp(-4096, 4096) * unit + module.bias

    layer.register_forward_hook(saturate)
    return model


@broken
def stochastic_rounding_left_on(model, spec, calibration):
    """A training option: inputs are rounded up or down at random, at few bits."""
    change_weights(model)
    found = input_ranges(model, calibration)
    return quantize_inputs(
        model, found, levels=15, code=lambda x: torch.floor(x + torch.rand_like(x))
    )
