"""C1, C2, C9 and C10: what quantizing does to calibration, and what repairs it."""

from __future__ import annotations

from clipq.cases import TUNED
from clipq.study.claim_rules import Option, Part
from clipq.study.effects import difference
from clipq.study.statements import MARGINS, Lacking, Statement, View, changes

__all__ = ["calibration_claims"]

_PTQ = "a quantizer without training at w8a8, w6a8 or w4a8"


def calibration_claims() -> list[Statement]:
    """Return the statements."""
    return [
        Statement(
            "C1",
            "",
            "moderate PTQ lowers ECE of an under-confident model",
            "mean",
            "fraction",
            lambda view: _moderate(view, under=True),
        ),
        Statement(
            "C2",
            "",
            "moderate PTQ raises ECE of an over-confident model",
            "mean",
            "fraction",
            lambda view: _moderate(view, under=False),
        ),
        Statement(
            "C9",
            "text",
            "quantizing the text tower as well raises ECE",
            "mean",
            "fraction",
            _text,
        ),
        Statement(
            "C9",
            "repair",
            "tuning the logit scale then lowers ECE, to no more than with the vision tower alone",
            "mean",
            "fraction",
            _repair,
        ),
        Statement(
            "C10",
            "",
            "ECE is lower after QAT than after PTQ in the same format",
            "mean",
            "fraction",
            _trained_against_not,
        ),
    ]


def _moderate(view: View, *, under: bool) -> list[Option] | Lacking:
    bias = view.bias
    if bias is None:
        return Lacking("needs FP32's reliability bins on the in-distribution probe")
    low, high = bias.interval()
    found = f"{bias.value:+.3f} [{low:+.3f}, {high:+.3f}]"
    kind = "under" if under else "over"
    if low <= 0.0 <= high:
        return Lacking(f"FP32's mean confidence - accuracy, {found}, has no sure sign")
    if (high < 0.0) != under:
        other = "over" if under else "under"
        reason = f"FP32 is {other}-confident ({found}): the claim is about {kind}-confident models"
        return Lacking(reason, about=False)
    sign = -1 if under else 1
    options = changes(view, view.moderate(), ("ECE", view.known, "ece", sign))
    return options or Lacking(f"needs ECE of {_PTQ} ({view.towers})")


def _text(view: View) -> list[Option] | Lacking:
    options = []
    for both in view.moderate(towers="both"):
        series = view.between(both, both.in_towers("vision"), view.known, "ece")
        if series is not None:
            part = Part("ECE, both towers - vision alone", series, 1, margin=MARGINS["ece"])
            options.append(Option(both.text, (part,)))
    return options or Lacking(f"needs {_PTQ} of both towers and of the vision tower alone")


def _repair(view: View) -> list[Option] | Lacking:
    options = []
    for both in view.moderate(towers="both"):
        tuned = both.with_tuning()
        lowered = view.between(tuned, both, view.known, "ece")
        left = view.between(tuned, both.in_towers("vision"), view.known, "ece")
        if lowered is not None and left is not None:
            size = MARGINS["ece"]
            parts = (
                Part("ECE, tuned - not", lowered, -1, margin=size),
                Part("ECE, tuned - vision alone", left, -1, threshold=size),
            )
            options.append(Option(both.text, parts))
    return options or Lacking(
        f"needs {_PTQ} of both towers, with and without {TUNED}, and of the vision tower alone"
    )


def _trained_against_not(view: View) -> list[Option] | Lacking:
    options = []
    # Of each once: hundreds of them make thousands of pairs.
    changed = {each: view.change(each, view.known, "ece") for each in view.all()}
    for trained, one in changed.items():
        for plain, other in changed.items():
            alike = plain.bits and plain.bits == trained.bits
            if not trained.trained or plain.trained or not alike or one is None or other is None:
                continue
            series = difference(one, other, view.measurements.paired_error)
            if series is not None:
                part = Part("ECE, QAT - PTQ", series, -1, margin=MARGINS["ece"])
                options.append(Option(f"{trained.text} against {plain.text}", (part,)))
    return options or Lacking("needs a trained quantizer and one without training in its format")
