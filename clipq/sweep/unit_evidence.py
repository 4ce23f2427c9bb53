"""What a part says beside its rows: facts of the unit, and the figures that a study needs.

Nothing of it hangs on the machine, the hour or the cache, so that a part has the same bytes
whenever and wherever it is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clipq.cases import Case
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.figures import spectrum_figure
from clipq.records import CaseResult

__all__ = ["reference_figures", "shared_evidence", "unit_spectrum"]

_NOT_OF_A_UNIT = ("environments", "figures")
"""Evidence of the machine that measured, and of files in its cache."""
_NOT_OF_AN_ENTRY = {
    "predictions": ("key",),
    "quantizers": ("milliseconds", "fp32_milliseconds", "ratio_to_fp32", "measured_on"),
    "artifacts": ("milliseconds", "fp32_milliseconds", "ratio_to_fp32", "measured_on"),
}
"""Keys of a cache, and times that were measured elsewhere."""
_NOT_OF_A_TRAINING = ("seconds", "from")
"""How long it took here, and where its state was found."""


def reference_figures(evaluator: Evaluator, cases: Iterable[Case]) -> dict[str, dict[str, Any]]:
    """Return FP32's figures that a study needs, by cell, in the shape of a record's ``figures``.

    In distribution the reliability bins (``calibration``), of which its confidence bias is made; of
    a corruption probe which kinds of corruption it has (``groups``), with their samples alone.

    Args:
        evaluator: which has, or makes, FP32's predictions.
        cases: of a unit.
    """
    found: dict[str, dict[str, Any]] = {}
    for cell in dict.fromkeys(case.cell.reference for case in cases):
        role = evaluator.settings.probe(cell.probe).role
        drawn = evaluator.figures(cell) if role in ("in-distribution", "corruption") else {}
        if role == "in-distribution" and "calibration" in drawn:
            found[str(cell)] = {"calibration": drawn["calibration"]}
        if role == "corruption" and "groups" in drawn:
            kinds = {name: {"samples": each["samples"]} for name, each in drawn["groups"].items()}
            found[str(cell)] = {"groups": kinds}
    return found


def unit_spectrum(evaluator: Evaluator, cases: Iterable[Case]) -> dict[str, dict[str, Any]]:
    """Return signal and residual by rank of a candidate in distribution, by cell; {} of FP32.

    Args:
        evaluator: which has, or makes, the candidate's features.
        cases: of a unit.
    """
    known = evaluator.settings.in_distribution.name
    for cell in {case.cell for case in cases if case.probe == known}:
        if not cell.base.candidate.is_reference:
            features = (evaluator.encodings.features(one) for one in (cell.reference, cell))
            if drawn := spectrum_figure(*features):
                return {str(cell): {"spectrum": drawn}}
    return {}


def shared_evidence(
    results: Sequence[CaseResult], figures: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the evidence of all cases of a unit, without what belongs to a machine.

    Args:
        results: of its cases, with their evidence.
        figures: by cell.

    >>> from clipq.verdicts import Verdict
    >>> evidence = {"environments": {"0f": {}}, "predictions": {"vit/rtn:w8/id": {
    ...     "key": "1b", "sha256": "2c"}}}
    >>> case = Case.parse("vit/rtn:w8/id.ece")
    >>> shared_evidence([CaseResult(case, Verdict.PASS, evidence=evidence)], {})
    {'predictions': {'vit/rtn:w8/id': {'sha256': '2c'}}}
    """
    shared: dict[str, Any] = {}
    for result in results:
        for kind, entries in result.evidence.items():
            if kind not in _NOT_OF_A_UNIT:
                shared.setdefault(kind, {}).update(entries)
    for kind, dropped in _NOT_OF_AN_ENTRY.items():
        if kind in shared:
            shared[kind] = {name: _without(entry, dropped) for name, entry in shared[kind].items()}
    for entry in shared.get("quantizers", {}).values():
        if "trained" in entry:
            entry["trained"] = _without(entry["trained"], _NOT_OF_A_TRAINING)
    return shared | ({"figures": dict(figures)} if figures else {})


def _without(entry: Mapping[str, Any], dropped: Iterable[str]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in dropped}
