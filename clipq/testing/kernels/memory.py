"""Tensors that lie in memory as kernels least expect it, and memory that holds garbage."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from clipq.testing.checks import NotRun

__all__ = ["filled_memory", "layouts", "overlapping", "repeats", "reserved", "shifted"]

_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


def layouts(value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield views that equal a tensor and lie otherwise in memory, amid other values."""

    def filled(*shape: int) -> Tensor:
        return torch.full(shape, 9, dtype=value.dtype, device=value.device)

    *rows, width = value.shape
    views = {
        "every second value": filled(*rows, 2 * width)[..., ::2],
        "a part of wider rows": filled(*rows, width + 5)[..., 3:-2],
    }
    if value.dim() > 1:
        views["transposed"] = filled(width, *rows).movedim(0, -1)
        views["every second row"] = filled(2 * rows[0], *rows[1:], width)[::2]
    if value.dim() > 2:
        # As of models that put tokens before the batch, and of what drops the class token.
        views["tokens before the batch"] = filled(rows[1], rows[0], *rows[2:], width).transpose(
            0, 1
        )
        views["without a first token"] = filled(rows[0], rows[1] + 1, *rows[2:], width)[:, 1:]
    if value.dim() == 4:
        views["channels_last"] = filled(*value.shape).to(memory_format=torch.channels_last)
    for layout, view in views.items():
        view.copy_(value)
        yield layout, view


def repeats(value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield views of a tensor's shape in which several elements are one in memory."""
    for dim in range(value.dim()):
        if value.shape[dim] > 1:
            yield f"expanded along dimension {dim}", value.narrow(dim, 0, 1).expand(value.shape)
    if value.dim() > 1:
        *rows, width = value.shape
        steps = [max(1, width // 2)]
        for size in reversed(rows[1:]):
            steps.append(steps[-1] * size)
        if value.numel() > steps[-1] * rows[0] + width:
            windows = value.reshape(-1).as_strided(value.shape, (*reversed(steps), 1))
            yield "rows that overlap", windows


def shifted(value: Tensor, shift: int) -> Tensor:
    """Return the same values, `shift` elements into a memory of their own."""
    store = torch.zeros(value.numel() + shift, dtype=value.dtype, device=value.device)
    view = store[shift:].view(value.shape)
    view.copy_(value)
    return view


def overlapping(x: Tensor, shape: torch.Size, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return a copy of x, and an output in the same memory that starts a row further on."""
    row = x.stride(0) * x.itemsize if x.dim() > 1 else x.itemsize
    size = row + max(x.nbytes, shape.numel() * dtype.itemsize)
    store = torch.zeros(-(-size // 16) * 16, dtype=torch.uint8, device=x.device)
    copy = store[: x.nbytes].view(x.dtype).view(x.shape)
    copy.copy_(x)
    return copy, store[row:][: shape.numel() * dtype.itemsize].view(dtype).view(shape)


def reserved(count: int, dtype: torch.dtype) -> Tensor:
    """Return zeros of which the system provides only those that are touched."""
    try:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
        memory = mmap.mmap(-1, (count + 4096) * dtype.itemsize, flags=flags)
    except (AttributeError, OSError, ValueError) as error:
        raise NotRun(f"{count * dtype.itemsize / 2**30:.0f} GiB cannot be reserved") from error
    return torch.frombuffer(memory, dtype=dtype)


@contextmanager
def filled_memory() -> Iterator[None]:
    """Make torch fill what it allocates: NaN, or the largest integer."""
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(before, warn_only=warned)
