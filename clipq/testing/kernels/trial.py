"""A kernel on the device that its numeric checks run on: calls, and what must come out of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from clipq.errors import ClipqError
from clipq.kernels.device import CAPABILITY, interpreting, unusable
from clipq.kernels.kernel_spec import Kernel
from clipq.testing.checks import NotRun, expect
from clipq.testing.kernels.interpreted import TooManyPrograms, at_most
from clipq.testing.kernels.operation import Arguments, Expected, Operation
from clipq.testing.kernels.operations import operation_of
from clipq.testing.kernels.real_shapes import Shape

__all__ = ["REFUSALS", "Trial", "described", "same"]

REFUSALS = (ClipqError, ValueError, TypeError, RuntimeError, NotImplementedError)


class Trial:
    """One kernel under test."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.spec = kernel.spec
        self.operation: Operation = operation_of(kernel.spec)

    # -- where and how it is called ----------------------------------------------------------

    @cached_property
    def device(self) -> torch.device:
        """The device of numeric checks."""
        runs_on = self.spec.runs_on
        on_cpu = runs_on == "cpu" or (runs_on == "interpreter" and interpreting())
        if torch.cuda.is_available() and not on_cpu:
            device = torch.device("cuda", torch.cuda.current_device())
            actual = torch.cuda.get_device_capability(device)
            if actual < self.spec.capability:
                has, wanted = (".".join(map(str, c)) for c in (actual, self.spec.capability))
                raise NotRun(f"the GPU has compute capability {has}, the kernel needs {wanted}")
            return device
        if runs_on == "cuda":
            raise NotRun("there is no GPU, and the kernel has no interpreter")
        if runs_on == "interpreter":
            reason = unusable(torch.device("cpu"), least=CAPABILITY)
            if reason:
                raise NotRun(reason)
        return torch.device("cpu")

    @property
    def where(self) -> str:
        """What numeric checks run on, for reports; "" where they cannot run."""
        try:
            device = self.device
        except NotRun:
            return ""
        if device.type == "cuda":
            return torch.cuda.get_device_name(device)
        if self.interpreted:
            return "Triton's interpreter: fewer rows where programs are many, no whole layers"
        return "cpu"

    @property
    def interpreted(self) -> bool:
        return self.device.type == "cpu" and self.spec.runs_on == "interpreter" and interpreting()

    def gpu(self) -> torch.device:
        """Return the GPU that the kernel runs on."""
        if self.device.type != "cuda":
            raise NotRun("there is no GPU")
        return self.device

    def dtypes(self) -> list[torch.dtype]:
        names = [name for name in self.spec.dtypes if name != "bfloat16"]
        return [getattr(torch, name) for name in names or self.spec.dtypes]

    def moved(self, given: Arguments, device: torch.device | None = None) -> Arguments:
        where = device or self.device
        return {
            name: value.to(where) if isinstance(value, Tensor) else value
            for name, value in given.items()
        }

    def call(self, given: Arguments, **more: Any) -> Tensor:
        """Call with arguments that lie on the device already."""
        result: Tensor = self.kernel.call(**given, **more)
        return result

    # -- what it is given, and what must come out --------------------------------------------

    def agree(self, given: Arguments, found: Tensor, about: str = "") -> Expected:
        wanted = self.operation.expected(given)
        difference = wanted.disagreement(found)
        expect(not difference, f"{described(given)}{about}: {difference}")
        return wanted

    def agrees_at(
        self, shape: Shape, choice: dict[str, Any], dtype: torch.dtype, seed: int
    ) -> None:
        """Compare one call of a shape with the reference, at fewer rows where it must be so."""
        operation = self.operation
        depth = operation.fitting(shape.depth, choice)
        while True:
            given = operation.draw(
                choice, (*shape.leading, depth), dtype, seed, columns=shape.columns
            )
            arguments = self.moved(given)
            try:
                if self.interpreted and shape.rows > 1:
                    with at_most(shape.programs):
                        found = self.call(arguments)
                else:
                    found = self.call(arguments)
            except TooManyPrograms as error:
                # Half of what the count allows: there may be launches that it did not come to.
                fewer = min(shape.rows - 1, shape.rows * shape.programs // error.count // 2)
                shape = replace(shape, rows=max(1, fewer))
                continue
            except REFUSALS as error:
                expect(
                    depth > operation.must_take,
                    f"{described(given)} is claimed, and refused: {error}",
                )
                return
            self.agree(given, found)
            return

    def ordinary(self, *leading: int, width: int = 70, seed: int = 0) -> Arguments:
        """Return an ordinary call, of five rows where nothing else is said."""
        operation = self.operation
        shape = (*(leading or (5,)), operation.fitting(width))
        return operation.draw(operation.first(), shape, self.dtypes()[0], seed)

    def varied(self, *leading: int, width: int) -> Iterator[Arguments]:
        """Yield an ordinary call for each set of tensors, by shape, that the kernel takes.

        A number that decides whether a tensor is read, a zero point, counts as one.
        """
        seen = set()
        shape = (*leading, self.operation.fitting(width))
        for choice in self.operation.choices():
            given = self.operation.draw(choice, shape, self.dtypes()[0])
            tensors = {n: v.shape for n, v in given.items() if isinstance(v, Tensor)}
            kind = (*tensors.items(), _is_zero(given.get("zero_point")))
            if kind not in seen:
                seen.add(kind)
                yield given

    def output_of(self, given: Arguments) -> tuple[torch.Size, torch.dtype]:
        wanted = self.operation.expected(given)
        return wanted.values.shape, wanted.dtype


def _is_zero(zero_point: object) -> bool:
    return not isinstance(zero_point, Tensor) and not zero_point


def described(given: Arguments) -> str:
    """Return a call in a line, for messages."""
    parts = [f"x {tuple(given['x'].shape)} {str(given['x'].dtype).removeprefix('torch.')}"]
    for name, value in given.items():
        if name in ("weight", "packed") and isinstance(value, Tensor) and value.dim() > 1:
            parts.append(f"{name} {tuple(value.shape)}")
        elif name != "x" and not isinstance(value, Tensor) and value is not None:
            parts.append(f"{name}={str(value).removeprefix('torch.')}")
    if isinstance(given.get("bias"), Tensor):
        parts.append("a bias")
    return ", ".join(parts)


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two results are the same, NaN for NaN."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())
