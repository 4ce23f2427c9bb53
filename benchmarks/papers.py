"""Slow transcriptions of the papers' formulas, which the fast implementations are held against.

Nothing here imports `clipq.quant`, but for the grids that a format stands for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from clipq.quant import WeightFormat
from clipq.quant.weights import weight_grid


def rtn(weight: np.ndarray, bits: int) -> np.ndarray:
    """s = max|w| / (2^(b-1) - 1), ŵ = s clamp(round(w / s), -2^(b-1), 2^(b-1) - 1), per row."""
    scale = np.abs(weight).max(1, keepdims=True) / np.float32(2 ** (bits - 1) - 1)
    return scale * np.clip(np.rint(weight / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def smoothing_scale(activation: Tensor, weight: Tensor, alpha: float) -> list[float]:
    """s_j = max|X_j|^α / max|W_:,j|^(1-α), maxima and s at least 1e-5, one number at a time."""
    found = []
    for x, w in zip(activation.tolist(), weight.tolist(), strict=True):
        found.append(max(max(x, 1e-5) ** alpha / max(w, 1e-5) ** (1 - alpha), 1e-5))
    return found


def gptq(weight: Tensor, gram: Tensor, number_format: WeightFormat, damp: float = 0.01) -> Tensor:
    """OBQ with a fixed order: H⁻¹ is updated by elimination, column by column, in float64."""
    work = weight.double().clone()
    hessian = gram.double() + damp * gram.double().diagonal().mean() * torch.eye(len(gram))
    inverse = torch.linalg.inv(hessian)
    size = number_format.granularity
    group = size if isinstance(size, int) else work.shape[1]
    result = torch.zeros_like(work)
    for j in range(work.shape[1]):
        if j % group == 0:
            source = work if isinstance(size, int) else weight.double()
            part = source[:, j : j + group].float()
            part = part.reshape(1, -1) if size == "tensor" else part
            grid = weight_grid(part, number_format)
        result[:, j] = grid.snap(work[:, j : j + 1].float())[:, 0]
        error = (work[:, j] - result[:, j]) / inverse[j, j]
        work[:, j + 1 :] -= error[:, None] * inverse[j, j + 1 :]
        inverse = inverse - torch.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    return result.float()


def awq_losses(weight: Tensor, inputs: Tensor, number_format: WeightFormat) -> list[float]:
    """‖(Q(W diag s) diag s⁻¹ - W) X‖² / n of all 20 scales, on the inputs themselves."""
    size, losses = inputs.abs().mean(0), []
    for step in range(20):
        scale = size.clamp(min=1e-4).pow(step / 20)
        scale = scale / (scale.max() * scale.min()).sqrt()
        losses.append(awq_loss(weight, inputs, number_format, scale))
    return losses


def awq_loss(weight: Tensor, inputs: Tensor, number_format: WeightFormat, scale: Tensor) -> float:
    """The same of one scale."""
    scaled = weight * scale
    size = number_format.granularity
    parts = scaled.split(size, dim=1) if isinstance(size, int) else [scaled]
    rounded = torch.cat([weight_grid(part, number_format).snap(part) for part in parts], 1)
    return float(((inputs / scale) @ rounded.T - inputs @ weight.T).square().mean())


def rabitq_cosine(row: Tensor, bits: int) -> float:
    """The largest cosine between `row` (d,) and any of the 2^(b d) code vectors."""
    levels = [u - (2**bits - 1) / 2 for u in range(2**bits)]
    every = torch.tensor(list(itertools.product(levels, repeat=len(row))), dtype=torch.float64)
    return float((torch.nn.functional.normalize(every, dim=1) @ row.double()).max() / row.norm())


def allocation_cost(
    costs: Sequence[float], sizes: Sequence[int], average: float, choices: Sequence[int]
) -> float:
    """The least Σ c_k 2^(-b_k) of all allocations within the budget."""
    budget = average * sum(sizes) + 1e-6
    return min(
        sum(c * 2.0**-b for c, b in zip(costs, bits, strict=True))
        for bits in itertools.product(choices, repeat=len(sizes))
        if sum(b * m for b, m in zip(bits, sizes, strict=True)) <= budget
    )


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, operands: int | None, probabilities: int | None
) -> Tensor:
    """Attention with rounded operands and probabilities, one query at a time."""

    def rounded(vector: Tensor, bits: int) -> Tensor:
        scale = vector.abs().max() / (2 ** (bits - 1) - 1)
        return torch.round(vector / scale) * scale

    result = torch.zeros_like(q)
    for n, h in itertools.product(range(q.shape[0]), range(q.shape[1])):
        queries, keys, values = q[n, h].clone(), k[n, h].clone(), v[n, h].clone()
        if operands:
            queries = torch.stack([rounded(row, operands) for row in queries])
            keys = torch.stack([rounded(row, operands) for row in keys])
            values = torch.stack([rounded(column, operands) for column in values.T]).T
        for i, query in enumerate(queries):
            scores = torch.stack([query @ key for key in keys]) / math.sqrt(len(query)) + mask[i]
            shares = scores.softmax(0)
            if probabilities:
                levels = 2**probabilities - 1
                shares = torch.round(shares * levels) / levels
            result[n, h, i] = shares @ values
    return result


def divergence(counts: Tensor, size: int, levels: int) -> float:
    """KL divergence of the first `size` bins from their `levels` levels: TensorRT's procedure."""
    p = counts[:size].clone()
    p[-1] += counts[size:].sum()
    q = torch.zeros(size, dtype=torch.float64)
    for level in range(levels):
        members = [i for i in range(size) if i * levels // size == level]
        filled = [i for i in members if counts[i] > 0]
        for i in filled:
            q[i] = counts[members].sum() / len(filled)
    p, q = p / p.sum(), q / q.sum()
    return sum(
        float(a * (a / max(float(b), 1e-12)).log()) for a, b in zip(p, q, strict=True) if a > 0
    )
