"""Launches of the linear programs: W8A8, and W4A16 from packed codes."""

from __future__ import annotations

import torch
from torch import Tensor

from clipq.errors import KernelError, did_you_mean
from clipq.kernels.device import check_devices
from clipq.kernels.launch import Launch, blocks, power_above, run
from clipq.kernels.programs import linear_programs as programs
from clipq.kernels.tensors import FLOATS, as_rows, check_dtype, check_shape, output

__all__ = ["ACTIVATIONS", "check_depth", "linear_w4a16", "linear_w8a8", "pack_codes"]

ACTIVATIONS = ("none", "gelu", "gelu-tanh", "quick-gelu")
_SPLIT_UNTIL = 528  # programs that keep a large GPU busy: four on each of its 132 processors
_LARGEST_SUM = 2**31 - 1


def linear_w8a8(
    x: Tensor,
    weight: Tensor,
    *,
    x_scale: Tensor,
    weight_scale: Tensor,
    zero_point: int = 0,
    code_sums: Tensor | None = None,
    bias: Tensor | None = None,
    activation: str = "none",
    dtype: torch.dtype = torch.float32,
    out: Tensor | None = None,
) -> Tensor:
    """Return activation(s_x s_w (Σ q_x q_w - z Σ q_w) + bias); sums are exact, in int32.

    Args:
        x: codes (..., K), int8.
        weight: codes (N, K), int8.
        x_scale: float32: one number, or (..., 1), one per token.
        weight_scale: float32: one number, or (N,), one per output channel.
        zero_point: z of the codes of x.
        code_sums: Σ q_w (N,), int32; computed where it is needed and not given.
        bias: (N,), or None.
        activation: one of `ACTIVATIONS`.
        dtype: of the result.
        out: where to write; new if None.

    Returns:
        (..., N).

    Raises:
        KernelError: a dtype, shape or device that does not fit, or K so large that sums could
            overflow int32.
    """
    check_dtype("x", x, (torch.int8,))
    check_dtype("weight", weight, (torch.int8,))
    _check_activation(activation)
    if weight.dim() != 2 or not x.dim():
        raise KernelError(f"x {tuple(x.shape)} times weight {tuple(weight.shape)}")
    width, depth = weight.shape
    check_shape("x", x, (*x.shape[:-1], depth))
    check_depth(depth, zero_point)
    flat = as_rows(x)
    x_scales = _scales("x_scale", x_scale, (*x.shape[:-1], 1))
    weight_scales = _scales("weight_scale", weight_scale, (width,))
    _check_bias(bias, width)
    if code_sums is not None:
        check_dtype("code_sums", code_sums, (torch.int32,))
        check_shape("code_sums", code_sums, (width,))
    device = check_devices(x, weight, x_scale, weight_scale, bias, code_sums)
    result = output(
        out, (*x.shape[:-1], width), dtype, x, weight, x_scale, weight_scale, bias, code_sums
    )
    check_dtype("out", result, FLOATS)
    if not result.numel():
        return result
    weight, target = as_rows(weight), as_rows(result)
    if zero_point and code_sums is None:
        code_sums = weight.sum(1, dtype=torch.int32)
    # 128 by 128 is the largest tile whose epilogue spills no register on any architecture. An
    # activation keeps a tile from its next product: of half as many rows, two share a processor.
    rows = min(128 if activation == "none" else 64, max(16, power_above(len(flat))))
    columns = min(128, max(16, power_above(width)))
    inner = min(128, max(32, power_above(depth)))
    row_tiles, column_tiles = blocks(len(flat), rows), blocks(width, columns)
    launch = Launch(
        programs.linear_w8a8,
        row_tiles * column_tiles,
        {
            "x_ptr": flat,
            "weight_ptr": weight,
            "x_scale_ptr": x_scales,
            "weight_scale_ptr": weight_scales,
            "sums_ptr": code_sums.contiguous() if zero_point and code_sums is not None else None,
            "bias_ptr": None if bias is None else bias.contiguous(),
            "out_ptr": target,
            "rows": len(flat),
            "columns": width,
            "depth": depth,
            "row_tiles": row_tiles,
            "column_tiles": column_tiles,
            "x_stride": flat.stride(0),
            "weight_stride": weight.stride(0),
            "out_stride": target.stride(0),
            "x_scale_stride": int(x_scales.numel() > 1),
            "weight_scale_stride": int(weight_scales.numel() > 1),
            "zero_point": zero_point,
        },
        {
            "ZERO": zero_point != 0,
            "BIAS": bias is not None,
            "ACTIVATION": activation,
            "EVEN": depth % inner == 0,
            "ROWS": rows,
            "COLUMNS": columns,
            "DEPTH": inner,
            "TALL": 8,
        },
        warps=8 if rows * columns >= 128 * 128 else 4,
        stages=4,
    )
    run([launch], device)
    return result


