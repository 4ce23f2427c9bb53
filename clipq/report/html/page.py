"""The page itself: template, styles, script and data joined into one inert file.

Nothing in it can be fetched: the content security policy names the one style sheet and the one
script by their hashes and allows nothing else. Where scripts do not run, the page still says
whether the gate passed, why not, and what blocks first.
"""

from __future__ import annotations

import html as markup

from clipq.records import RunRecord
from clipq.report.candidates import candidate_lines
from clipq.report.html.page_payload import payload
from clipq.report.text import HEADERS, table_rows
from clipq.terminal import printable
from clipq.web import embed, page_policy, page_script, page_styles, page_template

__all__ = ["html", "outcome"]

_WITHOUT_SCRIPT = 25  # blocking cases that are listed where scripts do not run


def html(record: RunRecord) -> str:
    """Return the run as one HTML file that needs nothing else, and no network.

    >>> "<title>failed: clipq reliability report</title>" in html(RunRecord("ci", 0, ()))
    True
    """
    style, script = page_styles("report/report.css"), page_script("report/main.js")
    state = "passed" if record.passed else "failed"
    return page_template("report/page.html").substitute(
        policy=page_policy(style, script),
        title=_text(f"{state}: clipq reliability report {record.started}".rstrip()),
        style=style,
        state=state,
        symbol="✓" if record.passed else "✕",
        outcome=_text(outcome(record)),
        candidates=_candidates(record),
        blocking=_blocking(record),
        data=embed(payload(record)),
        script=script,
    )


def outcome(record: RunRecord) -> str:
    """Return why the gate passed or failed, in one or two sentences.

    >>> outcome(RunRecord("ci", 0, ()))
    'Nothing was measured, which is no pass.'
    """
    if not record.cases and not record.kernels:
        return "Nothing was measured, which is no pass."
    parts = []
    if record.cases or record.planned:
        parts.append(f"{len(record.cases):,} of {record.planned:,} planned cases were reported")
    if record.kernels:
        passed = sum(row.outcome == "pass" for row in record.kernels)
        parts.append(f"{passed:,} of {len(record.kernels):,} kernel checks passed")
    reasons = [
        f"{count:,} {one if count == 1 else many}" if many else one
        for count, one, many in (
            (len(record.blocking), "case blocks", "cases block"),
            (len(record.broken_kernels), "kernel check failed", "kernel checks failed"),
            (len(record.unreported), "case was never reported", "cases were never reported"),
            (len(record.problems), "problem of the run as a whole", "problems of the run"),
            (int(bool(record.refusal)), f"policy {record.policy} refuses a part", ""),
        )
        if count
    ]
    said = "; ".join(filter(None, (record.partial, *record.replaced)))
    parts += [said] if said else []
    why = f" {'; '.join(reasons)}." if reasons else ""
    if not reasons and not record.passed:
        why = " No kernel check passed, so nothing was measured."
    if not reasons and record.passed:
        why = " Nothing blocks."
    return f"{'; '.join(parts)}.{why}"


def _candidates(record: RunRecord) -> str:
    """Return the candidates' lines for readers without scripts."""
    lines = candidate_lines(record)[:_WITHOUT_SCRIPT]
    return "".join(f"<li>{_text(str(line))}</li>" for line in lines)


def _blocking(record: RunRecord) -> str:
    """Return the rows of the table for readers without scripts."""
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in HEADERS)
    rows = [
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>"
        for row in table_rows(record.blocking[:_WITHOUT_SCRIPT])
    ]
    return f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"


def _text(value: str) -> str:
    """Escape markup, and what cannot be shown or encoded."""
    return markup.escape(printable(value))
