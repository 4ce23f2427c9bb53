"""A .pte, read as data: a flatbuffer of operators, delegates and tensors, without ExecuTorch.

Follows ``program.fbs`` of ExecuTorch 1.x. A table begins with the way back to its list of fields;
a field that is not in the list has its default.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from clipq.errors import ArtifactError
from clipq.runtimes.runtime import Port

__all__ = ["METHOD", "ExecuTorchProgram"]

METHOD = "forward"

_TYPES: Mapping[int, str] = {
    **{0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32"},
    **{7: "float64", 11: "bool", 12: "int8", 13: "uint8", 15: "bfloat16", 27: "uint16"},
}
"""Of `ScalarType`, which is not that of torch.export's archives."""
_PLAN, _NAME, _VALUES, _INPUTS, _OUTPUTS, _CHAINS, _OPERATORS, _DELEGATES = 1, 0, 2, 3, 4, 5, 6, 7
_TENSOR = 5
"""Of the union `KernelTypes`."""
_KERNEL_CALL, _DELEGATE_CALL = 1, 2
"""Of the union `InstructionArguments`."""


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of a flatbuffer, at a place."""

    data: bytes
    place: int

    def number(self, slot: int, form: str) -> int:
        """Return a number; 0 where the field is left out."""
        at = self._at(slot)
        return int(struct.unpack_from(form, self.data, at)[0]) if at else 0

    def text(self, slot: int) -> str:
        start, size = self._vector(slot)
        return self.data[start : start + size].decode()

    def numbers(self, slot: int) -> tuple[int, ...]:
        start, size = self._vector(slot)
        return struct.unpack_from(f"<{size}i", self.data, start)

    def table(self, slot: int) -> _Table | None:
        at = self._at(slot)
        return _Table(self.data, _follow(self.data, at)) if at else None

    def tables(self, slot: int) -> Iterator[_Table]:
        start, size = self._vector(slot)
        for place in range(start, start + 4 * size, 4):
            yield _Table(self.data, _follow(self.data, place))

    def _at(self, slot: int) -> int:
        fields = self.place - struct.unpack_from("<i", self.data, self.place)[0]
        if 4 + 2 * slot >= struct.unpack_from("<H", self.data, fields)[0]:
            return 0
        offset = int(struct.unpack_from("<H", self.data, fields + 4 + 2 * slot)[0])
        return self.place + offset if offset else 0

    def _vector(self, slot: int) -> tuple[int, int]:
        at = self._at(slot)
        if not at:
            return 0, 0
        start = _follow(self.data, at)
        return start + 4, int(struct.unpack_from("<I", self.data, start)[0])


class ExecuTorchProgram:
    """What a program says of its method ``forward``.

    Args:
        path: of a .pte.

    Raises:
        ArtifactError: it is truncated or damaged, or has no such method.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        data = path.read_bytes()
        self.size = len(data)
        if data[8:12] == b"eh00":
            length, flat, base, segments = struct.unpack_from("<IQQQ", data.ljust(44, b"\0"), 12)
            needed = max(flat, base + segments if length >= 32 else base)
            if self.size < needed:
                raise ArtifactError(
                    f"{path} is truncated: it has {self.size:,} bytes and needs {needed:,}",
                    hint="copy it again, or export the model again",
                )
        with self._reading():
            plans = {
                plan.text(_NAME): plan for plan in _Table(data, _follow(data, 0)).tables(_PLAN)
            }
        if METHOD not in plans:
            raise ArtifactError(
                f"{path} has no method {METHOD!r}; it has {', '.join(sorted(plans)) or 'none'}",
                hint="export one tower to one file, as a module whose forward returns features",
            )
        self._plan = plans[METHOD]
        with self._reading():
            self._values = list(self._plan.tables(_VALUES))

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What it takes, by place: a .pte keeps no names."""
        return self._ports("input", self._plan.numbers(_INPUTS))

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What it returns, by place."""
        return self._ports("output", self._plan.numbers(_OUTPUTS))

    @cached_property
    def largest_batch(self) -> int:
        """The largest batch that memory is planned for; 0 where it takes one only."""
        tensors = [self._tensor(place) for place in self._plan.numbers(_INPUTS)]
        free = [each.numbers(2) for each in tensors if each and each.number(8, "<b")]
        return min((sizes[0] for sizes in free if sizes), default=0)

    @cached_property
    def delegates(self) -> Mapping[str, int]:
        """How often each backend is called."""
        with self._reading():
            names = [each.text(0) for each in self._plan.tables(_DELEGATES)]
            return Counter(names[place] for place in self._calls(_DELEGATE_CALL))

    @cached_property
    def operators(self) -> Mapping[str, int]:
        """How often each operator is called that is not delegated."""
        with self._reading():
            names = [each.text(0) for each in self._plan.tables(_OPERATORS)]
            return Counter(names[place] for place in self._calls(_KERNEL_CALL))

    @cached_property
    def types(self) -> frozenset[str]:
        """Types of the tensors that it holds and passes, in numpy's words."""
        with self._reading():
            tensors = (self._tensor(place) for place in range(len(self._values)))
            return frozenset(_TYPES.get(each.number(0, "<b"), "") for each in tensors if each)

    @cached_property
    def external(self) -> bool:
        """Whether a tensor's values lie in another file, a .ptd."""
        with self._reading():
            tensors = (self._tensor(place) for place in range(len(self._values)))
            extra = (each.table(9) for each in tensors if each)
            return any(each.number(2, "<b") == 1 for each in extra if each)

    def _calls(self, kind: int) -> Iterator[int]:
        for chain in self._plan.tables(_CHAINS):
            for instruction in chain.tables(2):
                if instruction.number(0, "<B") == kind and (call := instruction.table(1)):
                    yield call.number(0, "<i")

    def _tensor(self, place: int) -> _Table | None:
        value = self._values[place]
        return value.table(1) if value.number(0, "<B") == _TENSOR else None

    def _ports(self, what: str, places: tuple[int, ...]) -> tuple[Port, ...]:
        with self._reading():
            found = []
            for number, place in enumerate(places):
                if tensor := self._tensor(place):
                    sizes, free = tensor.numbers(2), tensor.number(8, "<b") != 0
                    shape = (-1, *sizes[1:]) if free else sizes
                    dtype = _TYPES.get(tensor.number(0, "<b"), "")
                    found.append(Port(f"{what} {number}", dtype, shape))
            return tuple(found)

    def _reading(self) -> _Reading:
        return _Reading(self.path)


@dataclass(frozen=True, slots=True)
class _Reading:
    """Turns what goes wrong while a flatbuffer is read into one sentence."""

    path: Path

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, struct.error | IndexError | UnicodeDecodeError | OverflowError):
            raise ArtifactError(
                f"{self.path} is damaged: what it points to is not there",
                hint="copy it again, or export the model again",
            ) from error


def _follow(data: bytes, place: int) -> int:
    """Return where an offset leads."""
    return int(place + struct.unpack_from("<I", data, place)[0])
