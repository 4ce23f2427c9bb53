"""What each trained method rounds with: which formats it takes, and how its rounders begin.

| method | weights | inputs |
|---|---|---|
| `lsq`, `rot+lsq` | learnt steps | a learnt step; with `z` a learnt offset, too |
| the same, `variant=absmax` | steps from max|w|, anew each time | as above |
| `pact` | DoReFa's levels | a learnt clip ±α |
| `dorefa` | DoReFa's levels | a calibrated range |

Inputs with dynamic formats (`a8d`) have nothing to learn: they are rounded to their token's own
range, and the gradient passes straight through.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from clipq.errors import QuantizerError
from clipq.quant.activations import StaticQuantizer
from clipq.quant.formats import ActivationFormat, Format, WeightFormat
from clipq.quant.grids import choose_grid
from clipq.quant.options import CommonOptions, read_choice
from clipq.quant.spec import QuantizerSpec
from clipq.quant.trainable.initial_steps import (
    FirstInput,
    initial_weight_steps,
    weights_per_step,
)
from clipq.quant.trainable.input_rounders import (
    InputRounder,
    LearnedClip,
    LearnedInputStep,
    LearnedOffset,
)
from clipq.quant.trainable.weight_rounders import (
    AbsmaxWeights,
    LearnedWeightSteps,
    TanhWeights,
    WeightRounder,
)

__all__ = ["Arithmetic", "SeenInput", "arithmetic_of"]

_INITS = ("ema", "lsq", "lsq+", "minmax", "mse")
_RANGES = ("ema", "minmax", "mse")


@dataclass(frozen=True, slots=True)
class SeenInput:
    """What calibration shows of one layer's input.

    Args:
        first: of the first batch.
        range: as an estimator chooses it; None where none is asked.
    """

    first: FirstInput
    range: tuple[float, float] | None = None


class Arithmetic(Protocol):
    """How a method rounds while it is trained."""

    @property
    def own(self) -> tuple[str, ...]:
        """Names of the method's own options."""

    def check(self, number_format: Format) -> None:
        """Refuse a layer's format that the method does not make."""

    def estimator(self, activation: ActivationFormat) -> str | None:
        """Return the name of the range estimator for an input; None where the first batch does."""

    def weights(self, weight: Tensor, number_format: WeightFormat) -> WeightRounder:
        """Return what rounds a weight, as it begins."""

    def inputs(
        self, activation: ActivationFormat, seen: SeenInput
    ) -> InputRounder | StaticQuantizer:
        """Return what rounds a static input, as it begins."""


def arithmetic_of(spec: QuantizerSpec) -> Arithmetic:
    """Return the arithmetic of a trained method.

    Raises:
        QuantizerError: an option's value is unknown, or the method is none of clipq's that train.

    >>> arithmetic_of(QuantizerSpec.parse("lsq:w4a8,init=lsq")).init
    'lsq'
    """
    match spec.method:
        case "lsq" | "rot+lsq":
            absmax = read_choice(spec, "variant", ("absmax", "canonical"), "canonical") == "absmax"
            if absmax:
                return _Lsq(read_choice(spec, "init", _RANGES, "ema"), absmax=True)
            return _Lsq(read_choice(spec, "init", _INITS, "mse"), absmax=False)
        case "pact":
            return _Pact(read_choice(spec, "init", _RANGES, "mse"))
        case "dorefa":
            return _DoReFa(CommonOptions.read(spec).range)
    raise QuantizerError(
        f"quantizer method {spec.method!r} has no trainable form",
        hint=f'register it with what prepares it: @quantizers.register("{spec.method}", '
        "trains=True, prepare=...); clipq.quant.trainable.trained_method says what that returns",
    )


@dataclass(frozen=True, slots=True)
class _Lsq:
    init: str
    absmax: bool
    own = ("init", "variant")

    def check(self, number_format: Format) -> None:
        _check_weights("LSQ", number_format)
        _check_integers("LSQ", number_format)

    def estimator(self, activation: ActivationFormat) -> str | None:
        if self.init == "lsq":
            return "minmax" if activation.asymmetric else None
        return "mse" if self.init == "lsq+" else self.init

    def weights(self, weight: Tensor, number_format: WeightFormat) -> WeightRounder:
        if self.absmax:
            return AbsmaxWeights(number_format)
        steps = initial_weight_steps(weight, number_format, self.init)
        return LearnedWeightSteps(number_format, steps, weights_per_step(weight, number_format))

    def inputs(self, activation: ActivationFormat, seen: SeenInput) -> InputRounder:
        features, high = seen.first.features, 2 ** (activation.bits - 1) - 1
        if seen.range is None:
            step = 2.0 * (seen.first.absolute or 1.0) / high**0.5
            return LearnedInputStep(activation, step=step, features=features)
        low, largest = seen.range if any(seen.range) else (-1.0, 1.0)
        grid = choose_grid(torch.tensor(low), torch.tensor(largest), activation)
        step = float(grid.scale)
        if activation.asymmetric:
            offset = min(low, 0.0)
            return LearnedOffset(activation, step=step, offset=offset, features=features)
        return LearnedInputStep(activation, step=step, features=features)


@dataclass(frozen=True, slots=True)
class _Pact:
    init: str
    own = ("init",)

    def check(self, number_format: Format) -> None:
        _check_weights("PACT", number_format)
        _check_integers("PACT", number_format)
        activation = number_format.activation
        if activation is None or activation.dynamic or activation.asymmetric:
            raise QuantizerError(
                f"PACT learns where inputs are clipped, and {number_format} has no one clip",
                hint="it takes symmetric static inputs, such as w4a4 or w4a8",
            )

    def estimator(self, activation: ActivationFormat) -> str | None:
        return self.init

    def weights(self, weight: Tensor, number_format: WeightFormat) -> WeightRounder:
        return TanhWeights(number_format)

    def inputs(self, activation: ActivationFormat, seen: SeenInput) -> InputRounder:
        low, high = seen.range or (0.0, 0.0)
        return LearnedClip(activation, alpha=max(-low, high) or 1.0)


@dataclass(frozen=True, slots=True)
class _DoReFa:
    range: str
    own = ("range",)

    def check(self, number_format: Format) -> None:
        _check_weights("DoReFa", number_format)
        _check_integers("DoReFa", number_format)

    def estimator(self, activation: ActivationFormat) -> str | None:
        return self.range

    def weights(self, weight: Tensor, number_format: WeightFormat) -> WeightRounder:
        return TanhWeights(number_format)

    def inputs(self, activation: ActivationFormat, seen: SeenInput) -> StaticQuantizer:
        low, high = seen.range or (0.0, 0.0)
        return StaticQuantizer(activation, low=low, high=high)


def _check_weights(method: str, number_format: Format) -> None:
    weight = number_format.weight
    if weight.number != "int" or weight.asymmetric or weight.power_of_two:
        raise QuantizerError(
            f"{method} cannot train weights in {number_format}",
            hint="it takes symmetric integers of 2 to 8 bits, with a step per channel, tensor or "
            "group: w4, w4t or w4g32",
        )


def _check_integers(method: str, number_format: Format) -> None:
    activation = number_format.activation
    if activation is not None and (activation.number != "int" or activation.power_of_two):
        raise QuantizerError(
            f"{method} cannot round inputs in {number_format}",
            hint="it takes integers of 2 to 8 bits: a8 or a4, a8z with an offset, or a8d and "
            "a8dg64, whose scales are not learnt; or leave inputs in float",
        )
