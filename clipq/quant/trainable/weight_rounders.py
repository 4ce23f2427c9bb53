"""Modules that round a weight while it is trained: learnt steps, steps from its absolute maximum.

Each maps a float weight (out, ...) to the rounded weight of the same shape and dtype, through which
gradients flow. What shares a step is the format's business (`clipq.quant.weights.split_weight`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from clipq.quant.affine import usable_scale
from clipq.quant.formats import WeightFormat
from clipq.quant.grids import choose_grid
from clipq.quant.trainable.learned_step import round_with_step
from clipq.quant.weights import join_weight, split_weight

__all__ = ["AbsmaxWeights", "LearnedWeightSteps", "TanhWeights", "WeightRounder"]


class WeightRounder(nn.Module):
    """Rounds a weight in a format.

    Args:
        number_format: symmetric integers.
    """

    def __init__(self, number_format: WeightFormat) -> None:
        super().__init__()
        self.number_format = number_format

    def forward(self, weight: Tensor) -> Tensor:
        """Return the rounded weight."""
        blocks = split_weight(weight.float(), self.number_format)
        return join_weight(self.rounded(blocks), weight)

    def rounded(self, blocks: Tensor) -> Tensor:
        """Return float32 blocks, what shares a step along the last dimension, rounded."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Return the format."""
        return str(self.number_format)


class LearnedWeightSteps(WeightRounder):
    """LSQ of weights: one learnt step per channel, tensor or group.

    Args:
        number_format: symmetric integers.
        steps: where they begin, float32, (out, 1), (1, 1) or (out, groups, 1).
        counts: how many weights share each, shaped alike: N of the gradient's scale 1 / √(N Q_P).

    >>> rounder = LearnedWeightSteps(WeightFormat(4), torch.tensor([[0.5]]), torch.tensor([[3.0]]))
    >>> rounder(torch.tensor([[0.6, 9.0, -9.0]])).tolist()
    [[0.5, 3.5, -4.0]]
    """

    share: Tensor

    def __init__(self, number_format: WeightFormat, steps: Tensor, counts: Tensor) -> None:
        super().__init__(number_format)
        self.high = 2 ** (number_format.bits - 1) - 1
        self.step = nn.Parameter(steps.detach().clone())
        share = (counts * self.high).rsqrt().to(steps.device)
        self.register_buffer("share", share, persistent=False)

    def rounded(self, blocks: Tensor) -> Tensor:
        """Return the blocks on the grid of their steps."""
        return round_with_step(
            blocks, self.step, low=-self.high - 1, high=self.high, share=self.share
        )


class AbsmaxWeights(WeightRounder):
    """Steps from the absolute maximum, anew each time, with a plain straight-through gradient.

    s = max|w| / (2^(b-1) - 1): rounding to nearest of the weight as it is now. No weight is
    clamped, so that the gradient passes everywhere, and none reaches the step.

    >>> weight = torch.tensor([[7.0, 2.4, -3.6]], requires_grad=True)
    >>> rounded = AbsmaxWeights(WeightFormat(4))(weight)
    >>> rounded.sum().backward()
    >>> rounded.tolist(), weight.grad.tolist()
    ([[7.0, 2.0, -4.0]], [[1.0, 1.0, 1.0]])
    """

    def rounded(self, blocks: Tensor) -> Tensor:
        """Return the blocks on the grid of their own absolute maximum."""
        result: Tensor = _Nearest.apply(blocks, self.number_format)
        return result


class TanhWeights(WeightRounder):
    """DoReFa of weights: b bits of the weight's tanh, spread evenly over ±max|w|.

    With t = tanh(w) / max|tanh(w)| in [-1, 1] and k = 2^b - 1:

        ŵ = max|w| · (2 round(k (t / 2 + 1 / 2)) / k - 1)

    The gradient is straight-through the rounding: ∂ŵ/∂w = max|w| / max|tanh(w)| · (1 - tanh²(w)),
    both maxima held constant. Levels are odd multiples of max|w| / k: zero is none of them.
    Source: Zhou et al. 2016, arXiv 1606.06160, equation 9, where the factor max|w| is missing:
    their networks are trained from scratch around weights in [-1, 1]; a pre-trained one needs its
    own size.

    >>> weight = torch.tensor([[0.3, 0.05, -0.02, -0.2]])
    >>> TanhWeights(WeightFormat(2))(weight).mul(10).round().tolist()
    [[3.0, 1.0, -1.0, -3.0]]
    """

    def rounded(self, blocks: Tensor) -> Tensor:
        """Return the blocks on evenly spaced levels without zero."""
        result: Tensor = _Tanh.apply(blocks, 2**self.number_format.bits - 1)
        return result


class _Nearest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, blocks: Tensor, number_format: WeightFormat) -> Tensor:
        low, high = torch.aminmax(blocks, dim=-1, keepdim=True)
        return choose_grid(low, high, number_format).snap(blocks)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        return grads[0], None


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, blocks: Tensor, levels: int) -> Tensor:
        bent = blocks.tanh()
        largest = blocks.abs().amax(-1, keepdim=True)
        reach = usable_scale(bent.abs().amax(-1, keepdim=True))
        ctx.save_for_backward(bent, usable_scale(largest) / reach)
        codes = bent.div(reach).mul_(0.5).add_(0.5).mul_(levels).round_()
        return codes.mul_(2.0).sub_(levels).mul_(largest / levels)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        bent, ratio = ctx.saved_tensors
        return (1.0 - bent.square()).mul_(ratio).mul_(grads[0]), None
