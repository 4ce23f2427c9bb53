"""What each operation of a kernel is given, and what must come out, by `clipq.quant`.

An operation draws the arguments of calls, ordinary ones and those that a check is about, on the
CPU, and says whether a result agrees with the reference. Codes and grids agree bit for bit, but for
the sign of zeros; sums of floats within a bound that follows from how many were added.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from clipq.kernels.kernel_spec import KernelSpec
from clipq.testing.kernels.covering import all_combinations
from clipq.testing.kernels.real_shapes import LENGTHS, LONG

__all__ = [
    "TINY",
    "Arguments",
    "Expected",
    "Operation",
    "U",
    "ends",
    "exactly_added",
    "grains",
    "normal",
    "positive",
    "signs",
    "spread",
    "whole",
]

Arguments = dict[str, Any]
U = 2.0**-24
"""Half an ULP of 1 in float32."""
TINY = torch.finfo(torch.float32).tiny
"""The smallest normal float32."""


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """What must come out of a call.

    Args:
        values: of the output's shape; exact where `bound` is None, else float64.
        dtype: of the output.
        bound: largest distance before rounding to `dtype`, shaped like `values`.
        anything: where nothing is promised.
    """

    values: Tensor
    dtype: torch.dtype
    bound: Tensor | None = None
    anything: Tensor | None = None

    def disagreement(self, found: Tensor) -> str:
        """Return how a result differs, "" where it agrees."""
        if tuple(found.shape) != tuple(self.values.shape):
            return f"shape {tuple(found.shape)}, not {tuple(self.values.shape)}"
        if found.dtype != self.dtype:
            return f"{found.dtype}, not {self.dtype}"
        mine = found.detach().cpu()
        wrong = self._wrong(mine)
        if self.anything is not None:
            wrong &= ~self.anything
        if not wrong.any():
            return ""
        first = tuple(wrong.nonzero()[0].tolist())
        allowed = "" if self.bound is None else f" within {float(self.bound[first]):.3g}"
        return (
            f"{int(wrong.sum())} of {wrong.numel()} elements differ, first at {first}: "
            f"{mine[first].item():.9g}, not {self.values[first].item():.9g}{allowed}"
        )

    def _wrong(self, result: Tensor) -> Tensor:
        if self.bound is None:
            return (result != self.values) & ~(result.isnan() & self.values.isnan())
        wide, values = result.double(), self.values.double()
        bound = self.bound
        if self.dtype.is_floating_point:
            kind = torch.finfo(self.dtype)
            bound = bound + kind.eps / 2 * (values.abs() + bound) + kind.tiny * kind.eps / 2
        # Whether infinities add up to one or to NaN depends on the order; both are seen.
        near = (wide - values).abs() <= bound
        return torch.where(values.isfinite(), ~near, wide.isfinite())


class Operation(ABC):
    """One operation of `clipq.kernels.kernel_spec.OPERATIONS`, within what a spec claims.

    A check that an operation has nothing to say to is named in `not_about`, with the reason.
    """

    not_about: ClassVar[Mapping[str, str]] = {}
    multiplies: ClassVar[bool] = False
    """Whether there is a weight, whose columns are a length of its own."""
    adds_floats: ClassVar[bool] = False
    """Whether draws of odd seeds are integers that float32 adds without an error.

    The bound of K additions would hide a value left out among thousands; where no addition rounds,
    there is none.
    """
    must_take: ClassVar[int] = LONG
    """Depth beyond which it may be refused."""

    def __init__(self, spec: KernelSpec) -> None:
        self.spec = spec

    @abstractmethod
    def options(self) -> dict[str, tuple[Any, ...]]:
        """Return what calls may differ in beside shapes and dtypes, the ordinary first."""

    @abstractmethod
    def draw(
        self,
        choice: Mapping[str, Any],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        seed: int = 0,
        *,
        columns: int = 40,
    ) -> Arguments:
        """Return the arguments of a call.

        Args:
            choice: one level of each of `options`.
            shape: of x, ending in K.
            dtype: of floats that come in, or go out.
            seed: of the values.
            columns: of a weight, N.
        """

    @abstractmethod
    def expected(self, arguments: Arguments) -> Expected:
        """Return the reference's result."""

    @abstractmethod
    def bad(self) -> Iterator[tuple[str, Arguments]]:
        """Yield what is wrong with a call, and its arguments."""

    def hard(self, check: str) -> Iterator[Arguments]:
        """Yield the calls that a check is about."""
        yield from getattr(self, check.replace("-", "_"))()

    # -- shared by operations --------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        """Of floats where nothing else is said: float32, or the first that the kernel takes."""
        names = self.spec.dtypes
        dtype: torch.dtype = getattr(torch, "float32" if "float32" in names else names[0])
        return dtype

    def choices(self) -> list[dict[str, Any]]:
        """Return all combinations of `options`."""
        return all_combinations(self.options())

    def first(self) -> dict[str, Any]:
        return self.choices()[0]

    def fitting(self, width: int, choice: Mapping[str, Any] | None = None) -> int:
        """Return the row length nearest to `width` that the kernel takes with a choice, or any."""
        sizes = self.spec.sizes
        if sizes:
            return min(sizes, key=lambda size: abs(size - width))
        if self.spec.ragged:
            return width
        group = max(self.spec.groups) if choice is None else self.group_of(choice) or 1
        return max(group, width // group * group)

    def depths(self) -> tuple[int, ...]:
        """Return the row lengths to compare, up to the widest layer's: those that are taken."""
        lengths = {self.fitting(at, choice) for at in LENGTHS for choice in self.choices()}
        return self.spec.sizes or tuple(sorted(lengths))

    def group_of(self, choice: Mapping[str, Any]) -> int | None:
        """Return how many values share a scale, None where no group does."""
        group: int | None = choice["grain"][1]
        return group

    def ragged(self) -> Iterator[tuple[str, Arguments]]:
        """Yield rows that end within a group, where a spec claims none."""
        grouped = next((choice for choice in self.choices() if self.group_of(choice)), None)
        if grouped and not self.spec.ragged:
            given = self.draw(grouped, (4, self.fitting(64) + 1), self.dtype)
            yield "K that is no multiple of the group", given

    def shows_nan(self) -> Iterator[Arguments]:
        for value in (torch.nan, torch.inf):
            for choice in self.choices():
                given = self.draw(choice, (4, self.fitting(50)), self.dtype)
                given["x"][1, given["x"].shape[1] // 2] = value
                yield given


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return values with a standard deviation of 3."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * 3).to(dtype)


def whole(low: int, high: int, *shape: int, seed: int = 0) -> Tensor:
    """Return integers from low to high."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high + 1, shape, generator=generator)


def positive(*shape: int, seed: int = 0) -> Tensor:
    """Return values above zero, of that size too."""
    return normal(*shape, seed=seed).abs() + 0.01


def ends(bits: int, *, asymmetric: bool) -> tuple[int, int]:
    """Return the lowest and the highest code."""
    return (0, 2**bits - 1) if asymmetric else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def grains(spec: KernelSpec) -> tuple[tuple[str, int | None], ...]:
    """Return what shares a scale, with the size of a group."""
    sizes: dict[str, tuple[int | None, ...]] = {"group": spec.groups}
    return tuple((kind, group) for kind in spec.granularities for group in sizes.get(kind, (None,)))


def signs(spec: KernelSpec) -> tuple[bool, ...]:
    """Return whether codes are asymmetric, as a kernel takes them."""
    return (False, True) if spec.asymmetric else (False,)


def exactly_added(terms: Tensor, unit: Tensor | float = 1.0) -> Tensor:
    """Return for which rows (..., 1) float32 adds terms (..., K) without rounding, in any order.

    They are so where all are multiples of a unit, and their absolute values add up to less than
    2^24 of it.
    """
    units = terms.double().abs() / unit
    whole_ones = (units == units.round()).all(-1, keepdim=True)
    return whole_ones & (units.sum(-1, keepdim=True) < 2**24)


def spread(parts: Tensor, group: int | None, width: int) -> Tensor:
    """Return one value a column from one a group."""
    return parts if group is None else parts.repeat_interleave(group, -1)[..., :width]
