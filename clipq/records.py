"""Records: the plain data of one run, as strict JSON.

A run record is what reports and history read, and all they read. Its schema is documented in
docs/report-schema.md and published as docs/report.schema.json; `SCHEMA` changes whenever a reader
would have to. A record's `id` is the hash of everything else in it: an edited record is named.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, Required

from clipq.cases import Case, Cell
from clipq.errors import RecordError, SettingsError
from clipq.estimate import NOTHING_ESTIMATED, Estimate
from clipq.provenance import digest
from clipq.recorded_evidence import check_evidence
from clipq.settings import StatisticsSettings
from clipq.shapes import Document, Meta, Number, Text, keys, shown, table, whole
from clipq.verdicts import POLICIES, Policy, Verdict

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "SCHEMA",
    "CaseResult",
    "KernelResult",
    "RunRecord",
    "not_applicable_sentences",
    "read_run",
    "run_id",
    "severity",
    "sort_cases",
    "withheld_sentence",
]

SCHEMA = "clipq-run/6"
_FIX = "restore the file as the gate wrote it, or run the gate again"
_Count = Annotated[int, whole(0)]


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case's outcome. Numbers are in the metric's unit.

    Args:
        case: which.
        verdict: what the gate says.
        reason: why, where the numbers do not say it.
        unit: of the metric.
        direction: which values of it are better.
        metric_version: of the metric's definition.
        samples: that the value was made of: the probe's, or those a temperature was fitted on.
        baseline: FP32's value; None where a limit takes its place.
        observed: the candidate's value.
        estimate: the loss against FP32 and how sure it is.
        noise: FP32's own noise, times the noise factor, where it exceeds the margin.
        next_command: what to type next.
        evidence: what was measured, by kind: models, quantizers, probes, environments, figures.
        waived_by: owner of the waiver that a `waived` case has; "" where it is an expected failure.

    >>> case = Case.parse("vit/rtn:w8/id.ece")
    >>> estimate = Estimate(loss=0.04, margin=0.02)
    >>> result = CaseResult(case, Verdict.FAIL, baseline=0.03, estimate=estimate)
    >>> result.id, result.metric, result.severity
    ('vit/rtn:w8/id.ece', 'ece', 2.0)
    """

    case: Case
    verdict: Verdict
    reason: str = ""
    unit: str = ""
    direction: str = ""
    metric_version: _Count = 0
    samples: _Count = 0
    baseline: Number | None = None
    observed: Number | None = None
    estimate: Estimate = NOTHING_ESTIMATED
    noise: Number | None = None
    next_command: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    waived_by: str = ""

    @property
    def id(self) -> str:
        """The case's id."""
        return self.case.id

    @property
    def model(self) -> str:
        """Name of its model."""
        return self.case.model

    @property
    def quantizer(self) -> str:
        """Text of its quantizer."""
        return self.case.quantizer

    @property
    def probe(self) -> str:
        """Name of its probe."""
        return self.case.probe

    @property
    def metric(self) -> str:
        """Name of its metric."""
        return self.case.metric

    @property
    def severity(self) -> float:
        """How many margins the loss is worth; see `severity`."""
        return severity(self.verdict, self.baseline, self.estimate)

    def to_json(self) -> str:
        """Return one strict JSON text: safe to send between processes."""
        return json.dumps(_plain(self), allow_nan=False, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> CaseResult:
        plain = json.loads(text)
        return _case(plain | {"estimate": Estimate(**plain["estimate"])})


def severity(verdict: Verdict, baseline: float | None, estimate: Estimate) -> float:
    """Return how many margins a loss is worth: 1 at the margin, whatever the margin's sign.

    Where a limit takes the place of FP32's value, 1 at the limit; infinite where there is nothing
    to divide.

    >>> severity(Verdict.FAIL, 0.03, Estimate(loss=0.04, margin=0.02))  # two margins
    2.0
    """
    loss, margin = estimate.loss, estimate.margin
    if loss is None or not margin:
        return math.inf if POLICIES["release"].blocks(verdict) else -math.inf
    beyond = loss if baseline is None else loss - margin
    return beyond / abs(margin) + 1.0


_OWN = tuple(f.name for f in fields(CaseResult) if f.name not in ("case", "verdict", "estimate"))


def _case(plain: Mapping[str, Any]) -> CaseResult:
    return CaseResult(
        Case(Cell(plain["model"], plain["quantizer"], plain["probe"]), plain["metric"]),
        Verdict(plain["verdict"]),
        estimate=plain["estimate"],
        **{name: plain[name] for name in _OWN if name in plain},
    )


def _plain(result: CaseResult) -> dict[str, Any]:
    # Not by `asdict`, which copies all evidence, deeply.
    case = result.case
    return {
        "model": case.model,
        "quantizer": case.quantizer,
        "probe": case.probe,
        "metric": case.metric,
        "verdict": result.verdict.value,
        "estimate": result.estimate.to_plain(),
        **{name: getattr(result, name) for name in _OWN},
    }


@dataclass(frozen=True, slots=True)
class KernelResult:
    """One conformance check of one kernel.

    Args:
        kernel: its registered name.
        check: one of `clipq.kernels.kernel_spec.CHECKS`.
        outcome: ``pass``, ``fail`` or ``not-run``.
        reason: why it failed or did not run.
        where: what it ran on: a GPU's name, ``Triton's interpreter`` or ``cpu``.
        source: what the kernel is written in.

    >>> KernelResult("quantize", "edges", "pass", where="cpu").id
    'quantize/edges'
    """

    kernel: str
    check: str
    outcome: str
    reason: str = ""
    where: str = ""
    source: str = ""

    @property
    def id(self) -> str:
        return f"{self.kernel}/{self.check}"

    def to_json(self) -> str:
        """Return one strict JSON text: safe to send between processes."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> KernelResult:
        return KernelResult(**json.loads(text))


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One execution of the matrix: sorted cases and everything that identifies them.

    `policy` names the rule and `blocks` the verdicts that fail the run under it (of ``ci`` and
    ``release``, if left out, the usual ones); `started` is UTC in ISO 8601; `commit` says which
    commit of the project was checked out (empty outside of version control); `waivers` are the
    signed-off ones, with how many cases each covers; `problems` are sentences about the run as a
    whole, each of which fails it. `selection` says what narrowed the run, ``of`` how many cases
    the whole matrix has, ``complete`` which model/quantizer was measured in full all the same; it
    is empty where nothing did. `withheld` counts, by probe, the cases that were asked for and are
    kept for releases. `not_applicable` counts, by artifact, the cases that were asked for and that
    it cannot have, by what they need; `planned` leaves them out. `inputs` are the files by which
    the run was planned and judged: settings, margins and waivers, each with its ``file`` and
    ``sha256`` (empty where there is none) and, where the settings name another, that one as
    ``instead_of``.

    >>> failed = CaseResult(Case.parse("vit/rtn:w8/id.ece"), Verdict.FAIL)
    >>> run = RunRecord(policy="ci", planned=1, cases=(failed,))
    >>> run.passed, run.counts, RunRecord(policy="ci", planned=0, cases=()).passed
    (False, {'fail': 1}, False)
    """

    policy: Text
    planned: _Count
    cases: tuple[CaseResult, ...]
    unreported: tuple[str, ...] = ()
    selection: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    timings: Mapping[str, Number] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    statistics: Mapping[str, Any] = field(default_factory=dict)
    kernels: tuple[KernelResult, ...] = ()
    started: str = ""
    commit: Mapping[str, Any] = field(default_factory=dict)
    waivers: tuple[Mapping[str, Any], ...] = ()
    problems: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    withheld: Mapping[str, _Count] = field(default_factory=dict)
    not_applicable: Mapping[str, Mapping[str, _Count]] = field(default_factory=dict)
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    _id: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.blocks and self.policy in POLICIES:
            object.__setattr__(self, "blocks", POLICIES[self.policy].verdicts)
        Policy(self.policy, self.blocks)  # refuses a policy that would let failures through

    @property
    def rule(self) -> Policy:
        """The policy with the verdicts that block under it."""
        return Policy(self.policy, self.blocks)

    @property
    def id(self) -> str:
        """The hash (sha256, hex) of the whole record; its content never changes, so found once."""
        return self._id or str(self.to_plain()["id"])

    @property
    def counts(self) -> dict[str, int]:
        """Cases per verdict, in the order of `Verdict`, verdicts without a case left out."""
        counted = Counter(case.verdict for case in self.cases)
        return {verdict.value: counted[verdict] for verdict in Verdict if counted[verdict]}

    @property
    def blocking(self) -> tuple[CaseResult, ...]:
        """The cases that fail the gate under this run's policy, worst first."""
        rule = self.rule
        found = [case for case in self.cases if rule.blocks(case.verdict)]
        return tuple(sorted(found, key=lambda case: (-case.severity, case.id)))

    @property
    def passed(self) -> bool:
        """Whether the gate passes: something was measured, everything planned was reported."""
        measured = bool(self.cases) or any(row.outcome == "pass" for row in self.kernels)
        wrong = self.unreported or self.blocking or self.broken_kernels or self.problems
        return measured and not wrong and not self.refusal

    @property
    def broken_kernels(self) -> tuple[KernelResult, ...]:
        """The checks that a kernel failed; they block under every policy."""
        return tuple(row for row in self.kernels if row.outcome == "fail")

    @property
    def partial(self) -> str:
        """What part of the whole matrix was measured, and why no more; "" where all was."""
        if not self.selection and not self.unreported:
            return ""
        why = [
            f"{name} {', '.join(map(str, values))}"
            for name, values in self.selection.items()
            if isinstance(values, (list, tuple)) and name != "complete"
        ]
        if self.unreported:
            why.append(f"{len(self.unreported):,} planned but never reported")
        whole = self.selection.get("of", 0 if self.selection else self.planned)
        share = f"{len(self.cases):,} of {whole:,}" if whole else f"{len(self.cases):,}"
        share += " cases"
        if "kernel-checks-of" in self.selection:
            share += f", {len(self.kernels)} of {self.selection['kernel-checks-of']} kernel checks"
        return f"part of the matrix: {share}" + (f" ({'; '.join(why)})" if why else "")

    @property
    def refusal(self) -> str:
        """Why the run is no ground for a release, whatever its cases say; "" where it may be."""
        if self.policy != "release" or not self.selection:
            return ""
        return f"policy release refuses a {self.partial}"

    @property
    def replaced(self) -> tuple[str, ...]:
        """A sentence for each file that took the place of the one which the settings name."""
        return tuple(
            f"{kind} of {entry['file']} instead of {entry['instead_of']}"
            for kind, entry in self.inputs.items()
            if entry.get("instead_of")
        )

    @property
    def narrowed(self) -> bool:
        """Whether less was reported than the project's everyday gate, its default profile, has."""
        everyday = {"of", "kernel-checks-of", "complete"}
        if self.selection.get("profile") == ["default"]:
            everyday.add("profile")
        return bool(self.unreported or set(self.selection) - everyday)

    def evidence(self) -> dict[str, dict[str, Any]]:
        """What was measured, once per kind: models, quantizers, probes, environments, figures."""
        kinds: dict[str, dict[str, Any]] = {}
        for case in self.cases:
            for kind, entries in case.evidence.items():
                kinds.setdefault(kind, {}).update(entries)
        return {kind: dict(sorted(entries.items())) for kind, entries in sorted(kinds.items())}

    def to_frame(self) -> pd.DataFrame:
        """Return one row per case, indexed by model, quantizer, probe and metric."""
        import pandas as pd

        left_out = ("evidence", "estimate")
        rows = []
        for case in self.cases:
            plain = _plain(case)
            own = {name: value for name, value in plain.items() if name not in left_out}
            rows.append(own | case.estimate.to_plain())
        parts = ["model", "quantizer", "probe", "metric"]
        columns = [*parts, "verdict", *_OWN, *Estimate.__dataclass_fields__]
        frame = pd.DataFrame(rows, columns=[name for name in columns if name not in left_out])
        return frame.set_index(parts)

    def to_plain(self) -> dict[str, Any]:
        """Return the record as built-in types, ready for strict JSON."""
        cases = []
        for case in self.cases:
            plain = _plain(case) | {"case": case.id}
            plain.pop("evidence")
            cases.append(plain)
        plain = {
            "schema": SCHEMA,
            "started": self.started,
            "commit": dict(self.commit),
            "passed": self.passed,
            "policy": self.policy,
            "blocks": list(self.blocks),
            "planned": self.planned,
            "unreported": list(self.unreported),
            "problems": list(self.problems),
            "waivers": [dict(waiver) for waiver in self.waivers],
            "selection": dict(self.selection),
            "withheld": dict(self.withheld),
            "not_applicable": {
                candidate: dict(needs) for candidate, needs in self.not_applicable.items()
            },
            "inputs": {kind: dict(entry) for kind, entry in self.inputs.items()},
            "counts": self.counts,
            "warnings": list(self.warnings),
            "versions": dict(self.versions),
            "statistics": dict(self.statistics),
            "evidence": self.evidence(),
            "cases": cases,
            "kernels": [asdict(row) for row in self.kernels],
            "timings": dict(self.timings),
        }
        if not self._id:
            object.__setattr__(self, "_id", digest(plain))
        return {"id": self._id, **plain}

    @staticmethod
    def from_plain(plain: Any, *, source: Path | str = "the run record") -> RunRecord:
        """Read a record back; the shared evidence stays on the first case.

        Args:
            plain: of built-in types.
            source: what messages call it.

        Raises:
            RecordError: another schema, not what was recorded under its id, or a field that is
                missing or of a wrong type.
        """
        document = Document(source, "JSON", RecordError, _FIX)
        given = document.shaped(plain, dict[str, Any])
        if given.get("schema") != SCHEMA:
            was = shown(given.get("schema"))
            raise document.fail("", f"schema = {was}", f"this clipq reads {SCHEMA}")
        if given.get("id") != (actual := run_id(given)):
            was = shown(given.get("id"))
            raise RecordError(
                f"{source} was altered: its id is {was}, its content hashes to {actual}", hint=_FIX
            )
        # What is empty says nothing; what is there is complete.
        found = document.shaped({key: given[key] for key in given if given[key] != {}}, _record())
        for key, kind in _SELECTION.items():
            if key in found.get("selection", {}):
                document.shaped(found["selection"][key], kind, f"selection.{key}")
        evidence = found.get("evidence", {})
        check_evidence(evidence, document)
        cases = [_case(case) for case in found["cases"]]
        if cases:
            cases[0] = replace(cases[0], evidence=evidence)
        own = {name: found[name] for name in keys(RunRecord) if name in found}
        try:
            record = RunRecord(**own | {"cases": tuple(cases)})
        except SettingsError as error:  # a policy that lets failures through
            raise document.fail("blocks", error.problem, error.hint or "") from None
        said: list[tuple[object, object]] = [
            (result.id, case["case"]) for result, case in zip(cases, found["cases"], strict=True)
        ]
        said += [(record.passed, found["passed"]), (record.counts, found.get("counts", {}))]
        for derived, stated in said:
            if derived != stated:
                raise RecordError(
                    f"{source} was altered: it says {shown(stated)}, its cases say "
                    f"{shown(derived)}",
                    hint=_FIX,
                )
        return record


def withheld_sentence(withheld: Mapping[str, int], policy: str) -> str:
    """Return what a run says of the cases that are kept for releases; "" where there are none.

    >>> withheld_sentence({"final": 30}, "ci")
    '30 cases of release-only probes (final) were not measured under policy ci'
    """
    if not withheld:
        return ""
    names, count = ", ".join(withheld), sum(withheld.values())
    return (
        f"{count:,} cases of release-only probes ({names}) were not measured under policy {policy}"
    )


def not_applicable_sentences(not_applicable: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    """Return what a run says of the cases that artifacts cannot have, by artifact.

    >>> not_applicable_sentences({"vit/ort-int8": {"gradients": 3}})
    ('3 cases of vit/ort-int8 are not applicable: they need gradients',)
    """
    return tuple(
        f"{count:,} case{'' if count == 1 else 's'} of {candidate} "
        f"{'is not applicable: it needs' if count == 1 else 'are not applicable: they need'} {need}"
        for candidate, needs in not_applicable.items()
        for need, count in needs.items()
    )


def _each(kind: Any, *names: str) -> dict[str, Any]:
    return dict.fromkeys(names, Required[kind])


_VERDICTS = tuple(verdict.value for verdict in Verdict)
_VERDICT = Meta(description=f"one of {', '.join(_VERDICTS)}", extra={"of": _VERDICTS})
_STATISTICS = _each(float, "alpha") | _each(int, "replicates", "seed") | _each(str, "correction")
_SELECTION = {"of": _Count, "kernel-checks-of": _Count, "complete": list[str]}


@cache
def _record() -> Any:
    """Return the shape of a record; made when one is read, for that is seldom."""
    case: Any = table(
        "case",
        {
            **keys(CaseResult, *(name for name in _OWN if name != "evidence")),
            **_each(str, "model", "quantizer", "probe", "metric", "case"),
            "verdict": Required[Annotated[Verdict, _VERDICT]],
            "estimate": Required[Estimate],
        },
    )
    commit = _each(str, "sha", "date", "subject", "branch") | _each(bool, "dirty")
    signed = _each(list[str], "cases", "waived") | _each(str, "reason", "owner", "expires")
    waiver: Any = table("waiver", signed)
    named = {**_each(str, "file", "sha256"), "instead_of": NotRequired[str]}
    entry: Any = table("input", named)
    return table(
        "record",
        {
            **keys(RunRecord),
            **_each(str, "schema", "id"),
            "passed": Required[bool],
            "counts": NotRequired[Mapping[str, int]],
            "cases": Required[tuple[case, ...]],
            "commit": NotRequired[table("commit", commit)],
            "statistics": NotRequired[table("statistics", keys(StatisticsSettings) | _STATISTICS)],
            "selection": NotRequired[Mapping[str, list[str] | _Count]],
            "waivers": NotRequired[tuple[waiver, ...]],
            "inputs": NotRequired[Mapping[str, entry]],
            "evidence": NotRequired[Mapping[str, Mapping[str, Mapping[str, Any]]]],
        },
    )


def run_id(plain: Mapping[str, Any]) -> str:
    """Return the id that a record in plain form must have: the hash of all but its id.

    >>> plain = RunRecord(policy="ci", planned=0, cases=()).to_plain()
    >>> run_id(plain) == plain["id"], run_id(plain | {"passed": True}) == plain["id"]
    (True, False)
    """
    return digest({key: value for key, value in plain.items() if key != "id"})


def read_run(source: Path | str, content: bytes | None = None) -> RunRecord:
    """Read a run record from a JSON file.

    Args:
        source: the file, or whatever else messages name.
        content: of the file, which is read if it is left out.

    Raises:
        RecordError: the file is missing, truncated or not a run record.

    >>> plain = RunRecord(policy="ci", planned=0, cases=()).to_plain()
    >>> read_run("report.json", json.dumps(plain).encode()).id == plain["id"]
    True
    >>> read_run("report.json", json.dumps(plain | {"passed": True}).encode())
    Traceback (most recent call last):
    clipq.errors.RecordError: report.json...
    ...
    """
    return RunRecord.from_plain(
        Document(source, "JSON", RecordError, _FIX).parse(content), source=source
    )


def sort_cases(cases: Sequence[CaseResult]) -> tuple[CaseResult, ...]:
    """Return cases in the one order that does not depend on who ran first.

    >>> cases = [Case.parse(f"vit/rtn:w8/id.{name}") for name in ("top1", "ece")]
    >>> cases = [CaseResult(case, Verdict.PASS) for case in cases]
    >>> [case.metric for case in sort_cases(cases)]
    ['ece', 'top1']
    """
    return tuple(sorted(cases, key=lambda case: (case.case.candidate, case.id)))
