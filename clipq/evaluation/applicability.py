"""Which cases an artifact has: files that run elsewhere have no gradients, and perhaps no text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from clipq.artifact_settings import BROUGHT
from clipq.cases import Case
from clipq.globs import matches_any
from clipq.settings import Settings

__all__ = ["count_reasons", "why_not_applicable"]

_GRADIENTS = ("fgsm", "pgd", "apgd")
_OF_LENGTHS = ("sqnr", "sqnr-*", "effective-rank", "head-energy", "tail-energy", "top1-*")
"""Metrics of features as they are, which normalised ones no longer show."""


def why_not_applicable(case: Case, settings: Settings) -> str:
    """Return what a case needs and its artifact cannot have; "" where it can be measured.

    >>> from pathlib import Path
    >>> from clipq.artifact_settings import ArtifactSettings
    >>> from clipq.settings import AttackSettings, ProbeSettings
    >>> files = {"image": "i.onnx", "text": "t.onnx"}
    >>> artifact = ArtifactSettings("ort-int8", "vit", "onnxruntime", **files)
    >>> fgsm = ProbeSettings("fgsm", "adversarial", "folder:photos", attack=AttackSettings("fgsm"))
    >>> settings = Settings(Path("clipq.toml"), (), (fgsm,), (), artifacts=(artifact,))
    >>> why_not_applicable(Case.parse("vit/ort-int8/fgsm.top1"), settings)
    'gradients'
    """
    artifact = settings.artifact(case.candidate)
    if artifact is None:
        return ""
    probe = settings.probe(case.probe)
    brought = artifact.runtime == BROUGHT
    if probe.attack is not None:
        if brought:
            return "images that are made while it runs"
        if probe.attack.name in _GRADIENTS and probe.attack.against == "itself":
            return "gradients"
    if probe.role == "retrieval" and artifact.head:
        return "a text tower"
    if artifact.io.output == "normalised" and matches_any(case.metric, _OF_LENGTHS):
        return "features that are not normalised"
    return ""


def count_reasons(cases: Iterable[Case], settings: Settings) -> dict[str, dict[str, int]]:
    """Return, by candidate, how many of some cases are not applicable, by what they need."""
    found: dict[str, Counter[str]] = {}
    for case in sorted(cases):
        if reason := why_not_applicable(case, settings):
            found.setdefault(str(case.candidate), Counter())[reason] += 1
    return {candidate: dict(reasons) for candidate, reasons in found.items()}
