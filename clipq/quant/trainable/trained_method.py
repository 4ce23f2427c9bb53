"""What every trained method does with a model: prepare it, load what was learnt, freeze it."""

from __future__ import annotations

from torch import nn

from clipq.errors import QuantizerError
from clipq.quant.methods import Calibration
from clipq.quant.spec import QuantizerSpec
from clipq.quant.trainable.preparation import prepare
from clipq.training_settings import TrainingSettings

__all__ = ["as_trained"]


def as_trained(model: nn.Module, spec: QuantizerSpec, calibration: Calibration) -> nn.Module:
    """Quantize `model` in place with the state that ``calibration.trained`` holds.

    Raises:
        QuantizerError: there is none, and ``steps=0`` does not say that none is wanted; it does not
            fit; or `prepare` refuses.

    >>> from clipq.testing import SmallInputs, small_clip
    >>> spec, calibration = QuantizerSpec.parse("lsq:w4a8,steps=0"), SmallInputs().calibration
    >>> type(as_trained(small_clip(), spec, calibration).visual.conv1).__name__
    'QuantizedConv2d'
    """
    settings = TrainingSettings.read(dict(spec.options))
    trainable = prepare(model, spec, calibration)
    if calibration.trained is not None:
        trainable.load(calibration.trained)
    elif settings.steps:
        raise QuantizerError(
            f"quantizer {str(spec)!r} is learnt, and nothing was learnt yet",
            hint=f"train it: clipq train MODEL '{spec}'; or take it as it is initialised, with "
            "steps=0",
        )
    return trainable.frozen()
