"""The terminal report: counts, candidates, then what blocks, worst first, then what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tabulate import tabulate

from clipq.records import CaseResult, KernelResult, RunRecord
from clipq.report.artifact_facts import artifact_details, artifact_line
from clipq.report.artifact_text import artifact_parts
from clipq.report.candidates import candidate_lines
from clipq.report.fp32 import fp32_remarks
from clipq.report.trained_line import trained_line
from clipq.report.tuning_text import tuning_text
from clipq.report.undecided import AT_MARGIN, doubts, needed_text, undecided, urgency
from clipq.terminal import one_line, printable
from clipq.verdicts import UNDECIDED, Policy, Verdict

__all__ = [
    "HEADERS",
    "correction",
    "explain",
    "kernel_rows",
    "kernel_summary",
    "number_text",
    "standing",
    "summary",
    "table_rows",
]

_SHOWN = 25
_CANDIDATES = 8  # so many are all listed; of more only those that block
_KERNEL_HEADERS = ("kernel", "written in", "ran on", "pass", "fail", "not run")
HEADERS = ("case", "verdict", "FP32", "observed", "loss", "interval", "margin", "unit")


def explain(case: CaseResult) -> str:
    """Return why one case blocks, in a few lines.

    >>> from clipq.cases import Case
    >>> from clipq.estimate import Estimate
    >>> estimate = Estimate(loss=0.06, low=0.04, high=0.08, margin=0.02)
    >>> print(explain(CaseResult(Case.parse("vit/rtn:w4/id.ece"), Verdict.FAIL, unit="fraction",
    ...                          baseline=0.03, observed=0.09, estimate=estimate)))
    vit/rtn:w4/id.ece: fail
      FP32 baseline 0.03, observed 0.09: loss 0.06 [+0.04, +0.08] > margin 0.02 fraction
    """
    lines = [f"{one_line(case.id)}: {case.verdict.value}"]
    if case.observed is not None:
        compared_with = "limit" if case.baseline is None else "FP32 baseline"
        compared = case.estimate.margin if case.baseline is None else case.baseline
        line = f"  {compared_with} {number_text(compared)}, observed {number_text(case.observed)}"
        if case.baseline is not None and case.estimate.loss is not None:
            loss = f"{number_text(case.estimate.loss)} {_interval(case)}".rstrip()
            line += f": loss {loss} {_sign(case)} margin {number_text(case.estimate.margin)}"
        lines.append(f"{line} {case.unit}")
    lines += [f"  {sentence}" for sentence in doubts(case)]
    if case.reason:
        lines.append(f"  {case.reason}")
    if case.next_command:
        lines.append(f"  next: {case.next_command}")
    return printable("\n".join(lines))


def summary(record: RunRecord) -> str:
    """Return the whole terminal report of a run.

    >>> from clipq.cases import Case
    >>> passed = CaseResult(Case.parse("vit/rtn:w8/id.ece"), Verdict.PASS)
    >>> print(summary(RunRecord("ci", 1, (passed,), versions={"clipq": "1.0"})))
    model    quantizer      pass  worst (loss / margin)
    -------  -----------  ------  -----------------------
    vit      rtn:w8            1
    all                        1
    <BLANKLINE>
    candidates, worst first:
      vit/rtn:w8: passes ci; 1 of 1 decided
    <BLANKLINE>
    <BLANKLINE>
    versions: clipq 1.0
    """
    parts = [sentence for sentence in (standing(record),) if sentence]
    parts += [_counts(record)] if record.cases or not record.kernels else []
    if record.cases:
        parts.append(_candidates(record))
    parts += artifact_parts(record)
    if record.kernels:
        parts.append(kernel_summary(record.kernels))
    if record.blocking:
        parts.append(_blocking(record))
    unsure = [case for case in record.cases if undecided(case) is not None]
    if unsure:
        parts.append(_undecided(unsure, record.rule))
    waived = [case for case in record.cases if case.verdict is Verdict.WAIVED]
    for title, signed in (("expected failures", False), ("waived", True)):
        cases = [case for case in waived if bool(case.waived_by) is signed]
        if cases:
            parts.append(_grouped(title, cases))
    if record.unreported:
        shown = ", ".join(record.unreported[:5])
        parts.append(f"{len(record.unreported)} that were planned were never reported: {shown} ...")
    if record.problems:
        parts.append(
            "\n".join(["what fails the run as a whole:", *(f"  {p}" for p in record.problems)])
        )
    parts += [f"FP32 itself, {m}: {r}" for m, found in fp32_remarks(record).items() for r in found]
    parts += [f"warning: {warning}" for warning in record.warnings]
    parts += [sentence for sentence in (correction(record),) if sentence]
    parts.append(_provenance(record))
    return printable("\n\n".join(parts))


def standing(record: RunRecord) -> str:
    """Return what a run is less than, or judged otherwise than, the project's whole gate; or "".

    >>> standing(RunRecord("ci", 0, (), selection={"keyword": ["w8"], "of": 9}))
    'part of the matrix: 0 of 9 cases (keyword w8)'
    """
    part = record.refusal or record.partial
    return "; ".join(filter(None, (part, *record.replaced)))


def table_rows(cases: Iterable[CaseResult]) -> list[tuple[str, ...]]:
    """Return one row of texts per case, in the order of the report's columns.

    >>> from clipq.cases import Case
    >>> passed = CaseResult(Case.parse("vit/rtn:w8/id.ece"), Verdict.PASS, observed=0.03)
    >>> dict(zip(HEADERS, *table_rows([passed])))["observed"]
    '0.03'
    """
    return [
        (
            one_line(case.id),
            case.verdict.value,
            number_text(case.baseline),
            number_text(case.observed),
            number_text(case.estimate.loss),
            _interval(case),
            number_text(case.estimate.margin),
            one_line(case.unit),
        )
        for case in cases
    ]


def kernel_summary(results: Sequence[KernelResult]) -> str:
    """Return one row per kernel, what failed, and each reason for a check not run, once.

    >>> print(kernel_summary([KernelResult("w8a8", "edges", "fail", "0.5 off", where="cpu")]))
    kernels:
    kernel    written in    ran on      pass    fail    not run
    --------  ------------  --------  ------  ------  ---------
    w8a8                    cpu            0       1          0
      fail: w8a8/edges
        0.5 off
    """
    lines = ["kernels:", tabulate(kernel_rows(results), _KERNEL_HEADERS)]
    failed = [row for row in results if row.outcome == "fail"]
    lines += [f"  fail: {one_line(row.id)}\n    {row.reason}" for row in failed[:_SHOWN]]
    if len(failed) > _SHOWN:
        lines.append(f"  ... and {len(failed) - _SHOWN} more: see report.json")
    reasons = Counter(row.reason for row in results if row.outcome == "not-run")
    lines += [f"  not run ({count}): {reason}" for reason, count in reasons.most_common()]
    return "\n".join(lines)


def kernel_rows(results: Sequence[KernelResult]) -> list[tuple[str | int, ...]]:
    """Return per kernel: name, language, what it ran on, checks passed, failed and not run.

    >>> kernel_rows([KernelResult("w8a8", name, "pass", where="cpu") for name in ("edges", "ties")])
    [('w8a8', '', 'cpu', 2, 0, 0)]
    """
    rows: list[tuple[str | int, ...]] = []
    for kernel in sorted({row.kernel for row in results}):
        mine = [row for row in results if row.kernel == kernel]
        counted = [sum(r.outcome == kind for r in mine) for kind in ("pass", "fail", "not-run")]
        where = ", ".join(sorted({row.where for row in mine if row.where})) or "-"
        rows.append((kernel, mine[0].source, where, *counted))
    return rows


def correction(record: RunRecord) -> str:
    """Return one sentence on how sure verdicts are; "" for a record without statistics.

    >>> correction(RunRecord("ci", 0, ()))  # nothing was resampled
    ''
    """
    statistics = record.statistics
    tested = sum(case.estimate.p_value is not None for case in record.cases)
    if not statistics or not tested:
        return ""
    suspicion = statistics.get("suspicion")
    suspect = "" if suspicion is None else f"; suspect below p = {suspicion:g} at the margin"
    return (
        f"{tested} of {len(record.cases)} verdicts are paired intervals "
        f"({1 - statistics['alpha']:.0%}, {statistics['replicates']} replicates, seed "
        f"{statistics['seed']}); failures are corrected within each candidate "
        f"({statistics['correction']}){suspect}."
    )


def _candidates(record: RunRecord) -> str:
    """Return a line per candidate; of many, those that block and how many others there are."""
    lines = candidate_lines(record)
    blocked = [line for line in lines if line.blocked]
    shown = lines if len(lines) <= _CANDIDATES else blocked[:_SHOWN]
    parts = ["candidates, worst first:", *(f"  {line}" for line in shown)]
    if len(blocked) > len(shown):
        parts.append(f"  ... and {len(blocked) - len(shown):,} more that are blocked: report.html")
    if len(lines) > max(len(shown), len(blocked)):
        passing = len(lines) - len(blocked)
        parts.append(
            f"  ... and {passing:,} that pass {record.policy}: report.html has their lines"
        )
    return "\n".join(parts)


def _undecided(cases: Sequence[CaseResult], policy: Policy) -> str:
    ordered = sorted(cases, key=urgency)
    rows = [
        (
            one_line(case.id),
            case.verdict.value,
            str(undecided(case)),
            number_text(case.estimate.loss),
            _interval(case),
            number_text(case.estimate.margin),
            one_line(case.unit),
            f"{case.samples:,}",
            needed_text(case),
        )
        for case in ordered[:_SHOWN]
    ]
    headers = ("case", "verdict", "why", "loss", "interval", "margin", "unit", "samples", "needed")
    kinds = [kind for kind in UNDECIDED if any(case.verdict is kind for case in cases)]
    said = [f"{kind} {'blocks' if policy.blocks(kind) else 'does not block'}" for kind in kinds]
    text = f"not decided: the samples cannot tell ({', '.join(said)} under {policy.name}):\n"
    text += tabulate(rows, headers, disable_numparse=True)
    more = len(cases) - _SHOWN
    if more > 0:
        text += f"\n... and {more} more: see report.json"
    at_margin = sum(needed_text(case) == AT_MARGIN for case in cases)
    return f"{text}\nat the margin ({at_margin}): more samples will not tell" if at_margin else text


def _sign(case: CaseResult) -> str:
    """Return how loss and margin compare; undecided ones only stand against each other."""
    if undecided(case) is not None or case.estimate.loss is None or case.estimate.margin is None:
        return "against"
    return ">" if case.estimate.loss > case.estimate.margin else "<="


def _interval(case: CaseResult) -> str:
    if case.estimate.low is None or case.estimate.high is None:
        return ""
    return f"[{case.estimate.low:+.4g}, {case.estimate.high:+.4g}]"


def _counts(record: RunRecord) -> str:
    pairs = {(case.model, case.quantizer) for case in record.cases}
    verdicts = list(record.counts)
    rows = []
    for model, quantizer in sorted(pairs):
        cases = [c for c in record.cases if (c.model, c.quantizer) == (model, quantizer)]
        counted = [sum(case.verdict.value == verdict for case in cases) for verdict in verdicts]
        rows.append(
            (*map(one_line, (model, quantizer)), *(n or "" for n in counted), _worst(cases))
        )
    rows.append(("all", "", *record.counts.values(), ""))
    return tabulate(rows, ("model", "quantizer", *verdicts, "worst (loss / margin)"))


def _worst(cases: Sequence[CaseResult]) -> str:
    """Return the case that loses most margins, or lies furthest beyond its limit."""
    losing = [
        case
        for case in cases
        if case.estimate.margin and case.estimate.loss is not None and case.estimate.loss > 0
    ]
    if not losing:
        return ""
    worst = max(losing, key=lambda case: case.severity)
    return f"{one_line(f'{worst.probe}.{worst.metric}')} ({worst.severity:.2f})"


def _blocking(record: RunRecord) -> str:
    measured = [case for case in record.blocking if case.estimate.loss is not None]
    others = [case for case in record.blocking if case.estimate.loss is None]
    parts = []
    if measured:
        rows = table_rows(measured[:_SHOWN])
        parts.append("blocking, worst first:\n" + tabulate(rows, HEADERS, disable_numparse=True))
        if len(measured) > _SHOWN:
            parts.append(f"... and {len(measured) - _SHOWN} more: see report.json")
        reasons = [case for case in measured if case.reason]
        if reasons:
            parts.append(_grouped("why", reasons))
    if others:
        parts.append(_grouped("blocking without a comparison", others))
    commands = list(dict.fromkeys(c.next_command for c in record.blocking if c.next_command))
    if commands:
        shown = "\n".join(f"  {command}" for command in commands[:5])
        more = f"\n  ... and {len(commands) - 5} more" if len(commands) > 5 else ""
        parts.append(f"run next:\n{shown}{more}")
    return "\n\n".join(parts)


def _grouped(title: str, cases: Sequence[CaseResult]) -> str:
    """List cases by reason: a thousand cases with one cause are one entry."""
    groups: dict[tuple[Verdict, str], list[CaseResult]] = {}
    for case in cases:
        groups.setdefault((case.verdict, case.reason), []).append(case)
    lines = [f"{title}:"]
    for (verdict, reason), members in sorted(groups.items(), key=lambda item: -len(item[1])):
        name = "" if len(members) == 1 else f"{len(members)} cases, first "
        first = one_line(members[0].id)
        lines.append(f"  {verdict.value}: {name}{first}")
        lines += [f"    {line.strip()}" for line in reason.splitlines()]
    return "\n".join(lines)


def _provenance(record: RunRecord) -> str:
    evidence = record.evidence()
    rows: list[tuple[str, str, str]] = []
    if record.commit:
        dirty = ", files differ from it" if record.commit.get("dirty") else ""
        rows.append(
            ("commit", str(record.commit["sha"])[:12], f"{record.commit.get('subject', '')}{dirty}")
        )
    for name, model in evidence.get("models", {}).items():
        rows.append(("model", name, f"{model['source']}  weights {model['weights_sha256'][:16]}"))
        rows += [("remark", name, one_line(str(remark))) for remark in model.get("remarks", ())]
    for name, baseline in evidence.get("baselines", {}).items():
        text = f"{baseline['file']}  approved {baseline['approved']}: {baseline['reason']}"
        rows.append(("baseline", name, f"{text}  columns {baseline['columns_sha256'][:16]}"))
    for name, probe in evidence.get("probes", {}).items():
        rows.append(
            (
                "probe",
                name,
                f"{probe.get('samples', '-')} samples  fingerprint {probe['fingerprint'][:16]}",
            )
        )
    methods: dict[str, list[float]] = {}
    learnt: list[tuple[str, str, str]] = []
    for name, quantizer in evidence.get("quantizers", {}).items():
        if text := trained_line(quantizer):
            learnt.append(("trained", name, text))
        key = f"{name.partition('/')[2]} (code {quantizer['code_sha256'][:12]})"
        share = quantizer.get("share")
        paths = quantizer.get("kernels")
        if paths is not None:
            counts = ", ".join(f"{count} {path}" for path, count in paths.items())
            key += f", {counts or 'no module has a kernel'}"
        methods.setdefault(key, []).extend([] if share is None else [share])
    for name, shares in methods.items():
        covered = (
            f"covers >= {min(shares):.1%} of weight multiply-adds" if shares else "not reported"
        )
        rows.append(("quantizer", name, covered))
    rows += learnt
    for name, tuned in evidence.get("tunings", {}).items():
        rows.append(("tuned", name, tuning_text(tuned)))
    for name, artifact in evidence.get("artifacts", {}).items():
        rows.append(("artifact", name, artifact_line(artifact)))
        rows += [("", "", text) for text in artifact_details(artifact)]
    for kind, entry in record.inputs.items():
        if entry["sha256"]:
            rows.append((kind, "", f"{entry['file']}  sha256 {entry['sha256'][:16]}"))
    for environment in evidence.get("environments", {}).values():
        text = ", ".join(f"{name} {value}" for name, value in environment.items())
        rows.append(("environment", "", text))
    versions = ", ".join(f"{name} {value}" for name, value in sorted(record.versions.items()))
    shown = [tuple(map(one_line, row)) for row in rows]
    return tabulate(shown, tablefmt="plain") + f"\nversions: {versions}"


def number_text(value: float | None) -> str:
    """Return a value as tables show it: four significant digits, "-" where there is none.

    >>> number_text(0.0123456), number_text(None)
    ('0.01235', '-')
    """
    return "-" if value is None else f"{value:.4g}"
