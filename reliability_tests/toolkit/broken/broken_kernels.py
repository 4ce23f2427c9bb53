"""Kernels with one planted bug each, as they are met in the wild, and their healthy twins.

Two programs in Triton, a fake-quantizer and a W8A8 product, take the name of a bug; what is wrong
on the host's side is wrong in `fake_quantize` and `linear` below.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Optional

import torch
import triton
import triton.language as tl
from torch import Tensor

from clipq.kernels import linear_kernels as own_linear
from clipq.kernels.kernel_spec import Kernel, KernelSpec
from clipq.kernels.programs.arithmetic import round_half_even
from clipq.kernels.rounding_kernels import check_grid
from clipq.kernels.tensors import check_dtype, check_shape, code_dtype, output

BLOCK = 64
TINY = tl.constexpr(1.1754943508222875e-38)

ROUNDING = KernelSpec(
    operation="fake-quantize",
    dtypes=("float32",),
    granularities=("row", "tensor"),
    bits=(8,),
    asymmetric=False,
    out=True,
    runs_on="interpreter",
)
PRODUCT = KernelSpec(
    operation="linear-w8a8",
    dtypes=("float32",),
    granularities=("row",),
    asymmetric=False,
    ulps=4,
    out=True,
    runs_on="interpreter",
)
CODES = KernelSpec(
    operation="quantize",
    dtypes=("float32",),
    granularities=("tensor", "row", "group"),
    runs_on="cpu",
)
CODE_PRODUCT = KernelSpec(
    operation="linear-w8a8",
    dtypes=("float32",),
    granularities=("row",),
    ulps=4,
    runs_on="cpu",
)
LAYER_NORM = KernelSpec(
    operation="quantize-layer-norm",
    dtypes=("float32",),
    granularities=("tensor",),
    ulps=16,
    runs_on="cpu",
)


@triton.jit
def round_rows(
    x_ptr,
    scale_ptr,
    out_ptr,
    rows,
    columns,
    blocks,
    x_stride,
    column_stride,
    out_stride,
    scale_stride,
    low,
    high,
    BUG: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) // blocks
    if BUG != "32-bit offsets":
        row = row.to(tl.int64)
    column = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    x = tl.load(x_ptr + row * x_stride + column * column_stride, mask=inside, other=0.0)
    if BUG == "transposed scale":
        scale = tl.load(scale_ptr + (column % rows) * scale_stride, mask=inside, other=1.0)
    else:
        scale = tl.load(scale_ptr + row * scale_stride)
    if BUG == "half-precision scale":
        scale = scale.to(tl.float16).to(tl.float32)
    if BUG == "subnormals flushed":
        x = tl.where(tl.abs(x) < TINY, 0.0, x)
    if BUG == "reciprocal":
        steps = x * tl.math.div_rn(scale * 0.0 + 1.0, scale)
    else:
        steps = tl.math.div_rn(x, scale)
    if BUG != "no saturation":
        if BUG == "NaN swallowed":
            steps = tl.where(steps > low, steps, low)
            steps = tl.where(steps < high, steps, high)
        else:
            steps = tl.maximum(steps, low, propagate_nan=tl.PropagateNan.ALL)
            steps = tl.minimum(steps, high, propagate_nan=tl.PropagateNan.ALL)
    if BUG == "half up":
        steps = tl.floor(steps + 0.5)
    elif BUG == "truncation":
        steps = steps.to(tl.int32).to(tl.float32)
    else:
        steps = tl.where(tl.abs(steps) < 4e6, round_half_even(steps), steps)
    where = row * out_stride + column
    if BUG == "no tail mask":
        tl.store(out_ptr + where, steps * scale)
    else:
        tl.store(out_ptr + where, steps * scale, mask=inside)


_kept: dict[tuple, Tensor] = {}


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    low: int,
    high: int,
    group: int | None = None,
    out: Tensor | None = None,
    bug: str = "",
) -> Tensor:
    if bug != "anything goes":
        check_dtype("x", x, (torch.float32,))
        check_grid(tuple(x.shape), scale, zero_point, group)
        if not -128 <= low < high <= 127 or {t.device for t in (x, scale)} != {x.device}:
            raise ValueError(f"codes from {low} to {high}, x on {x.device}")
    if bug == "empty input" and not x.numel():
        return x.new_empty(1, x.shape[-1])
    if out is None:
        out = torch.empty(x.shape, device=x.device)
        if bug == "stale output":
            out = _kept.setdefault(tuple(x.shape), out)
    elif bug != "outputs that overlap":
        output(out, x.shape, x.dtype, x, scale, in_place=True)
    rows, columns = x.numel() // x.shape[-1], x.shape[-1]
    flat = x.reshape(rows, columns)
    start, strides = flat, flat.stride()
    if bug == "contiguity assumed":
        strides = (columns, 1)
    if bug == "alignment assumed":
        # Whole 16-byte words are loaded: an address within one is rounded down.
        offset = flat.storage_offset() // 4 * 4
        start = flat.as_strided(flat.shape, flat.stride(), offset)
    if bug == "inputs changed":
        x.mul_(1.0)
        x.view(-1)[:1] += 1.0
    scale = scale.contiguous()
    blocks = triton.cdiv(columns, BLOCK)
    if bug == "last block left out":
        blocks = columns // BLOCK
    stream = torch.cuda.default_stream() if bug == "wrong stream" else None
    if rows:
        with torch.cuda.stream(stream):
            round_rows[(rows * blocks,)](
                start,
                scale,
                out,
                rows,
                columns,
                blocks,
                *strides,
                columns,
                0 if scale.numel() == 1 else 1,
                float(low),
                float(high),
                BUG=bug,
                BLOCK=BLOCK,
                enable_fp_fusion=False,
            )
    return out


@triton.jit
def multiply(
    x_ptr,
    weight_ptr,
    x_scale_ptr,
    weight_scale_ptr,
    out_ptr,
    rows,
    columns,
    depth,
    x_stride,
    x_column,
    weight_stride,
    weight_column,
    splits,
    a_split,
    BUG: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """One program a row and split: all columns (at most 64), DEPTH of K at a time."""
    row = (tl.program_id(0) // splits).to(tl.int64)
    split = tl.program_id(0) % splits
    column = tl.arange(0, 64)
    there = column < columns
    total = tl.zeros([64], tl.float32) if BUG == "float32 sums" else tl.zeros([64], tl.int32)
    for first in range(split * a_split, (split + 1) * a_split, DEPTH):
        inner = first + tl.arange(0, DEPTH)
        known = (inner < depth) & (inner < (split + 1) * a_split)
        left = tl.load(x_ptr + row * x_stride + inner * x_column, mask=known, other=0)
        right_at = weight_ptr + column[:, None] * weight_stride + inner[None, :] * weight_column
        right = tl.load(right_at, mask=there[:, None] & known[None, :], other=0)
        if BUG == "float32 sums":
            total += tl.sum(left.to(tl.float32)[None, :] * right.to(tl.float32), 1)
        elif BUG == "int16 products":
            products = left.to(tl.int16)[None, :] * right.to(tl.int16)
            total += tl.sum((products + products).to(tl.int32), 1) // 2
        else:
            total += tl.sum(left.to(tl.int32)[None, :] * right.to(tl.int32), 1)
    at_row = tl.load(x_scale_ptr + row)
    at_column = tl.load(weight_scale_ptr + column, mask=there, other=0.0)
    values = total.to(tl.float32) * at_row * at_column
    out_at = out_ptr + row * columns + column
    if BUG == "race in a reduction":
        values += tl.load(out_at, mask=there, other=0.0)  # read, add, write: nothing is atomic
    tl.store(out_at, values, mask=there)


def linear(
    x: Tensor,
    weight: Tensor,
    *,
    x_scale: Tensor,
    weight_scale: Tensor,
    zero_point: int = 0,
    bias: Tensor | None = None,
    activation: str = "none",
    dtype: torch.dtype = torch.float32,
    out: Tensor | None = None,
    bug: str = "",
) -> Tensor:
    for what, tensor in (("x", x), ("weight", weight)):
        check_dtype(what, tensor, (torch.int8,))
    width, depth = weight.shape
    check_shape("x", x, (*x.shape[:-1], depth))
    rows = x.numel() // max(depth, 1)
    check_shape("weight_scale", weight_scale, (width,))
    check_shape("x_scale", x_scale, (*x.shape[:-1], 1))
    if bias is not None:
        check_shape("bias", bias, (width,))
    if activation != "none" or dtype != torch.float32:
        raise ValueError(f"activation {activation}, dtype {dtype}")
    given = [t for t in (x, weight, x_scale, weight_scale, bias) if t is not None]
    if len({t.device for t in given}) > 1:
        raise ValueError("tensors on several devices")
    if bug != "int32 overflow":
        own_linear.check_depth(depth, zero_point)
    shape = (*x.shape[:-1], width)
    if bug == "an output over x" and out is not None:
        check_shape("out", out, shape)
    else:
        out = output(out, shape, dtype, x, weight, x_scale, weight_scale, bias)
    if not out.numel():
        return out
    splits = 4 if bug.startswith("race") and depth > 256 else 1
    if splits > 1:
        out.zero_()
    scale = x_scale.reshape(-1).contiguous()
    if bug == "scales swapped":
        scale = scale.flip(0).contiguous()
    flat = x.reshape(rows, depth)
    for start in range(0, width, 64):
        part = weight[start : start + 64]
        target = out if width <= 64 else torch.empty(rows, len(part), device=x.device)
        multiply[(rows * splits,)](
            flat,
            part,
            scale,
            weight_scale[start : start + 64].contiguous(),
            target,
            rows,
            len(part),
            depth,
            *flat.stride(),
            *part.stride(),
            splits,
            -(-depth // splits // 64) * 64,
            BUG=bug,
            DEPTH=1024 if depth > 10000 else 64,
            enable_fp_fusion=False,
        )
        if target is not out:
            forgotten = start and bug == "one tile of columns"
            out.view(rows, width)[:, start : start + 64] = 0.0 if forgotten else target
    if bias is not None and bug != "bias left out":
        out += bias
    return out


def codes_in_torch(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    low: int,
    high: int,
    group: int | None = None,
    whole_groups: bool = False,
    bug: str = "",
) -> Tensor:
    """Tensor first among its granularities, and zero points: what the Triton twin has not."""
    check_dtype("x", x, (torch.float32,))
    check_grid(tuple(x.shape), scale, zero_point, group)
    kind = code_dtype(low, high)
    if len({t.device for t in (x, scale, zero_point) if t is not None}) > 1:
        raise ValueError("tensors on several devices")
    if group and x.shape[-1] % group and whole_groups:
        raise ValueError(f"K = {x.shape[-1]} in groups of {group}")
    if bug == "scale strides ignored":
        scale = scale.as_strided(scale.shape, torch.empty(scale.shape).stride())
    if bug == "scale kept by its address":
        scale = _kept.setdefault((scale.data_ptr(), scale.shape), scale.clone())
    zero = torch.zeros_like(scale) if zero_point is None else zero_point
    if group:
        scale, zero = (t.repeat_interleave(group, -1)[..., : x.shape[-1]] for t in (scale, zero))
    steps = (x / scale).nan_to_num(0.0, torch.inf, -torch.inf)
    moved = (steps + zero).round() if bug == "moved before rounding" else steps.round() + zero
    return moved.clamp(low, high).to(kind)


def product_in_torch(
    x: Tensor,
    weight: Tensor,
    *,
    x_scale: Tensor,
    weight_scale: Tensor,
    zero_point: int = 0,
    bias: Tensor | None = None,
    activation: str = "none",
    dtype: torch.dtype = torch.float32,
    bug: str = "",
) -> Tensor:
    check_dtype("x", x, (torch.int8,))
    check_dtype("weight", weight, (torch.int8,))
    given = [t for t in (x, weight, x_scale, weight_scale, bias) if t is not None]
    if activation != "none" or len({t.device for t in given}) > 1:
        raise ValueError(f"activation {activation}, or tensors on several devices")
    own_linear.check_depth(
        x.shape[-1], 0 if bug == "zero point left out of the bound" else zero_point
    )
    total = ((x.int() - zero_point) @ weight.t().int()).float()
    values = total * x_scale * weight_scale
    return (values if bias is None else values + bias).to(dtype)


def layer_norm_in_torch(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    eps: float,
    scale: Tensor,
    zero_point: Tensor | None,
    low: int,
    high: int,
    bug: str = "",
) -> Tensor:
    check_dtype("x", x, (torch.float32,))
    mean = x.mean(-1, keepdim=True)
    if bug == "variance by mean squares":
        variance = (x.square().mean(-1, keepdim=True) - mean.square()).clamp(min=0)
    else:
        variance = (x - mean).square().mean(-1, keepdim=True)
    values = (x - mean) / (variance + eps).sqrt()
    values = values if weight is None else values * weight
    values = values if bias is None else values + bias
    return codes_in_torch(values, scale, zero_point, low=low, high=high)


class _AllPass(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, arguments):
        return fake_quantize(x, **arguments)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None  # also where values were clamped


def differentiable(x: Tensor, **arguments) -> Tensor:
    return _AllPass.apply(x, arguments) if x.requires_grad else fake_quantize(x, **arguments)


@torch.library.custom_op("clipq_broken::fake_quantize", mutates_args=())
def operator(
    x: Tensor,
    scale: Tensor,
    zero_point: Optional[Tensor],  # noqa: UP045 - older versions of torch read nothing else
    low: int,
    high: int,
    group: Optional[int],  # noqa: UP045
) -> Tensor:
    return fake_quantize(x, scale, zero_point, low=low, high=high)


@operator.register_fake
def _(x, *rest):
    return x.new_empty(x.shape, dtype=torch.int8)  # it returns float32


HEALTHY = {
    "fake-quantize": Kernel(fake_quantize, ROUNDING),
    "linear-w8a8": Kernel(linear, PRODUCT),
    "codes in torch": Kernel(codes_in_torch, CODES),
    "codes in torch, whole groups": Kernel(
        partial(codes_in_torch, whole_groups=True), replace(CODES, ragged=False)
    ),
    "product in torch": Kernel(product_in_torch, CODE_PRODUCT),
    "layer norm in torch": Kernel(layer_norm_in_torch, LAYER_NORM),
}

BROKEN: dict[str, tuple[str, Kernel]] = {
    bug: (check, Kernel(partial(fake_quantize, bug=bug), ROUNDING))
    for bug, check in {
        "half up": "rounds-half-to-even",
        "truncation": "matches-reference",
        "reciprocal": "takes-extreme-scales",
        "transposed scale": "matches-reference",
        "half-precision scale": "takes-extreme-scales",
        "no saturation": "saturates",
        "NaN swallowed": "shows-nan",
        "subnormals flushed": "keeps-subnormals",
        "contiguity assumed": "takes-strided-inputs",
        "alignment assumed": "takes-unaligned-pointers",
        "empty input": "takes-empty-inputs",
        "last block left out": "writes-every-element",
        "no tail mask": "writes-nothing-else",
        "inputs changed": "writes-nothing-else",
        "stale output": "keeps-earlier-results",
        "anything goes": "refuses-bad-input",
        "outputs that overlap": "refuses-bad-input",
        "32-bit offsets": "addresses-far-rows",
    }.items()
}
BROKEN |= {
    bug: (check, Kernel(partial(linear, bug=bug), PRODUCT))
    for bug, check in {
        "float32 sums": "accumulates-exactly",
        "int16 products": "matches-reference",
        "int32 overflow": "survives-large-k",
        "race in a reduction": "ignores-program-order",
        "scales swapped": "matches-reference",
        "bias left out": "matches-reference",
        "one tile of columns": "matches-reference",
        "an output over x": "refuses-bad-input",
    }.items()
}
BROKEN |= {
    bug: (check, Kernel(partial(call, bug=bug), spec))
    for bug, check, call, spec in (
        ("moved before rounding", "rounds-half-to-even", codes_in_torch, CODES),
        ("scale strides ignored", "takes-strided-inputs", codes_in_torch, CODES),
        ("scale kept by its address", "keeps-earlier-results", codes_in_torch, CODES),
        ("last group cut short", "refuses-bad-input", codes_in_torch, replace(CODES, ragged=False)),
        ("zero point left out of the bound", "survives-large-k", product_in_torch, CODE_PRODUCT),
        ("variance by mean squares", "takes-extreme-scales", layer_norm_in_torch, LAYER_NORM),
    )
}
BROKEN["gradient where clamped"] = (
    "gradient-matches",
    Kernel(differentiable, replace(ROUNDING, gradient=True)),
)
BROKEN["fake kernel of another dtype"] = (
    "compiles-and-exports",
    Kernel(fake_quantize, replace(ROUNDING, operator="clipq_broken::fake_quantize")),
)
"""The check that must catch each bug, and the kernel."""

BROKEN_ON_A_GPU: dict[str, tuple[str, Kernel]] = {
    "wrong stream": (
        "follows-the-stream",
        Kernel(partial(fake_quantize, bug="wrong stream"), ROUNDING),
    ),
}
"""Likewise, where the interpreter cannot show them: it has one stream."""
