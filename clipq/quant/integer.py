"""8-bit layers as true integer matrix products, where torch has them.

    y = s_x s_w (Σ q_x q_w - z Σ q_w) + b,    sums in int32

The sums are exact, so the result is that of the simulation but for the float32 rounding of the
latter's sums. Gradients, and inputs on devices without `torch._int_mm`, take the simulated path.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from clipq.errors import QuantizerError
from clipq.quant.activations import StaticQuantizer
from clipq.quant.affine import QParams
from clipq.quant.formats import Format
from clipq.quant.modules import (
    QuantizedConv2d,
    QuantizedLinear,
    input_transform,
    transform_input,
)
from clipq.quant.weights import WeightRange, split_weight, weight_grid

__all__ = ["IntegerLinear", "check_integer_format", "integer_twin"]

_ROWS = 2**16  # numbers rounded at a time, so that the passes over them stay in cache


class IntegerLinear(QuantizedLinear):
    """A quantized linear layer that multiplies int8 by int8.

    Args:
        layer: the simulated layer.
        codes: int8 (out, in), with weight = scale · codes exactly.
        scale: float32 (out, 1) or (1, 1).
    """

    codes: Tensor
    weight_scale: Tensor
    code_sums: Tensor

    def __init__(self, layer: QuantizedLinear, codes: Tensor, scale: Tensor) -> None:
        super().__init__(layer, layer.weight.detach(), layer.inputs)
        # (in, out), column by column: the layout in which the integer product is fastest.
        self.register_buffer("codes", codes.t())
        self.register_buffer("weight_scale", scale.reshape(-1))
        self.register_buffer("code_sums", codes.sum(1, dtype=torch.int32))

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output, (..., in) to (..., out)."""
        grid = cast(StaticQuantizer, self.inputs).grid
        plain = not (torch.is_grad_enabled() and input.requires_grad) and input.device.type == "cpu"
        if not plain or not input.numel() or not isinstance(grid, QParams):
            return super().forward(input)
        rows = input.reshape(-1, input.shape[-1]).float()
        # Unsigned codes of asymmetric inputs are moved by 128 into int8's range.
        moved = 0 if grid.zero_point is None else 128
        zero = 0 if grid.zero_point is None else int(grid.zero_point) - moved
        total = torch._int_mm(_codes(rows, grid, moved), self.codes)
        if zero:
            total -= zero * self.code_sums
        result = total.float().mul_(grid.scale * self.weight_scale)
        if self.bias is not None:
            result += self.bias
        return result.reshape(*input.shape[:-1], -1).to(input.dtype)


def check_integer_format(number_format: Format) -> None:
    """Refuse formats whose products are none of integers.

    Raises:
        QuantizerError: weights must be symmetric integers with a scale per channel or tensor,
            activations static integers.
    """
    weight, activation = number_format.weight, number_format.activation
    weights = weight.number == "int" and not weight.asymmetric
    if (
        not (weights and not isinstance(weight.granularity, int))
        or activation is None
        or activation.number != "int"
        or activation.dynamic
    ):
        raise QuantizerError(
            f"compute=integer cannot run {number_format}",
            hint="it needs symmetric weights with a scale per channel or tensor and static "
            "integer activations, such as w8a8, w8a8z or w4ta8",
        )


def integer_twin(
    twin: QuantizedLinear | QuantizedConv2d, weight: Tensor, number_format: Format, *, chosen: str
) -> QuantizedLinear | QuantizedConv2d:
    """Return the integer form of a simulated layer; convolutions stay simulated.

    Args:
        twin: the simulated layer.
        weight: its float weight before rounding, which the scale follows from.
        number_format: of the layer.
        chosen: how its weight range was chosen.
    """
    if isinstance(twin, QuantizedConv2d):
        return twin
    blocks = split_weight(weight.detach().float(), number_format.weight)
    scale = weight_grid(blocks, number_format.weight, chosen=cast(WeightRange, chosen)).scale
    codes = torch.round(twin.weight.detach().float() / scale)
    if not torch.equal(codes * scale, twin.weight.float()) or codes.abs().max() > 128:
        raise QuantizerError(
            "a rounded weight is no multiple of its scale, so that it has no integer form",
            hint="use compute=simulated with this method",
        )
    whole = codes.to(torch.int8)
    result = IntegerLinear(twin, whole, scale.expand(len(whole), 1))
    result.stored_bits = twin.stored_bits
    transform = input_transform(twin)
    if transform is not None:
        transform_input(result, transform)
    return result.train(twin.training)


def _codes(rows: Tensor, grid: QParams, moved: int) -> Tensor:
    """Return int8 codes, less `moved`, of float32 (n, in)."""
    codes = torch.empty(rows.shape, dtype=torch.int8)
    zero = 0 if grid.zero_point is None else int(grid.zero_point) - moved
    step = max(1, _ROWS // rows.shape[1])
    for part, target in zip(torch.split(rows, step), torch.split(codes, step), strict=True):
        steps = part.div(grid.scale).round_()
        if zero:
            steps += zero
        target.copy_(steps.clamp_(grid.low - moved, grid.high - moved))
    return codes
