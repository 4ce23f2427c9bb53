"""C8: where in the spectrum of the features the error lies, and what becomes of high ranks."""

from __future__ import annotations

from dataclasses import replace

from clipq.study.claim_rules import Option, Part
from clipq.study.configurations import Configuration
from clipq.study.effects import difference
from clipq.study.statements import MARGINS, Lacking, Statement, View, changes

__all__ = ["spectrum_claims"]


def spectrum_claims() -> list[Statement]:
    """Return the statements."""
    return [
        Statement(
            "C8",
            "SQNR",
            "moderate PTQ: SQNR decays from ranks 0-8 over 8-64 to 64+",
            "mean",
            "dB",
            _decay,
        ),
        Statement(
            "C8",
            "high ranks, PTQ",
            "moderate PTQ lowers the share of energy in ranks 64+",
            "mean",
            "fraction",
            lambda view: _dampened(view, view.moderate(), "a moderate quantizer"),
        ),
        Statement(
            "C8",
            "high ranks, QAT",
            "QAT lowers the share of energy in ranks 64+",
            "mean",
            "fraction",
            lambda view: _dampened(view, view.trained(), "a trained quantizer"),
        ),
        Statement(
            "C8",
            "bands, QAT",
            "QAT raises accuracy from ranks 0-8 alone and lowers it from ranks 64+ alone",
            "mean",
            "fraction",
            _bands,
        ),
    ]


def _decay(view: View) -> list[Option] | Lacking:
    options = []
    for each in view.moderate():
        low, middle, high = (
            view.measurements.level(view.model, each, view.known, f"sqnr-{band}")
            for band in ("low", "mid", "high")
        )
        if low is None or middle is None or high is None:
            continue
        pairs = {"SQNR, 0-8 - 8-64": (low, middle), "SQNR, 8-64 - 64+": (middle, high)}
        parts = [
            Part(name, series, 1, margin=MARGINS["sqnr"])
            for name, pair in pairs.items()
            if (series := difference(*pair)) is not None
        ]
        if len(parts) == 2:
            options.append(Option(each.text, tuple(parts)))
    return options or Lacking("needs SQNR by band of a moderate quantizer of the vision tower")


def _dampened(view: View, chosen: list[Configuration], needs: str) -> list[Option] | Lacking:
    fp32 = (
        view.measurements.baseline(view.model, view.known[0], "tail-energy") if view.known else None
    )
    options = changes(view, chosen, ("energy in ranks 64+", view.known, "tail-energy", -1))
    if fp32 is None or not options:
        return Lacking(f"needs tail-energy of {needs}")
    margin = MARGINS["tail-energy"] * fp32[0]
    return [
        replace(each, parts=tuple(replace(part, margin=margin) for part in each.parts))
        for each in options
    ]


def _bands(view: View) -> list[Option] | Lacking:
    options = changes(
        view,
        view.trained(),
        ("top-1 from ranks 0-8", view.known, "top1-low", 1),
        ("top-1 from ranks 64+", view.known, "top1-high", -1),
    )
    return options or Lacking("needs accuracy by band of a trained quantizer")
