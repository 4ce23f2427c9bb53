"""What a record says against FP32 itself: then a comparison with it means less, or nothing."""

from __future__ import annotations

from clipq.records import RunRecord

__all__ = ["fp32_remarks"]


def fp32_remarks(record: RunRecord) -> dict[str, list[str]]:
    """Return what speaks against each model's FP32 numbers; models that are sound are left out.

    >>> from clipq.cases import Case
    >>> from clipq.records import CaseResult
    >>> from clipq.verdicts import Verdict
    >>> baselines = {"baselines": {"vit": {"remarks": ["top-1 of id is at chance"]}}}
    >>> case = CaseResult(Case.parse("vit/rtn:w8/id.ece"), Verdict.PASS, evidence=baselines)
    >>> fp32_remarks(RunRecord("ci", 1, (case,)))
    {'vit': ['top-1 of id is at chance']}
    """
    baselines = record.evidence().get("baselines", {})
    said = {model: [*map(str, entry.get("remarks", ()))] for model, entry in baselines.items()}
    return {model: found for model, found in said.items() if found}
