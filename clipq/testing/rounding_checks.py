"""Invariants of rounding a weight to a number format.

Bounds are derived, not tuned. With u = 2⁻²⁴ (half an ULP of 1 in float32), fl(x / s) is off by
|x / s| u and fl(s · q) by |s · q| u, and the scale itself carries a few roundings, so that

    |x̂ - x| <= s / 2 + 4u (|x| + n s)        n: the number of codes

The step s is computed here in float64 from the format's definition, not taken from what is checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clipq.errors import ClipqError
from clipq.quant import WeightFormat
from clipq.testing.checks import Check, expect
from clipq.testing.strategies import finite_floats, moderate_floats, tensors

__all__ = ["check_rounding"]

RoundWeight = Callable[[Tensor, WeightFormat], Tensor]
_U = 2.0**-24
_TINY = float(np.finfo(np.float32).tiny)


def check_rounding(
    round_weight: RoundWeight,
    number_format: WeightFormat,
    *,
    elements: st.SearchStrategy[float] | None = None,
    examples: int | None = None,
    columns: int = 2048,
    ties: bool = True,
) -> Iterator[Check]:
    """Yield the invariants of rounding to nearest.

    Args:
        round_weight: takes a weight (out, in) and a format; returns the rounded weight in the
            weight's shape and dtype, or refuses with a `ClipqError`.
        number_format: what it is called with; with one more bit where that exists.
        elements: of the weights drawn; by default any finite values up to 2⁹⁹.
        examples: drawn per invariant; by default what the Hypothesis profile says.
        columns: of the widest weight that `round_weight` takes, at least 12.
        ties: whether halfway cases are promised to go to the even code.

    >>> checks = check_rounding(lambda weight, number_format: weight, WeightFormat(4))
    >>> {check.invariant: check for check in checks}["has-as-many-levels-as-codes"]()  # nothing is
    Traceback (most recent call last):
    clipq.testing.checks.Violation: ...has 2048 levels, more than 2^4
    """
    rounding = _Rounding(round_weight, number_format, elements, examples, columns)
    checks = [
        rounding.keeps_shape_and_original,
        rounding.is_nearest,
        rounding.has_as_many_levels_as_codes,
        rounding.keeps_zero,
        rounding.keeps_order,
        rounding.scales_with_powers_of_two,
        rounding.commutes_with_permutations_of_channels,
        rounding.shows_nan_and_infinity,
        rounding.computes_half_precision_in_float32,
    ]
    integers = number_format.number == "int"
    if integers:
        checks.append(rounding.errs_by_half_a_step_at_most)
    # The scale is chosen anew from what was rounded. It stays, but for asymmetric ranges, whose
    # ends move with the zero point, and NF4's coarse upper values under a scale rounded up.
    if not number_format.asymmetric:
        if not (number_format.number == "nf4" and number_format.power_of_two):
            checks.append(rounding.is_idempotent)
        if number_format.number != "nf4":
            checks.append(rounding.is_odd)
    if number_format.granularity != "tensor":
        checks.append(rounding.keeps_blocks_apart)
    if integers and number_format.bits < 8:
        checks.append(rounding.improves_with_a_bit)
    size = number_format.granularity
    wide = not isinstance(size, int) or size >= 8
    if ties and integers and wide and not number_format.asymmetric:
        checks.append(rounding.takes_ties_to_even)
    for check in checks:
        yield Check(str(number_format), check.__name__.replace("_", "-"), check)


class _Rounding:
    def __init__(
        self,
        call: RoundWeight,
        number_format: WeightFormat,
        elements: st.SearchStrategy[float] | None,
        examples: int | None,
        columns: int,
    ) -> None:
        self.call, self.format = call, number_format
        self.examples, self.columns = examples, columns
        self.elements = finite_floats() if elements is None else elements

    def round(self, weight: Tensor) -> Tensor:
        return self.call(weight, self.format)

    def each(self, body: Callable[..., None], **strategies: st.SearchStrategy[Any]) -> None:
        """Run `body` on drawn weights, and on what else is drawn."""
        kwargs: dict[str, Any] = {} if self.examples is None else {"max_examples": self.examples}
        drawn = {"weight": tensors(self.elements, dims=2), **strategies}
        settings(deadline=None, **kwargs)(given(**drawn)(body))()

    def keeps_shape_and_original(self) -> None:
        def body(weight: Tensor) -> None:
            before = weight.clone()
            rounded = self.round(weight)
            expect(torch.equal(weight, before), f"rounding changed its input {before}")
            expect(rounded.shape == weight.shape, f"{weight.shape} became {rounded.shape}")
            expect(rounded.dtype == weight.dtype, f"{weight.dtype} became {rounded.dtype}")
            expect(torch.isfinite(rounded).all(), f"{weight} became {rounded}")
            expect(torch.equal(rounded, self.round(weight)), f"{weight} rounds in two ways")

        self.each(body)

    def errs_by_half_a_step_at_most(self) -> None:
        def body(weight: Tensor) -> None:
            for values, rounded in self._pairs(weight):
                step = self._step(values)
                slack = 4 * _U * (np.abs(values) + 2**self.format.bits * step) + 2.0**-149
                error = np.abs(rounded - values)
                expect(
                    (error <= step / 2 + slack).all(),
                    f"{values} became {rounded}, off by {error.max() / step:.3g} steps of {step}",
                )

        self.each(body)

    def is_nearest(self) -> None:
        def body(weight: Tensor) -> None:
            for values, rounded in self._pairs(weight):
                levels = np.unique(rounded)
                closest = np.abs(values[:, None] - levels).min(1)
                slack = 4 * _U * (np.abs(values) + np.abs(levels).max()) + 2.0**-149
                expect(
                    (np.abs(rounded - values) <= closest + slack).all(),
                    f"{values} became {rounded} although a nearer level was in use",
                )

        for weight in self._wide():  # where every level is in use
            body(weight)
        self.each(body)

    def has_as_many_levels_as_codes(self) -> None:
        for weight in self._wide():
            for values, rounded in self._pairs(weight):
                levels = len(np.unique(rounded))
                expect(
                    levels <= 2**self.format.bits,
                    f"{values} has {levels} levels, more than 2^{self.format.bits}",
                )

    def keeps_zero(self) -> None:
        def body(weight: Tensor) -> None:
            holed = weight.clone()
            holed.flatten()[::2] = 0.0
            rounded = self.round(holed)
            expect((rounded[holed == 0] == 0).all(), f"a zero of {holed} became another value")
            zeros = torch.zeros_like(weight)
            expect(torch.equal(self.round(zeros), zeros), f"zeros became {self.round(zeros)}")

        self.each(body)

    def keeps_order(self) -> None:
        def body(weight: Tensor) -> None:
            for values, rounded in self._pairs(weight):
                ascending = rounded[np.argsort(values, kind="stable")]
                expect((np.diff(ascending) >= 0).all(), f"{values} became {rounded}")

        self.each(body)

    def is_idempotent(self) -> None:
        def body(weight: Tensor) -> None:
            once = self.round(weight)
            twice = self.round(once)
            for (first, second), (values, _) in zip(
                self._pairs(once, twice), self._pairs(weight), strict=True
            ):
                # The scale is chosen anew, which may move it by its own rounding.
                slack = 8 * _U * np.abs(values).max() + 2.0**-149
                expect(
                    (np.abs(first - second) <= slack).all(), f"{first} became {second} when rounded"
                )

        self.each(body)

    def is_odd(self) -> None:
        def body(weight: Tensor) -> None:
            rounded, mirrored = self.round(weight), self.round(-weight)
            expect(torch.equal(mirrored, -rounded), f"{weight}: {rounded}, negated {mirrored}")

        self.each(body)

    def scales_with_powers_of_two(self) -> None:
        def body(weight: Tensor, exponent: int) -> None:
            # Exact only while no scale is denormal, hence clamped.
            weight = torch.where(weight.abs() < 1e-20, 0.0, weight)
            factor = 2.0**exponent
            rounded, scaled = self.round(weight), self.round(weight * factor)
            expect(torch.equal(scaled, rounded * factor), f"{weight} times 2^{exponent}")

        kwargs = {"weight": tensors(moderate_floats(), dims=2)}
        self.each(body, exponent=st.integers(-20, 20), **kwargs)

    def commutes_with_permutations_of_channels(self) -> None:
        def body(weight: Tensor, data: st.DataObject) -> None:
            order = torch.tensor(data.draw(st.permutations(range(len(weight)))))
            expect(
                torch.equal(self.round(weight[order]), self.round(weight)[order]),
                f"{weight} in the order {order.tolist()}",
            )

        self.each(body, data=st.data())

    def keeps_blocks_apart(self) -> None:
        size = self.format.granularity

        def body(weight: Tensor, data: st.DataObject) -> None:
            row = data.draw(st.integers(0, len(weight) - 1))
            column = data.draw(st.integers(0, weight.shape[1] - 1))
            changed = weight.clone()
            changed[row, column] = 3 * weight.abs().max() + 1
            same = torch.ones_like(weight, dtype=torch.bool)
            first = 0 if not isinstance(size, int) else column - column % size
            last = weight.shape[1] if not isinstance(size, int) else first + size
            same[row, first:last] = False
            expect(
                torch.equal(self.round(weight)[same], self.round(changed)[same]),
                f"changing {(row, column)} of {weight} changed what shares no scale with it",
            )

        self.each(body, data=st.data())

    def improves_with_a_bit(self) -> None:
        finer = replace(self.format, bits=self.format.bits + 1)
        for seed in range(3):
            weight = torch.randn(48, 48, generator=torch.Generator().manual_seed(seed))
            coarse, fine = (
                float((self.call(weight, f) - weight).square().mean()) for f in (self.format, finer)
            )
            expect(fine <= coarse * (1 + 1e-6), f"{fine} with {finer}, {coarse} with {self.format}")

    def takes_ties_to_even(self) -> None:
        largest = 2 ** (self.format.bits - 1) - 1
        halves = [x + 0.5 for x in range(-largest, largest)]
        for start in range(0, len(halves), 6):
            values = torch.tensor([[float(largest), *halves[start : start + 6]]])
            rounded = self.round(values)[0].tolist()
            # A power-of-two scale may be twice the step, which moves the ties.
            if self.format.power_of_two and math.log2(self._step(values[0].double().numpy())) != 0:
                continue
            expect(
                rounded == [float(np.rint(x)) for x in values[0].tolist()],
                f"{values[0].tolist()} became {rounded}, which is not half to even",
            )

    def shows_nan_and_infinity(self) -> None:
        for value in (math.nan, math.inf, -math.inf):
            weight = torch.linspace(-1, 1, 24).reshape(4, 6)
            weight[1, 2] = value
            try:
                rounded = self.round(weight)
            except ClipqError:
                continue
            expect(not rounded.isfinite().all(), f"a weight of {value} vanished: {rounded}")
            if math.isnan(value):
                expect(rounded[1, 2].isnan(), f"NaN became {rounded[1, 2]}")

    def computes_half_precision_in_float32(self) -> None:
        def body(weight: Tensor) -> None:
            for dtype in (torch.bfloat16, torch.float16):
                half = weight.to(dtype)
                rounded = self.round(half)
                expect(rounded.dtype == dtype, f"{dtype} became {rounded.dtype}")
                expect(
                    torch.equal(rounded, self.round(half.float()).to(dtype)),
                    f"{half} rounds otherwise in float32",
                )

        self.each(body, weight=tensors(moderate_floats(), dims=2))

    def _wide(self) -> Iterator[Tensor]:
        """Yield normal weights with as many columns as may be."""
        for seed in range(3):
            generator = torch.Generator().manual_seed(seed)
            yield torch.randn(4, self.columns, generator=generator)

    def _pairs(
        self, weight: Tensor, rounded: Tensor | None = None
    ) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Yield values that share a scale, and their rounded ones, in float64."""
        rounded = self.round(weight) if rounded is None else rounded
        before, after = (x.double().numpy() for x in (weight, rounded))
        size = self.format.granularity
        if size == "tensor":
            yield before.ravel(), after.ravel()
            return
        width = size if isinstance(size, int) else weight.shape[1]
        for row in range(len(weight)):
            for start in range(0, weight.shape[1], width):
                part = slice(start, start + width)
                yield before[row, part], after[row, part]

    def _step(self, values: np.ndarray[Any, Any]) -> float:
        """Return the step of an integer format for what shares a scale, by definition."""
        if self.format.asymmetric:
            span = max(float(values.max()), 0.0) - min(float(values.min()), 0.0)
            step = span / (2**self.format.bits - 1)
        else:
            step = float(np.abs(values).max()) / (2 ** (self.format.bits - 1) - 1)
        step = max(step, _TINY)
        return 2.0 ** math.ceil(math.log2(step)) if self.format.power_of_two else step
