"""What kernels ask of tensors: rows, dtypes, shapes, and outputs that may be given."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from clipq.errors import KernelError

__all__ = ["FLOATS", "as_rows", "check_dtype", "check_shape", "code_dtype", "output"]

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def as_rows(x: Tensor) -> Tensor:
    """Return x (..., K) as (M, K) with neighbours along K; a copy only where no view is one."""
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return rows if rows.shape[1] < 2 or rows.stride(1) == 1 else rows.contiguous()


def check_dtype(what: str, tensor: Tensor, allowed: Sequence[torch.dtype]) -> None:
    """Refuse a dtype.

    Raises:
        KernelError: it is none of `allowed`.
    """
    if tensor.dtype not in allowed:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in allowed)
        raise KernelError(
            f"{what} is {str(tensor.dtype).removeprefix('torch.')}", hint=f"allowed: {names}"
        )


def check_shape(what: str, tensor: Tensor, shape: Sequence[int]) -> None:
    """Refuse a shape.

    Raises:
        KernelError: it is not `shape`.
    """
    if tuple(tensor.shape) != tuple(shape):
        raise KernelError(f"{what} has shape {tuple(tensor.shape)}, not {tuple(shape)}")


def code_dtype(low: int, high: int) -> torch.dtype:
    """Return the 8-bit integer type that holds the codes from low to high.

    Raises:
        KernelError: none does.
    """
    if -128 <= low <= high <= 127:
        return torch.int8
    if 0 <= low <= high <= 255:
        return torch.uint8
    raise KernelError(
        f"codes from {low} to {high} fit no 8-bit integer", hint="use -128 to 127 or 0 to 255"
    )


def output(
    out: Tensor | None,
    shape: Sequence[int],
    dtype: torch.dtype,
    x: Tensor,
    *others: Tensor | None,
    in_place: bool = False,
) -> Tensor:
    """Return the output, a new tensor where none is given.

    Args:
        out: to write to; None for none.
        shape: that it must have.
        dtype: that it must have.
        x: the input whose device it must be on.
        others: further inputs.
        in_place: whether `out` may be `x` itself.

    Raises:
        KernelError: the given one has another shape, dtype or device, no contiguous rows, or
            elements that share memory with each other or with an input's.
    """
    if out is None:
        return torch.empty(tuple(shape), dtype=dtype, device=x.device)
    check_shape("out", out, shape)
    check_dtype("out", out, (dtype,))
    if out.device != x.device:
        raise KernelError(f"out is on {out.device}, the input on {x.device}")
    rows = as_rows(out)
    if rows.data_ptr() != out.data_ptr():
        raise KernelError(
            f"out with strides {out.stride()} cannot be written row by row",
            hint="give a tensor whose last dimension is contiguous",
        )
    if len(rows) > 1 and rows.stride(0) < rows.shape[1]:
        raise KernelError(
            f"rows of out share memory: strides {out.stride()}, shape {tuple(out.shape)}",
            hint="give a tensor of its own, for example torch.empty_like",
        )
    same = in_place and _place(out) == _place(x)
    for given in others if same else (x, *others):
        if given is not None and _entangled(rows, given):
            raise KernelError(
                "out shares memory with an input"
                + (", but is not the same tensor as x" if in_place else ""),
                hint="give a tensor of its own, for example torch.empty_like",
            )
    return out


def _place(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _entangled(rows: Tensor, given: Tensor) -> bool:
    """Whether an output's rows and an input share memory, as far as their outlines tell."""
    if not rows.numel() or not given.numel() or rows.is_meta:
        return False
    start, end = _outline(rows)
    first, last = _outline(given)
    if end <= first or last <= start:
        return False
    # Columns of one memory: no element is shared where each row's part lies beside the other's.
    step = rows.stride(0) * rows.itemsize
    if len(rows) < 2 or not given.dim() or given.stride(-1) > 1:
        return True
    if any(stride * given.itemsize != step for stride in given.stride()[:-1]):
        return True
    width, beside = rows.shape[1] * rows.itemsize, given.shape[-1] * given.itemsize
    offset = (first - start) % step
    return not (width <= offset and offset + beside <= step)


def _outline(tensor: Tensor) -> tuple[int, int]:
    """Return the addresses of a tensor's first byte, and of the one after its last."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((size - 1) * stride for size, stride in sizes)
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.itemsize
