"""C5, C6 and C7: noise and blur, shift and spurious correlations, and collapse.

C5 is asked for each corruption probe that has noise alone or blur alone, of PTQ and QAT apart,
against FP32 and against matched noise: the quantizer `noise` of the same format, which is FP32 with
noise of rounding's size on the same layers. What the noise shows as well is not the quantizer's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from clipq.study.claim_rules import Option, Part
from clipq.study.configurations import Configuration
from clipq.study.effects import Point, Series
from clipq.study.measurements import Measurements
from clipq.study.statements import MARGINS, MODERATE, Lacking, Statement, View, changes

__all__ = ["robustness_claims"]


def robustness_claims(measurements: Measurements) -> list[Statement]:
    """Return the statements, with those of C5 for the probes that were measured."""
    probes = [p for kind in ("noise", "blur") for p in measurements.corrupted_by(kind)]
    found = [each for probe in probes for each in _corrupted(probe)]
    if not found:
        needs = Lacking("needs a corruption probe of noise kinds alone, or of blur kinds alone")
        says = "robustness to synthetic noise and blur can improve"
        found = [Statement("C5", "", says, "exists", "fraction", lambda _: needs)]
    return [
        *found,
        Statement(
            "C6",
            "shift",
            "no quantizer of a moderate format raises accuracy under covariate shift",
            "never",
            "fraction",
            _shifted,
        ),
        Statement(
            "C6",
            "relative gap, simple PTQ",
            "rounding to nearest does not lower the relative spurious gap",
            "at-least",
            "fraction",
            _simple_gap,
        ),
        Statement(
            "C6",
            "relative gap, Rot+LSQ w8a8",
            "Rot+LSQ at w8a8 leaves the relative spurious gap where it is",
            "near",
            "fraction",
            _rotated_gap,
        ),
        Statement(
            "C7",
            "",
            "rounding to nearest with 4-bit activations loses more than half of FP32's accuracy",
            "mean",
            "fraction",
            _collapsed,
        ),
    ]


_Chosen = Callable[[View], list[Configuration]]
_Options = Callable[[View], list[Option] | Lacking]


def _corrupted(probe: str) -> list[Statement]:
    """Return the statements of C5 about one probe of noise or of blur."""
    kinds: dict[str, tuple[_Chosen, str]] = {
        "PTQ": (_moderate, "a moderate quantizer"),
        "QAT": (_moderately_trained, "a trained moderate quantizer"),
    }
    texts: list[tuple[str, str, _Options]] = []
    for name, (choose, needs) in kinds.items():
        says = f"some {name} of a moderate format raises accuracy on {probe}"
        texts.append((name, says, _against_fp32(probe, choose, needs)))
        says = f"some {name} raises it beyond matched noise of the same format"
        texts.append((f"{name} beyond noise", says, _against_noise(probe, choose, needs)))
    says = f"matched noise alone raises accuracy on {probe}"
    texts.append(("noise alone", says, _against_fp32(probe, _noises, "noise:FORMAT")))
    return [
        Statement("C5", f"{probe}: {part}", says, "exists", "fraction", options)
        for part, says, options in texts
    ]


def _against_fp32(probe: str, choose: _Chosen, needs: str) -> _Options:
    def options(view: View) -> list[Option] | Lacking:
        found = changes(view, choose(view), ("top-1", (probe,), "top1", 1))
        return found or Lacking(f"needs top-1 on {probe} of {needs}")

    return options


def _against_noise(probe: str, choose: _Chosen, needs: str) -> _Options:
    def options(view: View) -> list[Option] | Lacking:
        found = []
        for each in choose(view):
            noise = view.noise(each.bits)
            series = view.between(each, noise, (probe,), "top1") if noise else None
            if series is not None:
                part = Part("top-1, quantized - matched noise", series, 1, margin=MARGINS["top1"])
                found.append(Option(each.text, (part,)))
        return found or Lacking(f"needs top-1 on {probe} of {needs}, and of noise:FORMAT")

    return options


def _moderate(view: View) -> list[Configuration]:
    return view.moderate()


def _moderately_trained(view: View) -> list[Configuration]:
    return [each for each in view.trained() if each.bits in MODERATE]


def _noises(view: View) -> list[Configuration]:
    found = (view.noise(bits) for bits in MODERATE)
    return [each for each in found if each is not None]


def _shifted(view: View) -> list[Option] | Lacking:
    probes = view.probes("shift", "top1")
    chosen = [*view.moderate(), *_moderately_trained(view)]
    options = changes(view, chosen, ("top-1", probes, "top1", 1))
    return options or Lacking("needs top-1 of a moderate quantizer on a probe of role shift")


def _simple_gap(view: View) -> list[Option] | Lacking:
    probes = view.probes("spurious", "relative-gap")
    chosen = [each for each in view.moderate() if each.method == "rtn"]
    options = changes(view, chosen, ("relative gap", probes, "relative-gap", 1))
    return options or Lacking("needs the relative gap of rtn in a moderate format")


def _rotated_gap(view: View) -> list[Option] | Lacking:
    probes = view.probes("spurious", "relative-gap")
    chosen = [each for each in view.trained() if (each.method, each.bits) == ("rot+lsq", "w8a8")]
    options = changes(view, chosen, ("relative gap", probes, "relative-gap", 1))
    return options or Lacking("needs the relative gap of rot+lsq:w8a8")


def _collapsed(view: View) -> list[Option] | Lacking:
    options = []
    for each in view.all():
        if each.method != "rtn" or each.activation_bits != 4 or not view.known:
            continue
        series = view.change(each, view.known, "top1")
        fp32 = view.measurements.baseline(view.model, view.known[0], "top1")
        if series is None or fp32 is None or not fp32[1]:
            continue
        accuracy, samples = fp32
        own = math.sqrt(max(accuracy * (1 - accuracy), 1 / samples) / samples)
        points = {
            seed: Point(p.value + accuracy / 2, p.error + own / 2, p.cases)
            for seed, p in series.points.items()
        }
        part = Part("top-1 - half of FP32's", Series(points, series.draws), -1)
        options.append(Option(each.text, (part,)))
    return options or Lacking(f"needs top-1 of rtn with 4-bit activations ({view.towers})")
