"""SmoothQuant: moving activation outliers into the weights before rounding.

    s_j = max|X_j|^α / max|W_:,j|^(1-α),    X ← X / s,    W ← W diag(s)

X / s is folded into the layer norm that makes X; max|W_:,j| is taken over all layers that read it.
Source: Xiao et al. 2023, arXiv 2211.10438. Layers behind no layer norm (output projections, hidden
layers' outputs, convolutions) are rounded as they are, as in the paper.
"""

from __future__ import annotations

from torch import nn

from clipq.errors import QuantizerError
from clipq.quant.methods import Calibration, quantizers
from clipq.quant.observe import observe_statistics
from clipq.quant.options import read_number
from clipq.quant.pipeline import Prepared, post_training
from clipq.quant.spec import QuantizerSpec
from clipq.quant.transforms.rotation import ROTATION, chosen_rotation
from clipq.quant.transforms.smoothing import scale_group, smoothing_scale, weight_absmax
from clipq.quant.transforms.structure import norm_groups

__all__ = ["smoothquant"]


@quantizers.register("smoothquant", version=1)
def smoothquant(model: nn.Module, spec: QuantizerSpec, calibration: Calibration) -> nn.Module:
    """Quantize `model` in place; needs a format.

    Options: `alpha` (0.5): how much of the difficulty moves into the weights, 0 to 1; `rotation`:
    `none` or `hadamard`, afterwards.
    """
    alpha = read_number(spec, "alpha", 0.5, low=0.0, high=1.0)
    if spec.require_format().activation is None:
        raise QuantizerError(
            f"{str(spec)!r} leaves activations in float, so that there is nothing to smooth",
            hint="give a format with activations, such as w8a8, or use awq for weights alone",
        )
    transforms = [lambda prepared: smooth(prepared, alpha=alpha), *chosen_rotation(spec)]
    return post_training(model, spec, calibration, transforms=transforms, own=("alpha", *ROTATION))


def smooth(prepared: Prepared, *, alpha: float) -> None:
    """Smooth every layer norm whose readers are all quantized.

    Raises:
        QuantizerError: there is none.
    """
    model, towers = prepared.model, prepared.towers
    groups = {
        name: group
        for name, group in norm_groups(model, towers, prepared.order).items()
        if all(layer in prepared.formats for layer in group.layers)
    }
    if not groups:
        raise QuantizerError(
            "no layer norm feeds quantized layers alone, so there is nothing to smooth",
            hint="use rtn, or quantize a tower of transformer or ConvNeXt blocks",
        )
    watched = {next(iter(group.layers)): group for group in groups.values()}
    layers: dict[str, nn.Module] = {name: group.layers[name] for name, group in watched.items()}
    seen = observe_statistics(model, towers, prepared.calibration, layers, gram=False)
    for name, group in watched.items():
        largest = seen[name].largest.flatten()
        scale_group(group, smoothing_scale(largest, weight_absmax(group), alpha=alpha))
