"""What the page's script is given: the record in a compact form.

Cases travel as columns, and texts that repeat (names, units, reasons, commands) once, so that 5,000
cases are a third of what `report.json` needs.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from clipq.estimate import Estimate
from clipq.records import RunRecord, not_applicable_sentences
from clipq.report.artifact_facts import artifact_rows
from clipq.report.candidates import candidate_lines
from clipq.report.ladder import ladders
from clipq.report.text import correction
from clipq.verdicts import Verdict

__all__ = ["payload"]

_TEXTS = ("model", "quantizer", "probe", "metric", "verdict", "reason", "unit", "direction")
_NUMBERS = (
    "metric_version",
    "samples",
    "baseline",
    "observed",
)
_ESTIMATES = tuple(field.name for field in fields(Estimate))
_DIGITS = 6  # more than any cell shows; report.json keeps every digit


def payload(record: RunRecord) -> dict[str, Any]:
    """Return the record as plain data for the page: columns of cases, each text once."""
    texts: dict[str, int] = {}
    columns: dict[str, list[Any]] = {
        name: [texts.setdefault(str(getattr(case, name)), len(texts)) for case in record.cases]
        for name in (*_TEXTS, "next_command")
    }
    for name in _NUMBERS:
        columns[name] = [_short(getattr(case, name)) for case in record.cases]
    for name in _ESTIMATES:
        columns[name] = [_short(getattr(case.estimate, name)) for case in record.cases]
    return {
        "id": record.id,
        "passed": record.passed,
        "policy": record.policy,
        "planned": record.planned,
        "started": record.started,
        "timings": dict(record.timings),
        "commit": dict(record.commit),
        "blocks": [verdict.value for verdict in Verdict if record.rule.blocks(verdict)],
        "counts": record.counts,
        "correction": correction(record),
        "candidates": [
            {"key": str(line.candidate), "blocked": line.blocked, "text": line.text}
            for line in candidate_lines(record)
        ],
        "ladders": [ladder.to_plain() for ladder in ladders(record)],
        "not_applicable": {
            "cases": sum(sum(needs.values()) for needs in record.not_applicable.values()),
            "sentences": not_applicable_sentences(record.not_applicable),
        },
        "artifact_texts": {
            candidate: artifact_rows(artifact)
            for candidate, artifact in record.evidence().get("artifacts", {}).items()
        },
        "problems": [*record.problems, *filter(None, (record.refusal,))],
        "warnings": list(record.warnings),
        "unreported": list(record.unreported),
        "waivers": [dict(waiver) for waiver in record.waivers],
        "selection": dict(record.selection),
        "inputs": {kind: dict(entry) for kind, entry in record.inputs.items()},
        "statistics": dict(record.statistics),
        "versions": dict(record.versions),
        "evidence": record.evidence(),
        "kernels": [asdict(row) for row in record.kernels],
        "texts": list(texts),
        "cases": columns,
    }


def _short(value: float | None) -> float | None:
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.{_DIGITS}g}")
