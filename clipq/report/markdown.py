"""Markdown, fit for a CI step summary: verdict first, details folded away."""

from __future__ import annotations

from tabulate import tabulate

from clipq.records import RunRecord, Verdict
from clipq.report.text import HEADERS, correction, table_rows

__all__ = ["inert", "markdown"]

_LIMIT = 100


def markdown(record: RunRecord) -> str:
    """Return the run as Markdown."""
    state = "passed" if record.passed else "failed"
    counts = ", ".join(f"{number} {verdict}" for verdict, number in record.counts.items())
    parts = [f"# clipq reliability gate: {state}"]
    if record.planned or not record.kernels:
        parts.append(
            f"{len(record.cases)} of {record.planned} planned cases reported under policy "
            f"`{record.policy}`: {counts}. {correction(record)}".rstrip()
        )
    if record.blocking:
        parts += ["## Blocking, worst first", _table(table_rows(record.blocking[:_LIMIT]))]
        if len(record.blocking) > _LIMIT:
            parts.append(f"... and {len(record.blocking) - _LIMIT} more in `report.json`.")
        reasons = dict.fromkeys(case.reason for case in record.blocking if case.reason)
        parts += [f"- {inert(reason)}" for reason in list(reasons)[:10]]
    if record.kernels:
        parts.append(_kernels(record))
    for title, verdict in (
        ("Inconclusive", Verdict.INCONCLUSIVE),
        ("Improved", Verdict.IMPROVED),
        ("Expected failures", Verdict.WAIVED),
    ):
        cases = [case for case in record.cases if case.verdict is verdict]
        if cases:
            rows = _table(table_rows(cases[:_LIMIT]))
            parts.append(
                f"<details><summary>{title}: {len(cases)}</summary>\n\n{rows}\n\n</details>"
            )
    parts += [f"> warning: {inert(warning)}" for warning in record.warnings]
    versions = "\n".join(f"- {name} {value}" for name, value in sorted(record.versions.items()))
    models = "\n".join(
        f"- model `{name}`: weights sha256 `{model['weights_sha256']}`"
        for name, model in record.evidence().get("models", {}).items()
    )
    probes = "\n".join(
        f"- probe `{name}`: {probe['samples']} samples, fingerprint `{probe['fingerprint']}`"
        for name, probe in record.evidence().get("probes", {}).items()
    )
    parts.append(
        f"<details><summary>Provenance</summary>\n\n{models}\n{probes}\n{versions}\n\n</details>"
    )
    return "\n\n".join(parts) + "\n"


def _kernels(record: RunRecord) -> str:
    """Every check of every kernel: what failed in full, the rest folded away."""
    parts = []
    failed = [(row.kernel, row.check, row.reason) for row in record.broken_kernels]
    if failed:
        safe = [[inert(cell) for cell in row] for row in failed]
        table = tabulate(safe, ("kernel", "check", "why"), tablefmt="github")
        parts.append(f"## Kernels that fail their spec\n\n{table}")
    rows = [
        [inert(cell) for cell in (row.kernel, row.check, row.outcome, row.where, row.reason)]
        for row in record.kernels
    ]
    table = tabulate(rows, ("kernel", "check", "outcome", "ran on", "why"), tablefmt="github")
    title = f"Kernel checks: {len(rows)}"
    parts.append(f"<details><summary>{title}</summary>\n\n{table}\n\n</details>")
    return "\n\n".join(parts)


def _table(rows: list[tuple[str, ...]]) -> str:
    safe = [[inert(cell) for cell in row] for row in rows]
    return tabulate(safe, HEADERS, tablefmt="github", disable_numparse=True)


def inert(text: str) -> str:
    """Escape what a Markdown renderer would take for markup."""
    one_line = " ".join(text.split())
    escaped = one_line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("|", "\\|").replace("`", "\\`").replace("*", "\\*").replace("[", "\\[")
