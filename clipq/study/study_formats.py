"""Claims and tables as text, Markdown, CSV and JSON.

In JSON every number names the cases that it rests on; the other forms name configurations.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tabulate import tabulate

from clipq.csv_cells import no_formula
from clipq.errors import listed
from clipq.study.claim_table import ClaimRow, ClaimTable
from clipq.study.effects import TAIL
from clipq.study.fitted_table import filled, fitted
from clipq.study.study_table import COLUMNS, Entry, StudyRow
from clipq.terminal import one_line, printable

__all__ = ["SCHEMA", "claims_plain", "claims_text", "table_text"]

SCHEMA = "clipq-study/1"
_CLAIM_HEADERS = ("claim", "model", "answer", "effect [interval]", "looks", "p", "p, table", "of")


Units = Callable[[Iterable[str]], list[str]]
"""From cases to the ids of the units that they were measured in."""


def claims_text(
    table: ClaimTable,
    form: str = "text",
    *,
    units: Units | None = None,
    width: int | None = None,
) -> str:
    """Return the claims as ``text``, ``markdown``, ``csv`` or ``json``.

    Args:
        table: of claims.
        form: one of these.
        units: names, in JSON, the units of a sweep beside cases.
        width: of what shows ``text``; None where it is no terminal, and for any other form: lines
            may be long.
    """
    if form == "json":
        plain = claims_plain(table)
        if units is not None:
            for claim in plain["claims"]:
                claim["units"] = units(claim["cases"])
        return json.dumps(plain, indent=1, allow_nan=False)
    if form == "csv":
        return _csv(_claim_records(table))
    parts = []
    overall = [row for row in table.rows if not row.model]
    asked = {row.name for row in overall if row.finding.looks}
    single = [row for row in table.rows if row.model and row.about and row.name in asked]
    for title, rows in (("All models", overall), ("Model by model", single)):
        cells = [_claim_cells(row, markdown=form == "markdown") for row in rows]
        parts += [_heading(title, form), _tabulated(cells, _CLAIM_HEADERS, form, width)]
    parts += [_heading("What was asked", form), *_said(table, form, width)]
    return printable("\n\n".join(parts))


def table_text(
    rows: Sequence[StudyRow],
    form: str = "text",
    *,
    units: Units | None = None,
    width: int | None = None,
) -> str:
    """Return the table in one of these forms; in text, `*` marks what is bold in Markdown.

    Args:
        rows: of the table.
        form: ``text``, ``markdown``, ``csv`` or ``json``.
        units: names, in JSON and CSV, the units of a sweep beside cases.
        width: as of `claims_text`.
    """
    if form == "json":
        entries = [_row_plain(row, units) for row in rows]
        plain = {"schema": SCHEMA, "kind": "table", "rows": entries}
        return json.dumps(plain, indent=1, allow_nan=False)
    if form == "csv":
        return _csv(_table_records(rows, units))
    markdown = form == "markdown"
    headers = ("model", "quantizer", "seeds", *(column.title for column in COLUMNS))
    cells = [
        (
            _cell(row.model, markdown=markdown),
            _code(row.quantizer, markdown=markdown),
            len(row.seeds) or "",
            *(_entry_text(entry, markdown=markdown) for entry in row.entries),
        )
        for row in rows
    ]
    looks = sum(entry.change is not None for row in rows for entry in row.entries if entry)
    mark = "Bold" if markdown else "An asterisk"
    note = (
        f"{mark}: surely better than FP32, each by its own 95 % interval over samples and seeds "
        f"of the change, which stands in brackets (of SQNR: of the value); not corrected for the "
        f"{looks:,} comparisons. A minus behind: surely worse."
    )
    table = _tabulated(cells, headers, form, width)
    return printable(f"{table}\n\n{filled(note, width=width)}")


def _heading(title: str, form: str) -> str:
    return f"### {title}" if form == "markdown" else f"{title}\n{'=' * len(title)}"


def _tabulated(
    rows: Sequence[Sequence[Any]], headers: Sequence[str], form: str, width: int | None
) -> str:
    if form == "markdown":
        return tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    return fitted(rows, headers, width=width)


def _cell(text: str, *, markdown: bool) -> str:
    """Return a name or a sentence that stays in its cell, on one line."""
    plain = one_line(text)
    return plain.replace("|", r"\|").replace("<", "&lt;") if markdown else plain


def _code(text: str, *, markdown: bool) -> str:
    """Return a candidate's text, in Markdown as code."""
    plain = one_line(text)
    return f"`{plain.replace('`', chr(39)).replace('|', chr(92) + '|')}`" if markdown else plain


def _said(table: ClaimTable, form: str, width: int | None) -> list[str]:
    """Say what claims say, how FP32 stands, and how many looks were taken."""
    statements = {row.name: row.statement.says for row in table.rows if not row.model}
    bullet = "- " if form == "markdown" else "  "
    told = [one_line(f"{name}: {says}") for name, says in statements.items()]
    said = "\n".join(filled(line, width=width, first=bullet) for line in told)
    lines = []
    known = {model: bias for model, bias in table.biases.items() if bias is not None}
    if known:
        stands = [f"{m} {b[0]:+.3f} [{b[1]:+.3f}, {b[2]:+.3f}]" for m, b in known.items()]
        biases = one_line("; ".join(stands))
        lines.append(f"FP32's mean confidence - accuracy in distribution: {biases}.")
    lines.append(
        f"{table.asked} questions of single models were asked of {table.looks:,} effects "
        f"(quantized: {table.towers}). Each answer errs at most {TAIL:.1%} of the time on either "
        f"side; of {table.asked} questions, up to {table.asked * TAIL:.1f} wrong answers a side "
        "are to be expected. `p, table` is p times the number of questions: below 0.025, the "
        "answer stands for the whole table."
    )
    return [said, *(filled(line, width=width) for line in lines)]


