"""What each operation of a kernel is given, and what must come out, by `clipq.quant`.

An operation draws the arguments of calls, ordinary ones and those that a check is about, on the
CPU, and says whether a result agrees with the reference. Codes and grids agree bit for bit, but for
the sign of zeros; sums of floats within a bound that follows from how many were added.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import log2, prod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from clipq.kernels.spec import KernelSpec
from clipq.quant import ActivationFormat
from clipq.quant.activations import DynamicQuantizer
from clipq.quant.affine import QParams, quantize_codes
from clipq.quant.grids import fake_quantize
from clipq.quant.transforms.hadamard import hadamard_matrix

__all__ = ["Arguments", "Expected", "Operation", "normal", "operation_of", "whole"]

Arguments = dict[str, Any]
_U = 2.0**-24  # half an ULP of 1 in float32
_TINY = torch.finfo(torch.float32).tiny
_TALL = 133  # rows and columns of a product: more than one tile of 128, no multiple
_WIDTHS = {1: 1, 5: 33, 6: 17, 7: 9, _TALL: _TALL}  # of weights, by rows of x


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

    def _wrong(self, found: Tensor) -> Tensor:
        if self.bound is None:
            return (found != self.values) & ~(found.isnan() & self.values.isnan())
        wide, values = found.double(), self.values.double()
        bound = self.bound
        if self.dtype.is_floating_point:
            kind = torch.finfo(self.dtype)
            bound = bound + kind.eps / 2 * (values.abs() + bound) + kind.tiny * kind.eps / 2
        # Whether infinities add up to one or to NaN depends on the order; both are seen.
        near = (wide - values).abs() <= bound
        return torch.where(values.isfinite(), ~near, wide.isfinite())


class Operation(ABC):
    """One operation of `clipq.kernels.spec.OPERATIONS`, within what a spec claims.

    A check that an operation has nothing to say to is named in `not_about`, with the reason.
    """

    not_about: ClassVar[Mapping[str, str]] = {}

    def __init__(self, spec: KernelSpec) -> None:
        self.spec = spec

    @abstractmethod
    def choices(self) -> Iterator[dict[str, Any]]:
        """Yield what calls may differ in beside shapes and dtypes."""

    @abstractmethod
    def draw(
        self, choice: Mapping[str, Any], shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0
    ) -> Arguments:
        """Return the arguments of an ordinary call with x of a shape, ending in K."""

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
        found: torch.dtype = getattr(torch, "float32" if "float32" in names else names[0])
        return found

    def first(self) -> dict[str, Any]:
        return next(self.choices())

    def fitting(self, width: int) -> int:
        """Return the row length nearest to `width` that the kernel takes."""
        sizes = self.spec.sizes
        if sizes:
            return min(sizes, key=lambda size: abs(size - width))
        if not self.spec.ragged:
            largest = max(self.spec.groups)
            return max(largest, width // largest * largest)
        return width

    def shapes(self) -> list[tuple[int, ...]]:
        """Return shapes that are aligned to nothing, from one value to several tiles."""
        return [
            (*rows, self.fitting(width))
            for rows, width in (((1,), 1), ((5,), 37), ((2, 3), 130), ((7,), 4099))
        ]

    def ragged(self) -> Iterator[tuple[str, Arguments]]:
        """Yield rows that end within a group, where a spec claims none."""
        grouped = next((choice for choice in self.choices() if choice.get("group")), None)
        if grouped and not self.spec.ragged:
            given = self.draw(grouped, (4, self.fitting(64) + 1), self.dtype)
            yield "K that is no multiple of the group", given

    def shows_nan(self) -> Iterator[Arguments]:
        for value in (torch.nan, torch.inf):
            for choice in self.choices():
                given = self.draw(choice, (4, self.fitting(50)), self.dtype)
                given["x"][1, given["x"].shape[1] // 2] = value
                yield given


def operation_of(spec: KernelSpec) -> Operation:
    """Return the operation that a spec names."""
    return _OPERATIONS[spec.operation](spec)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return values with a standard deviation of 3."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * 3).to(dtype)


def whole(low: int, high: int, *shape: int, seed: int = 0) -> Tensor:
    """Return integers from low to high."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high + 1, shape, generator=generator)


