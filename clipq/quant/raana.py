"""RaanA: weights rounded by RaBitQ after a random rotation, bits spent where gradients say.

Weight-only. Each layer's inputs and weight columns are rotated by the same two overlapping Hadamard
matrices with random signs (RaBitQ-H); each output's weight vector becomes RaBitQ codes. The bits of
each layer follow from AllocateBits with

    c_k = mean ‖∂L/∂out_k‖_F / √numel · √(mean ‖x‖²) · √(‖W‖_F² / d_in)

The paper's L is a language model's loss. CLIP calibration data carry no labels, so L here is the
inner product of the normalised features with random directions: its squared gradient estimates
that of the features themselves (Hutchinson).

Source: Yang 2025, arXiv 2504.03717. Of convolutions, only those whose windows do not overlap (patch
embeddings) and 1 x 1 ones would allow rotated inputs; all are rounded without a rotation.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from clipq.errors import QuantizerError
from clipq.quant.allocation import allocate_bits
from clipq.quant.explicit import make_explicit
from clipq.quant.methods import Calibration, quantizers
from clipq.quant.modules import transform_input
from clipq.quant.observe import observe_statistics
from clipq.quant.options import SELECTION, CommonOptions, read_choice, read_number
from clipq.quant.rabitq import rabitq_round
from clipq.quant.selection import select_layers
from clipq.quant.spec import QuantizerSpec, Towers
from clipq.quant.surgery import Layer, in_order, plain_layers, replace_layers
from clipq.quant.towers import tower_batches
from clipq.quant.transforms.hadamard import HadamardRotation
from clipq.quant.transforms.structure import execution_order
from clipq.quant.weights import check_finite

__all__ = ["raana", "sensitivities"]

_SAMPLES = 8  # images and texts that gradients are taken for; the paper uses a handful


@quantizers.register("raana", version=1, draws=True)
def raana(model: nn.Module, spec: QuantizerSpec, calibration: Calibration) -> nn.Module:
    """Quantize the weights of `model` in place; takes bits, not a format.

    Options: `bits` (required): the average per weight, 1 to 8, need not be whole, such as 3.3;
    `centre` (`on`): take the mean of all outputs' weight vectors out and keep it in float;
    `outliers` (0.003): share of outputs, those with the longest weight vectors, kept in float;
    `seed` (0) of signs and directions; `include`, `exclude` and `ends` as in
    `clipq.quant.options`: the average is over what they leave.
    """
    if spec.format is not None:
        raise QuantizerError(
            f"{str(spec)!r} gives raana a number format",
            hint="it chooses bits per layer itself: write raana,bits=3.3",
        )
    options = spec.read_options(("bits", "centre", "outliers", "seed", *SELECTION))
    if "bits" not in options:
        raise QuantizerError(
            f"{str(spec)!r} does not say how many bits", hint="write raana,bits=3.3, for example"
        )
    average = read_number(spec, "bits", 4.0, low=1.0, high=8.0)
    centre = read_choice(spec, "centre", ("off", "on"), "on") == "on"
    outliers = read_number(spec, "outliers", 0.003, low=0.0, high=0.5)
    seed = int(read_number(spec, "seed", 0, low=0, high=2**31))
    make_explicit(model, spec.towers)
    layers = plain_layers(model, spec.towers)
    order = execution_order(model, spec.towers, calibration)
    names = select_layers(in_order(layers, order), CommonOptions.read(spec))
    layers = {name: layers[name] for name in names}
    for name, layer in layers.items():
        check_finite(layer.weight, name)
    costs = sensitivities(model, spec.towers, calibration, layers, seed=seed)
    sizes = [layers[name].weight.numel() for name in names]
    bits = allocate_bits([costs[name] for name in names], sizes, average=average)
    generator = torch.Generator().manual_seed(seed)
    for name, count in zip(names, bits, strict=True):
        layer = layers.pop(name)  # replaced at once, so that its weight is freed
        rows = layer.weight.detach().float().flatten(1)
        if isinstance(layer, nn.Linear):
            rotation = HadamardRotation(layer.in_features, generator=generator, overlapping=True)
            rotation = rotation.to(layer.weight.device)
            rows = rotation.rotate_weight(rows)
            rotated = rows.to(layer.weight.dtype)
            layer.weight = nn.Parameter(rotated, requires_grad=layer.weight.requires_grad)
            transform_input(layer, rotation)
        rounded = round_rows(rows, bits=count, centre=centre, outliers=outliers)
        weight = rounded.reshape(layer.weight.shape).to(layer.weight.dtype)
        bits_here = _stored_bits(rows, bits=count, centre=centre, outliers=outliers)
        replace_layers(
            model, spec.towers, {name: layer}, {name: weight}, {name: None}, bits={name: bits_here}
        )
    return model


def _stored_bits(rows: Tensor, *, bits: int, centre: bool, outliers: float) -> int:
    """Return what rounded rows take: codes and a scale each, the mean vector, the rows in float."""
    in_float = math.ceil(outliers * len(rows)) if outliers else 0
    mean = rows.shape[1] * 32 if centre and len(rows) > 1 else 0
    return (
        (len(rows) - in_float) * (rows.shape[1] * bits + 32) + in_float * rows.shape[1] * 32 + mean
    )


def round_rows(rows: Tensor, *, bits: int, centre: bool, outliers: float) -> Tensor:
    """Return rounded weight vectors (n, d) of one layer with the paper's two tricks.

    Args:
        rows: one weight vector per output, (n, d) float32.
        bits: per weight.
        centre: round the difference from the mean vector, which stays in float.
        outliers: share of the longest vectors (of those differences) that stay in float.
    """
    mean = rows.mean(0, keepdim=True) if centre and len(rows) > 1 else torch.zeros_like(rows[:1])
    rest = rows - mean
    rounded = rabitq_round(rest, bits=bits)
    in_float = (
        rest.double().norm(dim=-1).topk(math.ceil(outliers * len(rows)) if outliers else 0).indices
    )
    rounded[in_float] = rest[in_float]
    return rounded + mean


def sensitivities(
    model: nn.Module,
    towers: Towers,
    calibration: Calibration,
    layers: dict[str, Layer],
    *,
    seed: int,
) -> dict[str, float]:
    """Return c_k of layers of an explicit model, by name.

    Raises:
        QuantizerError: a layer never ran.
    """
    gradients = _gradient_norms(model, towers, calibration, layers, seed=seed)
    seen = observe_statistics(model, towers, calibration, dict(layers), gram=False)
    costs = {}
    for name, layer in layers.items():
        statistics = seen[name]
        power = float(statistics.square.sum()) / max(1, statistics.rows)
        weight = layer.weight.detach().double()
        spread = float(weight.square().sum()) / weight[0].numel()
        costs[name] = gradients[name] * math.sqrt(power) * math.sqrt(spread)
    return costs


def _gradient_norms(
    model: nn.Module,
    towers: Towers,
    calibration: Calibration,
    layers: dict[str, Layer],
    *,
    seed: int,
) -> dict[str, float]:
    """Return mean ‖∂L/∂out‖_F / √numel of each layer over a few samples."""
    generator = torch.Generator().manual_seed(seed)
    norms = dict.fromkeys(layers, 0.0)
    for encode, batches in tower_batches(model, towers, calibration):
        batch = next(batches)[:_SAMPLES]
        for sample in batch:
            outputs: dict[str, list[Tensor]] = {}
            with ExitStack() as stack, torch.enable_grad():
                for name, layer in layers.items():
                    stack.enter_context(layer.register_forward_hook(_keep(outputs, name)))
                features = encode(sample[None])
                features = features.double()  # whose squares do not overflow
                features = features / features.norm(dim=-1, keepdim=True)
                direction = torch.randn(features.shape, generator=generator).to(features)
                flat = [(name, out) for name, calls in outputs.items() for out in calls]
                grads = torch.autograd.grad(
                    (features * direction).sum(), [out for _, out in flat], allow_unused=True
                )
            for (name, out), grad in zip(flat, grads, strict=True):
                if grad is not None:
                    norms[name] += float(grad.norm()) / math.sqrt(out.numel()) / len(batch)
    return norms


def _keep(outputs: dict[str, list[Tensor]], name: str) -> Any:
    def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        # A view of its own: what follows may change the output in place.
        kept = output.requires_grad_() if output.is_leaf else output
        outputs.setdefault(name, []).append(kept)
        return kept.clone()

    return hook
