"""Moving the size of activations into weights, by channel: SmoothQuant's and AWQ's rewrite.

    (x / s) · (diag(s) Wᵀ) = x Wᵀ

x / s comes for free where x is a layer norm's output: its weight and bias are divided instead.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clipq.quant.transforms.structure import NormGroup, ValuePair

__all__ = ["scale_group", "scale_values", "smoothing_scale", "weight_absmax"]

_FLOOR = 1e-5


def weight_absmax(group: NormGroup) -> Tensor:
    """Return max|W_:,j| over all layers of the group, per input channel (C,), float32."""
    weights = [layer.weight.detach().float().flatten(1) for layer in group.layers.values()]
    return torch.stack([weight.abs().amax(0) for weight in weights]).amax(0)


def smoothing_scale(activation_absmax: Tensor, weight_absmax: Tensor, *, alpha: float) -> Tensor:
    """Return s = max|X|^α / max|W|^(1-α), (C,), float32.

    Both maxima and s are at least 1e-5: a channel that never carries anything, or that no weight
    reads, would divide by zero. s is also at most 1e5, so that 1 / s is no smaller.
    Source: Xiao et al. 2023, arXiv 2211.10438, equation 4; clamps as in its reference code.

    Args:
        activation_absmax: (C,) over the calibration data.
        weight_absmax: (C,) over all layers that read the channel.
        alpha: how much of the difficulty moves into the weights, 0 to 1.
    """
    activation = activation_absmax.float().clamp(min=_FLOOR)
    weight = weight_absmax.float().clamp(min=_FLOOR)
    return (activation.pow(alpha) / weight.pow(1.0 - alpha)).clamp(_FLOOR, 1.0 / _FLOOR)


@torch.no_grad()
def scale_group(group: NormGroup, scale: Tensor) -> None:
    """Divide the norm's output by `scale` (C,), multiply the layers' columns by it, in place."""
    norm = group.norm
    norm.weight = _replaced(norm.weight, norm.weight.float() / scale)
    if norm.bias is not None:
        norm.bias = _replaced(norm.bias, norm.bias.float() / scale)
    for layer in group.layers.values():
        shape = (1, -1, *[1] * (layer.weight.dim() - 2))
        layer.weight = _replaced(layer.weight, layer.weight.float() * scale.reshape(shape))


@torch.no_grad()
def scale_values(pair: ValuePair, scale: Tensor) -> None:
    """Divide the values by `scale` (heads · d,), multiply the output's columns by it, in place."""
    rows, value, output = pair.rows, pair.value, pair.output
    weight = value.weight.detach().float().clone()
    weight[rows] /= scale[:, None]
    value.weight = _replaced(value.weight, weight)
    if value.bias is not None:
        bias = value.bias.detach().float().clone()
        bias[rows] /= scale
        value.bias = _replaced(value.bias, bias)
    output.weight = _replaced(output.weight, output.weight.float() * scale)


def _replaced(old: Tensor, new: Tensor) -> nn.Parameter:
    """Return a new parameter: one that is shared with another layer must not change there."""
    return nn.Parameter(new.to(old.dtype), requires_grad=old.requires_grad)
