"""Operations that multiply by a quantized weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from clipq.testing.kernels.operation import (
    Arguments,
    Expected,
    Operation,
    U,
    ends,
    normal,
    positive,
    spread,
    whole,
)

__all__ = ["LinearW4A16", "LinearW8A8"]

_TALL = 133  # rows and columns of a product: more than one tile of 128, no multiple
_WIDTHS = {1: 1, 5: 33, 6: 17, 7: 9, _TALL: _TALL}  # of weights, by rows of x


class LinearW8A8(Operation):
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
            "x_scale": positive(*tokens, seed=seed + 2) / depth,
            "weight_scale": positive(width, seed=seed + 3) / 100,
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
        bound = ulps * U * size
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


class LinearW4A16(Operation):
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
        low, high = ends(4, asymmetric=asymmetric)
        codes = whole(low, high, width, depth, seed=seed + 1)
        zero = whole(0, 15, width, depth // group, seed=seed + 3).float() if asymmetric else None
        return {
            "x": normal(*shape, seed=seed, dtype=dtype),
            "packed": _packed(codes),
            "scale": positive(width, depth // group, seed=seed + 2) / depth**0.5,
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
            codes = codes - spread(zero.double(), given["group"], depth)
        weight = codes * spread(given["scale"].double(), given["group"], depth)
        values, size = x.double() @ weight.t(), x.double().abs() @ weight.abs().t()
        if given["bias"] is not None:
            values, size = values + given["bias"].double(), size + given["bias"].double().abs()
        bound = (depth + spec.ulps) * U * size
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
