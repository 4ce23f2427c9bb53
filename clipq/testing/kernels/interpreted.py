"""Triton's interpreter as an instrument: programs in another order, no more than it can bear."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["TooManyPrograms", "at_most", "last_program_first"]


class TooManyPrograms(BaseException):
    """A call would run more programs than it may; no error, so that no kernel takes it for one.

    Args:
        count: that it would have run, as far as it came.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(f"{count:,} programs")


@contextmanager
def last_program_first() -> Iterator[None]:
    """Make Triton's interpreter run programs in the opposite order."""
    from triton.runtime.interpreter import interpreter_builder as builder

    own = builder.set_grid_idx

    def from_the_end(*place: int) -> None:
        own(*(size - 1 - at for size, at in zip(builder.grid_dim, place, strict=True)))

    builder.set_grid_idx = from_the_end
    try:
        yield
    finally:
        del builder.set_grid_idx


@contextmanager
def at_most(programs: int) -> Iterator[None]:
    """Raise `TooManyPrograms` before a launch that would make more of them, all launches together.

    The interpreter runs one after the other, each in milliseconds: what is cheap for a kernel of
    large tiles takes minutes with one of a row.
    """
    from triton.runtime.interpreter import interpreter_builder as builder

    own = builder.set_grid_dim
    count = 0

    def counted(*grid: int) -> None:
        nonlocal count
        size = 1
        for length in grid:
            size *= length
        count += size
        if count > programs:
            raise TooManyPrograms(count)
        own(*grid)

    builder.set_grid_dim = counted
    try:
        yield
    finally:
        del builder.set_grid_dim
