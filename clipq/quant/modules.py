"""Quantized twins of the two linear layers, and a projection that replaces a bare matrix.

All subclass torch's own layers, because open_clip asks `isinstance(…, nn.Linear)` and reads
`weight.dtype`. The weight they hold is already rounded: a forward pass costs one ordinary matrix
product and, where activations are quantized too, one rounding of the input.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from clipq.quant.activations import InputQuantizer

__all__ = [
    "ConvolutionTwin",
    "InputTransform",
    "Projection",
    "QuantizedConv2d",
    "QuantizedLinear",
    "input_transform",
    "keep_transform",
    "quantized_twin",
    "transform_input",
]


class InputTransform(nn.Module):
    """A linear map of a layer's input, undone by the layer's weight: a rotation, for example."""


def transform_input(layer: nn.Module, transform: InputTransform) -> None:
    """Let `layer` see transformed inputs from now on; its weight must have been adapted.

    A forward hook applies it, so hooks that are registered later, and the quantized twin's
    rounding, see the transformed input. The transform travels with the layer into its twin.
    """
    layer.input_transform = transform
    layer.register_forward_pre_hook(_apply_transform, with_kwargs=False)


def input_transform(layer: nn.Module) -> InputTransform | None:
    """Return the transform of a layer's input, None where it has none."""
    transform = getattr(layer, "input_transform", None)
    return transform if isinstance(transform, InputTransform) else None


def keep_transform(layer: nn.Module, twin: nn.Module) -> None:
    """Put a layer's twin behind the transform of the layer's input, where it has one."""
    transform = input_transform(layer)
    if transform is not None:
        transform_input(twin, transform)


def _apply_transform(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    transform = input_transform(layer)
    return inputs if transform is None else (transform(inputs[0]), *inputs[1:])


class Projection(nn.Linear):
    """A linear layer that also works where open_clip writes ``features @ matrix``.

    Python tries the right operand's `__rmatmul__` once a tensor declines the product, so
    ``visual.proj`` and ``text_projection`` become modules without a changed forward.
    """

    def __rmatmul__(self, features: Tensor) -> Tensor:
        result: Tensor = self(features)
        return result


class QuantizedLinear(Projection):
    """`nn.Linear` with a rounded weight and, optionally, a rounded input.

    `stored_bits` is what the weight's codes and scales take; None where that is unknown.
    """

    stored_bits: int | None = None

    def __init__(self, layer: nn.Linear, weight: Tensor, inputs: InputQuantizer | None) -> None:
        # "meta": the weights are given, so nothing is drawn from the global generator.
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = layer.bias
        self.inputs = inputs

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output, (..., in) to (..., out)."""
        return super().forward(input if self.inputs is None else self.inputs(input))


class ConvolutionTwin(nn.Conv2d):
    """A convolution shaped as another; its weight is still to be given."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            stride=layer.stride,  # type: ignore[arg-type]
            padding=layer.padding,  # type: ignore[arg-type]
            dilation=layer.dilation,  # type: ignore[arg-type]
            groups=layer.groups,
            bias=False,
            padding_mode=layer.padding_mode,
            device="meta",
        )


class QuantizedConv2d(ConvolutionTwin):
    """`nn.Conv2d` with a rounded weight and, optionally, a rounded input.

    `stored_bits` is what the weight's codes and scales take; None where that is unknown.
    """

    stored_bits: int | None = None

    def __init__(self, layer: nn.Conv2d, weight: Tensor, inputs: InputQuantizer | None) -> None:
        super().__init__(layer)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = layer.bias
        self.inputs = inputs

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution, (N, C, H, W) to (N, C', H', W')."""
        return super().forward(input if self.inputs is None else self.inputs(input))


def quantized_twin(
    layer: nn.Linear | nn.Conv2d, weight: Tensor, inputs: InputQuantizer | None
) -> QuantizedLinear | QuantizedConv2d:
    """Return the quantized twin of `layer`.

    Args:
        layer: the float layer; its bias is shared, its weight is not kept.
        weight: the rounded weight, same shape and dtype as the layer's.
        inputs: what rounds the input; None leaves it in float.
    """
    twin = (
        QuantizedConv2d(layer, weight, inputs)
        if isinstance(layer, nn.Conv2d)
        else QuantizedLinear(layer, weight, inputs)
    )
    keep_transform(layer, twin)
    return twin.train(layer.training)
