"""PACT: where inputs are clipped is learnt; weights are DoReFa's.

Source: Choi et al. 2018, arXiv 1805.06085, whose weights are DoReFa's, too. Departures: the clip
is symmetric, because CLIP's inputs are signed; it begins where the squared error is smallest
instead of far out, and no penalty on its size joins the loss.
"""

from __future__ import annotations

from torch import nn

from clipq.quant.methods import Calibration, quantizers
from clipq.quant.spec import QuantizerSpec
from clipq.quant.trainable.trained_method import as_trained

__all__ = ["pact"]


@quantizers.register("pact", version=1, trains=True, calibrates=False)
def pact(model: nn.Module, spec: QuantizerSpec, calibration: Calibration) -> nn.Module:
    """Quantize `model` in place with what was learnt; needs a format with symmetric static inputs.

    Options: `init` (`mse`): where clips begin; `include`, `exclude`, `ends` and `table`, and those
    of training.
    """
    return as_trained(model, spec, calibration)
