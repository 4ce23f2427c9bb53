"""Trainable twins of the two linear layers: float weights that are rounded in each forward pass."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import linear

from clipq.quant.activations import DynamicQuantizer, InputQuantizer, StaticQuantizer
from clipq.quant.modules import ConvolutionTwin, Projection, keep_transform
from clipq.quant.surgery import Layer
from clipq.quant.trainable.input_rounders import InputRounder
from clipq.quant.trainable.weight_rounders import WeightRounder

__all__ = [
    "TrainableConv2d",
    "TrainableLinear",
    "TrainableTwin",
    "TrainedInputs",
    "frozen_inputs",
    "trainable_twin",
]

TrainedInputs = InputRounder | StaticQuantizer | DynamicQuantizer


class TrainableLinear(Projection):
    """`nn.Linear` whose weight, and input if asked, are rounded while they are trained.

    Args:
        layer: the float layer; weight and bias stay its own parameters.
        rounding: of the weight.
        inputs: what rounds the input; None leaves it in float.
    """

    def __init__(
        self, layer: nn.Linear, rounding: WeightRounder, inputs: TrainedInputs | None
    ) -> None:
        # "meta": the weights are given, so nothing is drawn from the global generator.
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.rounding, self.inputs = rounding, inputs

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output, (..., in) to (..., out)."""
        values = input if self.inputs is None else self.inputs(input)
        return linear(values, self.rounding(self.weight), self.bias)


class TrainableConv2d(ConvolutionTwin):
    """`nn.Conv2d` whose weight, and input if asked, are rounded while they are trained.

    Args:
        layer: the float layer; weight and bias stay its own parameters.
        rounding: of the weight.
        inputs: what rounds the input; None leaves it in float.
    """

    def __init__(
        self, layer: nn.Conv2d, rounding: WeightRounder, inputs: TrainedInputs | None
    ) -> None:
        super().__init__(layer)
        self.weight, self.bias = layer.weight, layer.bias
        self.rounding, self.inputs = rounding, inputs

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution, (N, C, H, W) to (N, C', H', W')."""
        values = input if self.inputs is None else self.inputs(input)
        result: Tensor = self._conv_forward(values, self.rounding(self.weight), self.bias)
        return result


TrainableTwin = TrainableLinear | TrainableConv2d


def trainable_twin(
    layer: Layer, rounding: WeightRounder, inputs: TrainedInputs | None
) -> TrainableTwin:
    """Return the twin of `layer`, on its device and behind its input transform."""
    twin = (
        TrainableConv2d(layer, rounding, inputs)
        if isinstance(layer, nn.Conv2d)
        else TrainableLinear(layer, rounding, inputs)
    )
    keep_transform(layer, twin)
    return twin.to(layer.weight.device).train(layer.training)


def frozen_inputs(inputs: TrainedInputs | None) -> InputQuantizer | None:
    """Return what rounds at inference as `inputs` do now."""
    match inputs:
        case InputRounder():
            return StaticQuantizer.on(inputs.grid(), inputs.number_format)
        case StaticQuantizer():
            return StaticQuantizer.on(inputs.grid, inputs.number_format)  # one for each layer
    return inputs
