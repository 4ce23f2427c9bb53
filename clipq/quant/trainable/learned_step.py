"""Rounding whose step is learnt: LSQ, and LSQ+ with an offset.

With v in units of the step, u = v / s, and codes from -Q_N to Q_P:

    v̂ = s · round(clamp(u, -Q_N, Q_P))
    ∂v̂/∂v = 1 where -Q_N < u < Q_P, else 0
    ∂v̂/∂s = round(u) - u there, -Q_N below, Q_P above

and the gradient of a step, summed over all that shares it, is multiplied by 1 / √(N Q_P).
Source: Esser et al. 2020, arXiv 1902.08153, equations 1 to 5.

LSQ+ moves the codes by an offset β: u = (v - β) / s with codes from 0 to L, ∂v̂/∂β = 1 outside and
0 inside. Source: Bhalgat et al. 2020, arXiv 2004.09576, section 3. Here β is rounded to
whole steps in the forward pass, and kept from leaving zero outside the codes (both
straight-through), so that zero stays exact and the grid is one of a scale and an integer zero
point.

Each is one autograd node that keeps its input and nothing else: everything the gradient needs is
computed from it anew. Arithmetic is float32 whatever the dtype.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from clipq.quant.affine import QParams

__all__ = ["offset_grid", "round_with_offset", "round_with_step"]

_masked = torch.ops.aten.hardtanh_backward  # gradient where low < u < high, else 0, in one pass


def round_with_step(
    values: Tensor, step: Tensor, *, low: int, high: int, share: float | Tensor
) -> Tensor:
    """Return `values` rounded with a learnt step, in their own dtype.

    Args:
        values: any shape.
        step: float32: one number (1,), or a column that broadcasts along the last dimension.
        low: smallest code, -Q_N.
        high: largest code, Q_P.
        share: what the step's gradient is multiplied by, 1 / √(N Q_P); shaped like it or a number.

    >>> step = torch.tensor([0.5], requires_grad=True)
    >>> rounded = round_with_step(torch.tensor([0.6, 9.0]), step, low=-8, high=7, share=1.0)
    >>> rounded.sum().backward()
    >>> rounded.tolist(), step.grad.tolist()  # round(1.2) - 1.2 inside, and 7 above
    ([0.5, 3.5], [6.80...])
    """
    result: Tensor = _LearnedStep.apply(values, step, low, high, share)
    return result


def round_with_offset(
    values: Tensor, step: Tensor, offset: Tensor, *, levels: int, share: float
) -> Tensor:
    """Return `values` rounded with a learnt step and offset, in their own dtype.

    Args:
        values: any shape.
        step: float32 (1,).
        offset: float32 (1,), what code 0 stands for before it is rounded to whole steps.
        levels: the largest code, L.
        share: what both gradients are multiplied by.

    >>> step, offset = torch.tensor([0.5]), torch.tensor([-0.9])  # two steps below zero
    >>> round_with_offset(torch.tensor([-3.0, 0.6]), step, offset, levels=15, share=1.0).tolist()
    [-1.0, 0.5]
    """
    result: Tensor = _LearnedOffset.apply(values, step, offset, levels, share)
    return result


def offset_grid(step: Tensor, offset: Tensor, levels: int) -> QParams:
    """Return the grid that `round_with_offset` rounds to.

    >>> offset_grid(torch.tensor([0.5]), torch.tensor([-0.9]), 15).zero_point.tolist()
    [2.0]
    """
    zero_point = torch.round((-offset / step).clamp(0, levels))
    return QParams(step, zero_point, 0, levels)


class _LearnedStep(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, step: Tensor, low: int, high: int, share: float | Tensor
    ) -> Tensor:
        ctx.save_for_backward(values, step)
        ctx.low, ctx.high, ctx.share = low, high, share
        return QParams(step, None, low, high).snap(values).to(values.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        values, step = ctx.saved_tensors
        grad, units = grads[0].float(), values.float().div(step)
        of_values = of_step = None
        if ctx.needs_input_grad[0]:
            of_values = _masked(grad, units, ctx.low, ctx.high).to(values.dtype)
        if ctx.needs_input_grad[1]:
            of_step = _summed(grad, _slope(units, ctx.low, ctx.high), step).mul_(ctx.share)
        return of_values, of_step, None, None, None


class _LearnedOffset(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, step: Tensor, offset: Tensor, levels: int, share: float
    ) -> Tensor:
        ctx.save_for_backward(values, step, offset)
        ctx.levels, ctx.share = levels, share
        return offset_grid(step, offset, levels).snap(values).to(values.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        values, step, offset = ctx.saved_tensors
        grid = offset_grid(step, offset, ctx.levels)
        grad, units = grads[0].float(), values.float().div(step).add_(grid.zero_point)
        inside = _masked(grad, units, 0, ctx.levels)
        of_step = of_offset = None
        if ctx.needs_input_grad[2]:
            of_offset = (grad - inside).sum().reshape(offset.shape).mul_(ctx.share)
        if ctx.needs_input_grad[1]:
            of_step = _summed(grad, _slope(units, 0, ctx.levels), step).mul_(ctx.share)
        of_values = inside.to(values.dtype) if ctx.needs_input_grad[0] else None
        return of_values, of_step, of_offset, None, None


def _slope(units: Tensor, low: int, high: int) -> Tensor:
    """Return ∂v̂/∂s; `units` are used up."""
    inside = _masked(units, units, low, high)
    return units.round_().clamp_(low, high).sub_(inside)


def _summed(grad: Tensor, slope: Tensor, step: Tensor) -> Tensor:
    """Return the sum of products over whatever shares a step, in its shape."""
    if step.numel() == 1:
        return torch.dot(grad.reshape(-1), slope.reshape(-1)).reshape(step.shape)
    return slope.mul_(grad).sum(-1, keepdim=True)
