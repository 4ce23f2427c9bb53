"""The kernels as torch operators, `torch.ops.clipq.*`: for `torch.compile` and `torch.export`.

Importing this module registers them. Each has a fake kernel, which knows shapes and dtypes alone,
and a gradient where the operation has one. Arguments are those of `clipq.kernels.rounding_kernels`,
`linear_kernels` and `hadamard_kernel`, where errors are documented.
"""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor
from torch.library import custom_op, register_autograd

from clipq.kernels import hadamard_kernel, linear_kernels, rounding_kernels
from clipq.kernels.tensors import code_dtype

__all__ = [
    "fake_quantize",
    "fake_quantize_dynamic",
    "hadamard",
    "linear_w4a16",
    "linear_w8a8",
    "quantize",
    "quantize_layer_norm",
]

# torch reads the schema from annotations and, on its older versions, knows Optional alone.
# ruff: noqa: UP045


@custom_op("clipq::quantize", mutates_args=())
def quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Optional[Tensor],
    low: int,
    high: int,
    group: Optional[int] = None,
) -> Tensor:
    return rounding_kernels.quantize(x, scale, zero_point, low=low, high=high, group=group)


@custom_op("clipq::fake_quantize", mutates_args=())
def fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Optional[Tensor],
    low: int,
    high: int,
    group: Optional[int] = None,
) -> Tensor:
    return rounding_kernels.fake_quantize(x, scale, zero_point, low=low, high=high, group=group)


@custom_op("clipq::fake_quantize_gradient", mutates_args=())
def fake_quantize_gradient(
    gradient: Tensor,
    x: Tensor,
    scale: Tensor,
    zero_point: Optional[Tensor],
    low: int,
    high: int,
    group: Optional[int] = None,
) -> Tensor:
    return rounding_kernels.fake_quantize_gradient(
        gradient, x, scale, zero_point, low=low, high=high, group=group
    )


@custom_op("clipq::fake_quantize_dynamic", mutates_args=())
def fake_quantize_dynamic(
    x: Tensor, bits: int, asymmetric: bool = False, group: Optional[int] = None
) -> Tensor:
    return rounding_kernels.fake_quantize_dynamic(x, bits=bits, asymmetric=asymmetric, group=group)


@custom_op("clipq::fake_quantize_dynamic_gradient", mutates_args=())
def fake_quantize_dynamic_gradient(
    gradient: Tensor, x: Tensor, bits: int, asymmetric: bool, group: Optional[int]
) -> Tensor:
    return rounding_kernels.fake_quantize_dynamic_gradient(
        gradient, x, bits=bits, asymmetric=asymmetric, group=group
    )


@custom_op("clipq::linear_w8a8", mutates_args=())
def linear_w8a8(
    x: Tensor,
    weight: Tensor,
    x_scale: Tensor,
    weight_scale: Tensor,
    zero_point: int = 0,
    code_sums: Optional[Tensor] = None,
    bias: Optional[Tensor] = None,
    activation: str = "none",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    return linear_kernels.linear_w8a8(
        x,
        weight,
        x_scale=x_scale,
        weight_scale=weight_scale,
        zero_point=zero_point,
        code_sums=code_sums,
        bias=bias,
        activation=activation,
        dtype=dtype,
    )


@custom_op("clipq::linear_w4a16", mutates_args=())
def linear_w4a16(
    x: Tensor,
    packed: Tensor,
    scale: Tensor,
    zero_point: Optional[Tensor],
    group: int,
    bias: Optional[Tensor] = None,
) -> Tensor:
    return linear_kernels.linear_w4a16(x, packed, scale, zero_point, group=group, bias=bias)


@custom_op("clipq::hadamard", mutates_args=())
def hadamard(
    x: Tensor,
    signs: Optional[Tensor] = None,
    inverse: bool = False,
    base: Optional[Tensor] = None,
) -> Tensor:
    return hadamard_kernel.hadamard(x, signs, inverse=inverse, base=base)


@custom_op("clipq::quantize_layer_norm", mutates_args=())
def quantize_layer_norm(
    x: Tensor,
    weight: Optional[Tensor],
    bias: Optional[Tensor],
    eps: float,
    scale: Tensor,
    zero_point: Optional[Tensor],
    low: int,
    high: int,
) -> Tensor:
    return rounding_kernels.quantize_layer_norm(
        x, weight, bias, eps=eps, scale=scale, zero_point=zero_point, low=low, high=high
    )


def _same(x: Tensor, *rest: object) -> Tensor:
    return x.new_empty(x.shape)


for _operator in (
    fake_quantize,
    fake_quantize_gradient,
    fake_quantize_dynamic,
    fake_quantize_dynamic_gradient,
    hadamard,
):
    _operator.register_fake(_same)


@quantize.register_fake
def _(
    x: Tensor, scale: Tensor, zero_point: Tensor | None, low: int, high: int, *rest: object
) -> Tensor:
    return x.new_empty(x.shape, dtype=code_dtype(low, high))


@quantize_layer_norm.register_fake
def _(x: Tensor, *rest: Any) -> Tensor:
    low, high = rest[-2:]
    return x.new_empty(x.shape, dtype=code_dtype(low, high))


@linear_w8a8.register_fake
def _(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    dtype = rest[6] if len(rest) > 6 else torch.float32
    return x.new_empty((*x.shape[:-1], len(weight)), dtype=dtype)


@linear_w4a16.register_fake
def _(x: Tensor, packed: Tensor, *rest: object) -> Tensor:
    return x.new_empty((*x.shape[:-1], len(packed)))


def _keep_grid(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, scale, zero_point, ctx.low, ctx.high, ctx.group = inputs
    ctx.save_for_backward(x, scale, zero_point)


def _fake_quantize_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    input_gradient = fake_quantize_gradient(
        gradient, *ctx.saved_tensors, ctx.low, ctx.high, ctx.group
    )
    return (input_gradient, None, None, None, None, None)


def _keep_ranges(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.bits, ctx.asymmetric, ctx.group = inputs
    ctx.save_for_backward(x)


def _dynamic_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    (x,) = ctx.saved_tensors
    input_gradient = fake_quantize_dynamic_gradient(
        gradient, x, ctx.bits, ctx.asymmetric, ctx.group
    )
    return (input_gradient, None, None, None)


def _keep_signs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, signs, ctx.inverse, base = inputs
    ctx.save_for_backward(signs, base)


def _hadamard_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    signs, base = ctx.saved_tensors
    # The transform is orthogonal: its transpose is its inverse.
    return (hadamard(gradient, signs, not ctx.inverse, base), None, None, None)


register_autograd(fake_quantize, _fake_quantize_backward, setup_context=_keep_grid)
register_autograd(fake_quantize_dynamic, _dynamic_backward, setup_context=_keep_ranges)
register_autograd(hadamard, _hadamard_backward, setup_context=_keep_signs)
