"""Which integer format a model runs in, read from the products that it runs.

For a method that names no format: what its weights and inputs lie on says which bits it has, and so
what rounding to nearest would make of as many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from clipq.quant.coverage import Product
from clipq.quant.formats import ActivationFormat, Format, WeightFormat
from clipq.quant.levels import integer_bits, levels_in_use
from clipq.quant.spec import Towers
from clipq.quant.towers import in_towers

__all__ = ["FormatMeter"]

_GENEROUS = 0.1  # of a tower's multiply-accumulates: fewer bits than these have count as a detail
_FLOAT = 32
_IN_USE = 0.9  # of the levels that a number of bits has


@dataclass(frozen=True, slots=True)
class _Seen:
    """Bits of one product's weight and inputs; whether one scale may serve the whole weight."""

    name: str
    macs: int
    weight: int
    values: int
    whole: bool


class FormatMeter:
    """Looks at a model's products, and says which bits each tower has.

    Few inputs do not use all levels of a scale that many have set: bits are rather too few.

    >>> from clipq.quant.coverage import count_operations
    >>> from clipq.quant.pipeline import post_training
    >>> from clipq.quant.spec import QuantizerSpec
    >>> from clipq.testing import SmallInputs, small_clip
    >>> spec, inputs = QuantizerSpec.parse("rtn:w4a8@text"), SmallInputs()
    >>> model, meter = post_training(small_clip(), spec, inputs.calibration), FormatMeter()
    >>> found = count_operations(model, lambda: inputs.encode(model), observe=meter.look)
    >>> str(meter.format_of("text")), meter.format_of("vision")
    ('w4a7', None)
    """

    def __init__(self) -> None:
        self._seen: list[_Seen] = []

    def look(self, product: Product) -> None:
        """Take one product into account."""
        weight, values = product.weight, product.values
        if not weight.numel() or not values.numel():
            return
        whole = _bits(weight.reshape(1, -1))
        rows = whole if whole < _FLOAT else _bits(weight.flatten(1))
        inputs = min(_bits(values.reshape(1, -1)), _bits(values.flatten(1)))
        self._seen.append(_Seen(product.name, product.macs, rows, inputs, whole < _FLOAT))

    def format_of(self, tower: Towers) -> Format | None:
        """Return what a tower runs in; None where its weights are float, or on other levels.

        Nine tenths of the multiply-accumulates have as many bits or more.
        """
        seen = [entry for entry in self._seen if in_towers(entry.name, tower)]
        weight = _lowest([(entry.macs, entry.weight) for entry in seen])
        values = _lowest([(entry.macs, entry.values) for entry in seen])
        if weight == _FLOAT:
            return None
        whole = sum(entry.macs for entry in seen if entry.whole)
        granularity: Literal["channel", "tensor"] = "channel"
        if whole > _GENEROUS * sum(entry.macs for entry in seen):
            granularity = "tensor"
        inputs = None if values == _FLOAT else ActivationFormat(values)
        return Format(WeightFormat(weight, granularity), inputs)

    def formats(self, towers: Towers) -> dict[Towers, Format]:
        """Return what each of the selected towers runs in, those that are not known left out."""
        both: tuple[Towers, ...] = ("vision", "text")
        found = {tower: self.format_of(tower) for tower in both if towers in (tower, "both")}
        return {tower: known for tower, known in found.items() if known is not None}


def _bits(blocks: Tensor) -> int:
    """Return the bits of integers that share a scale along each row, from 2."""
    blocks = blocks if blocks.is_floating_point() else blocks.float()
    if not blocks.isfinite().all() or integer_bits(blocks, "channel") is None:
        return _FLOAT
    # Neither end of the codes need be in use: 230 levels are 8 bits, 220 somebody's own number.
    return max(2, min(8, math.floor(math.log2(levels_in_use(blocks, "channel") / _IN_USE))))


def _lowest(found: list[tuple[int, int]]) -> int:
    total = sum(macs for macs, _ in found)
    passed = 0
    for macs, bits in sorted(found, key=lambda entry: entry[1]):
        passed += macs
        if passed > _GENEROUS * total:
            return bits
    return _FLOAT
