"""A comparison of two runs as text and as Markdown; reads its plain form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from clipq.report.markdown import inert
from clipq.report.text import number_text
from clipq.terminal import one_line, printable

__all__ = ["comparison_markdown", "comparison_text"]

_SHOWN = 25
_NOTES = 10
_HEADERS = ("case", "A", "B", "worse by", "interval", "margin", "unit", "A, B: gate")
_TITLES = {
    "regressed": "regressed: surely worse by more than the margin, or newly blocking",
    "removed": "removed: B does not have them",
    "incomparable": "incomparable",
    "inconclusive": "inconclusive: the samples cannot tell",
    "worse": "worse, within the margin",
    "better": "better",
    "equivalent": "equivalent: no worse than the margin allows",
    "identical": "identical",
    "added": "added: A does not have them",
}
_FOLDED = ("equivalent", "identical", "added")


def comparison_text(plain: Mapping[str, Any], *, everything: bool = False) -> str:
    """Return a comparison for a terminal; unchanged cases are counted, unless `everything`."""
    parts = [
        f"A: {_run(plain['before'])}\nB: {_run(plain['after'])}",
        tabulate(
            [(outcome, number) for outcome, number in plain["counts"].items()],
            ("outcome", "cases"),
        ),
    ]
    for outcome, rows in _by_outcome(plain):
        if outcome in _FOLDED and not everything:
            continue
        shown = rows if everything else rows[:_SHOWN]
        table = tabulate([_row(row) for row in shown], _HEADERS, disable_numparse=True)
        more = len(rows) - len(shown)
        tail = f"\n... and {more} more: --all shows them" if more else ""
        reasons = dict.fromkeys(f"  {row['reason']}" for row in shown if row["reason"])
        why = "".join(f"\n{reason}" for reason in list(reasons)[:5])
        parts.append(f"{_TITLES[outcome]}:\n{table}{tail}{why}")
    parts += [f"note: {note}" for note in plain["notes"][:_NOTES]]
    parts.append(_conclusion(plain))
    return printable("\n\n".join(parts))


def comparison_markdown(plain: Mapping[str, Any], *, everything: bool = False) -> str:
    """Return a comparison for a comment: the conclusion first, details folded away."""
    counts = ", ".join(f"{number} {outcome}" for outcome, number in plain["counts"].items())
    parts = [
        f"### clipq compare: {inert(_conclusion(plain))}",
        f"A: {inert(_run(plain['before']))}<br>B: {inert(_run(plain['after']))}",
        counts,
    ]
    for outcome, rows in _by_outcome(plain):
        if outcome in _FOLDED and not everything:
            continue
        shown = rows if everything else rows[:_SHOWN]
        cells = [[inert(cell) for cell in _row(row)] for row in shown]
        table = tabulate(cells, _HEADERS, tablefmt="github", disable_numparse=True)
        if len(rows) > len(shown):
            table += f"\n\n... and {len(rows) - len(shown)} more."
        if outcome in ("regressed", "removed"):
            parts.append(f"**{_TITLES[outcome]}**\n\n{table}")
        else:
            title = f"{_TITLES[outcome]} ({len(rows)})"
            parts.append(f"<details><summary>{title}</summary>\n\n{table}\n\n</details>")
    parts += [f"> {inert(note)}" for note in plain["notes"][:_NOTES]]
    return printable("\n\n".join(parts))


def _by_outcome(plain: Mapping[str, Any]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    rows = plain["differences"]
    groups = [(outcome, [row for row in rows if row["outcome"] == outcome]) for outcome in _TITLES]
    return [(outcome, members) for outcome, members in groups if members]


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        one_line(row["case"]),
        number_text(row["before"]),
        number_text(row["after"]),
        number_text(row["estimate"]["loss"]),
        _interval(row),
        number_text(row["estimate"]["margin"]),
        one_line(row["unit"]),
        _verdicts(row["verdicts"]),
    )


def _interval(row: Mapping[str, Any]) -> str:
    estimate = row["estimate"]
    if estimate["low"] is None:
        return str(row["interval"])
    return f"[{estimate['low']:+.4g}, {estimate['high']:+.4g}] {row['interval']}"


def _verdicts(verdicts: Sequence[str]) -> str:
    before, after = (verdict or "-" for verdict in verdicts)
    return before if before == after else f"{before}, {after}"


def _run(run: Mapping[str, Any]) -> str:
    commit = run["commit"]
    where = f"commit {commit['sha'][:10]} {commit['subject']}" if commit else "no commit"
    state = "passed" if run["passed"] else "failed"
    return (
        f"{run['id'][:12]}  {one_line(run['started']) or 'no date'}  {one_line(where)}  "
        f"{run['cases']} cases, {state}"
    )


def _conclusion(plain: Mapping[str, Any]) -> str:
    compared, regressions = plain["compared"], plain["regressions"]
    if not compared:
        return "NOTHING WAS COMPARABLE"
    paired = sum(row["interval"] in ("paired", "exact") for row in plain["differences"])
    how = f"{compared} cases compared, {paired} of them on the same samples"
    return f"{regressions} REGRESSIONS: {how}" if regressions else f"NO REGRESSION: {how}"