def _claim_cells(row: ClaimRow, *, markdown: bool) -> tuple[str, ...]:
    finding = row.finding
    answer = finding.answer.value
    effects = "; ".join(
        f"{name} {effect.value:+.4g} [{low:+.4g}, {high:+.4g}]"
        for name, effect, (low, high) in finding.parts
    )
    of = [_cell(finding.reason, markdown=markdown)] if finding.reason else []
    if finding.option:
        of = [_code(finding.option, markdown=markdown)]
    if finding.left_out:
        of.append(_cell(f"without {listed(finding.left_out)}", markdown=markdown))
    return (
        _cell(row.name, markdown=markdown),
        _cell(row.model or "all", markdown=markdown),
        f"**{answer}**" if markdown and answer != "undecided" else answer,
        effects,
        str(finding.looks or ""),
        _p_text(finding.p_value),
        _p_text(row.adjusted_p),
        "; ".join(of),
    )


def _p_text(p_value: float | None) -> str:
    if p_value is None:
        return ""
    return "<1e-4" if p_value < 1e-4 else f"{p_value:.3g}"


def claims_plain(table: ClaimTable) -> dict[str, Any]:
    """Return the claims as plain data for strict JSON."""
    return {
        "schema": SCHEMA,
        "kind": "claims",
        "towers": table.towers,
        "tail": TAIL,
        "looks": table.looks,
        "questions": table.asked,
        "confidence_bias": {
            model: None if bias is None else dict(zip(("value", "low", "high"), bias, strict=True))
            for model, bias in table.biases.items()
        },
        "claims": [
            {
                "claim": row.statement.claim,
                "part": row.statement.part,
                "says": row.statement.says,
                "rule": row.statement.rule,
                "model": row.model or None,
                "about": row.about,
                "answer": row.finding.answer.value,
                "effects": [
                    {"name": name, "value": effect.value, "low": low, "high": high}
                    | {"unit": row.statement.unit, "seeds": effect.seeds}
                    for name, effect, (low, high) in row.finding.parts
                ],
                "p_value": row.finding.p_value,
                "p_value_table": row.adjusted_p,
                "looks": row.finding.looks,
                "option": row.finding.option or None,
                "reason": row.finding.reason or None,
                "left_out": list(row.finding.left_out),
                "cases": list(row.finding.cases),
            }
            for row in table.rows
        ],
    }


def _claim_records(table: ClaimTable) -> Iterable[dict[str, Any]]:
    """Yield one record per claim, model and effect."""
    for row in table.rows:
        finding = row.finding
        for name, effect, (low, high) in finding.parts or (("", None, (None, None)),):
            yield {
                "claim": row.statement.claim,
                "part": row.statement.part,
                "model": row.model or "all",
                "answer": finding.answer.value,
                "effect": name,
                "value": effect.value if effect else None,
                "low": low,
                "high": high,
                "unit": row.statement.unit,
                "seeds": effect.seeds if effect else None,
                "p_value": finding.p_value,
                "p_value_table": row.adjusted_p,
                "looks": finding.looks,
                "option": finding.option,
                "reason": finding.reason,
                "left_out": " ".join(finding.left_out),
            }


def _entry_text(entry: Entry | None, *, markdown: bool) -> str:
    if entry is None:
        return ""
    value = f"{entry.value:.3f}" if abs(entry.value) < 10 else f"{entry.value:.1f}"
    if entry.better:
        value = f"**{value}**" if markdown else f"{value}*"
    if entry.low is None or entry.high is None:
        return value
    digits = "+.3f" if entry.change is not None else ".1f"
    sign = "-" if entry.worse else ""
    return f"{value}{sign} [{entry.low:{digits}}, {entry.high:{digits}}]"


def _row_plain(row: StudyRow, units: Units | None) -> dict[str, Any]:
    return {
        "model": row.model,
        "quantizer": row.quantizer,
        "seeds": list(row.seeds),
        "entries": {
            column.title: None
            if entry is None
            else {
                "value": entry.value,
                "change": entry.change,
                "low": entry.low,
                "high": entry.high,
                "better": entry.better,
                "worse": entry.worse,
                "cases": list(entry.cases),
                **({} if units is None else {"units": units(entry.cases)}),
            }
            for column, entry in zip(COLUMNS, row.entries, strict=True)
        },
    }


def _table_records(rows: Sequence[StudyRow], units: Units | None) -> Iterable[dict[str, Any]]:
    for row in rows:
        for column, entry in zip(COLUMNS, row.entries, strict=True):
            if entry is not None:
                yield {
                    "model": row.model,
                    "quantizer": row.quantizer,
                    "seeds": len(row.seeds),
                    "column": column.title,
                    "value": entry.value,
                    "change": entry.change,
                    "low": entry.low,
                    "high": entry.high,
                    "better": entry.better,
                    "worse": entry.worse,
                    **({} if units is None else {"units": " ".join(units(entry.cases))}),
                }


def _csv(records: Iterable[dict[str, Any]]) -> str:
    found = list(records)
    written = io.StringIO()
    writer = csv.DictWriter(written, list(found[0]) if found else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: no_formula(value) for name, value in row.items()} for row in found)
    return written.getvalue().rstrip("\n")
