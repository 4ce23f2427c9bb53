"""Products of codes with one planted bug each, as they are met in the wild, and healthy twins.

One program in Triton takes the name of a bug; what is wrong on the host's side is wrong in
`linear`. Beside it stand products in torch: what the program has not, zero points, activations,
4-bit weights.
"""

from __future__ import annotations

from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from clipq.kernels import linear_kernels as own_linear
from clipq.kernels.kernel_spec import Kernel, KernelSpec
from clipq.kernels.tensors import check_dtype, check_shape, output

PRODUCT = KernelSpec(
    operation="linear-w8a8",
    dtypes=("float32",),
    granularities=("row",),
    asymmetric=False,
    ulps=4,
    out=True,
    runs_on="interpreter",
)
CODE_PRODUCT = KernelSpec(
    operation="linear-w8a8",
    dtypes=("float32",),
    granularities=("row",),
    activations=("none", "gelu"),
    ulps=4,
    runs_on="cpu",
)
PACKED_PRODUCT = KernelSpec(
    operation="linear-w4a16",
    dtypes=("float32", "float16"),
    granularities=("group",),
    groups=(32, 128),
    ragged=False,
    bits=(4,),
    ulps=8,
    runs_on="cpu",
)


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
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """One program for ROWS rows and a split: all columns (at most 64), DEPTH of K at a time."""
    row = (tl.program_id(0) // splits).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    split = tl.program_id(0) % splits
    column = tl.arange(0, 64)
    here, there = (row < rows)[:, None], column < columns
    total = tl.zeros([ROWS, 64], tl.float32 if BUG == "float32 sums" else tl.int32)
    for first in range(split * a_split, (split + 1) * a_split, DEPTH):
        inner = first + tl.arange(0, DEPTH)
        known = ((inner < depth) & (inner < (split + 1) * a_split))[None, :]
        left_at = x_ptr + row[:, None] * x_stride + inner[None, :] * x_column
        left = tl.load(left_at, mask=here & known, other=0)[:, None, :]
        right_at = weight_ptr + column[:, None] * weight_stride + inner[None, :] * weight_column
        right = tl.load(right_at, mask=there[:, None] & known, other=0)[None, :, :]
        if BUG == "float32 sums":
            total += tl.sum(left.to(tl.float32) * right.to(tl.float32), 2)
        elif BUG == "int16 products":
            products = left.to(tl.int16) * right.to(tl.int16)
            total += tl.sum((products + products).to(tl.int32), 2) // 2
        else:
            total += tl.sum(left.to(tl.int32) * right.to(tl.int32), 2)
    at_row = tl.load(x_scale_ptr + row[:, None], mask=here, other=0.0)
    at_column = tl.load(weight_scale_ptr + column, mask=there, other=0.0)[None, :]
    values = total.to(tl.float32) * at_row * at_column
    out_at = out_ptr + row[:, None] * columns + column[None, :]
    inside = here & there[None, :]
    if BUG == "race in a reduction":
        values += tl.load(out_at, mask=inside, other=0.0)  # read, add, write: nothing is atomic
    tl.store(out_at, values, mask=inside)


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
        multiply[(triton.cdiv(rows, 16) * splits,)](
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
            ROWS=16,
            DEPTH=1024 if depth > 10000 else 256 if depth > 256 and not x.is_cuda else 64,
            enable_fp_fusion=False,
        )
        if target is not out:
            forgotten = start and bug == "one tile of columns"
            out.view(rows, width)[:, start : start + 64] = 0.0 if forgotten else target
    if bias is not None and bug != "bias left out":
        out += bias
    return out


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
    if activation not in ("none", "gelu") or len({t.device for t in given}) > 1:
        raise ValueError(f"activation {activation}, or tensors on several devices")
    own_linear.check_depth(
        x.shape[-1], 0 if bug == "zero point left out of the bound" else zero_point
    )
    depth, rows = x.shape[-1], x.shape[:-1].numel()
    columns_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    if bug == "channels_last read as it lies" and columns_last:
        x = x.permute(0, 2, 3, 1).reshape(x.shape)
    if bug == "one row skips an element" and rows == 1 and depth > 8:
        x = x.clone()
        x[..., -1] = zero_point
    if bug == "the first token's scale for a batch" and x.dim() > 2 and x_scale.dim() > 2:
        x_scale = x_scale[..., :1, :]
    moved = x.int() - zero_point
    total = (moved @ weight.t().int()).float()
    if bug == "half-precision sums in blocks of 128" and depth % 128 == 0:
        blocks = moved.unflatten(-1, (-1, 128)).unsqueeze(-3) * weight.int().unflatten(
            -1, (-1, 128)
        )
        total = _added_in_half(blocks.sum(-1)) if rows <= 64 else total
    if bug == "float32 sums in blocks of 16" and depth % 16 == 0:
        total = moved.float() @ weight.t().float()
    if bug == "wrong from K 4,100 to 125,000" and 4100 <= depth <= 125000:
        total = total + 1000
    if bug == "last column where K is a multiple of 64" and depth % 64 == 0:
        total[..., -1] = 0
    if bug == "rows beyond 256":
        total.flatten(0, -2)[256:] = 0
    if bug == "columns beyond 256":
        total[..., 256:] = 0
    if bug == "rows beyond a wave of tiles":
        total.flatten(0, -2)[132 * 128 :] = 0
    if bug == "tiles beyond a wave" and -(-rows // 128) * -(-len(weight) // 128) > 132:
        total.flatten(0, -2)[-1, -128:] = 0
    aligned = rows % 64 == depth % 64 == len(weight) % 64 == 0
    if bug == "columns of the last tile where all is aligned" and aligned:
        total[..., -64:] = total[..., -64:].flip(-1)
    values = total * x_scale * weight_scale
    if bug == "bias before the scales" and bias is not None and depth % 32 == 0:
        return (((total + bias) * x_scale) * weight_scale).to(dtype)
    ignored = bug == "bias ignored beside a zero point" and zero_point
    ignored = ignored or (bug == "bias ignored in aligned columns" and len(weight) % 32 == 0)
    if activation == "gelu" and bug == "bias after the activation":
        values, activation = functional.gelu(values), "none"
    if bias is not None and not ignored:
        values = values + bias
    if bug == "activation left out without a bias" and bias is None:
        activation = "none"
    return (functional.gelu(values) if activation == "gelu" else values).to(dtype)


def _added_in_half(parts: Tensor) -> Tensor:
    """Add up blocks' sums (..., blocks) in half precision, brought to its range."""
    total = torch.zeros(parts.shape[:-1], dtype=torch.float16)
    for block in parts.unbind(-1):
        total = total + (block / 4096).half()
    return total.float() * 4096


def packed_in_torch(
    x: Tensor,
    packed: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    group: int,
    bias: Tensor | None = None,
    bug: str = "",
) -> Tensor:
    check_dtype("x", x, (torch.float32, torch.float16))
    check_dtype("packed", packed, (torch.uint8,))
    depth, width = x.shape[-1], len(packed)
    check_shape("packed", packed, (width, depth // 2))
    check_shape("scale", scale, (width, depth // group))
    if depth % group or len({t.device for t in (x, packed, scale)}) > 1:
        raise ValueError(f"K = {depth} in groups of {group}, or tensors on several devices")
    for part in (zero_point, bias):
        if part is not None and part.device != x.device:
            raise ValueError("tensors on several devices")
    codes = torch.stack([packed & 15, packed >> 4], -1).flatten(1).float()
    if zero_point is None:
        codes = torch.where(codes > 7, codes - 16, codes)
    else:
        zero = zero_point.repeat_interleave(group, -1)
        if bug == "the zero point of the group before" and depth > 1024:
            zero[:, -group:] = zero[:, -2 * group : -group]
        codes = codes - zero
    weight = codes * scale.repeat_interleave(group, -1)
    wide = x.float()
    if bug == "one of 4,096 left out" and depth % 4096 == 0:
        wide = wide.clone()
        wide[..., -1] = 0
    if bug == "groups of 32 in pairs" and group == 32 and depth % 64:
        wide = wide.clone()
        wide[..., -32:] = 0
    values = wide @ weight.t()
    if bug == "splits added up in half" and depth >= 2048:
        parts = zip(wide.chunk(4, -1), weight.chunk(4, -1), strict=True)
        values = sum((a @ b.t()).half().float() for a, b in parts)
    if bias is not None and not (
        bug == "bias ignored beside zero points" and zero_point is not None
    ):
        values = values + bias
    return values.to(x.dtype)


HEALTHY = {
    "linear-w8a8": Kernel(linear, PRODUCT),
    "product in torch": Kernel(product_in_torch, CODE_PRODUCT),
    "packed product in torch": Kernel(packed_in_torch, PACKED_PRODUCT),
}

BROKEN: dict[str, tuple[str, Kernel]] = {
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
    bug: (check, Kernel(partial(product_in_torch, bug=bug), CODE_PRODUCT))
    for bug, check in {
        "zero point left out of the bound": "survives-large-k",
        "last column where K is a multiple of 64": "matches-reference",
        "half-precision sums in blocks of 128": "matches-reference",
        "float32 sums in blocks of 16": "accumulates-exactly",
        "rows beyond 256": "matches-reference",
        "columns beyond 256": "matches-reference",
        "one row skips an element": "matches-reference",
        "wrong from K 4,100 to 125,000": "matches-reference",
        "bias ignored beside a zero point": "matches-reference",
        "bias ignored in aligned columns": "matches-reference",
        "bias before the scales": "matches-reference",
        "bias after the activation": "matches-reference",
        "activation left out without a bias": "matches-reference",
        "the first token's scale for a batch": "matches-reference",
        "channels_last read as it lies": "takes-strided-inputs",
        "rows beyond a wave of tiles": "matches-reference",
        "tiles beyond a wave": "matches-reference",
        "columns of the last tile where all is aligned": "matches-reference",
    }.items()
}
BROKEN |= {
    bug: ("matches-reference", Kernel(partial(packed_in_torch, bug=bug), PACKED_PRODUCT))
    for bug in (
        "the zero point of the group before",
        "one of 4,096 left out",
        "groups of 32 in pairs",
        "splits added up in half",
        "bias ignored beside zero points",
    )
}
"""The check that must catch each bug, and the kernel."""
