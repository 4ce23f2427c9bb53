"""What the terminal says of artifacts: findings, where they lose, what they cannot have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tabulate import tabulate

from clipq.records import RunRecord, not_applicable_sentences
from clipq.report.artifact_facts import findings, is_wrong
from clipq.report.ladder import Ladder, ladders
from clipq.report.ladder_text import HEADERS, REST, ladder_rows, missing_rungs
from clipq.terminal import one_line

__all__ = ["artifact_parts"]

_FINDINGS = 15
_EACH, _LADDERS = 3, 5


def artifact_parts(record: RunRecord) -> Iterator[str]:
    """Yield paragraphs on the artifacts of a run; none where it has none.

    >>> run = RunRecord("ci", 0, (), not_applicable={"vit/ort-int8": {"gradients": 3}})
    >>> list(artifact_parts(run))
    ['3 cases of vit/ort-int8 are not applicable: they need gradients']
    """
    if found := list(findings(record)):
        lines = ["found in artifacts, what cannot be meant first:"]
        for candidate, one in found[:_FINDINGS]:
            note = "" if is_wrong(one) else "note: "
            lines.append(f"  {one_line(candidate)}: {note}{one['problem']}")
            lines += [f"    fix: {one['fix']}"] if one.get("fix") else []
        if len(found) > _FINDINGS:
            lines.append(f"  ... and {len(found) - _FINDINGS} more: see report.html")
        yield "\n".join(lines)
    if found_ladders := ladders(record):
        yield _ladders(found_ladders)
    if sentences := not_applicable_sentences(record.not_applicable):
        more = len(sentences) - _FINDINGS
        rest = [f"... and {more} more: see report.html"] if more > 0 else []
        yield "\n".join([*sentences[:_FINDINGS], *rest])


def _ladders(found: Sequence[Ladder]) -> str:
    shown = [ladder for ladder in found if ladder.steps][:_LADDERS]
    rows = [tuple(map(one_line, row)) for row in ladder_rows(shown, each=_EACH)]
    table = [tabulate(rows, HEADERS, disable_numparse=True), REST] if rows else []
    missing = list(map(one_line, missing_rungs(found)))
    more = [f"... and {len(missing) - _FINDINGS} more"] if len(missing) > _FINDINGS else []
    lines = ["where artifacts lose, the largest rests:", *table, *missing[:_FINDINGS], *more]
    if len(lines) == 1:
        return "where artifacts lose: no metric has a loss on all rungs"
    steps = sum(len(ladder.steps) for ladder in found)
    if steps > len(rows):
        lines.append(f"... and {steps - len(rows):,} more metrics: report.html has all")
    return "\n".join(lines)
