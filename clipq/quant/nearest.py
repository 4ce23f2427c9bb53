"""How far a quantized model is from FP32, beside rounding to nearest in the same format.

Rounding to nearest is what a format costs where nobody tries: a method that loses much more than
that has a bug, whatever the bits. One that loses next to nothing does not have so few bits,
whatever its products are made of: neither rounding to nearest nor values that fill their range
evenly, 6.02 dB per bit, come anywhere near it. The signal-to-quantization-noise ratio (SQNR) of
features says how far, and both models see the same samples.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from clipq.errors import QuantizerError
from clipq.quant.formats import Format
from clipq.quant.methods import Calibration, find_method
from clipq.quant.spec import QuantizerSpec, Towers
from clipq.quant.towers import tower_batches

__all__ = ["CEILING_DB", "FLOOR_DB", "Nearness", "feature_sqnr", "measure_nearness"]

FLOOR_DB = 4.0
"""How far below rounding to nearest a method's features may lie, in dB."""
CEILING_DB = 18.0
"""How far above what its format can reach a method's features may lie, in dB: three bits."""
_PER_BIT_DB = 20.0 * math.log10(2.0)
_SAMPLES = 64
_FEATURES = {"vision": "image", "text": "text"}


@dataclass(frozen=True, slots=True)
class Nearness:
    """SQNR of a quantizer's features and of rounding to nearest, in dB, by tower.

    Args:
        own: the quantizer's, per selected tower, ``"vision"`` or ``"text"``.
        nearest: rounding to nearest's.
        bits: of the format's weights or activations, whichever are fewer, by tower; a tower without
            them has no ceiling.

    >>> Nearness({"vision": 20.0}, {"vision": 32.5}).complaints()
    ['image features at 20.0 dB, where rounding to nearest reaches 32.5 dB (4 dB less are allowed)']
    """

    own: dict[str, float]
    nearest: dict[str, float]
    bits: dict[str, int] = field(default_factory=dict)

    def complaints(self) -> list[str]:
        """Return one line per tower that lies further below rounding to nearest than allowed."""
        return [
            f"{_FEATURES[tower]} features at {own:.1f} dB, where rounding to nearest reaches "
            f"{self.nearest[tower]:.1f} dB ({FLOOR_DB:.0f} dB less are allowed)"
            for tower, own in self.own.items()
            if own < self.nearest[tower] - FLOOR_DB  # NaN is the gate's to show
        ]

    def pretences(self) -> list[str]:
        """Return one line per tower that is nearer to FP32 than any method of its bits can be.

        >>> Nearness({"text": 127.0}, {"text": 32.1}, {"text": 8}).pretences()
        ['text features at 127.0 dB, where rounding to nearest reaches 32.1 dB: not of 8 bits']
        """
        return [
            f"{_FEATURES[tower]} features at {own:.1f} dB, where rounding to nearest reaches "
            f"{self.nearest[tower]:.1f} dB: not of {self.bits[tower]} bits"
            for tower, own in self.own.items()
            if own > self.ceiling(tower)
        ]

    def ceiling(self, tower: str) -> float:
        """Return the SQNR in dB that features of a tower can have, with room for a good method.

        Rounding to nearest alone would not do: outliers, that others cope with, may leave nothing
        of it. Infinite where rounding to nearest is exact or NaN, and without bits.

        >>> Nearness({"text": 20.0}, {"text": 2.0}, {"text": 4}).ceiling("text")  # 4 + 3 bits
        42.08...
        """
        if tower not in self.bits or math.isnan(self.nearest[tower]):
            return math.inf
        return max(self.nearest[tower], _PER_BIT_DB * self.bits[tower]) + CEILING_DB

    def to_plain(self) -> dict[str, dict[str, float | None]]:
        """Return both as strict-JSON values."""
        return {
            name: {tower: value if math.isfinite(value) else None for tower, value in by.items()}
            for name, by in (("own", self.own), ("nearest", self.nearest))
        }


def feature_sqnr(
    model: nn.Module, original: nn.Module, towers: Towers, calibration: Calibration
) -> dict[str, float]:
    """Return the SQNR of features in dB, per selected tower; NaN where a feature is not finite.

    Args:
        model: the quantized model.
        original: FP32.
        towers: which to run.
        calibration: whose first samples, up to 64 of a tower's first batch, are encoded.

    >>> from clipq.testing import SmallInputs, small_clip
    >>> model = small_clip()
    >>> feature_sqnr(model, model, "both", SmallInputs().calibration)
    {'vision': inf, 'text': inf}
    """
    with torch.no_grad():
        theirs, mine = (
            [
                encode(next(batches)[:_SAMPLES])
                for encode, batches in tower_batches(form, towers, calibration)
            ]
            for form in (original, model)
        )
    names = ("vision", "text") if towers == "both" else (towers,)
    return {
        tower: _decibel(exact, found)
        for tower, exact, found in zip(names, theirs, mine, strict=True)
    }


def measure_nearness(
    original: nn.Module,
    model: nn.Module,
    formats: Mapping[Towers, Format],
    calibration: Calibration,
) -> Nearness | None:
    """Return how far `model` is from FP32, beside rounding to nearest in formats of its towers.

    None where rounding to nearest cannot make a format of this model: groups that are larger than
    every row, attention that keeps its products to itself.

    Args:
        original: FP32, left as it is.
        model: the quantized model.
        formats: by towers: ``"both"``, or ``"vision"``, ``"text"`` or each with its own.
        calibration: ranges of rounding to nearest, and the samples to encode.

    >>> from clipq.testing import SmallInputs, small_clip
    >>> formats, inputs = {"both": Format.parse("w4")}, SmallInputs()
    >>> measure_nearness(small_clip(), small_clip(), formats, inputs.calibration).complaints()
    []
    """
    twin = copy.deepcopy(original).eval()
    own: dict[str, float] = {}
    nearest: dict[str, float] = {}
    bits: dict[str, int] = {}
    for towers, number_format in formats.items():
        plain = QuantizerSpec("rtn", number_format, (), towers)
        try:
            twin = find_method(plain)(twin, plain, calibration).eval()
        except QuantizerError:
            return None
    reference = copy.deepcopy(original).eval() if original.training else original
    for towers, number_format in formats.items():
        own |= feature_sqnr(model, reference, towers, calibration)
        found = feature_sqnr(twin, reference, towers, calibration)
        nearest |= found
        bits |= dict.fromkeys(found, _fewest_bits(number_format))
    return Nearness(own, nearest, bits)


def _fewest_bits(number_format: Format) -> int:
    parts = (number_format.weight, number_format.activation)
    return min(part.bits for part in parts if part is not None)


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
