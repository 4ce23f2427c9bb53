"""C3 and C4: out-of-distribution detection beside calibration and accuracy.

Detection is the mean AUROC of MCM over all out-of-distribution probes, near and far: one number, so
that no probe is picked.
"""

from __future__ import annotations

from clipq.study.claim_rules import Option
from clipq.study.statements import Lacking, Statement, View, changes

__all__ = ["detection_claims"]


def detection_claims() -> list[Statement]:
    """Return the statements."""
    return [
        Statement(
            "C3",
            "",
            "some quantizer raises OOD AUROC and ECE at once",
            "exists",
            "fraction",
            _apart,
        ),
        Statement(
            "C4",
            "",
            "some QAT configuration improves accuracy, ECE and OOD AUROC together",
            "exists",
            "fraction",
            lambda view: _together(view, tuned=False),
        ),
        Statement(
            "C4",
            "with a tuned logit scale",
            "some QAT configuration with a tuned logit scale improves all three together",
            "exists",
            "fraction",
            lambda view: _together(view, tuned=True),
        ),
    ]


def _apart(view: View) -> list[Option] | Lacking:
    detection = ("OOD AUROC", view.probes("ood", "auroc-mcm"), "auroc-mcm", 1)
    options = changes(view, view.all(), detection, ("ECE", view.known, "ece", 1))
    return options or Lacking("needs ECE, and MCM's AUROC on out-of-distribution probes")


def _together(view: View, *, tuned: bool) -> list[Option] | Lacking:
    options = changes(
        view,
        view.trained(tuned=tuned),
        ("top-1", view.known, "top1", 1),
        ("ECE", view.known, "ece", -1),
        ("OOD AUROC", view.probes("ood", "auroc-mcm"), "auroc-mcm", 1),
    )
    kind = " with a tuned logit scale" if tuned else ""
    return options or Lacking(
        f"needs top-1, ECE and MCM's AUROC of a trained quantizer{kind} ({view.towers})"
    )
