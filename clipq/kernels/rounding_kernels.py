"""Launches of the rounding programs: codes, fake quantization, its gradient, layer norm to codes.

The grid of a tensor is one scale, of a row (..., 1) scales, of groups (..., groups) scales, float32
like the zero points; what is computed is `clipq.quant`'s reference bit for bit, but for the sign of
zeros.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from clipq.errors import KernelError
from clipq.kernels.device import check_devices
from clipq.kernels.launch import Launch, blocks, power_above, run
from clipq.kernels.programs import rounding_programs as programs
from clipq.kernels.tensors import (
    FLOATS,
    as_rows,
    check_dtype,
    check_shape,
    code_dtype,
    output,
)

__all__ = [
    "check_grid",
    "fake_quantize",
    "fake_quantize_dynamic",
    "fake_quantize_dynamic_gradient",
    "fake_quantize_gradient",
    "groups_of",
    "quantize",
    "quantize_layer_norm",
]

Mode = Literal["codes", "fake", "gradient"]
_TILE = 4096  # values of a program: 16 bytes a load for each of 128 threads, several in flight
_LARGEST_WHOLE = 16384  # values of a row or a group that a program keeps in registers


def quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    low: int,
    high: int,
    group: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Return codes clamp(round(x / s) + z, low, high), rounding half to even; z for NaN.

    Args:
        x: (..., K), float32, float16 or bfloat16; computed in float32.
        scale: float32: one number, (..., 1), or (..., ⌈K / group⌉) with `group`.
        zero_point: float32 holding integers, shaped like scale; None where it is zero.
        low: smallest code.
        high: largest code; both within int8's or uint8's range.
        group: values of a row that share a scale.
        out: where to write; new if None.

    Returns:
        (..., K), int8, or uint8 where codes exceed 127.

    Raises:
        KernelError: a dtype, shape or device that does not fit, or no device to run on.
    """
    return _static(x, scale, zero_point, low, high, group, out, "codes")


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    low: int,
    high: int,
    group: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Return s · (code - z), in x's dtype; arguments and errors as `quantize`. NaN stays NaN."""
    return _static(x, scale, zero_point, low, high, group, out, "fake")


def fake_quantize_gradient(
    gradient: Tensor,
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    low: int,
    high: int,
    group: int | None = None,
) -> Tensor:
    """Return the straight-through gradient: `gradient` where x was rounded, 0 where clamped."""
    return _static(x, scale, zero_point, low, high, group, None, "gradient", gradient)


