"""LSQ: the steps of weights and inputs are learnt, together with the weights.

Source: Esser et al. 2020, arXiv 1902.08153; with `z` inputs, LSQ+ (Bhalgat et al. 2020, arXiv
2004.09576). See `clipq.quant.trainable.learned_step` for equations and departures.
"""

from __future__ import annotations

from torch import nn

from clipq.quant.methods import Calibration, quantizers
from clipq.quant.spec import QuantizerSpec
from clipq.quant.trainable.trained_method import as_trained

__all__ = ["lsq"]


@quantizers.register("lsq", version=1, trains=True, calibrates=False)
def lsq(model: nn.Module, spec: QuantizerSpec, calibration: Calibration) -> nn.Module:
    """Quantize `model` in place with what was learnt; needs a format.

    Options: `variant` (`canonical`): `absmax` takes the steps of weights from their absolute
    maximum, anew in each forward pass, instead of learning them; `init` (`mse`, and `ema` of
    `absmax`): where steps begin, `lsq` for the paper's rule; `include`, `exclude`, `ends` and
    `table`, and those of training.
    """
    return as_trained(model, spec, calibration)
