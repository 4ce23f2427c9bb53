"""Markdown, fit for a pull request's comment: verdict first, details folded away, size bounded."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from clipq.records import CaseResult, RunRecord, not_applicable_sentences
from clipq.report.artifact_facts import artifact_details, artifact_line, findings, is_wrong
from clipq.report.candidates import candidate_lines
from clipq.report.fp32 import fp32_remarks
from clipq.report.ladder import ladders
from clipq.report.ladder_text import HEADERS as LADDER_HEADERS
from clipq.report.ladder_text import REST, ladder_rows, missing_rungs
from clipq.report.text import HEADERS, correction, kernel_rows, standing, table_rows
from clipq.report.tuning_text import tuning_text
from clipq.report.undecided import Undecided, undecided
from clipq.terminal import one_line, printable
from clipq.verdicts import Policy, Verdict

__all__ = ["MARKER", "inert", "markdown"]

MARKER = "<!-- clipq report -->"
"""First line of every report: by it a bot finds the comment to replace."""
_LIMIT = 60_000  # characters; GitHub refuses a comment of more than 65,536
_ROWS = (30, 10, 3)
_QUANTIZERS = 60
_REASONS = 10
_FOLDED: Mapping[str, str] = {
    Undecided.BEYOND: "Not decided, beyond the margin",
    Undecided.UNDER_POWERED: "Not decided, under-powered",
    Verdict.IMPROVED: "Improved",
    Verdict.WAIVED: "Expected failures and waived",
}
_CELL = 160  # characters of a text that people write
_SENTENCE = 400  # of one that a runtime or clipq writes
_ESCAPES = str.maketrans(
    {character: f"\\{character}" for character in "\\|`*_[]~!"}
    | {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;", "#": "&#35;"}
)


def markdown(record: RunRecord, *, limit: int = _LIMIT) -> str:
    """Return the run as Markdown of at most `limit` characters.

    Tables are shortened, and in the end dropped, until it fits; each says what it leaves out.

    >>> markdown(RunRecord("ci", 0, ())).splitlines()[1]  # nothing measured is no pass
    '# clipq reliability gate: failed'
    """
    text = ""
    for rows in _ROWS:
        text = printable("\n\n".join(_parts(record, rows))) + "\n"
        if len(text) <= limit:
            return text
    head = printable("\n\n".join(_head(record))) + "\n"
    return head[:limit] if len(head) > limit else head


def inert(text: str) -> str:
    """Escape what a Markdown renderer would take for markup, a mention or a reference.

    It stays on its line, and what cannot be printed is written as an escape.

    >>> inert("<b> by @ada, see #7")
    '&lt;b&gt; by &#64;ada, see &#35;7'
    """
    return one_line(text).translate(_ESCAPES).replace("://", "&#58;//")


def _code(text: str) -> str:
    """Return a code span that its text cannot end."""
    plain = one_line(text).replace("`", "'")
    return f"`{plain}`"


def _parts(record: RunRecord, rows: int) -> Iterator[str]:
    yield from _head(record)
    if record.cases:
        yield _candidates(record, rows)
    yield from _artifacts(record, rows)
    if record.blocking:
        yield "## Blocking, worst first"
        yield _table(record.blocking, rows)
        reasons = dict.fromkeys(case.reason for case in record.blocking if case.reason)
        yield "\n".join(f"- {inert(reason)}" for reason in list(reasons)[:_REASONS])
    if record.kernels:
        yield from _kernels(record, rows)
    kinds: dict[str, list[CaseResult]] = {title: [] for title in _FOLDED.values()}
    for case in record.cases:
        title = _FOLDED.get(undecided(case) or case.verdict)
        if title is not None and not record.rule.blocks(case.verdict):
            kinds[title].append(case)
    for title, cases in kinds.items():
        if cases:
            cases.sort(key=lambda case: (-case.severity, case.id))
            yield _folded(f"{title}: {len(cases)}", _table(cases, rows))
    if record.waivers:
        yield _waivers(record.waivers, rows)
    yield _folded("Provenance", _provenance(record))


def _head(record: RunRecord) -> Iterator[str]:
    state = "passed" if record.passed else "failed"
    yield f"{MARKER}\n# clipq reliability gate: {state}"
    if said := standing(record):
        yield f"**{inert(said)}**"
    counts = ", ".join(f"{number} {verdict}" for verdict, number in record.counts.items())
    if record.planned or not record.kernels:
        yield (
            f"{len(record.cases)} of {record.planned} planned cases reported under policy "
            f"{_code(record.policy)}: {counts}. {correction(record)}"
        ).rstrip()
    if record.unreported:
        yield f"**{len(record.unreported)} that were planned were never reported.**"
    if record.problems:
        yield "\n".join(f"- **problem:** {inert(problem)}" for problem in record.problems)
    if record.cases:
        yield _matrix(record)
    unsound = [
        f"- **FP32 itself**, {_code(model)}: {inert(remark)}"
        for model, found in fp32_remarks(record).items()
        for remark in found
    ]
    if unsound:
        yield "\n".join(unsound)
    if record.warnings:
        shown = [f"> warning: {inert(warning)}" for warning in record.warnings[:_REASONS]]
        yield "\n>\n".join(shown)


def _candidates(record: RunRecord, rows: int) -> str:
    """A line per candidate, worst first; of many, the rest is counted."""
    lines = candidate_lines(record)
    shown = [f"- {_code(str(line.candidate))}: {inert(line.text)}" for line in lines[:rows]]
    if len(lines) > rows:
        blocked = sum(line.blocked for line in lines[rows:])
        left = f"{len(lines) - rows} more, {blocked} of them blocked"
        shown.append(f"- ... and {left}: see `report.html`")
    return "\n".join(["## Candidates, worst first", "", *shown])


def _artifacts(record: RunRecord, rows: int) -> Iterator[str]:
    """What was found in artifacts, where they lose, and which cases they cannot have."""
    if found := list(findings(record)):
        lines = [
            f"- {_code(candidate)}: {'' if is_wrong(one) else 'note: '}"
            f"{inert(_cut(one['problem'], _SENTENCE))}"
            + (f" *{inert(_cut(one['fix'], _SENTENCE))}*" if one.get("fix") else "")
            for candidate, one in found[:rows]
        ]
        yield "\n".join(["## Found in artifacts", "", *lines]) + _more(len(found), rows)
    if all_ladders := ladders(record):
        shown = [ladder for ladder in all_ladders if ladder.steps]
        steps = sum(len(ladder.steps) for ladder in shown)
        table = [[inert(cell) for cell in row] for row in ladder_rows(shown, each=rows)[:rows]]
        said = [*([REST] if table else []), *missing_rungs(all_ladders)[:rows]]
        text = tabulate(table, LADDER_HEADERS, tablefmt="github", disable_numparse=True)
        body = f"{text}{_more(steps, len(table))}\n\n" if table else ""
        body += "\n".join(f"- {inert(line)}" for line in said)
        yield _folded(f"Where artifacts lose: {steps} metrics", body)
    if sentences := not_applicable_sentences(record.not_applicable):
        yield "\n".join(f"- {inert(sentence)}" for sentence in sentences[:_QUANTIZERS])


def _matrix(record: RunRecord) -> str:
    """One row per quantizer, one column per model: how many block, are undecided, are fine."""
    cells: dict[tuple[str, str], list[CaseResult]] = defaultdict(list)
    for case in record.cases:
        cells[case.quantizer, case.model].append(case)
    models = sorted({case.model for case in record.cases})
    rows = [
        [
            inert(quantizer),
            *(_cell(cells.get((quantizer, model), []), record.rule) for model in models),
        ]
        for quantizer in sorted({case.quantizer for case in record.cases})
    ]
    headers = ["quantizer", *map(inert, models)]
    table = tabulate(rows[:_QUANTIZERS], headers, tablefmt="github") + _more(len(rows), _QUANTIZERS)
    if len(rows) <= 20 and len(models) <= 6:
        return table
    return _folded(f"{len(rows)} quantizers x {len(models)} models", table)


def _cell(cases: Sequence[CaseResult], policy: Policy) -> str:
    if not cases:
        return "-"
    blocking = sum(policy.blocks(case.verdict) for case in cases)
    counted = Counter(case.verdict for case in cases if not policy.blocks(case.verdict))
    parts = [f"**{blocking} block**"] if blocking else []
    for verdict in (Verdict.SUSPECT, Verdict.INCONCLUSIVE, Verdict.WAIVED):
        if counted[verdict]:
            parts.append(f"{counted[verdict]} {verdict.value}")
    good = counted[Verdict.PASS] + counted[Verdict.IMPROVED]
    return ", ".join([*parts, f"{good} pass"])


def _kernels(record: RunRecord, rows: int) -> Iterator[str]:
    """What failed in full; the rest is counted, folded away."""
    failed = [
        [inert(row.kernel), inert(row.check), inert(row.reason)] for row in record.broken_kernels
    ]
    if failed:
        table = tabulate(failed[:rows], ("kernel", "check", "why"), tablefmt="github")
        yield f"## Kernels that fail their spec\n\n{table}{_more(len(failed), rows)}"
    counted = [[inert(str(cell)) for cell in row] for row in kernel_rows(record.kernels)]
    headers = ("kernel", "written in", "ran on", "pass", "fail", "not run")
    title = f"Kernel checks: {len(record.kernels)}"
    yield _folded(title, tabulate(counted, headers, tablefmt="github"))


def _waivers(waivers: Sequence[Mapping[str, Any]], rows: int) -> str:
    """Who answers for what, why, until when and for how many cases; long texts are cut."""
    signed = [
        [
            *(inert(_cut(waiver.get(key, ""))) for key in ("owner", "reason", "expires")),
            str(len(_listed(waiver, "waived"))),
            inert(_cut(", ".join(_listed(waiver, "cases")))),
        ]
        for waiver in waivers
    ]
    headers = ("owner", "reason", "until", "waives", "cases named")
    table = tabulate(signed[:rows], headers, tablefmt="github", disable_numparse=True)
    waived = sum(len(_listed(waiver, "waived")) for waiver in waivers)
    return _folded(f"Waivers: {len(signed)}, of {waived} cases", table + _more(len(signed), rows))


def _listed(waiver: Mapping[str, Any], key: str) -> list[str]:
    value = waiver.get(key)
    return [str(name) for name in value] if isinstance(value, (list, tuple)) else []


def _cut(text: object, limit: int = _CELL) -> str:
    plain = " ".join(str(text).split())
    return plain if len(plain) <= limit else f"{plain[: limit - 3]}..."


def _provenance(record: RunRecord) -> str:
    lines = []
    if record.commit:
        dirty = ", files differ from it" if record.commit.get("dirty") else ""
        lines.append(f"- commit {_code(record.commit['sha'][:12])}{dirty}")
    if record.started:
        lines.append(f"- started {inert(record.started)}")
    evidence = record.evidence()
    lines += [
        f"- model {inert(name)}: weights sha256 {_code(model['weights_sha256'])}"
        for name, model in evidence.get("models", {}).items()
    ]
    lines += [
        f"- remark on {inert(name)}: {inert(str(remark))}"
        for name, model in evidence.get("models", {}).items()
        for remark in model.get("remarks", ())
    ]
    lines += [
        f"- probe {inert(name)}: {probe.get('samples', '-')} samples, {_code(probe['fingerprint'])}"
        for name, probe in evidence.get("probes", {}).items()
    ]
    lines += [
        f"- tuned {inert(name)}: {inert(tuning_text(tuned))}"
        for name, tuned in evidence.get("tunings", {}).items()
    ]
    for name, artifact in evidence.get("artifacts", {}).items():
        lines.append(f"- artifact {inert(name)}: {inert(artifact_line(artifact))}")
        lines += [f"  - {inert(text)}" for text in artifact_details(artifact)]
    lines += [
        f"- {inert(kind)} {_code(entry['file'])}: sha256 {_code(entry['sha256'] or 'no such file')}"
        for kind, entry in record.inputs.items()
    ]
    lines += [f"- {inert(name)} {inert(value)}" for name, value in sorted(record.versions.items())]
    return "\n".join(lines)


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def _table(cases: Sequence[CaseResult], rows: int) -> str:
    return _rows(table_rows(cases[:rows])) + _more(len(cases), rows)


def _more(count: int, shown: int) -> str:
    return f"\n\n... and {count - shown} more in `report.json`." if count > shown else ""


def _rows(rows: Iterable[tuple[str, ...]]) -> str:
    safe = [[inert(cell) for cell in row] for row in rows]
    return tabulate(safe, HEADERS, tablefmt="github", disable_numparse=True)
