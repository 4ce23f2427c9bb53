"""The controller's part of the plugin: collect results, notice what is missing, write reports.

Results are collected from test reports on the controller, the same way for `-n0` and `-n auto`: a
killed worker then loses one case, and that case is reported as an error.
"""

from __future__ import annotations

import datetime
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from clipq.errors import ClipqError
from clipq.records import CaseResult, KernelResult, RunRecord, Verdict, sort_cases

if TYPE_CHECKING:
    from clipq.evaluation.plan import Case
    from clipq.gating.commands import Commands
    from clipq.pytest_plugin import Matrix

__all__ = ["KERNEL_PROPERTY", "PROPERTY", "RunCollector", "result_of"]

PROPERTY = "clipq"
KERNEL_PROPERTY = "clipq-kernel"
_INTERRUPTED = 130


def result_of(report: pytest.TestReport) -> CaseResult | None:
    """Return the case result that a test report carries, if any."""
    for name, value in getattr(report, "user_properties", ()):
        if name == PROPERTY:
            return CaseResult.from_json(value)
    return None


class RunCollector:
    """Gathers one run on the controlling process."""

    def __init__(self, config: pytest.Config, matrix: Matrix) -> None:
        self.config = config
        self.matrix = matrix
        self.results: dict[str, CaseResult] = {}
        self.kernels: dict[str, KernelResult] = {}
        self.planned_kernels: set[str] = set()
        self.planned: set[str] = set()
        self.finished: set[str] = set()
        self.written: list[str] = []
        self.problem = ""
        self.interrupted = False
        self.recorded: tuple[str, ...] = ()
        self.started = time.perf_counter()
        self.began = datetime.datetime.now(datetime.UTC)

    # -- what was planned -------------------------------------------------------------------

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._plan(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        self._plan(ids)

    def _plan(self, node_ids: Iterable[str]) -> None:
        node_ids = list(node_ids)
        self.planned_kernels.update(filter(None, map(self._kernel_check, node_ids)))
        found = {node_id for node_id in node_ids if self._case(node_id) is not None}
        if found and not self.planned:
            self._note_planning()
        self.planned.update(found)

    def _note_planning(self) -> None:
        """Say before time is spent which margins the samples cannot decide."""
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        note = _planning_note(self.matrix)
        if note and terminal is not None:
            terminal.write_line(note)

    def _case(self, node_id: str) -> Case | None:
        """Return the planned case that a node id's brackets name; for attribution only."""
        try:
            return self.matrix.by_id.get(_brackets(node_id))
        except ClipqError:
            return None  # the workers' collection fails with this error and shows it

    def _kernel_check(self, node_id: str) -> str:
        """Return the planned kernel check that a node id's brackets name, or ""."""
        found = _brackets(node_id)
        try:
            return found if found in self.matrix.kernel_checks else ""
        except ClipqError:
            return ""

    # -- what was reported ------------------------------------------------------------------

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        check = self._kernel_check(report.nodeid)
        if check:
            self._kernel_reported(check, report)
            return
        result = result_of(report)
        if result is not None and report.when == "call":
            self.results[result.case] = result
            self.finished.add(report.nodeid)
        elif report.failed and report.nodeid in self.planned:
            self._failed_outside(report)

    def _kernel_reported(self, check: str, report: pytest.TestReport) -> None:
        for name, value in getattr(report, "user_properties", ()):  # a worker died: none
            if name == KERNEL_PROPERTY:
                self.kernels[check] = KernelResult.from_json(str(value))
        if report.failed and check not in self.kernels:
            kernel, name = self.matrix.kernel_checks[check]
            lines = str(report.longrepr).strip().splitlines() or ["no detail"]
            self.kernels[check] = KernelResult(kernel, name, "fail", reason=lines[-1])

    def _failed_outside(self, report: pytest.TestReport) -> None:
        """A fixture failed, or the worker that ran the case died: say so as the case's verdict."""
        case = self._case(report.nodeid)
        self.finished.add(report.nodeid)
        if case is None or case.id in self.results:
            return
        lines = str(report.longrepr).strip().splitlines() or ["no detail"]
        self.results[case.id] = CaseResult(
            model=case.model,
            quantizer=case.quantizer,
            probe=case.probe,
            metric=case.metric,
            verdict=Verdict.ERROR,
            reason=lines[-1],
            next_command=f"{self._commands.program} gate -n0 -k '{case.id}'",
        )

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self.interrupted = type(excinfo.value) is KeyboardInterrupt

    # -- the end ----------------------------------------------------------------------------

    @property
    def anything(self) -> bool:
        """Whether a run took place."""
        planned = bool(self.planned or self.planned_kernels)
        return planned and not self.config.option.collectonly

    @property
    def unreported(self) -> tuple[str, ...]:
        missing = self.planned - self.finished
        cases = [case.id for case in map(self._case, missing) if case is not None]
        return tuple(sorted([*cases, *self.planned_kernels - self.kernels.keys()]))

    @cached_property
    def _commands(self) -> Commands:
        from clipq.gating.commands import Commands

        return Commands(self.matrix.settings)

    @cached_property
    def record(self) -> RunRecord:
        """The run as it stood when it was first asked for: when the session ended."""
        from clipq.gating.verdict import finalise
        from clipq.gating.waivers import load_waivers
        from clipq.provenance import git_commit, package_versions

        settings = self.matrix.settings
        statistics = settings.statistics
        results = sort_cases(list(self.results.values()))
        cases = finalise(results, statistics, command=self._after_failure)
        waivers = load_waivers(settings.waivers)
        problems: tuple[str, ...] = ()
        if cases and waivers.entries:
            matrix = [case.id for case in self.matrix.everything]
            problems = waivers.problems(cases, today=self.began.date(), matrix=matrix)
        return RunRecord(
            policy=settings.policy,
            started=self.began.isoformat(timespec="seconds").replace("+00:00", "Z"),
            commit=git_commit(settings.root),
            waivers=waivers.to_plain(cases),
            problems=problems,
            statistics=asdict(statistics),
            planned=len(self.planned),
            kernels=tuple(result for _, result in sorted(self.kernels.items())),
            cases=cases,
            unreported=self.unreported,
            selection=self._selection(),
            versions=package_versions(),
            timings={"seconds": round(time.perf_counter() - self.started, 3)},
            warnings=_environment_warnings(self.matrix, cases) + _noise_warnings(cases),
        )

    def _after_failure(self, case: CaseResult) -> str:
        planned = self.matrix.by_id.get(case.case)
        return "" if planned is None else self._commands.next(planned, Verdict.FAIL)

    def _selection(self) -> dict[str, Any]:
        """Return what narrowed the run and how much the whole matrix holds; {} if nothing did."""
        chosen = self.matrix.selection
        globs = {name: list(getattr(chosen, name)) for name in chosen.__dataclass_fields__}
        globs["kernels"] = list(self.matrix.kernels)
        found = {name: given for name, given in globs.items() if given}
        if self.unreported and self.config.option.maxfail:
            found["maxfail"] = [str(self.config.option.maxfail)]
        asked = _asked_of_pytest(self.config)
        whole, checks = self._whole_matrix()
        planned = {case.id for case in map(self._case, self.planned) if case is not None}
        unplanned = self.matrix.by_id.keys() - planned
        unchecked = len(self.planned_kernels) < checks and bool(found or asked)
        if not (found or planned < whole or unchecked):
            return {}
        if self.matrix.profile in self.matrix.settings.profiles:
            found["profile"] = [self.matrix.profile]
        if unplanned or unchecked:
            found |= asked
        if unplanned and not asked:
            found["deselected"] = ["by other means"]
        if whole and (pairs := self._complete_pairs()):
            found["complete"] = pairs
        size = {"of": len(whole), "kernel-checks-of": checks if unchecked else 0}
        return found | {name: number for name, number in size.items() if number}

    def _complete_pairs(self) -> list[str]:
        """Return each model/quantizer of which every case of the whole matrix was measured."""
        planned = Counter(f"{case.model}/{case.quantizer}" for case in self.matrix.everything)
        measured = Counter(f"{case.model}/{case.quantizer}" for case in self.results.values())
        return sorted(pair for pair, cases in measured.items() if cases >= planned[pair])

    def _whole_matrix(self) -> tuple[set[str], int]:
        """Return the cases and the number of kernel checks that nothing narrows."""
        from clipq.kernels.spec import CHECKS, matching

        try:
            cases = {case.id for case in self.matrix.everything} | self.matrix.by_id.keys()
            return cases, len(matching(self.matrix.settings.kernels)) * len(CHECKS)
        except ClipqError:
            return set(), 0  # kernels alone were selected, and the settings have no valid matrix

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.anything:
            from clipq.report import write_reports

            record = self.record
            try:
                self.written = write_reports(record, self.matrix.settings.report)
                if self.matrix.settings.history.record and not self.interrupted:
                    self._keep(record)
            except ClipqError as error:
                self.problem = str(error)
            # What only all cases together show (a corrected failure) has failed no test.
            if session.exitstatus == 0 and (self.problem or not record.passed):
                session.exitstatus = 1
        if self.interrupted:
            session.exitstatus = _INTERRUPTED

    def _keep(self, record: RunRecord) -> None:
        """Record the run in the history store: a narrowed one only where it was asked for.

        Raises:
            ClipqError: the store cannot be reached or written; the report is there to record later.
        """
        from clipq.history.keep import keep_run

        if record.narrowed and not self.config.getoption("--clipq-record"):
            self.recorded = (f"not recorded: {record.partial}; --clipq-record keeps it",)
            return
        self.recorded = keep_run(record, self.matrix.settings)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not self.anything:
            return
        from clipq.report.text import summary

        terminalreporter.section("clipq reliability report")
        record = self.record
        terminalreporter.write_line(summary(record))
        for path in self.written:
            terminalreporter.write_line(f"written: {path}")
        for sentence in self.recorded:
            terminalreporter.write_line(sentence)
        if self.problem:
            missing = "the run was not recorded" if self.written else "the report was not written"
            terminalreporter.write_line(f"{missing}: {self.problem}", red=True)
        colour = {"green": True} if record.passed else {"red": True}
        terminalreporter.write_line(_banner(record), bold=True, **colour)


def _brackets(node_id: str) -> str:
    """Return what a node id has in brackets."""
    start, end = node_id.find("["), node_id.rfind("]")
    return node_id[start + 1 : end] if 0 <= start < end else ""


def _asked_of_pytest(config: pytest.Config) -> dict[str, list[str]]:
    """Return the options of pytest that leave tests out, by what a record calls them."""
    option = config.option
    flags = {"--lf": "lf", "--sw": "stepwise"}  # of a plugin that may be off
    found = {
        "keyword": [option.keyword] if option.keyword else [],
        "marks": [option.markexpr] if option.markexpr else [],
        "deselected": list(option.deselect or ()),
        "arguments": [argument.split("::", 1)[1] for argument in config.args if "::" in argument],
        "cache": [flag for flag, name in flags.items() if getattr(option, name, False)],
    }
    return {name: values for name, values in found.items() if values}


def _banner(record: RunRecord) -> str:
    ran = sum(row.outcome != "not-run" for row in record.kernels)
    kernels = f", {ran} kernel checks" if record.kernels else ""
    if record.passed:
        return (
            f"RELIABILITY GATE PASSED: {len(record.cases)} cases{kernels}, policy {record.policy}"
        )
    parts = [f"{len(record.blocking)} of {len(record.cases)} cases block"]
    if not record.blocking and record.problems:
        parts = []
    if not record.cases and record.kernels:
        parts = [] if ran else ["no kernel check could run"]
    if record.problems:
        parts.append(f"{len(record.problems)} waivers are wrong")
    if record.broken_kernels:
        parts.append(f"{len(record.broken_kernels)} of {ran} kernel checks fail")
    if record.unreported:
        parts.append(f"{len(record.unreported)} that were planned were never reported")
    return f"RELIABILITY GATE FAILED: {', '.join(parts)}, policy {record.policy}"


def _planning_note(matrix: Matrix) -> str:
    """Say which margins these samples cannot decide, or "" where they decide all."""
    from clipq.gating.margins import load_margins
    from clipq.gating.planning import plan_power

    try:
        found = plan_power(matrix.settings, matrix.cases, load_margins(matrix.settings.margins))
    except ClipqError:
        return ""  # collection, or the case itself, fails with this error and shows it
    hard = [power for power in found if power.problem]
    if not hard:
        return ""
    count, total = sum(power.cases for power in hard), sum(power.cases for power in found)
    names = ", ".join(dict.fromkeys(power.key for power in hard))
    shown = names if len(names) < 90 else f"{names[:87]}..."
    return (
        f"clipq: {count} of {total} margins are smaller than these samples can decide ({shown}); "
        "`clipq power` tells how many could"
    )


def _environment_warnings(matrix: Matrix, cases: tuple[CaseResult, ...]) -> tuple[str, ...]:
    """Name what differs between the baselines' environments and this run's."""
    from clipq.gating.baseline import load_environment

    now: dict[str, dict[str, Any]] = {}
    for case in cases:
        now.update(case.evidence.get("environments", {}))
    found = set()
    for model in {case.model for case in cases}:
        stored = load_environment(matrix.settings.baselines, model)
        for environment in now.values():
            for name, value in environment.items():
                if stored and stored.get(name) != value:
                    found.add(
                        f"{model}: {name} is {value}, the baseline was made with {stored.get(name)}"
                    )
    return tuple(sorted(found))


def _noise_warnings(cases: tuple[CaseResult, ...]) -> tuple[str, ...]:
    """Say where FP32's own noise, not the reviewed margin, decided."""
    return tuple(f"{case.case}: {case.reason}" for case in cases if "own noise" in case.reason)
