"""One launch of a Triton program, as a value: run here, or compiled ahead of time elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch

from clipq.errors import KernelError
from clipq.kernels.device import launching_on

__all__ = ["Launch", "blocks", "power_above", "recorded", "run"]

_MOST_PROGRAMS = 2**31
_RECORD: ContextVar[list[Launch] | None] = ContextVar("launches", default=None)


@dataclass(frozen=True, slots=True, eq=False)
class Launch:
    """A program and all that it is launched with.

    Args:
        program: decorated with `triton.jit`.
        programs: how many of it run.
        arguments: by name: tensors, integers, floats, or None where a constant says it is unused.
        constants: by name, fixed when it is compiled.
        warps: of 32 threads, per program.
        stages: of the software pipeline.
    """

    program: Any
    programs: int
    arguments: Mapping[str, Any]
    constants: Mapping[str, Any] = field(default_factory=dict)
    warps: int = 4
    stages: int = 3

    @property
    def options(self) -> dict[str, Any]:
        """Options of the compiler; fused multiply-adds would round otherwise than torch does."""
        return {
            "num_warps": self.warps,
            "num_stages": self.stages,
            "enable_fp_fusion": False,
        }


def run(launches: Iterable[Launch], device: torch.device) -> None:
    """Run launches in order on the device's current stream, or keep them for `recorded`.

    Raises:
        KernelError: one has more programs than a GPU launches.
    """
    record = _RECORD.get()
    if record is not None:
        record.extend(launches)
        return
    with launching_on(device):
        for launch in launches:
            if launch.programs >= _MOST_PROGRAMS:
                raise KernelError(
                    f"{launch.programs:,} programs in one launch",
                    hint="a GPU launches 2^31 - 1 at most: split the tensor",
                )
            if launch.programs:
                launch.program[(launch.programs,)](
                    **launch.arguments, **launch.constants, **launch.options
                )


def recorded(call: Callable[[], object]) -> list[Launch]:
    """Return the launches that a call of a kernel would make; tensors may be on ``meta``."""
    launches: list[Launch] = []
    token = _RECORD.set(launches)
    try:
        call()
    finally:
        _RECORD.reset(token)
    return launches


def blocks(count: int, size: int) -> int:
    """Return how many blocks of `size` cover `count`."""
    return -(-count // size)


def power_above(value: int) -> int:
    """Return the smallest power of two that is not below `value`."""
    return 1 << max(0, value - 1).bit_length()
