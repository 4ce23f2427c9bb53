"""Operations that multiply by a quantized weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    signs,
    spread,
    whole,
)

__all__ = ["LinearW4A16", "LinearW8A8"]


class LinearW8A8(Operation):
    not_about: ClassVar[Mapping[str, str]] = {
        "rounds-half-to-even": "no code comes out",
        "saturates": "no code comes out",
        "keeps-subnormals": "codes are integers, scales normal floats",
    }

    multiplies: ClassVar[bool] = True

    def options(self) -> dict[str, tuple[Any, ...]]:
        kinds = tuple(kind for kind in ("row", "tensor") if kind in self.spec.granularities)
        return {
            "grain": tuple((kind, None) for kind in kinds),
            "bias": (True, False),
            "zero_point": signs(self.spec),
            "activation": self.spec.activations,
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
        depth = shape[-1]
        tokens = (*shape[:-1], 1) if choice["grain"][0] == "row" else ()
        return {
            "x": whole(-128, 127, *shape, seed=seed).to(torch.int8),
            "weight": whole(-128, 127, columns, depth, seed=seed + 1).to(torch.int8),
            "x_scale": positive(*tokens, seed=seed + 2) / depth,
            "weight_scale": positive(columns, seed=seed + 3) / 100,
            "zero_point": (-7, 100, 3, -128)[seed % 4] if choice["zero_point"] else 0,
            "bias": normal(columns, seed=seed + 4) if choice["bias"] else None,
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
        shapes = ((3, 4099), (1, 4096), (17, 1280), (64, 2048), (2, 3072), (1, 5120), (5, 10007))
        for number, (rows, width) in enumerate(shapes):
            given = self.draw(self.first(), (rows, self.fitting(width)), torch.float32)
            depth, sign = given["x"].shape[1], (1, -1)[number % 2]
            given["x"].fill_(127)
            given["weight"].fill_(sign * 127)
            given["weight"][:, depth // 2 :: 3] = sign * 63
            given["weight"][1::2, -1] = sign * 126  # some sums are even
            given["x"][1::2, ::5] = 1
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

    multiplies: ClassVar[bool] = True
    adds_floats: ClassVar[bool] = True

    def options(self) -> dict[str, tuple[Any, ...]]:
        return {
            "grain": tuple(("group", group) for group in self.spec.groups),
            "bias": (True, False),
            "asymmetric": signs(self.spec),
        }

    def fitting(self, width: int, choice: Mapping[str, Any] | None = None) -> int:
        group = max(self.spec.groups) if choice is None else choice["grain"][1]
        return max(group, width // group * group)

    def draw(
        self,
        choice: Mapping[str, Any],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        seed: int = 0,
        *,
        columns: int = 40,
    ) -> Arguments:
        depth, group, asymmetric = shape[-1], choice["grain"][1], choice["asymmetric"]
        low, high = ends(4, asymmetric=asymmetric)
        codes = whole(low, high, columns, depth, seed=seed + 1)
        parts = (columns, depth // group)
        zero = whole(0, 15, *parts, seed=seed + 3).float() if asymmetric else None
        x, bias = normal(*shape, seed=seed, dtype=dtype), normal(columns, seed=seed + 4)
        scale = positive(*parts, seed=seed + 2) / depth**0.5
        if seed % 2:
            most = 8 if depth <= 8192 else 1
            x = whole(-most, most, *shape, seed=seed).to(dtype)
            scale, bias = 2.0 ** whole(-3, 0, *parts, seed=seed + 2), bias.round()
        return {
            "x": x,
            "packed": _packed(codes),
            "scale": scale,
            "zero_point": zero,
            "group": group,
            "bias": bias if choice["bias"] else None,
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
        scale = given["scale"].double()
        weight = codes * spread(scale, given["group"], depth)
        values = x.double() @ weight.t()
        size = (x.float().abs() @ weight.float().abs().t()).double()
        if given["bias"] is not None:
            values, size = values + given["bias"].double(), size + given["bias"].double().abs()
        # Whole values and codes, in steps of a power of two, are added without an error.
        steps = scale.amin()
        powers = (torch.frexp(scale)[0] == 0.5).all() & (size < 2**24 * steps)
        exact = powers & (x == x.round()).all()
        if given["bias"] is not None:
            exact &= (given["bias"] == given["bias"].round()).all()
        bound = (torch.where(exact, 0, depth) + spec.ulps) * U * size
        if spec.rounds_weights:
            bound = bound + torch.where(exact, 0, torch.finfo(x.dtype).eps) * size
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
