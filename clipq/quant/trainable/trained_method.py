"""What every trained method does with a model: prepare it, load what was learnt, freeze it.

A method of somebody else's learns by the same door. It is registered with what prepares it::

    @quantizers.register("mine", trains=True, prepare=prepare_mine)
    def mine(model, spec, calibration):
        return ...  # with the tensors of calibration.trained

where ``prepare_mine(model, spec, calibration)`` returns a `Learner`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from clipq.errors import QuantizerError
from clipq.quant.methods import Calibration, find_method
from clipq.quant.spec import QuantizerSpec
from clipq.quant.trainable.preparation import prepare
from clipq.training_settings import TrainingSettings

__all__ = ["Learner", "as_trained", "learner_of"]


class Learner(Protocol):
    """A quantized model that can be trained; `clipq.quant.trainable.Trainable` is one."""

    @property
    def module(self) -> nn.Module:
        """Encodes images and texts as the quantized model does, with gradients."""

    def weights(self) -> dict[str, nn.Parameter]:
        """Return parameters with the learning rate `lr` and weight decay, by name."""

    def steps(self) -> dict[str, nn.Parameter]:
        """Return parameters whose rate, `step_lr`, is a share of their size, by name."""

    def collapsed(self) -> list[str]:
        """Return what ends a training: one line per parameter that makes no sense any more."""

    def state(self) -> dict[str, Tensor]:
        """Return what was learnt, which `calibration.trained` will hold."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take a state."""


def learner_of(model: nn.Module, spec: QuantizerSpec, calibration: Calibration) -> Learner:
    """Return what is trained of a model: made by the method's own `prepare`, or by clipq's.

    Args:
        model: a private copy of an open_clip model, in eval mode; changed in place.
        spec: a trained quantizer.
        calibration: what steps and ranges begin from.

    Raises:
        QuantizerError: the method cannot be prepared.

    >>> from clipq.testing import SmallInputs, small_clip
    >>> spec = QuantizerSpec.parse("lsq:w4a8@text")
    >>> type(learner_of(small_clip(), spec, SmallInputs().calibration)).__name__
    'Trainable'
    """
    own = getattr(find_method(spec), "prepare", prepare)
    learner: Learner = own(model, spec, calibration)
    return learner


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
