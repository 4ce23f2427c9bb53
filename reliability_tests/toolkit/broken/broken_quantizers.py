"""Quantizers with the bugs that quantizers have: a gate that lets one through is no gate.

A plug-in, as a user would write one: registered by name, given a private copy of the model. Each
begins as the same 8-bit round-to-nearest, `faithful`, and gets one thing wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import clipq
from clipq.quant.explicit import make_explicit
from clipq.quant.observe import watch
from clipq.quant.surgery import plain_layers

LEVELS = 127
CONTROLS = ("faithful", "faithful-inputs")
BROKEN: list[str] = []
"""Names of the broken quantizers, in the order of this file."""


def broken(function: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Register under the function's name, hyphenated."""
    name = function.__name__.replace("_", "-")
    BROKEN.append(name)
    registered: Callable[..., nn.Module] = clipq.quantizers.register(name)(function)
    return registered


def scale_of(weight: Tensor, levels: int = LEVELS) -> Tensor:
    """Return one scale per output channel."""
    top = weight.flatten(1).abs().amax(1).clamp(min=1e-12) / levels
    return top.reshape(-1, *[1] * (weight.dim() - 1))


def rounded(weight: Tensor) -> Tensor:
    scale = scale_of(weight)
    return (weight / scale).round().clamp(-LEVELS - 1, LEVELS) * scale


def change_weights(
    model: nn.Module, change: Callable[[Tensor], Tensor] = rounded, towers: Any = "both"
) -> nn.Module:
    """Apply `change` to the weight of every linear layer of the towers."""
    make_explicit(model, towers)
    for layer in plain_layers(model, towers).values():
        layer.weight.data = change(layer.weight.data)
    return model


def vision_ranges(model: nn.Module, calibration: Any) -> dict[str, tuple[float, float]]:
    """Return the smallest and largest input of every layer of the vision tower."""
    ranges: dict[str, tuple[float, float]] = {}

    def see(name: str, values: Tensor) -> None:
        low, high = ranges.get(name, (torch.inf, -torch.inf))
        ranges[name] = min(low, float(values.min())), max(high, float(values.max()))

    watch(model, "vision", calibration, dict(plain_layers(model, "vision")), see)
    return ranges


def wrap(module: nn.Module, after: Callable[[Tensor], Tensor]) -> None:
    """Change what a module returns."""
    module.register_forward_hook(lambda _module, _inputs, output: after(output))


def replace_images(model: Any, encode: Callable[[Callable[..., Tensor], Tensor], Tensor]) -> Any:
    """Replace `encode_image` by `encode(original, images)`."""
    original = model.encode_image
    model.encode_image = lambda images, normalize=False: encode(original, images)
    return model


def block(model: Any, index: int = 0) -> Any:
    return model.visual.transformer.resblocks[index]


@clipq.quantizers.register(CONTROLS[0])
def faithful(model, spec, calibration):
    """A control: 8-bit weights, nothing is wrong."""
    return change_weights(model)


@clipq.quantizers.register(CONTROLS[1])
def faithful_inputs(model, spec, calibration):
    """A control: 8-bit weights and 7-bit activations, nothing is wrong."""
    change_weights(model)
    return quantize_inputs(model, vision_ranges(model, calibration), levels=63)


# -- scales, zero points, codes ---------------------------------------------------------------


@broken
def zero_point_ignored(model, spec, calibration):
    """Asymmetric codes are read back without subtracting the zero point."""

    def change(weight: Tensor) -> Tensor:
        low = weight.flatten(1).amin(1).reshape(-1, *[1] * (weight.dim() - 1))
        high = weight.flatten(1).amax(1).reshape(low.shape)
        scale = (high - low) / 255
        zero = (-low / scale).round()
        return ((weight / scale).round() + zero).clamp(0, 255) * scale

    return change_weights(model, change)


@broken
def zero_point_of_the_neighbour(model, spec, calibration):
    """Each output channel subtracts the zero point of the next one."""

    def change(weight: Tensor) -> Tensor:
        low = weight.flatten(1).amin(1).reshape(-1, *[1] * (weight.dim() - 1))
        high = weight.flatten(1).amax(1).reshape(low.shape)
        scale = (high - low) / 255
        zero = (-low / scale).round()
        return ((weight / scale).round() + zero - zero.roll(1, 0)) * scale

    return change_weights(model, change)


@broken
def off_by_one_clamp_wraps(model, spec, calibration):
    """The scale allows code 128, which int8 stores as -128: the largest weight changes sign."""

    def change(weight: Tensor) -> Tensor:
        scale = scale_of(weight, LEVELS + 1)
        codes = (weight / scale).round()
        return torch.where(codes > LEVELS, codes - 256, codes) * scale

    return change_weights(model, change)


