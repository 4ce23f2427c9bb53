"""Operations on whole rows: the Hadamard transform, and layer norm with its rounding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import log2
from typing import Any, ClassVar

import torch
from torch import Tensor

from clipq.quant.transforms.hadamard import hadamard_matrix
from clipq.testing.kernels.operation import (
    Arguments,
    Expected,
    Operation,
    U,
    exactly_added,
    normal,
    signs,
    whole,
)

__all__ = ["Hadamard", "QuantizeLayerNorm"]


class Hadamard(Operation):
    not_about: ClassVar[Mapping[str, str]] = {
        "rounds-half-to-even": "no code comes out",
        "saturates": "no code comes out",
    }

    def options(self) -> dict[str, tuple[Any, ...]]:
        return {"signs": (True, False), "inverse": (False, True)}

    def fitting(self, width: int, choice: Mapping[str, Any] | None = None) -> int:
        return min(self.depths(), key=lambda size: abs(size - width))

    def depths(self) -> tuple[int, ...]:
        return self.spec.sizes or tuple(2**power for power in range(15))

    def draw(
        self,
        choice: Mapping[str, Any],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        seed: int = 0,
        *,
        columns: int = 40,
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
        base, inverse = arguments["base"], arguments["inverse"]
        flip = 1.0 if signs is None else signs.double()
        wide = x.double() / size**0.5
        broken = ~wide.isfinite().all(-1, keepdim=True)
        finite = wide.masked_fill(broken, 0.0)
        turned = _transformed(finite if inverse else finite * flip, base, inverse=inverse)
        values = turned * flip if inverse else turned
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


def _transformed(x: Tensor, base: Tensor | None, *, inverse: bool) -> Tensor:
    """Return x (..., n) by a Hadamard matrix, a factor of its Kronecker product after the other."""
    size = x.shape[-1] if base is None else x.shape[-1] // 12
    half = 2 ** (int(log2(size)) // 2)
    values = x.reshape(*x.shape[:-1], -1, half, size // half)
    values = hadamard_matrix(half) @ values @ hadamard_matrix(size // half)  # both symmetric
    if base is not None:
        matrix = base.double() if inverse else base.double().t()
        values = (matrix @ values.flatten(-2)).view(values.shape)
    return values.flatten(-3)


class QuantizeLayerNorm(Operation):
    adds_floats: ClassVar[bool] = True
    not_about: ClassVar[Mapping[str, str]] = {
        "rounds-half-to-even": "a sum of floats is not halfway to the last bit",
    }

    def options(self) -> dict[str, tuple[Any, ...]]:
        return {
            "weight": (True, False),
            "bias": (True, False),
            "asymmetric": signs(self.spec),
        }

    def draw(
        self,
        choice: Mapping[str, Any],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        seed: int = 0,
        *,
        columns: int = 40,
    ) -> Arguments:
        width = shape[-1]
        x, gain = normal(*shape, seed=seed, dtype=dtype), normal(width, seed=seed + 1)
        shift, scale = normal(width, seed=seed + 2), torch.tensor(0.05)
        if seed % 2:
            # Means and variances are whole, normed values 1 and -1, and what becomes of them lies
            # so near to halfway between two codes that a value left out of thousands moves it.
            x, scale = _balanced(shape, seed).to(dtype), torch.tensor(1 / 60.498)
            gain = (whole(20, 90, width, seed=seed + 1) + 0.498) * scale
            shift = whole(-9, 9, width, seed=seed + 2) * scale
        return {
            "x": x,
            "weight": gain if choice["weight"] else None,
            "bias": shift if choice["bias"] else None,
            "eps": 1e-5,
            "scale": scale,
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
        # The mean is off by `width` roundings of the largest value; so is what is centred by it;
        # or, where no sum rounds, by those of a division and a root.
        exact = exactly_added(x) & exactly_added(centred) & exactly_added(centred.square())
        added = torch.where(exact, 8.0, float(max(width, 8)))
        largest = x.abs().amax(-1, keepdim=True) / deviation
        moved = (added + self.spec.ulps) * U * (1 + largest) * (1 + normed.abs())
        size = gain.double().abs() * moved + 4 * U * (normed * gain + shift).double().abs()
        steps = steps.clamp(given["low"], given["high"])
        kind = torch.int8 if given["high"] <= 127 else torch.uint8
        return Expected(steps, kind, 0.5 + size / scale, unknown)

    def group_of(self, choice: Mapping[str, Any]) -> int | None:
        return None

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


def _balanced(shape: tuple[int, ...], seed: int) -> Tensor:
    """Return rows with as many values above a whole mean as below, a whole deviation away."""
    *rows, width = shape
    order = torch.rand(shape, generator=torch.Generator().manual_seed(seed)).argsort(-1)
    sides = 1.0 - 2.0 * (order % 2)
    if width % 2:
        sides[order == width - 1] = 0.0  # it has no partner
    mean = whole(-3, 3, *rows, 1, seed=seed + 5)
    return mean + sides * 2.0 ** whole(1, 2, *rows, 1, seed=seed + 6)
