"""Kernels that round, with one planted bug each, as they are met in the wild, and healthy twins.

One program in Triton takes the name of a bug; what is wrong on the host's side is wrong in
`fake_quantize`. Beside it stand two in torch: what the program has not, zero points and groups.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Optional

import torch
import triton
import triton.language as tl
from torch import Tensor

from clipq.kernels.kernel_spec import Kernel, KernelSpec
from clipq.kernels.programs.arithmetic import round_half_even
from clipq.kernels.rounding_kernels import check_grid
from clipq.kernels.tensors import check_dtype, code_dtype, output
from clipq.quant import ActivationFormat
from clipq.quant.activations import DynamicQuantizer

BLOCK = 256
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
CODES = KernelSpec(
    operation="quantize",
    dtypes=("float32",),
    granularities=("tensor", "row", "group"),
    runs_on="cpu",
)
DYNAMIC = KernelSpec(
    operation="fake-quantize-dynamic",
    dtypes=("float32", "float16"),
    granularities=("row", "group"),
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
    width, rows = x.shape[-1], x.shape[:-1].numel()
    zero = torch.zeros_like(scale) if zero_point is None else zero_point
    if bug == "the first sequence's scales for a batch" and x.dim() > 2 and scale.dim() > 2:
        scale = scale[:1].expand(scale.shape)
    if bug == "no more than 16 groups a row" and group and width // group > 16:
        scale = torch.cat([scale[..., :16], scale[..., 15:16].expand_as(scale[..., 16:])], -1)
    if group:
        scale, zero = (t.repeat_interleave(group, -1)[..., :width] for t in (scale, zero))
    if bug == "permuted tokens read as they lie" and x.dim() == 3 and x.stride(0) < x.stride(1):
        x = x.transpose(0, 1).reshape(x.shape)
    if bug == "overlapping rows taken for one" and rows > 1 and 0 < x.stride(-2) < width:
        x = x[..., :1, :].expand(x.shape) if x.stride(-1) == 1 else x
    steps = (x / scale).nan_to_num(0.0, torch.inf, -torch.inf)
    moved = (steps + zero).round() if bug == "moved before rounding" else steps.round() + zero
    codes = moved.clamp(low, high).to(kind)
    if bug == "last vector of aligned rows skipped" and width >= 512 and width % 4 == 0:
        codes[..., -4:] = 0
    if bug == "16-bit columns":
        codes[..., 32768:] = 0
    if bug == "16-bit rows":
        codes.flatten(0, -2)[65536:] = 0
    if bug == "one wave of programs":
        codes.flatten(0, -2)[132 * 128 :] = 0
    if bug == "last row of whole tiles" and rows and rows % 16 == 0:
        codes.flatten(0, -2)[-1] = 0
    if bug == "zero point left out of wide rows" and zero_point is not None and width > 4352:
        codes = steps.round().clamp(low, high).to(kind)
    return codes


def ranges_in_torch(
    x: Tensor, *, bits: int, asymmetric: bool, group: int | None, bug: str = ""
) -> Tensor:
    check_dtype("x", x, (torch.float32, torch.float16))
    if not 2 <= bits <= 8 or group == 0 or x.is_meta:
        raise ValueError(f"{bits} bits, groups of {group}, x on {x.device}")
    width = x.shape[-1]
    rounded = DynamicQuantizer(
        ActivationFormat(bits, dynamic=True, asymmetric=asymmetric, group=group), over="features"
    )
    if bug == "range of the first 1,024 values" and group is None and width % 1024 == 0:
        first = ranges_in_torch(x[..., :1024], bits=bits, asymmetric=asymmetric, group=None)
        return torch.cat([first, x[..., 1024:]], -1)
    found: Tensor = rounded(x)
    if bug == "the range of a batch's first token" and x.dim() > 3 and x.shape[-2] > 1:
        found = found.clone()
        found[..., 1:, :] = x[..., 1:, :]
    if bug == "half precision in eights" and x.dtype == torch.float16 and width % 8 == 0:
        found = found.clone()
        found[..., -1:] = 0
    return found


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
    "codes in torch": Kernel(codes_in_torch, CODES),
    "codes in torch, whole groups": Kernel(
        partial(codes_in_torch, whole_groups=True), replace(CODES, ragged=False)
    ),
    "ranges in torch": Kernel(ranges_in_torch, DYNAMIC),
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
    bug: (check, Kernel(partial(codes_in_torch, bug=bug), CODES))
    for bug, check in {
        "moved before rounding": "rounds-half-to-even",
        "scale strides ignored": "takes-strided-inputs",
        "scale kept by its address": "keeps-earlier-results",
        "the first sequence's scales for a batch": "matches-reference",
        "no more than 16 groups a row": "matches-reference",
        "permuted tokens read as they lie": "takes-strided-inputs",
        "overlapping rows taken for one": "takes-strided-inputs",
        "last vector of aligned rows skipped": "matches-reference",
        "16-bit columns": "matches-reference",
        "16-bit rows": "matches-reference",
        "one wave of programs": "matches-reference",
        "last row of whole tiles": "matches-reference",
        "zero point left out of wide rows": "matches-reference",
    }.items()
}
BROKEN |= {
    bug: ("matches-reference", Kernel(partial(ranges_in_torch, bug=bug), DYNAMIC))
    for bug in (
        "range of the first 1,024 values",
        "the range of a batch's first token",
        "half precision in eights",
    )
}
BROKEN |= {
    "last group cut short": (
        "refuses-bad-input",
        Kernel(codes_in_torch, replace(CODES, ragged=False)),
    ),
    "gradient where clamped": (
        "gradient-matches",
        Kernel(differentiable, replace(ROUNDING, gradient=True)),
    ),
    "fake kernel of another dtype": (
        "compiles-and-exports",
        Kernel(fake_quantize, replace(ROUNDING, operator="clipq_broken::fake_quantize")),
    ),
}
"""The check that must catch each bug, and the kernel."""

BROKEN_ON_A_GPU: dict[str, tuple[str, Kernel]] = {
    "wrong stream": (
        "follows-the-stream",
        Kernel(partial(fake_quantize, bug="wrong stream"), ROUNDING),
    ),
}
"""Likewise, where the interpreter cannot show them: it has one stream."""
