"""What a claim says in terms of measurements: the form that C1 to C10 are written in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from clipq.study.claim_rules import Option, Part
from clipq.study.confidence_bias import confidence_bias
from clipq.study.configurations import Configuration
from clipq.study.effects import Effect, Series, difference
from clipq.study.measurements import Measurements

__all__ = ["MARGINS", "MODERATE", "Lacking", "Statement", "View", "changes"]

MODERATE = ("w8a8", "w6a8", "w4a8")
"""The study's formats: moderate are 8-bit activations with weights of 8, 6 and 4 bits."""
MARGINS = {
    "ece": 0.005,
    "auroc-mcm": 0.005,
    "top1": 0.01,
    "relative-gap": 0.02,
    "sqnr": 1.0,
    "tail-energy": 0.05,
}
"""The smallest changes worth the name; of tail-energy, as a share of FP32's. Ours, half the gate's
margins at 8 bits or thereabouts; the study names none."""


@dataclass(frozen=True, slots=True)
class Lacking:
    """Why a claim cannot be asked of a model.

    Args:
        reason: a sentence.
        about: whether the claim is about this model at all.
    """

    reason: str
    about: bool = True


@dataclass(frozen=True, slots=True)
class Statement:
    """One claim, or a part of one.

    Args:
        claim: C1 to C10.
        part: of it; "" where it has one.
        says: what it says, in a sentence.
        rule: how options are read, of `clipq.study.claim_rules.RULES`.
        unit: of the first effect.
        options: of a model's view, what may make it true.
    """

    claim: str
    part: str
    says: str
    rule: str
    unit: str
    options: Callable[[View], list[Option] | Lacking]


@dataclass(frozen=True)
class View:
    """One model's measurements, as claims look at them.

    Args:
        measurements: of all records.
        model: its name.
        towers: which quantized towers claims are about, where they do not say.
    """

    measurements: Measurements
    model: str
    towers: str = "vision"

    @cached_property
    def known(self) -> tuple[str, ...]:
        """The in-distribution probe; empty where there is none."""
        found = self.measurements.in_distribution(self.model)
        return (found,) if found else ()

    def probes(self, role: str, metric: str) -> tuple[str, ...]:
        """Return the probes of a role that a metric of this model was measured on."""
        return self.measurements.probes_with(self.model, role, metric)

    @cached_property
    def bias(self) -> Effect | None:
        """FP32's mean confidence minus accuracy; None where records do not hold its bins."""
        bins = self.known and self.measurements.calibration_bins(self.model, self.known[0])
        return confidence_bias(bins) if bins else None

    def all(self, *, tuned: bool = False, towers: str = "") -> list[Configuration]:
        """Return the quantizers, matched noise left out."""
        return [
            found
            for found in self.measurements.configurations[self.model]
            if found.method != "noise"
            and found.tuned == tuned
            and found.towers == (towers or self.towers)
        ]

    def moderate(self, *, towers: str = "") -> list[Configuration]:
        """Return those that are not trained, of moderate formats."""
        found = self.all(towers=towers)
        return [each for each in found if not each.trained and each.bits in MODERATE]

    def trained(self, *, tuned: bool = False) -> list[Configuration]:
        """Return those that are trained."""
        return [each for each in self.all(tuned=tuned) if each.trained]

    def noise(self, bits: str) -> Configuration | None:
        """Return the matched noise of a format."""
        for found in self.measurements.configurations[self.model]:
            alike = found.bits == bits and found.towers == self.towers and not found.tuned
            if found.method == "noise" and alike:
                return found
        return None

    def change(self, of: Configuration, probes: Sequence[str], metric: str) -> Series | None:
        """Return what a configuration changes; the mean over probes."""
        return self.measurements.change(self.model, of, probes, metric) if probes else None

    def between(
        self, one: Configuration, other: Configuration, probes: Sequence[str], metric: str
    ) -> Series | None:
        """Return one configuration's change minus another's."""
        first, second = (self.change(each, probes, metric) for each in (one, other))
        if first is None or second is None:
            return None
        return difference(first, second, self.measurements.paired_error)


def changes(
    view: View,
    configurations: Iterable[Configuration],
    *parts: tuple[str, Sequence[str], str, int],
) -> list[Option]:
    """Return one option per configuration of which every part was measured.

    Args:
        view: of the model.
        configurations: to look at.
        parts: names, probes, metrics and signs.
    """
    options = []
    for each in configurations:
        found = [
            Part(name, series, sign, margin=MARGINS.get(metric, 0.0))
            for name, probes, metric, sign in parts
            if (series := view.change(each, probes, metric)) is not None
        ]
        if len(found) == len(parts):
            options.append(Option(each.text, tuple(found)))
    return options
