"""What a kernel claims: its operation, the inputs it takes, the error it allows itself.

Light: kernels and checks are named, planned and reported without importing torch.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from clipq.errors import KernelError, UnknownNameError, did_you_mean
from clipq.registry import Registry

__all__ = ["CHECKS", "OPERATIONS", "Kernel", "KernelSpec", "kernels", "matching"]

OPERATIONS: dict[str, str] = {
    "quantize": "codes of float rows, given a scale",
    "fake-quantize": "float rows rounded to a given grid",
    "fake-quantize-dynamic": "float rows rounded to grids of their own ranges",
    "linear-w8a8": "int8 times int8, dequantized, with bias and activation",
    "linear-w4a16": "float times group-wise 4-bit weights",
    "hadamard": "rows times a normalised Hadamard matrix with random signs",
    "quantize-layer-norm": "layer norm whose output is codes",
}
"""Operations that `clipq.testing.check_kernel` knows the reference semantics of.

Each is called by the argument names that docs/kernels.md lists; with `out=` where it is claimed.
"""

CHECKS: dict[str, str] = {
    "matches-reference": "CLIP's widths, shapes aligned and ragged, one row to more than a wave",
    "rounds-bfloat16": "the same in bfloat16",
    "rounds-half-to-even": "values halfway between two codes",
    "saturates": "values beyond the range, up to infinity, take the last code",
    "shows-nan": "NaN and infinity stay visible where floats come out, and reach nothing else",
    "keeps-subnormals": "inputs below the smallest normal float are not flushed to zero",
    "takes-extreme-scales": "scales from the smallest normal float to 1e30, means far from zero",
    "accumulates-exactly": "integer sums at their extremes, for aligned and ragged K in thousands",
    "survives-large-k": "where int32 sums would overflow: exact, or refused",
    "takes-strided-inputs": "transposed, sliced, repeated, channels_last inputs, of 2 to 4 dims",
    "takes-unaligned-pointers": "inputs and outputs that start anywhere in memory",
    "takes-empty-inputs": "zero rows give zero rows, whichever dimension is empty",
    "writes-every-element": "outputs that held NaN or garbage before",
    "writes-nothing-else": "guard bands around the output, and the inputs, stay as they were",
    "keeps-earlier-results": "a later call changes no earlier result, an earlier call no later one",
    "is-deterministic": "the same bits in every repetition",
    "ignores-program-order": "the same bits whichever program runs first",
    "refuses-bad-input": "wrong dtypes, shapes and devices raise, and say so",
    "gradient-matches": "gradients, where claimed, are the reference's",
    "compiles-and-exports": "a torch operator that torch.compile and torch.export accept",
    "follows-the-stream": "runs after what the current stream holds, not before",
    "captures-in-a-graph": "a CUDA graph replays it on new inputs",
    "runs-on-any-device": "on the inputs' device, whichever is current",
    "addresses-far-rows": "offsets beyond 2^31 elements",
}
"""Checks of the conformance suite; one that does not apply to a kernel is not run, and says why."""

Operation = Literal[
    "quantize",
    "fake-quantize",
    "fake-quantize-dynamic",
    "linear-w8a8",
    "linear-w4a16",
    "hadamard",
    "quantize-layer-norm",
]
Granularity = Literal["tensor", "row", "group"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSpec:
    """What a kernel claims to do.

    Args:
        operation: one of `OPERATIONS`.
        dtypes: of float inputs, as torch names them.
        granularities: what shares a scale: the whole ``tensor``, a ``row`` (a channel of a weight,
            a token of activations) or a ``group`` of a row's values.
        groups: group sizes; a last, shorter group is taken where `ragged`.
        ragged: whether row lengths need not be multiples of the group.
        bits: of the codes.
        asymmetric: whether zero points are taken.
        activations: what a linear epilogue applies: ``none``, ``gelu``, ``gelu-tanh``,
            ``quick-gelu``.
        sizes: the only row lengths that are taken; empty for any.
        ulps: allowed error of sums of floats, in units of 2^-24 of the sum of the absolute values
            of what was added, beside one unit for each of K additions (log2 K for a transform). An
            activation may multiply it by four. Rounding to the output's dtype comes on top.
        rounds_weights: whether 4-bit weights are rounded to the input's dtype before the product.
        out: whether the kernel takes `out=`, a tensor to write to.
        gradient: whether it is differentiable in its first argument: the operator where there is
            one, else the callable.
        operator: its name as a torch operator, ``namespace::name``, with the same arguments but
            `out`; "" where it is none.
        runs_on: where numeric checks can run: on ``cuda`` alone, also on the CPU by Triton's
            ``interpreter``, or on the ``cpu`` as such.
        capability: least compute capability of a GPU.

    Raises:
        KernelError: an unknown operation, or nothing that could be checked.
    """

    operation: Operation
    dtypes: tuple[str, ...] = ("float32", "float16", "bfloat16")
    granularities: tuple[Granularity, ...] = ("tensor", "row", "group")
    groups: tuple[int, ...] = (32,)
    ragged: bool = True
    bits: tuple[int, ...] = (8, 4)
    asymmetric: bool = True
    activations: tuple[str, ...] = ("none",)
    sizes: tuple[int, ...] = ()
    ulps: float = 0.0
    rounds_weights: bool = False
    out: bool = False
    gradient: bool = False
    operator: str = ""
    runs_on: Literal["cuda", "interpreter", "cpu"] = "cuda"
    capability: tuple[int, int] = (8, 0)

    def __post_init__(self) -> None:
        if self.operation not in OPERATIONS:
            raise KernelError(
                f"unknown operation {self.operation!r}",
                hint=did_you_mean(self.operation, OPERATIONS),
            )
        if not self.dtypes or not self.granularities or not self.bits:
            raise KernelError(
                f"a spec of {self.operation} that claims no dtype, granularity or width",
                hint="a kernel that takes nothing cannot be checked",
            )


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """A callable with what it claims.

    Args:
        call: called as docs/kernels.md says for its operation.
        spec: what it claims.
        source: what it is written in, for reports: ``triton``, ``cuda`` ...
    """

    call: Callable[..., Any]
    spec: KernelSpec
    source: str = ""


kernels: Registry[Kernel] = Registry("kernel", group="clipq.kernels")
"""Kernels by name; a package offers its own as entry points of the group ``clipq.kernels``."""


def matching(globs: Sequence[str]) -> list[str]:
    """Return the registered kernels that any of the globs names, sorted; imports none.

    Raises:
        UnknownNameError: a glob matches no kernel.
    """
    known = kernels.names()
    for glob in globs:
        if not fnmatch.filter(known, glob):
            raise UnknownNameError(f"no kernel matches {glob!r}", hint=did_you_mean(glob, known))
    return [name for name in known if any(fnmatch.fnmatchcase(name, glob) for glob in globs)]


_NATIVE = ("quantize", "fake-quantize", "fake-quantize-dynamic")
_TRITON = (*_NATIVE, "linear-w8a8", "linear-w4a16", "hadamard", "quantize-layer-norm")
for _prefix, _module, _names in (
    ("triton", "clipq.kernels.triton_kernels", _TRITON),
    ("native", "clipq.kernels.native.cuda_kernels", _NATIVE),
):
    for _name in _names:
        kernels.register_lazy(f"{_prefix}-{_name}", f"{_module}:{_name.replace('-', '_').upper()}")
