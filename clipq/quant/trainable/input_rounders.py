"""Modules that round a layer's input while its step, offset or clip is learnt.

Each has one step per tensor and says on which grid it rounds, from which the module that rounds at
inference is made: `clipq.quant.activations.StaticQuantizer` with the learnt numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from clipq.quant.affine import QParams
from clipq.quant.formats import ActivationFormat
from clipq.quant.trainable.learned_step import offset_grid, round_with_offset, round_with_step

__all__ = ["InputRounder", "LearnedClip", "LearnedInputStep", "LearnedOffset"]


class InputRounder(nn.Module):
    """Rounds a tensor with learnt numbers.

    Args:
        number_format: static integers.
    """

    def __init__(self, number_format: ActivationFormat) -> None:
        super().__init__()
        self.number_format = number_format

    def grid(self) -> QParams:
        """Return the grid as it is now; scales are 0-dimensional."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Return the format."""
        return str(self.number_format)


class LearnedInputStep(InputRounder):
    """LSQ of activations: one learnt step, signed codes.

    Args:
        number_format: symmetric static integers.
        step: where it begins.
        features: of one sample, N of the gradient's scale 1 / √(N Q_P).

    >>> rounder = LearnedInputStep(ActivationFormat(4), step=0.5, features=64)
    >>> rounder(torch.tensor([0.6, 9.0])).tolist()
    [0.5, 3.5]
    """

    def __init__(self, number_format: ActivationFormat, *, step: float, features: float) -> None:
        super().__init__(number_format)
        self.high = 2 ** (number_format.bits - 1) - 1
        self.share = (features * self.high) ** -0.5
        self.step = nn.Parameter(torch.tensor([step]))

    def forward(self, values: Tensor) -> Tensor:
        """Return `values` on the grid."""
        return round_with_step(
            values, self.step, low=-self.high - 1, high=self.high, share=self.share
        )

    def grid(self) -> QParams:
        """Return the grid."""
        return QParams(self.step.detach().reshape(()), None, -self.high - 1, self.high)


class LearnedOffset(InputRounder):
    """LSQ+ of activations: a learnt step and a learnt offset.

    Args:
        number_format: asymmetric static integers.
        step: where it begins.
        offset: where it begins, what the smallest code stands for.
        features: of one sample, N of the gradients' scale 1 / √(N Q_P), Q_P = 2^b - 1.

    >>> a4z = ActivationFormat(4, asymmetric=True)
    >>> rounder = LearnedOffset(a4z, step=1.0, offset=-2.0, features=64)
    >>> rounder(torch.tensor([-5.0, 0.2, 50.0])).tolist()
    [-2.0, 0.0, 13.0]
    """

    def __init__(
        self, number_format: ActivationFormat, *, step: float, offset: float, features: float
    ) -> None:
        super().__init__(number_format)
        self.levels = 2**number_format.bits - 1
        self.share = (features * self.levels) ** -0.5
        self.step = nn.Parameter(torch.tensor([step]))
        self.offset = nn.Parameter(torch.tensor([offset]))

    def forward(self, values: Tensor) -> Tensor:
        """Return `values` on the grid."""
        return round_with_offset(
            values, self.step, self.offset, levels=self.levels, share=self.share
        )

    def grid(self) -> QParams:
        """Return the grid."""
        step, offset = (x.detach().reshape(()) for x in (self.step, self.offset))
        return offset_grid(step, offset, self.levels)


class LearnedClip(InputRounder):
    """PACT of activations: values are clipped at a learnt ±α, and rounded to α / Q_P.

    ∂v̂/∂v = 1 where |v| < α, else 0; ∂v̂/∂α = sign(v) where |v| ≥ α, else 0. Codes are -Q_P … Q_P.
    Source: Choi et al. 2018, arXiv 1805.06085, equations 1 to 3, for inputs behind a ReLU; here
    both sides are clipped, because CLIP's inputs are signed.

    Args:
        number_format: symmetric static integers.
        alpha: where the clip begins.

    >>> clip = LearnedClip(ActivationFormat(4), alpha=3.5)
    >>> clip(torch.tensor([0.6, 9.0, -9.0])).tolist()
    [0.5, 3.5, -3.5]
    """

    def __init__(self, number_format: ActivationFormat, *, alpha: float) -> None:
        super().__init__(number_format)
        self.high = 2 ** (number_format.bits - 1) - 1
        self.alpha = nn.Parameter(torch.tensor([alpha]))

    def forward(self, values: Tensor) -> Tensor:
        """Return `values` on the grid."""
        result: Tensor = _Clip.apply(values, self.alpha, self.high)
        return result

    def grid(self) -> QParams:
        """Return the grid."""
        return QParams(self.alpha.detach().reshape(()) / self.high, None, -self.high, self.high)


class _Clip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, alpha: Tensor, high: int) -> Tensor:
        ctx.save_for_backward(values, alpha)
        return QParams(alpha / high, None, -high, high).snap(values).to(values.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        values, alpha = ctx.saved_tensors
        grad, shares = grads[0].float(), values.float() / alpha
        inside = torch.ops.aten.hardtanh_backward(grad, shares, -1.0, 1.0)
        of_alpha = torch.dot((grad - inside).reshape(-1), shares.sign_().reshape(-1))
        return inside.to(values.dtype), of_alpha.reshape(alpha.shape), None
