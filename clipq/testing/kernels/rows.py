"""Operations on whole rows: the Hadamard transform, and layer norm with its rounding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import log2
from typing import Any, ClassVar

import torch

from clipq.quant.transforms.hadamard import hadamard_matrix
from clipq.testing.kernels.operation import Arguments, Expected, Operation, U, normal, whole

__all__ = ["Hadamard", "QuantizeLayerNorm"]


class Hadamard(Operation):
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
        finite = wide.masked_fill(broken, 0.0)
        values = (finite @ matrix.t()) * flip if arguments["inverse"] else (finite * flip) @ matrix
        added = log2(size) + (12 if size % 12 == 0 else 0)
        bound = (added + self.spec.ulps) * U * finite.abs().sum(-1, keepdim=True) + 0 * values
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


class QuantizeLayerNorm(Operation):
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
        moved = (width + self.spec.ulps) * U * (1 + largest) * (1 + normed.abs())
        size = gain.double().abs() * moved + 4 * U * (normed * gain + shift).double().abs()
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
