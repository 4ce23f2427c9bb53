"""How far a quantized model is from FP32, beside rounding to nearest in the same format.

Rounding to nearest is what a format costs where nobody tries: a method that loses much more than
that has a bug, whatever the bits. The signal-to-quantization-noise ratio (SQNR) of features says
how far, and both models see the same samples.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clipq.errors import QuantizerError
from clipq.quant.methods import Calibration, find_method
from clipq.quant.spec import QuantizerSpec
from clipq.quant.towers import tower_batches

__all__ = ["FLOOR_DB", "Nearness", "feature_sqnr", "measure_nearness"]

FLOOR_DB = 4.0
"""How far below rounding to nearest a method's features may lie, in dB."""
_SAMPLES = 64


@dataclass(frozen=True, slots=True)
class Nearness:
    """SQNR of a quantizer's features and of rounding to nearest, in dB, by tower.

    Args:
        own: the quantizer's, per selected tower, ``"vision"`` or ``"text"``.
        nearest: rounding to nearest's.

    >>> Nearness({"vision": 20.0}, {"vision": 32.5}).complaints()
    ['image features at 20.0 dB, where rounding to nearest reaches 32.5 dB (4 dB less are allowed)']
    """

    own: dict[str, float]
    nearest: dict[str, float]

    def complaints(self) -> list[str]:
        """Return one line per tower that lies further below rounding to nearest than allowed."""
        what = {"vision": "image", "text": "text"}
        return [
            f"{what[tower]} features at {own:.1f} dB, where rounding to nearest reaches "
            f"{self.nearest[tower]:.1f} dB ({FLOOR_DB:.0f} dB less are allowed)"
            for tower, own in self.own.items()
            if not own >= self.nearest[tower] - FLOOR_DB  # NaN, too
        ]

    def to_plain(self) -> dict[str, dict[str, float | None]]:
        """Return both as strict-JSON values."""
        return {
            name: {tower: value if math.isfinite(value) else None for tower, value in by.items()}
            for name, by in (("own", self.own), ("nearest", self.nearest))
        }


def feature_sqnr(
    model: nn.Module, original: nn.Module, spec: QuantizerSpec, calibration: Calibration
) -> dict[str, float]:
    """Return the SQNR of features in dB, per selected tower; NaN where a feature is not finite.

    Args:
        model: the quantized model.
        original: FP32.
        spec: whose towers are run.
        calibration: whose first samples, up to 64 of a tower's first batch, are encoded.

    >>> from clipq.testing import SmallInputs, small_clip
    >>> spec, model = QuantizerSpec.parse("rtn:w8"), small_clip()
    >>> feature_sqnr(model, model, spec, SmallInputs().calibration)
    {'vision': inf, 'text': inf}
    """
    with torch.no_grad():
        theirs, mine = (
            [
                encode(next(batches)[:_SAMPLES])
                for encode, batches in tower_batches(form, spec.towers, calibration)
            ]
            for form in (original, model)
        )
    towers = ("vision", "text") if spec.towers == "both" else (spec.towers,)
    return {
        tower: _decibel(exact, found)
        for tower, exact, found in zip(towers, theirs, mine, strict=True)
    }


def measure_nearness(
    original: nn.Module, model: nn.Module, spec: QuantizerSpec, calibration: Calibration
) -> Nearness | None:
    """Return how far `model` is from FP32, beside rounding to nearest in the format of `spec`.

    None where rounding to nearest cannot make the format of this model: groups that are larger than
    every row, attention that keeps its products to itself.

    Args:
        original: FP32, left as it is.
        model: the quantized model.
        spec: names the format.
        calibration: ranges of rounding to nearest, and the samples to encode.

    >>> from clipq.testing import SmallInputs, small_clip
    >>> spec, inputs = QuantizerSpec.parse("rtn:w4"), SmallInputs()
    >>> measure_nearness(small_clip(), small_clip(), spec, inputs.calibration).complaints()
    []
    """
    plain = QuantizerSpec("rtn", spec.require_format(), (), spec.towers)
    try:
        twin = find_method(plain)(copy.deepcopy(original).eval(), plain, calibration)
    except QuantizerError:
        return None
    reference = copy.deepcopy(original).eval() if original.training else original
    own, nearest = (
        feature_sqnr(form, reference, spec, calibration) for form in (model, twin.eval())
    )
    return Nearness(own, nearest)


def _decibel(reference: Tensor, features: Tensor) -> float:
    if reference.shape != features.shape:
        return math.nan
    exact, found = reference.double(), features.double()
    noise = float((found - exact).square().sum())
    signal = float(exact.square().sum())
    if math.isnan(noise) or math.isinf(noise):
        return math.nan
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal else -math.inf
