"""QuaRot: rounding after a random rotation, which spreads outliers over all features.

The rotation is exact before rounding; see `clipq.quant.transforms.rotation` for what is folded
where in CLIP's towers. Source: Ashkboos et al. 2024, arXiv 2404.00456.
"""

from __future__ import annotations

from torch import nn

from clipq.quant.methods import Calibration, quantizers
from clipq.quant.pipeline import post_training
from clipq.quant.spec import QuantizerSpec
from clipq.quant.transforms.rotation import rotation

__all__ = ["quarot"]


@quantizers.register("quarot", version=1, draws=True, calibrates=False)
def quarot(model: nn.Module, spec: QuantizerSpec, calibration: Calibration) -> nn.Module:
    """Quantize `model` in place: rotate, then round to nearest; needs a format.

    Option: `seed` (0) of the random signs. Rotation under other methods is their option
    `rotation=hadamard`.
    """
    return post_training(model, spec, calibration, transforms=[rotation(spec)], own=("seed",))
