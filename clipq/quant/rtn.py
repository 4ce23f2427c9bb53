"""Round to nearest: each weight and activation to the closest point of its grid.

    s = max|w| / (2^(b-1) - 1),   ŵ = s · clamp(round(w / s), -2^(b-1), 2^(b-1) - 1)

The simplest post-training quantizer and the baseline of every other. Activation ranges are the
minimum and maximum over the calibration data. Batch norms are not folded into convolutions.
"""

from __future__ import annotations

from torch import nn

from clipq.quant.methods import Calibration, quantizers
from clipq.quant.pipeline import post_training
from clipq.quant.spec import QuantizerSpec

__all__ = ["rtn"]


@quantizers.register("rtn", version=1, calibrates=False)
def rtn(model: nn.Module, spec: QuantizerSpec, calibration: Calibration) -> nn.Module:
    """Quantize `model` in place by rounding to nearest; needs a format."""
    return post_training(model, spec, calibration)
