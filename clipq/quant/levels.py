"""How many levels values lie on, counted from the values themselves.

Whoever rounds to b bits leaves at most 2^b values under one scale, evenly spaced where codes are
integers. The spacing says more than the count does: a row of 64 floats has only 64 values, but its
two nearest lie about a 4,000th of its span apart, where 8 bits leave a 255th.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from clipq.quant.formats import ActivationFormat, WeightFormat
from clipq.quant.grids import choose_grid

__all__ = ["input_on_levels", "integer_bits", "levels_in_use", "levels_needed", "weight_on_levels"]

_WIDEST = 8
_SAMPLED = 64  # blocks that tell how many bits a weight makes use of
_FEWEST = 16  # values below which a column says nothing of its spacing
_ULPS = 8  # a product of scale and code, computed in two ways


def levels_needed(blocks: Tensor) -> Tensor:
    """Return how many evenly spaced levels each block takes at least, (B,) float64.

    One plus the span over the smallest gap; values that rounding of floats alone tells apart count
    as equal.

    Args:
        blocks: (B, n), finite.

    >>> levels_needed(torch.tensor([[0.0, 0.5, -1.0, 0.5], [3.0, 3.0, 3.0, 3.0]])).tolist()
    [4.0, 1.0]
    """
    values = blocks.double().sort(dim=-1).values
    span = values[:, -1] - values[:, 0]
    noise = _ULPS * _epsilon(blocks) * values.abs().amax(-1, keepdim=True)
    gaps = values.diff(dim=-1)
    smallest = torch.where(gaps > noise, gaps, torch.inf).amin(-1) if gaps.shape[1] else span
    return 1 + torch.where(span > noise[:, 0], span / smallest, torch.zeros_like(span))


def integer_bits(weight: Tensor, granularity: Literal["channel", "tensor"] | int) -> int | None:
    """Return the bits that the codes of a weight make use of, 1 to 8; None for a float weight.

    Args:
        weight: (out, ...), finite.
        granularity: what shares a scale, as `WeightFormat` says it.

    >>> steps = torch.arange(-7.0, 8.0).repeat(4, 1)
    >>> integer_bits(0.3 * steps, "channel"), integer_bits(steps.exp(), "channel")
    (4, None)
    """
    most = levels_in_use(weight, granularity)
    fitting = (b for b in range(1, _WIDEST + 1) if most <= _allowed(b, weight))
    return next(fitting, None)


def levels_in_use(weight: Tensor, granularity: Literal["channel", "tensor"] | int) -> float:
    """Return how many evenly spaced levels a weight takes under one scale, at least 1.

    Up to 64 of what shares a scale are looked at.

    Args:
        weight: (out, ...), finite.
        granularity: what shares a scale, as `WeightFormat` says it.

    >>> levels_in_use(torch.tensor([[0.0, 0.5, -1.0], [0.0, 1.0, 2.0]]), "channel")
    4.0
    """
    blocks = _blocks(weight, granularity)
    chosen = blocks[:: max(1, len(blocks) // _SAMPLED)]
    return float(levels_needed(chosen).max()) if chosen.numel() else 1.0


def weight_on_levels(weight: Tensor, number_format: WeightFormat) -> bool | None:
    """Say whether a weight has no more levels under one scale than its format has codes.

    Args:
        weight: (out, ...), finite, as it is multiplied.
        number_format: what it is said to be stored as.

    Returns:
        None where that cannot be told: few values of a number that is no integer.

    >>> w4, weight = WeightFormat(4), torch.linspace(-1, 1, 96).reshape(2, 48).square()
    >>> weight_on_levels(weight, w4), weight_on_levels((weight * 7).round() / 7, w4)
    (False, True)
    """
    if not weight.numel():
        return True
    codes = 2**number_format.bits
    blocks = _blocks(weight, number_format.granularity)
    if _on_own_grid(blocks, number_format) or _counted(weight.reshape(1, -1), codes):
        return True
    if number_format.number == "int":
        return _spaced(blocks, number_format.bits) or _counted(blocks, codes)
    informative = blocks.shape[1] > 2 * codes
    return _counted(blocks, codes) if informative else None


def input_on_levels(values: Tensor, number_format: ActivationFormat) -> bool | None:
    """Say whether a layer's input has no more levels under one scale than its format has codes.

    A scale may belong to the whole input, to each token, to each group of its features or, where
    somebody folded another into it, to each feature.

    Args:
        values: (tokens, features) or (N, C, H, W), finite, as they are multiplied.
        number_format: what they are said to be rounded to.

    Returns:
        None where that cannot be told: few values of a number that is no integer.

    >>> a8, values = ActivationFormat(8), torch.linspace(-1, 1, 2048).reshape(32, 64) ** 3
    >>> input_on_levels(values, a8), input_on_levels((values * 90).round(), a8)
    (False, True)
    """
    if not values.numel():
        return True
    codes = 2**number_format.bits
    rows = values.flatten(1)
    forms = [values.reshape(1, -1), rows]
    if number_format.group is not None:
        forms.append(_blocks(rows, number_format.group))
    if len(rows) >= _FEWEST:
        forms.append(rows.t())
    for form in forms:
        if _counted(form, codes) or _on_own_grid(form, number_format):
            return True
        if number_format.number == "int" and _spaced(form, number_format.bits):
            return True
    return False if number_format.number == "int" else None


def _blocks(weight: Tensor, granularity: Literal["channel", "tensor"] | int) -> Tensor:
    """Return what shares a scale as rows; a ragged last group repeats its last value."""
    if granularity == "tensor":
        return weight.reshape(1, -1)
    rows = weight.reshape(weight.shape[0], -1)
    if granularity == "channel":
        return rows
    size = min(int(granularity), rows.shape[1])
    missing = -rows.shape[1] % size
    filled = torch.cat([rows, rows[:, -1:].expand(-1, missing)], dim=1)
    return filled.reshape(-1, size)


def _on_own_grid(blocks: Tensor, number_format: WeightFormat | ActivationFormat) -> bool:
    """Whether rounding once more, to the range that the values span, moves none of them."""
    values = blocks.float()
    low, high = torch.aminmax(values, dim=-1, keepdim=True)
    moved = (choose_grid(low, high, number_format).snap(values) - values).abs()
    exact = _ULPS * torch.finfo(torch.float32).eps
    allowed = values.abs() * (exact + (_epsilon(blocks) if blocks.dtype != torch.float32 else 0.0))
    return bool((moved <= allowed).all())


def _counted(blocks: Tensor, codes: int) -> bool:
    """Whether each block has no more values than codes, and enough of them for that to tell."""
    if blocks.shape[1] <= 2 * codes:
        return False
    values = blocks.sort(dim=-1).values
    return int((values.diff(dim=-1) != 0).sum(-1).max()) < codes


def _spaced(blocks: Tensor, bits: int) -> bool:
    return bool((levels_needed(blocks) <= _allowed(bits, blocks)).all())


def _allowed(bits: int, like: Tensor) -> float:
    """Return the levels that `bits` give; half precision rounds products of code and scale."""
    codes = 1 << bits
    return (codes - 1) * (1 + min(1.0, codes * _epsilon(like))) + 1


def _epsilon(like: Tensor) -> float:
    return float(torch.finfo(like.dtype).eps) if like.is_floating_point() else 0.0
