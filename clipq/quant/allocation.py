"""Spending an average number of bits where they matter most: AllocateBits of RaanA.

    minimise Σ_k c_k 2^(-b_k)   subject to   Σ_k m_k b_k <= b̄ Σ_k m_k

Source: Yang 2025, arXiv 2504.03717, section 4; solved by dynamic programming over the budget.
"""

from __future__ import annotations

import math

import numpy as np

from clipq.errors import QuantizerError

__all__ = ["allocate_bits"]

_CELLS = 20_000


def allocate_bits(
    costs: list[float], sizes: list[int], *, average: float, choices: range = range(1, 9)
) -> list[int]:
    """Return the bits of each layer.

    Args:
        costs: c_k, how much layer k's error matters, not negative.
        sizes: m_k, its number of weights.
        average: b̄, bits per weight over all layers; need not be whole.
        choices: bits a layer may have.

    Exact where the sizes' common divisor divides the budget into at most 20,000 cells; with more,
    sizes are rounded up to such a cell, so that the budget is never exceeded.

    Raises:
        QuantizerError: the average lies outside of the choices, or a cost is no finite number.
    """
    if not choices[0] <= average <= choices[-1]:
        raise QuantizerError(
            f"an average of {average:g} bits", hint=f"allowed: {choices[0]} to {choices[-1]}"
        )
    if not all(math.isfinite(cost) and cost >= 0 for cost in costs):
        bad = next(cost for cost in costs if not (math.isfinite(cost) and cost >= 0))
        raise QuantizerError(
            f"the error of a layer costs {bad}",
            hint="the gradients of the calibration data are not finite; check model and data",
        )
    cell = math.gcd(*sizes)
    budget = average * sum(sizes)
    cell = max(cell, math.ceil(budget / _CELLS / cell) * cell)
    units = [math.ceil(size / cell) for size in sizes]
    # A layer rounded up must still fit with the fewest bits.
    total = max(math.floor(budget / cell + 1e-9), choices[0] * sum(units))
    best = np.full(total + 1, np.inf)
    best[0] = 0.0
    taken = np.zeros((len(sizes), total + 1), np.int8)
    for k, (cost, unit) in enumerate(zip(costs, units, strict=True)):
        new = np.full(total + 1, np.inf)
        for bits in choices:
            spent = bits * unit
            if spent > total:
                break
            candidate = best[: total + 1 - spent] + cost * 2.0**-bits
            better = candidate < new[spent:]
            new[spent:][better] = candidate[better]
            taken[k, spent:][better] = bits
        best = new
    at = int(np.argmin(best))
    bits_of = []
    for k in range(len(sizes) - 1, -1, -1):
        bits = int(taken[k, at])
        bits_of.append(bits)
        at -= bits * units[k]
    return bits_of[::-1]
