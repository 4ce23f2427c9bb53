"""Rot+LSQ: LSQ after QuaRot's rotation, which spreads outliers over all features.

The rotation is exact, and what is trained is the rotated model, its online Hadamard transforms
included. Its signs are drawn from the option `seed`, which also seeds the training.
Sources: `clipq.quant.transforms.rotation` and `clipq.quant.lsq`.
"""

from __future__ import annotations

from torch import nn

from clipq.quant.methods import Calibration, quantizers
from clipq.quant.spec import QuantizerSpec
from clipq.quant.trainable.trained_method import as_trained

__all__ = ["rot_lsq"]


@quantizers.register("rot+lsq", version=1, trains=True, draws=True, calibrates=False)
def rot_lsq(model: nn.Module, spec: QuantizerSpec, calibration: Calibration) -> nn.Module:
    """Quantize `model` in place: rotate, then as `lsq`; needs a format."""
    return as_trained(model, spec, calibration)
