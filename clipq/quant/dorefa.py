"""DoReFa: the tanh of weights on evenly spaced levels; inputs in a calibrated range.

Source: Zhou et al. 2016, arXiv 1606.06160. Departures: weights keep their size (a factor max|w|),
inputs are clipped to a calibrated range instead of [0, 1], because CLIP's are signed, and gradients
are not quantized: only the model that is run has to be small.
"""

from __future__ import annotations

from torch import nn

from clipq.quant.methods import Calibration, quantizers
from clipq.quant.spec import QuantizerSpec
from clipq.quant.trainable.trained_method import as_trained

__all__ = ["dorefa"]


@quantizers.register("dorefa", version=1, trains=True, calibrates=False)
def dorefa(model: nn.Module, spec: QuantizerSpec, calibration: Calibration) -> nn.Module:
    """Quantize `model` in place with what was learnt; needs a format.

    Options: `range` (`minmax`): how ranges of inputs are chosen; `include`, `exclude`, `ends` and
    `table`, and those of training. No step is learnt.
    """
    return as_trained(model, spec, calibration)
