"""A project's matrix against its baselines, in this process: the gate without pytest."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from clipq.cases import Candidate
from clipq.errors import SettingsError, did_you_mean
from clipq.records import CaseResult, RunRecord
from clipq.settings import PROFILES, find_settings, load_settings

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CandidateOutcome", "GateRun", "gate"]


@dataclass(frozen=True, slots=True)
class CandidateOutcome:
    """What the gate says of one candidate.

    Args:
        candidate: the model and quantizer.
        results: of its cases, in the order of the record.
        blocking: those of them that block under the run's policy, worst first.

    >>> from clipq.cases import Case
    >>> from clipq.verdicts import Verdict
    >>> failed = CaseResult(Case.parse("vit/rtn:w4/id.ece"), Verdict.FAIL)
    >>> CandidateOutcome(failed.case.candidate, results=(failed,), blocking=(failed,)).passed
    False
    """

    candidate: Candidate
    results: tuple[CaseResult, ...]
    blocking: tuple[CaseResult, ...]

    @property
    def passed(self) -> bool:
        """Whether no case of it blocks."""
        return not self.blocking


@dataclass(frozen=True)
class GateRun:
    """One run of the gate: its record, and easier ways into it.

    >>> from clipq.cases import Case
    >>> from clipq.verdicts import Verdict
    >>> verdicts = {"vit/rtn:w8/id.ece": Verdict.PASS, "vit/rtn:w4/id.ece": Verdict.FAIL}
    >>> cases = tuple(CaseResult(Case.parse(text), verdict) for text, verdict in verdicts.items())
    >>> run = GateRun(RunRecord("ci", 2, cases))
    >>> run.passed, [str(one.candidate) for one in run.candidates if one.passed]
    (False, ['vit/rtn:w8'])
    """

    record: RunRecord

    @property
    def passed(self) -> bool:
        """Whether the gate passes: something was measured, and nothing blocks."""
        return self.record.passed

    @cached_property
    def candidates(self) -> tuple[CandidateOutcome, ...]:
        """What was said of each candidate, sorted by model and quantizer."""
        members: dict[Candidate, list[CaseResult]] = {}
        for result in self.record.cases:
            members.setdefault(result.case.candidate, []).append(result)
        blocking = self.record.blocking
        return tuple(
            CandidateOutcome(
                candidate,
                tuple(results),
                tuple(result for result in blocking if result.case.candidate == candidate),
            )
            for candidate, results in sorted(members.items())
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row per case."""
        return self.record.to_frame()

    def write(self, folder: str | Path) -> list[Path]:
        """Write every report into a folder, as ``clipq gate`` does; return the paths."""
        from clipq.report import write_reports

        return [Path(path) for path in write_reports(self.record, Path(folder))]

    def __str__(self) -> str:
        from clipq.report.text import summary

        return summary(self.record)


def gate(
    settings: str | Path | None = None,
    *,
    models: Sequence[str] = (),
    quantizers: Sequence[str] = (),
    probes: Sequence[str] = (),
    metrics: Sequence[str] = (),
    profile: str = "default",
    policy: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> GateRun:
    """Judge a project's matrix, or a part of it, against its stored FP32 baselines.

    Cases only, one after the other, in this process: ``clipq gate`` also checks kernels, spreads
    cases over processes and writes reports. Verdicts are the same. Nothing is written but the
    cache; `GateRun.write` writes the reports.

    Args:
        settings: path of a clipq.toml; by default the nearest at or above the working directory.
        models: globs that narrow the matrix; all of it by default.
        quantizers: likewise.
        probes: likewise.
        metrics: likewise.
        profile: ``quick``, ``default`` or ``full``, as ``[profiles]`` in the settings say.
        policy: ``ci``, ``release`` or one of the settings' own; by default the one they name.
        progress: called with (case or encoding, done, in all).

    Raises:
        SettingsError: the settings are missing or malformed, or a glob matches nothing.

    >>> import clipq
    >>> part = {"models": ["vit-clean"], "quantizers": ["rtn:w8"], "probes": ["id"]}
    >>> run = clipq.gate("clipq.toml", **part, metrics=["top1"])
    >>> run.passed, [str(one.candidate) for one in run.candidates], run.record.counts
    (True, ['vit-clean/rtn:w8'], {'pass': 1})
    """
    from clipq.evaluation.evaluator import Evaluator
    from clipq.evaluation.plan import Selection, load_plugins
    from clipq.gating.families import Families
    from clipq.gating.matrix import Matrix
    from clipq.gating.run import assemble, narrowing
    from clipq.gating.session import Gate

    if profile not in PROFILES:
        raise SettingsError(f"unknown profile {profile!r}", hint=did_you_mean(profile, PROFILES))
    path = Path(settings) if settings is not None else find_settings(Path.cwd())
    if path is None:
        raise SettingsError(
            f"no clipq.toml at or above {Path.cwd()}",
            hint="pass its path, or write one with `clipq init`",
        )
    chosen = load_settings(path)
    chosen = chosen.under(policy or chosen.policy)
    load_plugins(chosen)
    selection = Selection(tuple(models), tuple(quantizers), tuple(probes), tuple(metrics))
    matrix = Matrix(chosen, selection, profile=profile)
    began, start = datetime.datetime.now(datetime.UTC), time.perf_counter()
    families = Families(chosen.statistics, matrix.cases, whole=matrix.whole)
    judge = Gate(chosen, Evaluator(chosen, progress=progress), families=families)
    results = []
    for done, case in enumerate(matrix.cases):
        if progress is not None:
            progress(case.id, done, len(matrix.cases))
        results.append(judge.check(case))
    record = assemble(
        matrix,
        results,
        planned=len(matrix.cases),
        began=began,
        seconds=time.perf_counter() - start,
        selection=narrowing(matrix, planned=matrix.cases, results=results),
    )
    return GateRun(record)
