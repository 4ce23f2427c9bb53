"""JUnit XML: one test case per case, numbers as properties, for CI systems that read it."""

from __future__ import annotations

from xml.etree import ElementTree

from clipq.records import CaseResult, KernelResult, RunRecord
from clipq.report.artifact_facts import artifact_line
from clipq.report.text import explain
from clipq.report.undecided import undecided
from clipq.terminal import printable
from clipq.verdicts import Verdict

__all__ = ["junit"]


def junit(record: RunRecord) -> str:
    """Return the run as JUnit XML.

    >>> from clipq.cases import Case
    >>> from clipq.verdicts import Verdict
    >>> failed = CaseResult(Case.parse("vit/rtn:w4/id.ece"), Verdict.FAIL)
    >>> ElementTree.fromstring(junit(RunRecord("ci", 1, (failed,))))[0].attrib["failures"]
    '1'
    """
    blocking = {case.id for case in record.blocking}
    errors = [case for case in record.blocking if case.verdict is Verdict.ERROR]
    problems = [*record.problems, *filter(None, (record.refusal,))]
    failed = len(blocking) - len(errors) + len(record.broken_kernels) + len(problems)
    extra = len(problems) + len(record.unreported)
    suite = ElementTree.Element(
        "testsuite",
        name="clipq",
        tests=str(len(record.cases) + len(record.kernels) + extra),
        failures=str(failed),
        skipped=str(sum(row.outcome == "not-run" for row in record.kernels)),
        errors=str(len(errors) + len(record.unreported)),
        time=str(record.timings.get("seconds", 0)),
    )
    properties = ElementTree.SubElement(suite, "properties")
    about = {"run": record.id, "policy": record.policy, "started": record.started}
    about["commit"] = str(record.commit.get("sha", ""))
    about |= {"part": record.partial} if record.partial else {}
    about |= {"replaced": "; ".join(record.replaced)} if record.replaced else {}
    about |= {
        f"not-applicable-{candidate}": ", ".join(f"{count} {why}" for why, count in needs.items())
        for candidate, needs in record.not_applicable.items()
    }
    about |= {
        f"artifact-{candidate}": artifact_line(artifact)
        for candidate, artifact in record.evidence().get("artifacts", {}).items()
    }
    about |= {f"{kind}-sha256": entry["sha256"] for kind, entry in record.inputs.items()}
    for name, value in sorted(about.items() | record.versions.items()):
        ElementTree.SubElement(properties, "property", name=_clean(name), value=_clean(value))
    for case in record.cases:
        _add(suite, case, blocks=case.id in blocking)
    for row in record.kernels:
        _add_kernel(suite, row)
    for problem in problems:
        element = ElementTree.SubElement(suite, "testcase", classname="clipq", name=_clean(problem))
        ElementTree.SubElement(element, "failure", message="problem").text = _clean(problem)
    for name in record.unreported:
        element = ElementTree.SubElement(suite, "testcase", classname="clipq", name=_clean(name))
        ElementTree.SubElement(element, "error", message="planned, never reported")
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _add(suite: ElementTree.Element, case: CaseResult, *, blocks: bool) -> None:
    element = ElementTree.SubElement(
        suite,
        "testcase",
        classname=_clean(f"{case.model}.{case.quantizer}"),
        name=_clean(case.id),
    )
    properties = ElementTree.SubElement(element, "properties")
    values = {
        "verdict": case.verdict.value,
        "undecided": undecided(case),
        "baseline": case.baseline,
        "observed": case.observed,
        **case.estimate.to_plain(),
        "unit": case.unit,
        "samples": case.samples,
        "waived_by": case.waived_by or None,
    }
    for name, value in values.items():
        if value is not None:
            ElementTree.SubElement(properties, "property", name=name, value=_clean(str(value)))
    if blocks:
        kind = "error" if case.verdict is Verdict.ERROR else "failure"
        text = _clean(explain(case))
        ElementTree.SubElement(element, kind, message=case.verdict.value).text = text


def _add_kernel(suite: ElementTree.Element, row: KernelResult) -> None:
    element = ElementTree.SubElement(
        suite, "testcase", classname=_clean(f"kernels.{row.kernel}"), name=_clean(row.id)
    )
    reason = _clean(row.reason)
    if row.outcome == "fail":
        ElementTree.SubElement(element, "failure", message="fail").text = reason
    elif row.outcome == "not-run":
        ElementTree.SubElement(element, "skipped", message=reason)


def _clean(text: str) -> str:
    """Write as an escape what XML cannot hold, and what a log would obey that shows this file."""
    return printable(text)
