"""Correcting biases: rounding shifts a layer's mean output, and a bias can take the shift back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from clipq.quant.methods import Calibration
from clipq.quant.modules import QuantizedConv2d, QuantizedLinear
from clipq.quant.spec import Towers
from clipq.quant.towers import encode_batches

__all__ = ["correct_biases"]


@torch.no_grad()
def correct_biases(
    model: nn.Module,
    towers: Towers,
    calibration: Calibration,
    originals: dict[str, Any],
    twins: Mapping[str, QuantizedLinear | QuantizedConv2d],
) -> None:
    """Add to each quantized layer's bias the mean of what its rounding took away, in place.

        b ← b + E[W x + b] - E[Ŵ x̂ + b],    per output channel, x from the quantized model

    Source: Nagel et al. 2019, arXiv 1906.04721, section 4.2 (empirical); all layers in one pass.

    Args:
        model: the quantized model.
        towers: which to run.
        calibration: data; text and images once.
        originals: the float layers by name.
        twins: their quantized twins.
    """
    shifts: dict[str, Tensor] = {}
    rows: dict[str, int] = {}

    def compare(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        layer, channels = originals[name], _channel_dim(originals[name])

        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            # `forward`, not a call: the input has passed the transform's hook already.
            difference = (layer.forward(inputs[0]) - output).float().movedim(channels, -1)
            flat = difference.reshape(-1, difference.shape[-1])
            shifts[name] = shifts.get(name, torch.zeros(())) + flat.double().sum(0)
            rows[name] = rows.get(name, 0) + len(flat)

        return hook

    with ExitStack() as stack:
        for name, twin in twins.items():
            stack.enter_context(twin.register_forward_hook(compare(name)))
        for _ in encode_batches(model, towers, calibration):
            pass
    for name, twin in twins.items():
        if name not in rows:
            continue
        shift = (shifts[name] / rows[name]).float()
        bias = shift if twin.bias is None else twin.bias.detach().float() + shift
        twin.bias = nn.Parameter(bias.to(twin.weight.dtype), requires_grad=False)


def _channel_dim(layer: nn.Module) -> int:
    return 1 if isinstance(layer, nn.Conv2d) else -1
