"""What the terminal says of artifacts: findings, where they lose, what they cannot have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tabulate import tabulate

from clipq.records import RunRecord, not_applicable_sentences
from clipq.report.artifact_facts import findings
from clipq.report.ladder import HEADERS, Ladder, ladder_rows, ladders
from clipq.terminal import one_line

__all__ = ["REST", "artifact_parts", "missing_rungs"]

REST = (
    "rest: the artifact's loss less its rungs', with both of them the simulation gap; a difference "
    "of point values, of which no interval is known; ~: no more than the intervals of its parts "
    "together, so that it may be nothing"
)
_FINDINGS = 15
_EACH, _LADDERS = 3, 5


def artifact_parts(record: RunRecord) -> Iterator[str]:
    """Yield paragraphs on the artifacts of a run; none where it has none.

    >>> run = RunRecord("ci", 0, (), not_applicable={"vit/ort-int8": {"gradients": 3}})
    >>> list(artifact_parts(run))
    ['3 cases of vit/ort-int8 are not applicable: they need gradients']
    """
    if found := list(findings(record)):
        lines = ["findings of artifacts:"]
        for candidate, one in found[:_FINDINGS]:
            lines.append(f"  {one_line(candidate)}: {one['problem']}")
            lines += [f"    fix: {one['fix']}"] if one.get("fix") else []
        if len(found) > _FINDINGS:
            lines.append(f"  ... and {len(found) - _FINDINGS} more: see report.html")
        yield "\n".join(lines)
    all_ladders = ladders(record)
    if shown := [ladder for ladder in all_ladders if ladder.steps][:_LADDERS]:
        yield _ladders(shown, all_ladders)
    if sentences := not_applicable_sentences(record.not_applicable):
        more = len(sentences) - _FINDINGS
        rest = [f"... and {more} more: see report.html"] if more > 0 else []
        yield "\n".join([*sentences[:_FINDINGS], *rest])


def missing_rungs(found: Sequence[Ladder]) -> list[str]:
    """Return a sentence for each rung that a ladder lacks.

    >>> missing_rungs(ladders(RunRecord("ci", 0, ())))
    []
    """
    return [f"{ladder.candidate}: {why}" for ladder in found for why in ladder.missing]


def _ladders(shown: Sequence[Ladder], all_ladders: Sequence[Ladder]) -> str:
    rows = [tuple(map(one_line, row)) for row in ladder_rows(shown, each=_EACH)]
    table = tabulate(rows, HEADERS, disable_numparse=True)
    lines = ["where artifacts lose, the largest rests:", table, REST, *missing_rungs(shown)]
    steps = sum(len(ladder.steps) for ladder in all_ladders)
    if steps > len(rows):
        lines.append(f"... and {steps - len(rows):,} more metrics: report.html has all")
    return "\n".join(lines)