def linear_w4a16(
    x: Tensor,
    packed: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    group: int,
    bias: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Return x Wᵀ + bias with W = s (q - z), products of x and codes added up in float32.

    Args:
        x: (..., K), float32, float16 or bfloat16.
        packed: (N, K / 2), uint8, of `pack_codes`.
        scale: (N, K / group), float32.
        zero_point: (N, K / group), float32 holding integers from 0 to 15, with codes from 0 to 15;
            None with codes from -8 to 7.
        group: inputs that share a scale: 32 · 2^k, dividing K; or K itself, a multiple of 32.
        bias: (N,), or None.
        out: where to write; new if None.

    Returns:
        (..., N), in x's dtype.

    Raises:
        KernelError: a dtype, shape or device that does not fit.
    """
    check_dtype("x", x, FLOATS)
    check_dtype("packed", packed, (torch.uint8,))
    check_dtype("scale", scale, (torch.float32,))
    if packed.dim() != 2 or not x.dim():
        raise KernelError(f"x {tuple(x.shape)} times packed weight {tuple(packed.shape)}")
    width, depth = len(packed), x.shape[-1]
    if group < 32 or depth % group or (group != depth and group & (group - 1)) or group % 32:
        raise KernelError(
            f"group size {group} for K = {depth}",
            hint="the group must divide K and be 32, 64, 128 ... or K itself, a multiple of 32",
        )
    check_shape("packed", packed, (width, depth // 2))
    check_shape("scale", scale, (width, depth // group))
    if zero_point is not None:
        check_dtype("zero point", zero_point, (torch.float32,))
        check_shape("zero point", zero_point, scale.shape)
    _check_bias(bias, width)
    device = check_devices(x, packed, scale, zero_point, bias)
    result = output(out, (*x.shape[:-1], width), x.dtype, x, packed, scale, zero_point, bias)
    if not result.numel():
        return result
    flat, packed, target = as_rows(x), as_rows(packed), as_rows(result)
    rows = min(64, max(16, power_above(len(flat))))
    columns = min(64 if rows > 16 else 128, max(16, power_above(width)))
    # Codes are exact in tf32, so that three products in tf32 lose 2^-22 of a float32 input.
    precision = "tf32x3" if x.dtype == torch.float32 else "ieee"
    # A block of the depth lies within one group.
    pairs = min(group & -group, 128) // 2
    row_tiles, column_tiles = blocks(len(flat), rows), blocks(width, columns)
    depth_blocks = blocks(depth // 2, pairs)
    splits = max(1, min(16, depth_blocks // 2, _SPLIT_UNTIL // (row_tiles * column_tiles)))
    partial = target
    if splits > 1:
        partial = torch.empty(splits, *target.shape, dtype=torch.float32, device=x.device)
    adds_bias = bias is not None and splits == 1
    bias = None if bias is None else bias.contiguous()
    launches = [
        Launch(
            programs.linear_w4a16,
            row_tiles * column_tiles * splits,
            {
                "x_ptr": flat,
                "packed_ptr": packed,
                "scale_ptr": scale.contiguous(),
                "zero_ptr": None if zero_point is None else zero_point.contiguous(),
                "bias_ptr": bias if adds_bias else None,
                "out_ptr": partial,
                "rows": len(flat),
                "columns": width,
                "pairs": depth // 2,
                "column_tiles": column_tiles,
                "splits": splits,
                "depth_blocks": depth_blocks,
                "blocks_a_split": blocks(depth_blocks, splits),
                "x_stride": flat.stride(0),
                "packed_stride": packed.stride(0),
                "scale_stride": scale.shape[1],
                "split_stride": partial.stride(0) if splits > 1 else 0,
                "out_stride": partial.stride(-2),
            },
            {
                "ZERO": zero_point is not None,
                "BIAS": adds_bias,
                "GROUP": group,
                "PRECISION": precision,
                "ROWS": rows,
                "COLUMNS": columns,
                "PAIRS": pairs,
            },
            stages=4,
        )
    ]
    if splits > 1:
        launches.append(
            Launch(
                programs.sum_splits,
                blocks(target.numel(), 256),
                {
                    "partial_ptr": partial,
                    "bias_ptr": bias,
                    "out_ptr": target,
                    "count": target.numel(),
                    "columns": width,
                    "out_stride": target.stride(0),
                },
                {"BIAS": bias is not None, "SPLITS": splits, "BLOCK": 256},
            )
        )
    run(launches, device)
    return result


def pack_codes(codes: Tensor) -> Tensor:
    """Return 4-bit codes (N, K), -8 to 7 or 0 to 15, as bytes (N, K / 2): even K in the low half.

    Raises:
        KernelError: K is odd, or a code has more than 4 bits.
    """
    if codes.dim() != 2 or codes.shape[1] % 2:
        raise KernelError(f"codes of shape {tuple(codes.shape)}", hint="(N, K) with an even K")
    if codes.numel() and not -8 <= int(codes.min()) <= int(codes.max()) <= 15:
        raise KernelError(
            f"codes from {int(codes.min())} to {int(codes.max())}", hint="4 bits hold -8 to 15"
        )
    halves = codes.to(torch.int16) & 15
    return (halves[:, ::2] | halves[:, 1::2] << 4).to(torch.uint8)


def check_depth(depth: int, zero_point: int) -> None:
    """Refuse a K for which Σ (q_x - z) q_w could overflow int32.

    Raises:
        KernelError: it says how large K may be.
    """
    largest = _LARGEST_SUM // (max(128 + zero_point, 127 - zero_point) * 128)
    if depth > largest:
        raise KernelError(
            f"K = {depth}: int32 sums of int8 products could overflow",
            hint=f"with zero point {zero_point}, K may be {largest} at most; split the product",
        )


def _check_activation(name: str) -> None:
    """Refuse an unknown activation.

    Raises:
        KernelError: it is none of `ACTIVATIONS`.
    """
    if name not in ACTIVATIONS:
        raise KernelError(f"unknown activation {name!r}", hint=did_you_mean(name, ACTIVATIONS))


def _scales(what: str, scale: Tensor, shape: tuple[int, ...]) -> Tensor:
    check_dtype(what, scale, (torch.float32,))
    if scale.numel() != 1 and scale.shape != shape:
        raise KernelError(
            f"{what} has shape {tuple(scale.shape)}", hint=f"allowed: {shape} or one value"
        )
    return scale.reshape(-1).contiguous()


def _check_bias(bias: Tensor | None, width: int) -> None:
    if bias is not None:
        check_dtype("bias", bias, FLOATS)
        check_shape("bias", bias, (width,))