@broken
def clamped_one_bit_short(model, spec, calibration):
    """The clamp is one power of two too narrow: everything above half the range saturates."""

    def change(weight: Tensor) -> Tensor:
        scale = scale_of(weight)
        return (weight / scale).round().clamp(-64, 63) * scale

    return change_weights(model, change)


@broken
def unsigned_clamp(model, spec, calibration):
    """Signed weights are clamped to unsigned codes."""
    return change_weights(model, lambda w: (w / scale_of(w)).round().clamp(0, 255) * scale_of(w))


@broken
def swapped_scales(model, spec, calibration):
    """Codes of one output channel are read with the scale of the next."""
    return change_weights(
        model, lambda w: (w / scale_of(w)).round() * scale_of(w).roll(1, 0) if len(w) > 1 else w
    )


@broken
def scales_of_another_layer(model, spec, calibration):
    """Every layer is read with the mean scale of the layer before it."""
    previous: list[Tensor] = []

    def change(weight: Tensor) -> Tensor:
        scale = scale_of(weight).mean()
        used = previous[-1] if previous else scale
        previous.append(scale)
        return (weight / scale).round().clamp(-LEVELS - 1, LEVELS) * used

    return change_weights(model, change)


@broken
def scale_applied_twice(model, spec, calibration):
    """Dequantized, and dequantized again, in one layer."""
    change_weights(model)
    layer = next(iter(plain_layers(model, "vision").values()))
    layer.weight.data = layer.weight.data * scale_of(layer.weight.data) * LEVELS
    return model


@broken
def transposed_group_axis(model, spec, calibration):
    """Group scales are taken along the outputs and applied along the inputs."""

    def change(weight: Tensor) -> Tensor:
        flat = weight.flatten(1)
        by_row = flat.abs().amax(1, keepdim=True).clamp(min=1e-12) / LEVELS
        by_column = flat.abs().amax(0, keepdim=True).clamp(min=1e-12) / LEVELS
        return ((flat / by_row).round() * by_column).reshape(weight.shape)

    return change_weights(model, change)


@broken
def two_bits_by_mistake(model, spec, calibration):
    """The bit width is read from the wrong field: 2 instead of 8."""
    return change_weights(
        model, lambda w: (w / scale_of(w, 1)).round().clamp(-2, 1) * scale_of(w, 1)
    )


# -- activations ------------------------------------------------------------------------------


def quantize_inputs(
    model: Any,
    ranges: dict[str, tuple[float, float]],
    *,
    levels: int = LEVELS,
    code: Callable[[Tensor], Tensor] = torch.round,
) -> Any:
    """Round the inputs of the vision tower's layers to static ranges."""
    for name, layer in plain_layers(model, "vision").items():
        scale = max(map(abs, ranges[name])) / levels

        def before(_module, inputs, scale=scale):
            return (code(inputs[0] / scale).clamp(-levels - 1, levels) * scale, *inputs[1:])

        layer.register_forward_pre_hook(before)
    return model


@broken
def truncated_not_rounded(model, spec, calibration):
    """Codes of the activations are cut toward minus infinity, as an integer shift does."""
    change_weights(model)
    ranges = vision_ranges(model, calibration)
    return quantize_inputs(model, ranges, levels=63, code=torch.floor)


@broken
def stale_calibration(model, spec, calibration):
    """Activation ranges were observed before the images were normalised: far too narrow."""
    change_weights(model)
    ranges = vision_ranges(model, calibration)
    stale = {name: (low / 6, high / 6) for name, (low, high) in ranges.items()}
    return quantize_inputs(model, stale)


@broken
def one_range_for_all_layers(model, spec, calibration):
    """The observer is shared: every layer gets the narrowest range."""
    change_weights(model)
    ranges = vision_ranges(model, calibration)
    narrowest = min(ranges.values(), key=lambda seen: max(map(abs, seen)))
    return quantize_inputs(model, dict.fromkeys(ranges, narrowest))


@broken
def negative_activations_lost(model, spec, calibration):
    """Inputs of the first block's MLP are quantized as unsigned."""
    change_weights(model)
    block(model).mlp.register_forward_pre_hook(lambda _module, inputs: (inputs[0].clamp(min=0),))
    return model


# -- layers, heads, towers --------------------------------------------------------------------


@broken
def one_layer_zeroed(model, spec, calibration):
    """One MLP's output weight rounds to nothing."""
    change_weights(model)
    block(model, 1).mlp.c_proj.weight.data.zero_()
    return model


@broken
def one_head_dropped(model, spec, calibration):
    """The values of one attention head are lost."""
    change_weights(model)
    attention = block(model, -1).attn
    width = attention.v_proj.out_features // attention.num_heads
    attention.v_proj.weight.data[:width] = 0
    return model


@broken
def one_block_skipped(model, spec, calibration):
    """The loop over the blocks ends one too early."""
    change_weights(model)
    del model.visual.transformer.resblocks[-1]
    return model


