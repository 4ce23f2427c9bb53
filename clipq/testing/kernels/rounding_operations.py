"""Operations that round: to codes, or to the values of a grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from clipq.quant import ActivationFormat
from clipq.quant.activations import DynamicQuantizer
from clipq.quant.affine import QParams, quantize_codes
from clipq.quant.grids import fake_quantize
from clipq.testing.kernels.operation import (
    TINY,
    Arguments,
    Expected,
    Operation,
    ends,
    grains,
    normal,
    positive,
    signs,
    spread,
    whole,
)

__all__ = ["FakeQuantize", "FakeQuantizeDynamic", "Quantize"]


class _Static(Operation):
    """Rounding to a grid that is given."""

    def options(self) -> dict[str, tuple[Any, ...]]:
        spec = self.spec
        return {"grain": grains(spec), "bits": spec.bits, "asymmetric": signs(spec)}

    def draw(
        self,
        choice: Mapping[str, Any],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        seed: int = 0,
        *,
        columns: int = 40,
    ) -> Arguments:
        width, (granularity, group) = shape[-1], choice["grain"]
        count = 1 if group is None else -(-width // group)
        parts = () if granularity == "tensor" else (*shape[:-1], count)
        low, high = ends(choice["bits"], asymmetric=choice["asymmetric"])
        # Steps so wide that most values lie within the ends, and some beyond.
        scale = positive(*parts, seed=seed + 1) * (4 / (high - low))
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
        scale, zero = spread(given["scale"], given["group"], width), given["zero_point"]
        if zero is not None:
            zero = spread(zero, given["group"], width)
        return QParams(scale, zero, given["low"], given["high"])

    def rounds_half_to_even(self) -> Iterator[Arguments]:
        low, high = ends(max(self.spec.bits), asymmetric=False)
        halves = torch.arange(low - 2, high + 2, 0.5)
        yield self._given(halves, 1.0)
        yield self._given(halves * 0.25, 0.25)
        if self.spec.asymmetric:
            # x / s is rounded, then moved: the other way round, an odd zero point turns halves.
            given = self._given(halves, 1.0)
            yield given | {"zero_point": torch.full_like(given["scale"], -3.0)}

    def saturates(self) -> Iterator[Arguments]:
        low, high = ends(max(self.spec.bits), asymmetric=False)
        last = [low - 0.75, low - 1.0, high + 0.25, high + 0.5, high + 1.0]
        beyond = [300.0, 1e5, 3e9, 1e30, 3.4e38, torch.inf]
        values = torch.tensor([*last, *beyond, *(-value for value in beyond)])
        yield self._given(values, 1.0)
        yield self._given(values, 1e-20)

    def keeps_subnormals(self) -> Iterator[Arguments]:
        yield self._given(torch.arange(-8.0, 8.0, 0.25) * TINY, TINY)
        if "float16" in self.spec.dtypes:
            values = (torch.arange(-40.0, 40.0) * 2.0**-24).half()
            yield self._given(values, 2.0**-22)

    def takes_extreme_scales(self) -> Iterator[Arguments]:
        values = torch.cat([torch.arange(-130, 130, 0.5), normal(201) * 20])
        for scale in (TINY, 1e-30, 1e-20, 1e10, 1e30):
            yield self._given(values * scale, scale)

    def _given(self, values: Tensor, scale: float) -> Arguments:
        """Return a call on values (K,), one of the granularities and lengths that are taken."""
        choice = self.first()
        width = self.fitting(len(values))
        row = values.repeat(-(-width // len(values)))[:width] if width else values
        given = self.draw(choice, (2, width), row.dtype)
        low, high = ends(max(self.spec.bits), asymmetric=False)
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


class Quantize(_Static):
    def expected(self, arguments: Arguments) -> Expected:
        x, low, high = arguments["x"], arguments["low"], arguments["high"]
        unknown = x.isnan()
        codes = quantize_codes(x.masked_fill(unknown, 0), self.grid(arguments))
        kind = torch.int8 if low >= -128 and high <= 127 else torch.uint8
        return Expected(codes.to(kind), kind, anything=unknown)


class FakeQuantize(_Static):
    def expected(self, arguments: Arguments) -> Expected:
        x = arguments["x"]
        return Expected(fake_quantize(x, self.grid(arguments)), x.dtype)


class FakeQuantizeDynamic(Operation):
    not_about: ClassVar[Mapping[str, str]] = {
        "saturates": "a range of its own holds every value",
    }

    def options(self) -> dict[str, tuple[Any, ...]]:
        spec = self.spec
        return {"grain": grains(spec), "bits": spec.bits, "asymmetric": signs(spec)}

    def draw(
        self,
        choice: Mapping[str, Any],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        seed: int = 0,
        *,
        columns: int = 40,
    ) -> Arguments:
        return {
            "x": normal(*shape, seed=seed, dtype=dtype),
            "bits": choice["bits"],
            "asymmetric": choice["asymmetric"],
            "group": choice["grain"][1],
        }

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
        group = self.group_of(self.first())
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
                "x": normal(3, self.fitting(64)) * TINY
            }

    def takes_extreme_scales(self) -> Iterator[Arguments]:
        for choice in self.choices():
            for size in (1e-36, 1e-20, 1e20, 1e37):
                given = self.draw(choice, (3, self.fitting(70)), torch.float32)
                yield given | {"x": given["x"] * size}

    def bad(self) -> Iterator[tuple[str, Arguments]]:
        given = self.draw(self.first(), (4, self.fitting(64)), self.dtype)
        yield "x in float64", given | {"x": given["x"].double()}
        yield "integers for x", given | {"x": given["x"].int()}
        yield "no bits", given | {"bits": 0}
        yield "99 bits", given | {"bits": 99}
        yield "a group of nothing", given | {"group": 0}
        yield from self.ragged()