def fake_quantize_dynamic(
    x: Tensor,
    *,
    bits: int,
    asymmetric: bool = False,
    group: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Return x (..., K) rounded to the grid of each row's, or group's, own range.

    Raises:
        KernelError: bits outside 2 to 8, or as `quantize`.
    """
    return _dynamic(x, bits, asymmetric, group, out, "fake")


def fake_quantize_dynamic_gradient(
    gradient: Tensor, x: Tensor, *, bits: int, asymmetric: bool, group: int | None
) -> Tensor:
    """Return its straight-through gradient; the ranges are constants to it."""
    return _dynamic(x, bits, asymmetric, group, None, "gradient", gradient)


def quantize_layer_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    eps: float,
    scale: Tensor,
    zero_point: Tensor | None = None,
    low: int,
    high: int,
    out: Tensor | None = None,
) -> Tensor:
    """Return codes of the layer norm of x (..., C), computed in float32.

    Args:
        x: C at most 16,384.
        weight: (C,), or None.
        bias: (C,), or None.
        eps: added to the variance.
        scale: one number, float32.
        zero_point: one number, float32 holding an integer, or None.
        low: smallest code.
        high: largest code.
        out: where to write; new if None.

    Raises:
        KernelError: as `quantize`.
    """
    check_dtype("x", x, FLOATS)
    width = x.shape[-1] if x.dim() else 0
    if not 1 <= width <= _LARGEST_WHOLE:
        raise KernelError(f"layer norm over {width} values", hint=f"1 to {_LARGEST_WHOLE} fit")
    for what, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None:
            check_dtype(what, tensor, FLOATS)
            check_shape(what, tensor, (width,))
    check_grid((width,), scale, zero_point, None)
    if scale.numel() != 1:
        raise KernelError(f"scale has {scale.numel()} values", hint="layer norm takes one")
    device = check_devices(x, weight, bias, scale, zero_point)
    result = output(out, x.shape, code_dtype(low, high), x, weight, bias, scale, zero_point)
    flat, target = as_rows(x), as_rows(result)
    if result.numel():
        columns = power_above(width)
        rows = max(1, _TILE // columns)
        launch = Launch(
            programs.layer_norm_codes,
            blocks(len(flat), rows),
            {
                "x_ptr": flat,
                "weight_ptr": None if weight is None else weight.contiguous(),
                "bias_ptr": None if bias is None else bias.contiguous(),
                "scale_ptr": scale,
                "zero_ptr": zero_point,
                "out_ptr": target,
                "rows": len(flat),
                "columns": width,
                "x_stride": flat.stride(0),
                "out_stride": target.stride(0),
                "epsilon": eps,
                "low": float(low),
                "high": float(high),
            },
            {
                "WEIGHT": weight is not None,
                "BIAS": bias is not None,
                "ZERO": zero_point is not None,
                "ROWS": rows,
                "COLUMNS": columns,
            },
            warps=_warps(rows * columns),
        )
        run([launch], device)
    return result


def check_grid(
    shape: tuple[int, ...], scale: Tensor, zero_point: Tensor | None, group: int | None
) -> None:
    """Refuse a scale or zero point that does not fit values of a shape.

    Raises:
        KernelError: it says which shapes do.
    """
    if not shape:
        raise KernelError("a tensor without dimensions", hint="give at least one, (..., K)")
    groups = groups_of(shape[-1], group)
    rows = math.prod(shape[:-1])
    check_dtype("scale", scale, (torch.float32,))
    per_row = scale.shape == (*shape[:-1], groups) or scale.shape == (rows, groups)
    if not per_row and (scale.numel() != 1 or group is not None):
        allowed = f"{(*shape[:-1], groups)}" + ("" if group else " or one value")
        raise KernelError(
            f"scale has shape {tuple(scale.shape)}, values have {shape}", hint=f"allowed: {allowed}"
        )
    if zero_point is not None:
        check_dtype("zero point", zero_point, (torch.float32,))
        check_shape("zero point", zero_point, scale.shape)


def groups_of(width: int, group: int | None) -> int:
    """Return how many groups a row has.

    Raises:
        KernelError: the group is not positive.
    """
    if group is not None and group < 1:
        raise KernelError(f"group size {group} is not positive", hint="choose 1 or more")
    return 1 if group is None else blocks(width, group)


def _static(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    low: int,
    high: int,
    group: int | None,
    out: Tensor | None,
    mode: Mode,
    gradient: Tensor | None = None,
) -> Tensor:
    check_dtype("x", x, FLOATS)
    check_grid(tuple(x.shape), scale, zero_point, group)
    dtype = code_dtype(low, high)
    device = check_devices(x, scale, zero_point, gradient)
    result = output(
        out,
        x.shape,
        dtype if mode == "codes" else x.dtype,
        x,
        scale,
        zero_point,
        in_place=True,
    )
    if not result.numel():
        return result
    flat, target, upstream = as_rows(x), as_rows(result), _upstream(gradient, x)
    whole = scale.numel() == 1
    width = flat.shape[1]
    if whole and flat.is_contiguous() and target.is_contiguous() and gradient is None:
        # One scale: rows of any length do, and a long one has no ragged edges.
        width = math.gcd(flat.numel(), _TILE) if flat.numel() % 64 == 0 else flat.shape[1]
        flat, target = flat.view(-1, width), target.view(-1, width)
    columns = min(power_above(width), _TILE)
    rows = _TILE // columns
    groups = 1 if whole else scale.shape[-1]
    column_blocks = blocks(width, columns)
    launch = Launch(
        programs.round_static,
        blocks(len(flat), rows) * column_blocks,
        {
            "x_ptr": flat,
            "gradient_ptr": upstream,
            "scale_ptr": scale.contiguous(),
            "zero_ptr": None if zero_point is None else zero_point.contiguous(),
            "out_ptr": target,
            "rows": len(flat),
            "columns": width,
            "column_blocks": column_blocks,
            "x_stride": flat.stride(0),
            "gradient_stride": 0 if upstream is None else upstream.stride(0),
            "out_stride": target.stride(0),
            "scale_row": 0 if whole else groups,
            "scale_group": 0 if whole else 1,
            "low": float(low),
            "high": float(high),
        },
        {
            "MODE": mode,
            "ZERO": zero_point is not None,
            "GROUP": group or 0,
            "ROWS": rows,
            "COLUMNS": columns,
        },
        warps=4 if len(flat) * width < 2**22 else 8,
    )
    run([launch], device)
    return result


def _dynamic(
    x: Tensor,
    bits: int,
    asymmetric: bool,
    group: int | None,
    out: Tensor | None,
    mode: Mode,
    gradient: Tensor | None = None,
) -> Tensor:
    check_dtype("x", x, FLOATS)
    if not x.dim():
        raise KernelError("a tensor without dimensions", hint="give at least one, (..., K)")
    if not 2 <= bits <= 8:
        raise KernelError(f"{bits} bits", hint="choose 2 to 8")
    device = check_devices(x, gradient)
    groups = groups_of(x.shape[-1], group)
    result = output(out, x.shape, x.dtype, x, in_place=True)
    if not result.numel():
        return result
    flat, target, upstream = as_rows(x), as_rows(result), _upstream(gradient, x)
    size = min(group or flat.shape[1], flat.shape[1])
    whole = size <= _LARGEST_WHOLE
    columns = power_above(size) if whole else _TILE
    rows = max(1, _TILE // columns)
    launch = Launch(
        programs.round_dynamic,
        blocks(len(flat) * groups, rows),
        {
            "x_ptr": flat,
            "gradient_ptr": upstream,
            "out_ptr": target,
            "parts": len(flat) * groups,
            "columns": flat.shape[1],
            "groups": groups,
            "size": size,
            "x_stride": flat.stride(0),
            "gradient_stride": 0 if upstream is None else upstream.stride(0),
            "out_stride": target.stride(0),
        },
        {
            "MODE": mode,
            "LEVELS": 2**bits - 1,
            "ASYMMETRIC": asymmetric,
            "WHOLE": whole,
            "ROWS": rows,
            "COLUMNS": columns,
        },
        warps=_warps(rows * columns),
    )
    run([launch], device)
    return result


def _upstream(gradient: Tensor | None, x: Tensor) -> Tensor | None:
    if gradient is None:
        return None
    check_dtype("gradient", gradient, FLOATS)
    check_shape("gradient", gradient, x.shape)
    return as_rows(gradient)


def _warps(values: int) -> int:
    """Return warps so that a thread holds 32 values at most, where hardware allows."""
    return min(16, max(4, values // 1024))
