"""How many bytes a quantized model takes where its codes are stored as the format says.

A simulated model holds rounded floats; this counts what its codes would take: the bits of each
code, 32 of a scale (8 where it is a power of two or shared by an MX block) and a code's bits of a
zero point. Whatever is not quantized counts as it lies in the model's state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from clipq.quant.formats import WeightFormat
from clipq.quant.modules import QuantizedConv2d, QuantizedLinear

__all__ = ["Storage", "measure_storage", "state_bytes", "stored_bits"]

_SCALE_BITS, _EXPONENT_BITS = 32, 8
_OF_CODES = ("weight", "codes", "weight_scale", "code_sums")


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes of one quantized model.

    Args:
        weight_bits: mean bits per quantized weight, scales and zero points included.
        bytes: of the whole model, both towers, with quantized weights as codes.
        float_bytes: of the model it was made from.
    """

    weight_bits: float
    bytes: int
    float_bytes: int

    def to_plain(self) -> dict[str, Any]:
        """Return the storage as strict-JSON values."""
        return {
            "weight_bits": round(self.weight_bits, 4),
            "bytes": self.bytes,
            "float_bytes": self.float_bytes,
        }


def stored_bits(shape: Sequence[int], number_format: WeightFormat) -> int:
    """Return the bits of a weight (out, ...) in a format: codes, scales and zero points.

    >>> stored_bits((8, 64), WeightFormat(4, 32))  # 512 codes, 16 scales
    2560
    """
    rows, row = shape[0], math.prod(shape[1:])
    match number_format.granularity:
        case "tensor":
            scales = 1
        case "channel":
            scales = rows
        case int(size):
            scales = rows * math.ceil(row / min(size, row)) if row else 0
    exponent = number_format.power_of_two or number_format.number.startswith("mx")
    per_scale = _EXPONENT_BITS if exponent else _SCALE_BITS
    per_scale += number_format.bits if number_format.asymmetric else 0
    return rows * row * number_format.bits + scales * per_scale


def state_bytes(model: nn.Module, *, without: frozenset[str] = frozenset()) -> int:
    """Return the bytes of a model's state, each storage once, less the named entries."""
    sizes = {
        tensor.untyped_storage()._cdata: tensor.numel() * tensor.element_size()
        for name, tensor in model.state_dict().items()
        if name not in without
    }
    return sum(sizes.values())


def measure_storage(model: nn.Module, float_bytes: int) -> Storage | None:
    """Return what a quantized model takes; None where a layer does not say what its weight does."""
    codes, weights = 0, 0
    without = set()
    for name, module in model.named_modules():
        if not isinstance(module, QuantizedLinear | QuantizedConv2d):
            continue
        if module.stored_bits is None:
            return None
        codes += module.stored_bits
        weights += module.weight.numel()
        without |= {f"{name}.{part}" for part in _OF_CODES}
    if not weights:
        return None
    total = state_bytes(model, without=frozenset(without)) + math.ceil(codes / 8)
    return Storage(codes / weights, total, float_bytes)
