"""Launch of the fast Walsh-Hadamard transform."""

from __future__ import annotations

import math

from torch import Tensor

from clipq.errors import KernelError
from clipq.kernels.device import check_devices
from clipq.kernels.launch import Launch, blocks, run
from clipq.kernels.programs import hadamard_program as programs
from clipq.kernels.tensors import FLOATS, as_rows, check_dtype, check_shape, output

__all__ = ["check_size", "hadamard"]

_LARGEST = 16384
_TILE = 4096


def hadamard(
    x: Tensor,
    signs: Tensor | None = None,
    *,
    inverse: bool = False,
    base: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Return x diag(signs) H / √n, or with `inverse` x Hᵀ diag(signs) / √n; added up in float32.

    H is Sylvester's matrix of order 2^k, or B ⊗ Sylvester's for n = 12 · 2^k. A transform costs
    log₂ n additions a value, for n = 12 · 2^k another 12.

    Args:
        x: (..., n), float32, float16 or bfloat16.
        signs: (n,), floats, ones and minus ones; None for none.
        inverse: undo the transform.
        base: B, a Hadamard matrix (12, 12) of ones and minus ones, float32; for n = 12 · 2^k.
        out: where to write; new if None. May be x.

    Raises:
        KernelError: a size that is neither, is above 16,384 (12,288), or a dtype, shape or device
            that does not fit.
    """
    check_dtype("x", x, FLOATS)
    size = x.shape[-1] if x.dim() else 0
    check_size(size)
    twelve = size % 12 == 0
    if twelve and base is None:
        raise KernelError(f"n = {size} without a base", hint="give a Hadamard matrix of order 12")
    if base is not None:
        check_shape("base", base, (12, 12))
        check_dtype("base", base, FLOATS[:1])
    if signs is not None:
        check_shape("signs", signs, (size,))
        check_dtype("signs", signs, FLOATS)
    device = check_devices(x, signs, base)
    result = output(out, x.shape, x.dtype, x, signs, base, in_place=True)
    if not result.numel():
        return result
    flat, target = as_rows(x), as_rows(result)
    inner = size // 12 if twelve else size
    rows = 16 if twelve else max(1, min(_TILE // inner, 64))
    first, second = (0, 0) if base is None else (base.stride(0), base.stride(1))
    if not inverse:
        first, second = second, first  # y = Bᵀ x for rows x: Bᵀ's rows are B's columns
    position = "after" if inverse else "before"
    launch = Launch(
        programs.hadamard,
        len(flat) if twelve else blocks(len(flat), rows),
        {
            "x_ptr": flat,
            "signs_ptr": None if signs is None else signs.contiguous(),
            "base_ptr": base,
            "out_ptr": target,
            "rows": len(flat),
            "x_stride": flat.stride(0),
            "out_stride": target.stride(0),
            "base_first": first,
            "base_second": second,
            "factor": 1.0 / math.sqrt(size),
        },
        {
            "SIGNS": "never" if signs is None else position,
            "TWELVE": twelve,
            "STAGES": inner.bit_length() - 1,
            "SIZE": inner,
            "ROWS": rows,
        },
        # Where a program has one row, more of them at once move more than more threads of each.
        warps=min(16, max(1, rows * inner // 2048) if twelve else max(4, rows * inner // 1024)),
    )
    run([launch], device)
    return result


def check_size(size: int) -> None:
    """Refuse a size that has no fast transform here.

    Raises:
        KernelError: it is neither 2^k nor 12 · 2^k, or too large.
    """
    inner = size // 12 if size % 12 == 0 else size
    padded = inner * (16 if size % 12 == 0 else 1)
    if inner < 1 or inner & (inner - 1) or padded > _LARGEST:
        raise KernelError(
            f"no fast Hadamard transform of size {size}",
            hint=f"sizes are 2^k up to {_LARGEST} and 12 · 2^k up to {_LARGEST * 3 // 4}",
        )
