"""AWQ: scaling up the inputs that matter, found by how large their activations are.

    s = a^α / √(max s · min s),    a_j = mean|x_j|,    α from {0, 0.05, …, 0.95}

α is what makes the layers' output error smallest, ‖(Q(W diag s) diag s⁻¹ - W) X‖²; then each
range is clipped where that again lowers the error. X enters through its Gram matrix, so that
activations are streamed, not kept. Scales are folded into layer norms and value projections.
Source: Lin et al. 2024, arXiv 2306.00978. Its code measures a whole attention's output for q, k
and v; here each group of layers is measured at its own outputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from clipq.quant.formats import WeightFormat
from clipq.quant.methods import Calibration, quantizers
from clipq.quant.observe import InputStatistics, observe_statistics
from clipq.quant.options import read_choice
from clipq.quant.pipeline import (
    Prepared,
    RoundToNearest,
    Task,
    post_training,
    stages,
    tower_of,
)
from clipq.quant.spec import QuantizerSpec
from clipq.quant.surgery import Layer
from clipq.quant.transforms.smoothing import scale_group, scale_values
from clipq.quant.transforms.structure import NormGroup, ValuePair, norm_groups, value_pairs
from clipq.quant.weights import join_weight, quantize_weight, split_weight, weight_grid

__all__ = ["awq", "best_clip", "best_scale", "clip_weight", "output_error"]

_STEPS = 20
_CLIPS = tuple(1.0 - 0.05 * i for i in range(11))  # down to half the range, as in the paper's code


@quantizers.register("awq", version=1)
def awq(model: nn.Module, spec: QuantizerSpec, calibration: Calibration) -> nn.Module:
    """Quantize `model` in place; needs a format.

    Option: `clip` (`search`): `search` or `none`. There is no rotation: it dissolves the layer
    norms that take up the scales.
    """
    clip = read_choice(spec, "clip", ("none", "search"), "search") == "search"
    limits: dict[str, Tensor] = {}
    return post_training(
        model,
        spec,
        calibration,
        transforms=[lambda prepared: scale(prepared, limits if clip else None)],
        rounder=_Clipped(limits),
        own=("clip",),
    )


class _Clipped(RoundToNearest):
    """Rounds to nearest what lies within the limits, and saturates the rest."""

    def __init__(self, limits: dict[str, Tensor]) -> None:
        self.limits = limits

    def __call__(self, tasks: list[Task]) -> dict[str, Tensor]:
        """Return the rounded weights by name."""
        clipped = [
            replace(task, weight=clip_weight(task.weight, self.limits[task.name], task.format))
            if task.name in self.limits
            else task
            for task in tasks
        ]
        return super().__call__(clipped)


@dataclass(frozen=True, slots=True, eq=False)
class _Site:
    """Layers whose common input can be scaled, and what takes the scale up."""

    layers: dict[str, Layer]
    absorber: NormGroup | ValuePair


def scale(prepared: Prepared, limits: dict[str, Tensor] | None) -> None:
    """Scale the weights of every stage in place; note where to clip them once they are rounded.

    A layer whose input cannot be scaled (hidden layers' outputs, behind a nonlinearity) is clipped
    only.

    Args:
        prepared: the model.
        limits: filled with `best_clip` of each layer; None to clip nothing.
    """
    layers, formats = prepared.layers(), prepared.formats
    sites = {next(iter(site.layers)): site for site in _sites(prepared, layers)}
    for stage in stages(list(layers)):
        stage_statistics = observe_statistics(
            prepared.model,
            tower_of(stage[0]),
            prepared.calibration,
            {name: layers[name] for name in stage},
            gram=True,
            last=stage[-1],
        )
        scales: dict[str, Tensor] = {}
        for name in stage:
            site = sites.get(name)
            if site is None:
                continue
            weights = [layer.weight.detach().float().flatten(1) for layer in site.layers.values()]
            number_formats = [formats[n].weight for n in site.layers]
            best = best_scale(weights, number_formats, stage_statistics[name])
            if isinstance(site.absorber, NormGroup):
                scale_group(site.absorber, best)
            else:
                scale_values(site.absorber, best)
            scales |= dict.fromkeys(site.layers, best)
        if limits is None:
            continue
        for name in stage:
            layer, statistics = layers[name], stage_statistics[name]
            if getattr(layer, "groups", 1) != 1:
                continue
            gram = statistics.gram[0] / max(1, statistics.rows)
            if name in scales:
                gram = gram / torch.outer(scales[name], scales[name])
            limits[name] = best_clip(layer.weight.detach().float(), formats[name].weight, gram)


def _sites(prepared: Prepared, layers: dict[str, Layer]) -> list[_Site]:
    model, towers = prepared.model, prepared.towers
    sites = [
        _Site(group.layers, group)
        for group in norm_groups(model, towers, prepared.order).values()
        if all(name in layers for name in group.layers)
    ]
    names = {layer: name for name, layer in layers.items()}
    for pair in value_pairs(model, towers).values():
        name = names.get(pair.output)
        if name is not None:
            sites.append(_Site({name: pair.output}, pair))
    return sites


def best_scale(
    weights: list[Tensor], number_formats: list[WeightFormat], statistics: InputStatistics
) -> Tensor:
    """Return s (k,), float32: the one with the smallest output error, all ones if none is better.

    Args:
        weights: (out, k) of each layer that reads the input.
        number_formats: of each.
        statistics: of the input.
    """
    rows = max(1, statistics.rows)
    gram, size = statistics.gram[0] / rows, statistics.absolute[0] / rows
    best, lowest = torch.ones_like(size), torch.inf
    for step in range(_STEPS):
        scale = size.clamp(min=1e-4).pow(step / _STEPS)
        scale = scale / (scale.max() * scale.min()).sqrt()
        error = 0.0
        for weight, number_format in zip(weights, number_formats, strict=True):
            rounded = quantize_weight(weight * scale, number_format, name="a scaled weight")
            error += output_error(rounded / scale - weight, gram)
        if error < lowest:
            best, lowest = scale, error
    return best


def best_clip(weight: Tensor, number_format: WeightFormat, gram: Tensor) -> Tensor:
    """Return the limit of each group's absolute values with the smallest output error.

    The error of a group of inputs is measured with its own block of the Gram matrix.

    Args:
        weight: (out, in) or (out, in, kh, kw), float32.
        number_format: whose ranges are clipped; a scale per tensor is left as it is.
        gram: mean of x xᵀ (k, k).

    Returns:
        (out, groups, 1), with one group where a scale is per channel.
    """
    flat = _grouped(weight, number_format)
    grams = _block_diagonal(gram, flat.shape[1], flat.shape[2])
    largest = flat.abs().amax(-1, keepdim=True)
    lowest, best = torch.full(flat.shape[:2], torch.inf), largest
    for share in _CLIPS if number_format.granularity != "tensor" else ():
        clipped = torch.minimum(torch.maximum(flat, -share * largest), share * largest)
        error = weight_grid(clipped, number_format).snap(clipped) - flat
        cost = torch.einsum("ogi,gij,ogj->og", error, grams, error)
        better = cost < lowest
        lowest = torch.where(better, cost, lowest)
        best = torch.where(better[..., None], share * largest, best)
    return best


def clip_weight(weight: Tensor, limits: Tensor, number_format: WeightFormat) -> Tensor:
    """Return `weight` with each group's values clipped to its limit of `best_clip`."""
    grouped = _grouped(weight.detach().float(), number_format)
    clipped = torch.minimum(torch.maximum(grouped, -limits), limits)
    blocks = clipped if clipped.shape[1] > 1 else clipped[:, 0]
    return join_weight(blocks, weight)


def _grouped(weight: Tensor, number_format: WeightFormat) -> Tensor:
    """Return (out, groups, values that share a scale); per tensor, one group of one output."""
    blocks = split_weight(weight, number_format)
    return blocks if blocks.dim() == 3 else blocks[:, None]


def output_error(difference: Tensor, gram: Tensor) -> float:
    """Return ‖D X‖² per row of X: trace of D G Dᵀ for D (out, k) and G = mean of x xᵀ (k, k)."""
    return float((difference @ gram).mul_(difference).sum())


def _block_diagonal(gram: Tensor, groups: int, size: int) -> Tensor:
    """Return the diagonal blocks (groups, size, size) of a Gram matrix, padded with zeros."""
    padded = torch.zeros(groups * size, groups * size)
    padded[: len(gram), : len(gram)] = gram
    return torch.stack([padded[i : i + size, i : i + size] for i in range(0, len(padded), size)])