def _positive(*shape: int, seed: int = 0) -> Tensor:
    return normal(*shape, seed=seed).abs() + 0.01


def _ends(bits: int, *, asymmetric: bool) -> tuple[int, int]:
    return (0, 2**bits - 1) if asymmetric else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _spread(parts: Tensor, group: int | None, width: int) -> Tensor:
    """Return one value a column from one a group."""
    return parts if group is None else parts.repeat_interleave(group, -1)[..., :width]


class _Static(Operation):
    """Rounding to a grid that is given."""

    def choices(self) -> Iterator[dict[str, Any]]:
        spec = self.spec
        signs = (False, True) if spec.asymmetric else (False,)
        for granularity, bits, asymmetric in product(spec.granularities, spec.bits, signs):
            groups = spec.groups if granularity == "group" else (None,)
            for group in groups:
                yield {
                    "granularity": granularity,
                    "bits": bits,
                    "asymmetric": asymmetric,
                    "group": group,
                }

    def draw(
        self, choice: Mapping[str, Any], shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0
    ) -> Arguments:
        width, group = shape[-1], choice["group"]
        count = 1 if group is None else -(-width // group)
        parts = () if choice["granularity"] == "tensor" else (*shape[:-1], count)
        low, high = _ends(choice["bits"], asymmetric=choice["asymmetric"])
        # Steps so wide that most values lie within the ends, and some beyond.
        scale = _positive(*parts, seed=seed + 1) * (4 / (high - low))
        zero = whole(low, high, *parts, seed=seed + 2).float() if choice["asymmetric"] else None
        return {
            "x": normal(*shape, seed=seed, dtype=dtype),
            "scale": scale,
            "zero_point": zero,
            "low": low,
            "high": high,
            "group": group,
        }

    def grid(self, given: Arguments) -> QParams:
        width = given["x"].shape[-1]
        scale, zero = _spread(given["scale"], given["group"], width), given["zero_point"]
        if zero is not None:
            zero = _spread(zero, given["group"], width)
        return QParams(scale, zero, given["low"], given["high"])

    def rounds_half_to_even(self) -> Iterator[Arguments]:
        low, high = _ends(max(self.spec.bits), asymmetric=False)
        halves = torch.arange(low - 2, high + 2, 0.5)
        yield self._given(halves, 1.0)
        yield self._given(halves * 0.25, 0.25)
        if self.spec.asymmetric:
            # x / s is rounded, then moved: the other way round, an odd zero point turns halves.
            given = self._given(halves, 1.0)
            yield given | {"zero_point": torch.full_like(given["scale"], -3.0)}

    def saturates(self) -> Iterator[Arguments]:
        low, high = _ends(max(self.spec.bits), asymmetric=False)
        last = [low - 0.75, low - 1.0, high + 0.25, high + 0.5, high + 1.0]
        beyond = [300.0, 1e5, 3e9, 1e30, 3.4e38, torch.inf]
        values = torch.tensor([*last, *beyond, *(-value for value in beyond)])
        yield self._given(values, 1.0)
        yield self._given(values, 1e-20)

    def keeps_subnormals(self) -> Iterator[Arguments]:
        yield self._given(torch.arange(-8.0, 8.0, 0.25) * _TINY, _TINY)
        if "float16" in self.spec.dtypes:
            values = (torch.arange(-40.0, 40.0) * 2.0**-24).half()
            yield self._given(values, 2.0**-22)

    def takes_extreme_scales(self) -> Iterator[Arguments]:
        values = torch.cat([torch.arange(-130, 130, 0.5), normal(201) * 20])
        for scale in (_TINY, 1e-30, 1e-20, 1e10, 1e30):
            yield self._given(values * scale, scale)

    def _given(self, values: Tensor, scale: float) -> Arguments:
        """Return a call on values (K,), one of the granularities and lengths that are taken."""
        choice = self.first()
        width = self.fitting(len(values))
        row = values.repeat(-(-width // len(values)))[:width] if width else values
        given = self.draw(choice, (2, width), row.dtype)
        low, high = _ends(max(self.spec.bits), asymmetric=False)
        given |= {"x": torch.stack([row, row.flip(0)]), "low": low, "high": high}
        given |= {"scale": torch.full_like(given["scale"], scale), "zero_point": None}
        return given

    def bad(self) -> Iterator[tuple[str, Arguments]]:
        given = self.draw(self.first(), (4, self.fitting(64)), self.dtype)
        x = given["x"]
        yield "x in float64", given | {"x": x.double()}
        yield "integers for x", given | {"x": x.int()}
        yield "a scale per column", given | {"scale": torch.ones(x.shape[1] + 1)}
        yield "scales in float64", given | {"scale": given["scale"].double()}
        yield "codes that fit no 8 bits", given | {"low": -300, "high": 300}
        yield "a zero point of another shape", given | {"zero_point": torch.zeros(3, 7)}
        yield from self.ragged()


class _Quantize(_Static):
    def expected(self, arguments: Arguments) -> Expected:
        x, low, high = arguments["x"], arguments["low"], arguments["high"]
        unknown = x.isnan()
        codes = quantize_codes(x.masked_fill(unknown, 0), self.grid(arguments))
        kind = torch.int8 if low >= -128 and high <= 127 else torch.uint8
        return Expected(codes.to(kind), kind, anything=unknown)


class _FakeQuantize(_Static):
    def expected(self, arguments: Arguments) -> Expected:
        x = arguments["x"]
        return Expected(fake_quantize(x, self.grid(arguments)), x.dtype)


class _FakeQuantizeDynamic(Operation):
    not_about: ClassVar[Mapping[str, str]] = {
        "saturates": "a range of its own holds every value",
    }

    def choices(self) -> Iterator[dict[str, Any]]:
        spec = self.spec
        signs = (False, True) if spec.asymmetric else (False,)
        for granularity, bits, asymmetric in product(spec.granularities, spec.bits, signs):
            for group in spec.groups if granularity == "group" else (None,):
                yield {"bits": bits, "asymmetric": asymmetric, "group": group}

    def draw(
        self, choice: Mapping[str, Any], shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0
    ) -> Arguments:
        return {"x": normal(*shape, seed=seed, dtype=dtype), **choice}

    def expected(self, arguments: Arguments) -> Expected:
        x = arguments["x"]
        number_format = ActivationFormat(
            arguments["bits"],
            dynamic=True,
            asymmetric=arguments["asymmetric"],
            group=arguments["group"],
        )
        return Expected(DynamicQuantizer(number_format, over="features")(x), x.dtype)

    def rounds_half_to_even(self) -> Iterator[Arguments]:
        bits = max(self.spec.bits)
        high = 2 ** (bits - 1) - 1
        width = self.fitting(4 * high + 1)
        values = torch.arange(-high, high + 0.5, 0.5).repeat(-(-width // (4 * high)))[:width]
        group = self.first()["group"]
        values[:: group or width] = high  # each range ends there: its step is one
        grids = [(False, values)]
        if self.spec.asymmetric:
            # From -levels to 0 the step is one as well, and the zero point is odd.
            levels = 2 * high + 1
            below = -torch.arange(0, levels + 0.5, 0.5).repeat(-(-width // (2 * levels)))[:width]
            below[:: group or width] = -levels
            grids.append((True, below))
        for asymmetric, row in grids:
            for scale in (1.0, 0.125):
                x = row[None] * scale
                yield {"x": x, "bits": bits, "asymmetric": asymmetric, "group": group}

    def keeps_subnormals(self) -> Iterator[Arguments]:
        for choice in self.choices():
            yield self.draw(choice, (3, self.fitting(64)), torch.float32) | {
                "x": normal(3, self.fitting(64)) * _TINY
            }

    def takes_extreme_scales(self) -> Iterator[Arguments]:
        for choice in self.choices():
            for size in (1e-36, 1e-20, 1e20, 1e37):
                yield {"x": normal(3, self.fitting(70)) * size, **choice}

    def bad(self) -> Iterator[tuple[str, Arguments]]:
        given = self.draw(self.first(), (4, self.fitting(64)), self.dtype)
        yield "x in float64", given | {"x": given["x"].double()}
        yield "integers for x", given | {"x": given["x"].int()}
        yield "no bits", given | {"bits": 0}
        yield "99 bits", given | {"bits": 99}
        yield "a group of nothing", given | {"group": 0}
        yield from self.ragged()


class _LinearW8A8(Operation):
    not_about: ClassVar[Mapping[str, str]] = {
        "rounds-half-to-even": "no code comes out",
        "saturates": "no code comes out",
        "keeps-subnormals": "codes are integers, scales normal floats",
    }

    def choices(self) -> Iterator[dict[str, Any]]:
        points = (0, -7) if self.spec.asymmetric else (0,)
        kinds = [kind for kind in ("row", "tensor") if kind in self.spec.granularities]
        for kind, activation, point in product(kinds, self.spec.activations, points):
            yield {
                "granularity": kind,
                "activation": activation,
                "zero_point": point,
                "bias": point == 0,
            }

    def draw(
        self, choice: Mapping[str, Any], shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0
    ) -> Arguments:
        depth, rows = shape[-1], prod(shape[:-1])
        width = _WIDTHS.get(rows, 40)
        tokens = (*shape[:-1], 1) if choice["granularity"] == "row" else ()
        return {
            "x": whole(-128, 127, *shape, seed=seed).to(torch.int8),
            "weight": whole(-128, 127, width, depth, seed=seed + 1).to(torch.int8),
            "x_scale": _positive(*tokens, seed=seed + 2) / depth,
            "weight_scale": _positive(width, seed=seed + 3) / 100,
            "zero_point": choice["zero_point"],
            "bias": normal(width, seed=seed + 4) if choice["bias"] else None,
            "activation": choice["activation"],
            "dtype": dtype,
        }

    def expected(self, arguments: Arguments) -> Expected:
        given, ulps = arguments, self.spec.ulps
        total = (given["x"].double() - given["zero_point"]) @ given["weight"].double().t()
        values = total * given["x_scale"].double() * given["weight_scale"].double()
        size = values.abs()
        if given["bias"] is not None:
            values, size = values + given["bias"].double(), size + given["bias"].double().abs()
        bound = ulps * _U * size
        if given["activation"] != "none":
            values, bound = _activated(values, given["activation"]), 4 * bound
        return Expected(values, given["dtype"], bound)

    def shapes(self) -> list[tuple[int, ...]]:
        given = ((1, 1), (5, 70), (_TALL, 129))
        return [(*shape[:-1], self.fitting(shape[-1])) for shape in given]

    def shows_nan(self) -> Iterator[Arguments]:
        for name in ("x_scale", "weight_scale", "bias"):
            given = self.draw(self.first(), (5, self.fitting(70)), self.dtype)
            part = given[name]
            if part is not None:
                part.view(-1)[part.numel() // 2] = torch.nan
                yield given

    def takes_extreme_scales(self) -> Iterator[Arguments]:
        for mine, theirs in ((1e-18, 1e-18), (1e15, 1e15), (1e-30, 1e25)):
            given = self.draw(self.first(), (5, self.fitting(70)), torch.float32)
            yield given | {
                "x_scale": given["x_scale"] * mine,
                "weight_scale": given["weight_scale"] * theirs,
                "bias": None,
                "activation": "none",
            }

    def accumulates_exactly(self) -> Iterator[Arguments]:
        """Yield sums of integers that no float32 sum keeps: odd, and far above 2^24."""
        for sign in (1, -1):
            given = self.draw(self.first(), (3, self.fitting(4099)), torch.float32)
            depth = given["x"].shape[1]
            given["x"].fill_(127)
            given["weight"].fill_(sign * 127)
            given["weight"][:, depth // 2 :: 3] = sign * 63
            given["x"][1, ::5] = 1
            yield _plain_scales(given)

    def survives_large_k(self) -> Iterator[Arguments]:
        """Yield the least K at which -128 by -128, or a zero point's, exceeds 2^31 - 1."""
        given = self.draw(self.first(), (1, self.fitting(131073)), torch.float32)
        given["x"].fill_(-128)
        given["weight"].fill_(-128)
        yield _plain_scales(given)
        if self.spec.asymmetric:
            given = self.draw(self.first(), (1, self.fitting(125204)), torch.float32)
            given["x"].fill_(127)
            given["weight"].fill_(-128)
            yield _plain_scales(given) | {"zero_point": -7}

    def bad(self) -> Iterator[tuple[str, Arguments]]:
        given = self.draw(self.first(), (4, self.fitting(64)), self.dtype)
        x, weight = given["x"], given["weight"]
        yield "floats for x", given | {"x": x.float()}
        yield "floats for the weight", given | {"weight": weight.float()}
        yield "a weight of another K", given | {"weight": weight.repeat(1, 2)}
        yield "scales for other channels", given | {"weight_scale": torch.ones(len(weight) + 1)}
        yield "scales for other tokens", given | {"x_scale": torch.ones(len(x) + 1, 1)}
        yield "a bias for other channels", given | {"bias": torch.ones(len(weight) + 1)}
        yield "an unknown activation", given | {"activation": "swish-9"}


def _plain_scales(given: Arguments) -> Arguments:
    """Return a call whose result is the sum of products itself."""
    return given | {
        "x_scale": torch.ones_like(given["x_scale"]),
        "weight_scale": torch.ones_like(given["weight_scale"]),
        "bias": None,
        "zero_point": 0,
        "activation": "none",
    }


def _activated(values: Tensor, activation: str) -> Tensor:
    match activation:
        case "gelu":
            return functional.gelu(values)
        case "gelu-tanh":
            return functional.gelu(values, approximate="tanh")
        case "quick-gelu":
            return values * torch.sigmoid(1.702 * values)
    return values


class _LinearW4A16(Operation):
    not_about: ClassVar[Mapping[str, str]] = {
        "rounds-half-to-even": "no code comes out",
        "saturates": "no code comes out",
    }

    def choices(self) -> Iterator[dict[str, Any]]:
        for group in self.spec.groups:
            for asymmetric in (False, True) if self.spec.asymmetric else (False,):
                yield {"group": group, "asymmetric": asymmetric}

    def fitting(self, width: int) -> int:
        least = max(self.spec.groups)
        return max(least, width // least * least)

    def shapes(self) -> list[tuple[int, ...]]:
        given = (((1,), 1), ((2, 3), 300), ((17,), 1024), ((_TALL,), 1))
        return [(*rows, self.fitting(k)) for rows, k in given]

    def draw(
        self, choice: Mapping[str, Any], shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0
    ) -> Arguments:
        depth, group = shape[-1], choice["group"]
        width = _WIDTHS.get(prod(shape[:-1]), 33)
        asymmetric = choice["asymmetric"]
        low, high = _ends(4, asymmetric=asymmetric)
        codes = whole(low, high, width, depth, seed=seed + 1)
        zero = whole(0, 15, width, depth // group, seed=seed + 3).float() if asymmetric else None
        return {
            "x": normal(*shape, seed=seed, dtype=dtype),
            "packed": _packed(codes),
            "scale": _positive(width, depth // group, seed=seed + 2) / depth**0.5,
            "zero_point": zero,
            "group": group,
            "bias": normal(width, seed=seed + 4),
        }

    def expected(self, arguments: Arguments) -> Expected:
        given, spec = arguments, self.spec
        x, zero = given["x"], given["zero_point"]
        depth = x.shape[-1]
        codes = torch.stack([given["packed"] & 15, given["packed"] >> 4], -1).flatten(1).double()
        if zero is None:
            codes = torch.where(codes > 7, codes - 16, codes)
        else:
            codes = codes - _spread(zero.double(), given["group"], depth)
        weight = codes * _spread(given["scale"].double(), given["group"], depth)
        values, size = x.double() @ weight.t(), x.double().abs() @ weight.abs().t()
        if given["bias"] is not None:
            values, size = values + given["bias"].double(), size + given["bias"].double().abs()
        bound = (depth + spec.ulps) * _U * size
        if spec.rounds_weights:
            bound = bound + torch.finfo(x.dtype).eps * size
        return Expected(values, x.dtype, bound)

    def keeps_subnormals(self) -> Iterator[Arguments]:
        if "float16" in self.spec.dtypes:
            given = self.draw(self.first(), (3, self.fitting(64)), torch.float16)
            values = whole(-900, 900, *given["x"].shape) * 2.0**-24
            yield given | {"x": values.half(), "scale": given["scale"] * 1e4, "bias": None}

    def takes_extreme_scales(self) -> Iterator[Arguments]:
        for size in (1e-15, 1e15):
            given = self.draw(self.first(), (3, self.fitting(64)), torch.float32)
            yield given | {"scale": given["scale"] * size, "bias": None}

    def bad(self) -> Iterator[tuple[str, Arguments]]:
        given = self.draw(self.first(), (4, self.fitting(64)), self.dtype)
        packed = given["packed"]
        yield "x in float64", given | {"x": given["x"].double()}
        yield "codes that are not packed", given | {"packed": packed.repeat_interleave(2, 1)}
        yield "floats for codes", given | {"packed": packed.float()}
        yield "scales for other groups", given | {"scale": torch.ones(len(packed), 97)}
        yield "a bias for other channels", given | {"bias": torch.ones(len(packed) + 1)}
        x = torch.cat([given["x"], given["x"][:, :2]], 1)
        shorter = torch.cat([packed, packed[:, :1]], 1)
        yield "K that is no multiple of the group", given | {"x": x, "packed": shorter}


def _packed(codes: Tensor) -> Tensor:
    halves = codes & 15
    return (halves[:, ::2] + 16 * halves[:, 1::2]).to(torch.uint8)


class _Hadamard(Operation):
    not_about: ClassVar[Mapping[str, str]] = {
        "rounds-half-to-even": "no code comes out",
        "saturates": "no code comes out",
    }

    def choices(self) -> Iterator[dict[str, Any]]:
        for inverse in (False, True):
            yield {"inverse": inverse, "signs": True}
        yield {"inverse": False, "signs": False}

    def shapes(self) -> list[tuple[int, ...]]:
        return [(3, size) for size in self.spec.sizes or (1, 2, 64, 1024)]

    def fitting(self, width: int) -> int:
        return min(self.spec.sizes or (1, 2, 64, 1024), key=lambda size: abs(size - width))

    def draw(
        self, choice: Mapping[str, Any], shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0
    ) -> Arguments:
        size = shape[-1]
        return {
            "x": normal(*shape, seed=seed, dtype=dtype),
            "signs": 2.0 * whole(0, 1, size, seed=seed + 1) - 1 if choice["signs"] else None,
            "inverse": choice["inverse"],
            "base": hadamard_matrix(12).float() if size % 12 == 0 else None,
        }

    def expected(self, arguments: Arguments) -> Expected:
        x, signs = arguments["x"], arguments["signs"]
        size = x.shape[-1]
        matrix = hadamard_matrix(size)
        if arguments["base"] is not None:
            matrix = torch.kron(arguments["base"].double(), hadamard_matrix(size // 12))
        flip = 1.0 if signs is None else signs.double()
        wide = x.double() / size**0.5
        broken = ~wide.isfinite().all(-1, keepdim=True)
        kept = wide.masked_fill(broken, 0.0)
        values = (kept @ matrix.t()) * flip if arguments["inverse"] else (kept * flip) @ matrix
        added = log2(size) + (12 if size % 12 == 0 else 0)
        bound = (added + self.spec.ulps) * _U * kept.abs().sum(-1, keepdim=True) + 0 * values
        return Expected(values.masked_fill(broken, torch.nan), x.dtype, bound)

    def keeps_subnormals(self) -> Iterator[Arguments]:
        given = self.draw(self.first(), (3, self.fitting(64)), torch.float32)
        yield given | {"x": given["x"] * 2.0**-130}

    def takes_extreme_scales(self) -> Iterator[Arguments]:
        for size in (1e-30, 1e30):
            given = self.draw(self.first(), (3, self.fitting(64)), torch.float32)
            yield given | {"x": given["x"] * size}

    def bad(self) -> Iterator[tuple[str, Arguments]]:
        given = self.draw(self.first(), (4, self.fitting(64)), self.dtype)
        yield "x in float64", given | {"x": given["x"].double()}
        yield "integers for x", given | {"x": given["x"].int()}
        yield "a size that has no transform", given | {"x": normal(4, 37), "signs": None}
        yield "signs for other columns", given | {"signs": torch.ones(self.fitting(64) + 1)}


class _QuantizeLayerNorm(Operation):
    not_about: ClassVar[Mapping[str, str]] = {
        "rounds-half-to-even": "a sum of floats is not halfway to the last bit",
    }

    def choices(self) -> Iterator[dict[str, Any]]:
        for asymmetric in (False, True) if self.spec.asymmetric else (False,):
            for affine in (True, False):
                yield {"asymmetric": asymmetric, "affine": affine}

    def shapes(self) -> list[tuple[int, ...]]:
        return [(*rows, self.fitting(k)) for rows, k in (((1,), 1), ((2, 3), 50), ((7,), 769))]

    def draw(
        self, choice: Mapping[str, Any], shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0
    ) -> Arguments:
        width = shape[-1]
        return {
            "x": normal(*shape, seed=seed, dtype=dtype),
            "weight": normal(width, seed=seed + 1) if choice["affine"] else None,
            "bias": normal(width, seed=seed + 2) if choice["affine"] else None,
            "eps": 1e-5,
            "scale": torch.tensor(0.05),
            "zero_point": torch.tensor(-5.0) if choice["asymmetric"] else None,
            "low": -128,
            "high": 127,
        }

    def expected(self, arguments: Arguments) -> Expected:
        given = arguments
        x = given["x"].double()
        unknown = ~x.isfinite().all(-1, keepdim=True) & torch.ones_like(x, dtype=torch.bool)
        x = x.masked_fill(unknown, 0.0)
        width = x.shape[-1]
        gain = torch.ones(width) if given["weight"] is None else given["weight"]
        shift = torch.zeros(width) if given["bias"] is None else given["bias"]
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + given["eps"]).sqrt()
        normed, scale = centred / deviation, given["scale"].double()
        zero = 0.0 if given["zero_point"] is None else given["zero_point"].double()
        steps = (normed * gain.double() + shift.double()) / scale + zero
        # The mean is off by `width` roundings of the largest value; so is what is centred by it.
        largest = x.abs().amax(-1, keepdim=True) / deviation
        moved = (width + self.spec.ulps) * _U * (1 + largest) * (1 + normed.abs())
        size = gain.double().abs() * moved + 4 * _U * (normed * gain + shift).double().abs()
        steps = steps.clamp(given["low"], given["high"])
        kind = torch.int8 if given["high"] <= 127 else torch.uint8
        return Expected(steps, kind, 0.5 + size / scale, unknown)

    def saturates(self) -> Iterator[Arguments]:
        for gain in (1e4, 1e30):
            given = self.draw(self.first(), (3, self.fitting(50)), torch.float32)
            yield given | {"weight": torch.full((self.fitting(50),), gain), "bias": None}

    def keeps_subnormals(self) -> Iterator[Arguments]:
        if "float16" in self.spec.dtypes:
            given = self.draw(self.first(), (3, self.fitting(50)), torch.float16)
            values = whole(-900, 900, *given["x"].shape) * 2.0**-24
            yield given | {"x": values.half(), "eps": 1e-12}

    def takes_extreme_scales(self) -> Iterator[Arguments]:
        for size in (1e-15, 1e15):
            given = self.draw(self.first(), (3, self.fitting(50)), torch.float32)
            yield given | {"x": given["x"] * size, "eps": 0.0}
        # The mean of squares less the square of the mean loses a variance so far from zero.
        given = self.draw(self.first(), (3, self.fitting(50)), torch.float32)
        yield given | {"x": given["x"] + 1e4}

    def bad(self) -> Iterator[tuple[str, Arguments]]:
        given = self.draw(self.first(), (4, self.fitting(64)), self.dtype)
        other = torch.ones(given["x"].shape[1] + 1)
        yield "x in float64", given | {"x": given["x"].double()}
        yield "integers for x", given | {"x": given["x"].int()}
        yield "a weight for other columns", given | {"weight": other}
        yield "a bias for other columns", given | {"bias": other}
        yield "a scale per column", given | {"scale": other}


_OPERATIONS: dict[str, Callable[[KernelSpec], Operation]] = {
    "quantize": _Quantize,
    "fake-quantize": _FakeQuantize,
    "fake-quantize-dynamic": _FakeQuantizeDynamic,
    "linear-w8a8": _LinearW8A8,
    "linear-w4a16": _LinearW4A16,
    "hadamard": _Hadamard,
    "quantize-layer-norm": _QuantizeLayerNorm,
}
