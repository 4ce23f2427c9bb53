"""What code hosts show beside a change: workflow commands for GitHub, code quality for GitLab.

Both point at the file that a verdict rests on, the baseline of the case's model: which code made a
quantizer worse is not known; `clipq blame` and `clipq bisect` look for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from clipq.records import CaseResult, RunRecord
from clipq.report.text import explain
from clipq.report.undecided import undecided
from clipq.terminal import one_line, printable

__all__ = ["github", "gitlab"]

_MOST = 10  # of each kind: GitHub shows no more of a step


@dataclass(frozen=True, slots=True)
class _Finding:
    level: str
    title: str
    text: str
    file: str


def github(record: RunRecord) -> str:
    """Return workflow commands: an error per blocking case, at most ten, and one that counts.

    GitHub shows ten errors and ten warnings of a step; what blocks comes worst first.
    """
    lines = []
    for level in ("error", "warning"):
        of_level = [finding for finding in _findings(record) if finding.level == level]
        shown = of_level if len(of_level) <= _MOST else of_level[: _MOST - 1]
        lines += [_command(f.level, f.title, f.text, f.file) for f in shown]
        if len(of_level) > len(shown):
            text = f"{len(of_level) - len(shown)} more: see the report"
            lines.append(_command(level, "clipq reliability gate", text, ""))
    if record.passed:
        lines.append(
            _command("notice", "clipq", f"reliability gate passed: {len(record.cases)} cases", "")
        )
    return "\n".join(lines)


def gitlab(record: RunRecord) -> str:
    """Return a code quality report, https://docs.gitlab.com/ci/testing/code_quality/."""
    severities = {"error": "critical", "warning": "minor"}
    issues = [
        {
            "description": printable(f"{finding.title}: {finding.text}"),
            "check_name": "clipq",
            "fingerprint": hashlib.sha256(finding.title.encode()).hexdigest(),
            "severity": severities[finding.level],
            "location": {"path": finding.file or "clipq.toml", "lines": {"begin": 1}},
        }
        for finding in _findings(record)
    ]
    return json.dumps(issues, indent=1)


def _findings(record: RunRecord) -> Iterator[_Finding]:
    baselines = record.evidence().get("baselines", {})

    def finding(level: str, case: CaseResult) -> _Finding:
        text = explain(case).partition("\n")[2].strip() or case.verdict.value
        file = baselines.get(case.model, {}).get("file", "")
        return _Finding(level, f"{case.id}: {case.verdict.value}", text, file)

    for case in record.blocking:
        yield finding("error", case)
    for row in record.broken_kernels:
        yield _Finding("error", f"kernel {row.id}: fail", row.reason, "")
    for problem in filter(None, (*record.problems, record.refusal)):
        yield _Finding("error", f"the run as a whole: {problem}", problem, "")
    for name in record.unreported:
        yield _Finding("error", f"{name}: never reported", "planned, never reported", "")
    blocking = {case.id for case in record.blocking}
    for case in record.cases:
        if undecided(case) is not None and case.id not in blocking:
            yield finding("warning", case)
    for warning in record.warnings:
        yield _Finding("warning", f"environment: {warning}", warning, "")


def _command(level: str, title: str, text: str, file: str) -> str:
    where = f"file={_property(file)}," if file else ""
    return f"::{level} {where}title={_property(title)}::{_data(text)}"


def _data(text: str) -> str:
    """Escape a workflow command's message, so that no line of it becomes a command."""
    return printable(text).replace("%", "%25").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(one_line(text)).replace(":", "%3A").replace(",", "%2C")