@broken
def biases_lost(model, spec, calibration):
    """Integer kernels without a bias argument."""
    change_weights(model)
    for layer in plain_layers(model, "vision").values():
        if layer.bias is not None:
            layer.bias.data.zero_()
    return model


@broken
def attention_scale_lost(model, spec, calibration):
    """Scores are not divided by the root of the head's width."""
    change_weights(model)
    for index in range(len(model.visual.transformer.resblocks)):
        attention = block(model, index).attn
        factor = math.sqrt(attention.q_proj.out_features // attention.num_heads)
        attention.q_proj.weight.data *= factor
        attention.q_proj.bias.data *= factor
    return model


@broken
def query_weight_transposed(model, spec, calibration):
    """A square weight is stored column by column."""

    change_weights(model)
    weight = block(model).attn.q_proj.weight
    weight.data = weight.data.T.contiguous()
    return model


@broken
def activation_function_replaced(model, spec, calibration):
    """The fused kernel has a ReLU where the model has a GELU."""
    change_weights(model)
    for index in range(len(model.visual.transformer.resblocks)):
        block(model, index).mlp.gelu = nn.ReLU()
    return model


@broken
def text_tower_quantized_twice(model, spec, calibration):
    """The text tower's codes are taken for weights and quantized again, scales lost."""
    change_weights(model, towers="vision")

    def twice(weight: Tensor) -> Tensor:
        codes = (weight / scale_of(weight)).round()
        return (codes / LEVELS / 8).round() * 8 * scale_of(weight).mean()

    return change_weights(model, twice, "text")


@broken
def positions_lost(model, spec, calibration):
    """The position embedding is not copied."""
    change_weights(model)
    model.visual.positional_embedding.data.zero_()
    return model


@broken
def norms_rounded_coarsely(model, spec, calibration):
    """Layer norms are quantized to 2 bits along with the weights."""
    change_weights(model)
    for module in model.visual.modules():
        if isinstance(module, nn.LayerNorm):
            weight = module.weight.data
            step = weight.abs().max()
            module.weight.data = (weight / step).round() * step
    return model


# -- engines: what runs the model, not what rounds it -------------------------------------------


@broken
def half_of_the_samples_skipped(model, spec, calibration):
    """Every second image gets its neighbour's features."""
    change_weights(model)

    def encode(original, images):
        found = original(images[::2])
        return found.repeat_interleave(2, 0)[: len(images)]

    return replace_images(model, encode)


@broken
def last_batch_row_dropped(model, spec, calibration):
    """One sixteenth of each batch is padding that was never filled."""
    change_weights(model)

    def encode(original, images):
        found = original(images)
        found[::16] = 0
        return found

    return replace_images(model, encode)


@broken
def rows_depend_on_the_batch(model, spec, calibration):
    """Statistics of the whole batch leak into each row."""
    change_weights(model)

    def encode(original, images):
        found = original(images)
        return found - 0.7 * found.mean(0, keepdim=True)

    return replace_images(model, encode)


@broken
def colours_swapped(model, spec, calibration):
    """BGR images."""
    change_weights(model)
    return replace_images(model, lambda original, images: original(images.flip(1)))


@broken
def normalised_twice(model, spec, calibration):
    """The exported graph normalises, and so does the pipeline."""
    change_weights(model)
    return replace_images(model, lambda original, images: original((images - 0.45) / 0.27))


@broken
def nan_in_one_row(model, spec, calibration):
    """One sample overflows."""
    change_weights(model)

    def encode(original, images):
        found = original(images)
        found[0, 0] = float("nan")
        return found

    return replace_images(model, encode)


@broken
def features_collapsed(model, spec, calibration):
    """All images look nearly alike."""
    change_weights(model)

    def encode(original, images):
        found = original(images)
        return found[:1] + 1e-3 * found

    return replace_images(model, encode)


@broken
def features_saturated(model, spec, calibration):
    """Output features clipped to a range that only the middle of them fits."""
    change_weights(model)

    def encode(original, images):
        found = original(images)
        top = found.abs().mean() * 0.5
        return found.clamp(-top, top)

    return replace_images(model, encode)


@broken
def softmax_temperature_lost(model, spec, calibration):
    """The logit scale is not exported."""
    change_weights(model)
    model.logit_scale.data.zero_()
    return model


@broken
def labels_permuted(model, spec, calibration):
    """Class embeddings are stored in another order."""
    change_weights(model)
    original = model.encode_text
    model.encode_text = lambda text, normalize=False: original(text).flip(0)
    return model


@broken
def nothing_done(model, spec, calibration):
    """Returns the model as it came."""
    return model


@broken
def everything_zeroed(model, spec, calibration):
    """A scale far above the data."""
    return change_weights(model, torch.zeros_like)


@broken
def falls_over(model, spec, calibration):
    """Raises in the middle."""
    raise RuntimeError("no kernel image is available")
