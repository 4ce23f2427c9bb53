"""Quantizers whose codes, scales or zero points are wrong."""

from __future__ import annotations

import torch
from faithful_quantizers import (
    LEVELS,
    as_claimed,
    block,
    broken,
    change_weights,
    claiming,
    rounded,
    scale_of,
)
from torch import Tensor

from clipq.quant.surgery import plain_layers


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


@claiming("w8a8")
def scales_of_q_k_v_rotated(model, spec, calibration):
    """The packed projection's scales are split in another order than its codes."""
    as_claimed(model, calibration)
    attention = block(model, 2).attn
    parts = [attention.q_proj, attention.k_proj, attention.v_proj]
    scales = [scale_of(part.weight.data) for part in parts]
    for part, own, other in zip(parts, scales, scales[1:] + scales[:1], strict=True):
        part.weight.data = part.weight.data / own * other
    return model


@broken
def scale_of_the_mean_magnitude(model, spec, calibration):
    """The range is a multiple of the mean magnitude, for data that were never Gaussian."""

    def change(weight: Tensor) -> Tensor:
        size = weight.flatten(1).abs().mean(1).reshape(-1, *[1] * (weight.dim() - 1))
        scale = 2 * size.clamp(min=1e-12) / LEVELS
        return (weight / scale).round().clamp(-LEVELS - 1, LEVELS) * scale

    return change_weights(model, change)


@broken
def scale_rounded_down_to_a_power(model, spec, calibration):
    """A power of two below the scale: up to half of each range saturates."""

    def change(weight: Tensor) -> Tensor:
        scale = scale_of(weight).log2().floor().exp2()
        return (weight / scale).round().clamp(-LEVELS - 1, LEVELS) * scale

    return change_weights(model, change)


@claiming("w4")
def nibbles_swapped(model, spec, calibration):
    """Two codes share a byte; in one layer the halves are read in the wrong order."""
    change_weights(model, lambda w: rounded(w, 7))
    layer = block(model, 1).mlp.c_fc
    pairs = layer.weight.data.reshape(len(layer.weight), -1, 2)
    layer.weight.data = pairs.flip(-1).reshape(layer.weight.shape).contiguous()
    return model


@claiming("w4")
def negative_nibbles_not_extended(model, spec, calibration):
    """Codes below zero are read as 8 to 15, in the text tower only."""
    change_weights(model, lambda w: rounded(w, 7))
    for layer in plain_layers(model, "text").values():
        scale = scale_of(layer.weight.data, 7)
        codes = (layer.weight.data / scale).round()
        layer.weight.data = torch.where(codes < -4, codes + 16, codes) * scale
    return model


@broken
def zero_points_in_four_bits(model, spec, calibration):
    """Zero points are packed like 4-bit codes: what is read back is a multiple of sixteen."""

    def change(weight: Tensor) -> Tensor:
        low = weight.flatten(1).amin(1).reshape(-1, *[1] * (weight.dim() - 1))
        scale = (weight.flatten(1).amax(1).reshape(low.shape) - low) / 255
        zero = (-low / scale).round()
        codes = (weight / scale + zero).round().clamp(0, 255)
        return (codes - (zero / 16).round() * 16) * scale

    return change_weights(model, change)


@broken
def last_group_without_a_scale(model, spec, calibration):
    """Groups of 48 do not divide the row: the ragged last one keeps the scale of the first."""

    def change(weight: Tensor) -> Tensor:
        flat = weight.flatten(1).clone()
        first = scale_of(flat[:, :48])
        for start in range(0, flat.shape[1], 48):
            part = flat[:, start : start + 48]
            scale = scale_of(part) if part.shape[1] == 48 else first / 4
            flat[:, start : start + 48] = (part / scale).round().clamp(-128, 127) * scale
        return flat.reshape(weight.shape)

    return change_weights(model, change)


@broken
def scales_read_in_half_precision_bits(model, spec, calibration):
    """Scales lose the low bits of a half float's exponent: small ones become zero."""

    def change(weight: Tensor) -> Tensor:
        scale = scale_of(weight)
        kept = torch.where(scale < scale.median(), torch.zeros_like(scale), scale)
        return (weight / scale).round() * kept

    return change_weights(model, change)
