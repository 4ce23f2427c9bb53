"""GPTQ: rounding one input at a time, and letting the others make up for the error.

With H = 2/n Σ x xᵀ + λ I over calibration inputs and U the upper Cholesky factor of H⁻¹, columns
are rounded in order; a column's error, divided by U's diagonal, is taken out of those to come:

    e = (w_j - ŵ_j) / U_jj,    W_:,j+1… ← W_:,j+1… - e U_j,j+1…

λ is a share of H's mean diagonal; a column whose input was never anything but zero is set to zero.
Source: Frantar et al. 2023, arXiv 2210.17323, algorithm 1. Convolutions are treated as matrices of
unfolded windows; grouped ones (depthwise) are rounded to nearest, since a row has no more inputs
than its window to share an error with.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from clipq.errors import QuantizerError
from clipq.quant.formats import WeightFormat
from clipq.quant.grids import Grid
from clipq.quant.methods import Calibration, quantizers
from clipq.quant.observe import InputStatistics
from clipq.quant.options import read_choice, read_number
from clipq.quant.pipeline import RoundToNearest, Task, post_training
from clipq.quant.spec import QuantizerSpec
from clipq.quant.transforms.rotation import ROTATION, chosen_rotation
from clipq.quant.weights import WeightRange, check_finite, split_weight, weight_grid

__all__ = ["gptq", "gptq_round"]

_BLOCK = 128
_ATTEMPTS = 6


@quantizers.register("gptq", version=1)
def gptq(model: nn.Module, spec: QuantizerSpec, calibration: Calibration) -> nn.Module:
    """Quantize `model` in place; needs a format.

    Options: `damp` (0.01): λ as a share of the mean diagonal; `order`: `natural` or `activation`
    (largest diagonal of H first); `rotation`: `none` or `hadamard`, before.
    """
    damp = read_number(spec, "damp", 0.01, low=1e-6, high=1.0)
    order = read_choice(spec, "order", ("activation", "natural"), "natural")
    return post_training(
        model,
        spec,
        calibration,
        transforms=chosen_rotation(spec),
        rounder=_Gptq(damp, order),
        own=("damp", "order", *ROTATION),
    )


class _Gptq:
    sequential = True

    def __init__(self, damp: float, order: str) -> None:
        self.damp, self.by_activation = damp, order == "activation"

    def __call__(self, tasks: list[Task]) -> dict[str, Tensor]:
        rounded = RoundToNearest()([task for task in tasks if task.groups != 1])
        for together in _with_one_matrix([task for task in tasks if task.groups == 1]):
            first = together[0]
            # Not divided by the number of rows: damping is relative, so that no factor matters.
            statistics = cast(InputStatistics, first.statistics)
            for task in together:
                check_finite(task.weight, task.name)
            rows = [task.weight.detach().float().flatten(1) for task in together]
            solved = gptq_round(
                torch.cat(rows),
                statistics.gram[0],
                first.format,
                damp=self.damp,
                by_activation=self.by_activation,
                chosen=first.chosen,
            )
            for task, part in zip(
                together, torch.split(solved, [len(x) for x in rows]), strict=True
            ):
                rounded[task.name] = part.reshape(task.weight.shape).to(task.weight.dtype)
        return rounded


def _with_one_matrix(tasks: list[Task]) -> list[list[Task]]:
    """Return tasks that read one input together: their rows are independent, H is the same."""
    by_matrix: dict[object, list[Task]] = {}
    for task in tasks:
        whole = task.format.granularity == "tensor"
        key = task.name if whole else (id(task.statistics), task.format, task.chosen)
        by_matrix.setdefault(key, []).append(task)
    return list(by_matrix.values())


def gptq_round(
    weight: Tensor,
    gram: Tensor,
    number_format: WeightFormat,
    *,
    damp: float = 0.01,
    by_activation: bool = False,
    chosen: WeightRange = "minmax",
) -> Tensor:
    """Return the rounded weight (out, k), float32.

    Args:
        weight: (out, k) float32.
        gram: H without damping (k, k), up to a factor.
        number_format: scales per tensor and channel come from the weight as given; those of a group
            from the weight as it is when its first column is reached, or as given where columns are
            ordered by activation.
        damp: λ over the mean diagonal of H; it is raised tenfold while H is not positive definite.
        by_activation: round columns with the largest diagonal first.
        chosen: how ranges are chosen.

    Raises:
        QuantizerError: H is not positive definite with any damping, as with NaN.
    """
    size = number_format.granularity
    k = weight.shape[1]
    group = min(size, k) if isinstance(size, int) else k
    work, gram = weight.float().clone(), gram.float().clone()
    dead = gram.diagonal() == 0
    gram.diagonal()[dead] = 1.0
    work[:, dead] = 0.0

    def choose(blocks: Tensor) -> Grid:
        return weight_grid(blocks, number_format, chosen=chosen)

    grids: list[Grid] = []  # of all groups, where they are known beforehand
    if not isinstance(size, int):
        grids = [choose(split_weight(weight.float(), number_format))]
    elif by_activation:
        grids = [choose(part) for part in split_weight(work, number_format).unbind(1)]
    order = torch.arange(k)
    if by_activation:
        order = gram.diagonal().argsort(descending=True)
        work, gram = work[:, order], gram[order][:, order]
    upper = _inverse_factor(gram, damp)
    del gram
    result = torch.empty_like(work)
    for start in range(0, k, _BLOCK):
        stop = min(start + _BLOCK, k)
        block, factor = work[:, start:stop].clone(), upper[start:stop, start:stop]
        errors = torch.empty_like(block)
        for j in range(stop - start):
            column = start + j
            if grids:
                grid = grids[int(order[column]) // group]
            elif column % group == 0:
                # The group may reach beyond this block, which was not updated there yet.
                end = min(column + group, k)
                beyond = work[:, stop:end] - errors[:, :j] @ upper[start:column, stop:end]
                grid = choose(torch.cat([block[:, j : end - start], beyond], 1))
            values = block[:, j : j + 1]
            snapped = grid.snap(values)
            result[:, column] = snapped[:, 0]
            error = (values - snapped) / factor[j, j]
            block[:, j + 1 :] -= error * factor[j, j + 1 :]
            errors[:, j] = error[:, 0]
        work[:, stop:] -= errors @ upper[start:stop, stop:]
    back = torch.empty_like(order)
    back[order] = torch.arange(k)
    return result[:, back]


def _inverse_factor(gram: Tensor, damp: float) -> Tensor:
    """Return U, upper triangular, with H⁻¹ = Uᵀ U for the damped H; `gram` is damped in place."""
    diagonal = gram.diagonal().clone()
    for attempt in range(_ATTEMPTS):
        gram.diagonal().copy_(diagonal + damp * 10.0**attempt * diagonal.mean())
        lower, failed = torch.linalg.cholesky_ex(gram)
        if failed == 0 and bool(lower.diagonal().isfinite().all()):
            inverse = torch.cholesky_inverse(lower)
            del lower
            upper, failed = torch.linalg.cholesky_ex(inverse, upper=True)
            if failed == 0 and bool(upper.diagonal().isfinite().all()):
                return torch.as_tensor(upper)
    raise QuantizerError(
        "the Gram matrix of a layer's inputs is not positive definite, however much it is damped",
        hint="check the calibration data; give more samples",
    )
