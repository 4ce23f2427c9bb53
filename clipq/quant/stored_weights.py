"""What the weights of a model that is not made of clipq's modules are stored as, read from them.

A method may round weights in place, or multiply with rounded ones in modules of its own. Each weight
is looked at as it is multiplied. One whose rows the float model has, too, was left alone. Of one
that changed, the cheapest storage that holds it exactly is found: the format that the quantizer
names, integers with a scale per row or group, one of the other formats, or half precision. A weight
that changed and fits none of them is unknown, and then no number is given.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clipq.quant.coverage import Product
from clipq.quant.formats import Format, WeightFormat
from clipq.quant.levels import integer_bits, weight_on_levels
from clipq.quant.storage import Storage, stored_bits

__all__ = ["FloatRows", "StoredWeights"]

_GROUPS = (256, 128, 64, 32, 16)
_FEWEST_BLOCKS = 32  # fewer groups of floats may lie on a common spacing by chance
_OTHERS = tuple(
    Format.parse(text).weight
    for text in ("wmxfp4", "wnf4", "wnf4g64", "wnf4g128", "wmxfp8", "we4m3", "we5m2", "we4m3t")
)
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_HALVES = (torch.bfloat16, torch.float16)
_KINDS = ("quantized", "float", "unknown")
_NEGLIGIBLE = 0.01  # of the multiply-accumulates, as a claim of a format may leave in float


class FloatRows:
    """The rows of every weight that a float model multiplies with, by a checksum of their bits.

    >>> rows, weight = FloatRows(), torch.eye(3)
    >>> rows.look(Product("fc.weight", nn.Linear(3, 3), weight, weight, 27))
    >>> rows.hold(weight[1:]), rows.hold(weight + 1)
    (True, False)
    """

    def __init__(self) -> None:
        self._known: set[int] = set()

    def look(self, product: Product) -> None:
        """Take one product of the float model into account."""
        self._known.update(_checksums(product.weight))

    def hold(self, weight: Tensor) -> bool:
        """Whether the float model multiplies with each row of a weight (out, ...)."""
        return self._known.issuperset(_checksums(weight))


@dataclass(frozen=True, slots=True)
class _Weight:
    """One weight, or a part of one, as it was multiplied."""

    name: str
    place: int  # address of the tensor of the state that holds it, or that it is made from
    numbers: int
    bits: int  # of all of it
    kind: str


class StoredWeights:
    """Looks at a model's products, and says what their weights are stored as.

    Args:
        model: whose products are looked at.
        rows: of the float model that it was made from.
        claimed: the format that the quantizer names; None where it names none.
    """

    def __init__(
        self, model: nn.Module, rows: FloatRows, claimed: WeightFormat | None = None
    ) -> None:
        self._state = {_address(tensor): tensor for tensor in model.state_dict().values()}
        self._rows, self._claimed = rows, claimed
        self._weights: dict[tuple[object, ...], _Weight] = {}
        self._macs = dict.fromkeys(_KINDS, 0)

    def look(self, product: Product) -> None:
        """Take one product into account."""
        weight = product.weight.detach()
        place, at = _address(weight), weight.storage_offset()
        if place not in self._state:  # rounded on the way
            place, at = _made_from(product), -1
        # A slice of a fused weight is another weight.
        key = (product.name, place, at, tuple(weight.shape))
        if key not in self._weights:
            left = self._rows.hold(weight)
            bits = None if left else _least_bits(weight, self._claimed)
            kind = "float" if left else "unknown" if bits is None else "quantized"
            self._weights[key] = _Weight(product.name, place, weight.numel(), bits or 0, kind)
        self._macs[self._weights[key].kind] += product.macs

    def macs_quantized(self, total: int) -> int | None:
        """Return the multiply-accumulates with quantized weights; None where some are unknown.

        Args:
            total: of the float model's weights.
        """
        seen = sum(self._macs.values())
        if self._macs["unknown"] > _NEGLIGIBLE * total or seen < (1 - _NEGLIGIBLE) * total:
            return None
        return min(total, self._macs["quantized"])

    def in_float(self) -> tuple[str, ...]:
        """Return the weights that are multiplied in float, by name."""
        return tuple(sorted({x.name for x in self._weights.values() if x.kind != "quantized"}))

    def storage(self, float_bytes: int) -> Storage | None:
        """Return what the model takes with its codes; None where that is not known.

        Args:
            float_bytes: of the model it was made from.
        """
        quantized = [x for x in self._weights.values() if x.kind == "quantized"]
        if not quantized or self._macs["unknown"] or any(not x.place for x in quantized):
            return None
        replaced = Counter[int]()
        for each in quantized:
            replaced[each.place] += each.numbers
        codes, numbers = sum(x.bits for x in quantized), sum(x.numbers for x in quantized)
        left = sum(
            max(0, tensor.numel() - replaced[place]) * tensor.element_size()
            for place, tensor in self._state.items()
        )
        return Storage(codes / numbers, left + math.ceil(codes / 8), float_bytes)


def _made_from(product: Product) -> int:
    """Return the address of the tensor that a module rounds on the way; 0 where it is not clear."""
    own = [*product.module.parameters(recurse=False), *product.module.buffers(recurse=False)]
    like = [x for x in own if x.numel() == product.weight.numel() and x.dim() >= 2]
    return _address(like[0]) if len(like) == 1 else 0


def _least_bits(weight: Tensor, claimed: WeightFormat | None) -> int | None:
    """Return the bits of the cheapest storage that holds a weight exactly; None in float."""
    if not weight.is_floating_point():
        weight = weight.float()  # codes, in an integer product
    if not weight.numel() or not weight.isfinite().all():
        return None
    formats = _candidates(weight) if claimed is None else [claimed]
    fitting = [stored_bits(weight.shape, each) for each in formats]
    if claimed is not None:
        return fitting[0] if weight_on_levels(weight, claimed) is not False else None
    fitting += [
        16 * weight.numel()
        for half in _HALVES
        if weight.dtype == half or torch.equal(weight.to(half).to(weight.dtype), weight)
    ]
    return min(fitting, default=None)


def _candidates(weight: Tensor) -> Iterator[WeightFormat]:
    row = weight[0].numel()
    bits = integer_bits(weight, "channel")
    if bits is not None and weight_on_levels(weight, WeightFormat(max(2, bits))):
        yield WeightFormat(max(2, bits))
    for size in _GROUPS:
        if size < row and weight.numel() >= _FEWEST_BLOCKS * size:
            bits = integer_bits(weight, size)
            grouped = WeightFormat(max(2, bits or 2), size)
            if bits is not None and weight_on_levels(weight, grouped):
                yield grouped
    yield from (each for each in _OTHERS if weight_on_levels(weight, each))


def _checksums(weight: Tensor) -> list[int]:
    """Return one 64-bit number per row of a weight (out, ...), of its bits and their order."""
    if not weight.numel():
        return []
    rows = weight.detach().reshape(len(weight), -1).contiguous()
    codes = rows.view(_INTEGERS[rows.element_size()]).to(torch.int64)
    generator = torch.Generator().manual_seed(codes.shape[1])
    factors = torch.randint(-(2**62), 2**62, (codes.shape[1],), generator=generator)
    return [int(x) for x in (codes * factors.to(codes.device)).sum(1)]


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
