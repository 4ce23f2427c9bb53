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


def output(out: Tensor | None, shape: Sequence[int], dtype: torch.dtype, like: Tensor) -> Tensor:
    """Return the output, a new tensor where none is given.

    Raises:
        KernelError: the given one has another shape, dtype or device, or no contiguous rows.
    """
    if out is None:
        return torch.empty(tuple(shape), dtype=dtype, device=like.device)
    check_shape("out", out, shape)
    check_dtype("out", out, (dtype,))
    if out.device != like.device:
        raise KernelError(f"out is on {out.device}, the input on {like.device}")
    if as_rows(out).data_ptr() != out.data_ptr():
        raise KernelError(
            f"out with strides {out.stride()} cannot be written row by row",
            hint="give a tensor whose last dimension is contiguous",
        )
    return out
