"""The controller's part of the plugin: collect results, notice what is missing, write reports.

Results are collected from test reports on the controller, the same way for `-n0` and `-n auto`: a
killed worker then loses one case, and that case is reported as an error.
"""

from __future__ import annotations

import datetime
import shutil
import tempfile
import time
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from clipq.errors import ClipqError
from clipq.node_ids import bracketed
from clipq.records import CaseResult, KernelResult, RunRecord
from clipq.redaction import redacted
from clipq.terminal import printable
from clipq.verdicts import Verdict

if TYPE_CHECKING:
    from clipq.cases import Case
    from clipq.gating.matrix import Matrix

__all__ = ["KERNEL_PROPERTY", "PROPERTY", "SHARED", "RunCollector", "result_of"]

PROPERTY = "clipq"
KERNEL_PROPERTY = "clipq-kernel"
SHARED = "clipq-shared"
_INTERRUPTED = 130


def result_of(report: pytest.TestReport) -> CaseResult | None:
    """Return the case result that a test report carries, if any."""
    for name, value in getattr(report, "user_properties", ()):
        if name == PROPERTY:
            return CaseResult.from_json(value)
    return None


class Planner(Protocol):
    """Knows what a run is about; asked only once a test may be clipq's."""

    @property
    def matrix(self) -> Matrix: ...


class RunCollector:
    """Gathers one run on the controlling process."""

    def __init__(self, config: pytest.Config, asked: Planner) -> None:
        self.config = config
        self._asked = asked
        self.results: dict[str, CaseResult] = {}
        self.kernels: dict[str, KernelResult] = {}
        self.planned_kernels: set[str] = set()
        self.planned: set[str] = set()
        self.finished: set[str] = set()
        self.written: list[str] = []
        self.problem = ""
        self.interrupted = False
        self._shared = ""
        self.recorded: tuple[str, ...] = ()
        self.started = time.perf_counter()
        self.began = datetime.datetime.now(datetime.UTC)

    @property
    def matrix(self) -> Matrix:
        """The matrix of this run."""
        return self._asked.matrix

    # -- what workers share -----------------------------------------------------------------

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Give all workers of the run one folder: they judge candidates from shared cells."""
        if not self._shared:
            self._shared = tempfile.mkdtemp(prefix="clipq-run-")
        node.workerinput[SHARED] = self._shared

    def pytest_unconfigure(self) -> None:
        if self._shared:
            shutil.rmtree(self._shared, ignore_errors=True)

    # -- what was planned -------------------------------------------------------------------

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._plan(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        self._plan(ids)

    def _plan(self, node_ids: Iterable[str]) -> None:
        node_ids = list(node_ids)
        self.planned_kernels.update(filter(None, map(self._kernel_check, node_ids)))
        cases = {node_id for node_id in node_ids if self._case(node_id) is not None}
        if cases and not self.planned:
            self._note_planning()
        self.planned.update(cases)

    def _note_planning(self) -> None:
        """Say before time is spent which margins the samples cannot decide."""
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        note = _planning_note(self.matrix)
        if note and terminal is not None:
            terminal.write_line(note)

    def _case(self, node_id: str) -> Case | None:
        """Return the planned case that a node id's brackets name; for attribution only."""
        name = bracketed(node_id)
        try:
            return self.matrix.by_id.get(name) if "/" in name else None
        except ClipqError:
            return None  # the workers' collection fails with this error and shows it

    def _kernel_check(self, node_id: str) -> str:
        """Return the planned kernel check that a node id's brackets name, or ""."""
        name = bracketed(node_id)
        try:
            return name if "/" in name and name in self.matrix.kernel_checks else ""
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
            self.results[result.id] = result
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
            self.kernels[check] = KernelResult(kernel, name, "fail", reason=redacted(lines[-1]))

    def _failed_outside(self, report: pytest.TestReport) -> None:
        """A fixture failed, or the worker that ran the case died: say so as the case's verdict."""
        case = self._case(report.nodeid)
        self.finished.add(report.nodeid)
        if case is None or case.id in self.results:
            return
        lines = str(report.longrepr).strip().splitlines() or ["no detail"]
        from clipq.gating.commands import Commands

        program = Commands(self.matrix.settings).program
        self.results[case.id] = CaseResult(
            case,
            Verdict.ERROR,
            reason=redacted(lines[-1]),
            next_command=f"{program} gate -n0 -k '{case}'",
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
    def record(self) -> RunRecord:
        """The run as it stood when it was first asked for: when the session ended."""
        from clipq.gating.run import assemble, narrowing

        results = list(self.results.values())
        planned = {case for case in map(self._case, self.planned) if case is not None}
        return assemble(
            self.matrix,
            results,
            planned=len(planned),
            began=self.began,
            seconds=time.perf_counter() - self.started,
            kernels=list(self.kernels.values()),
            unreported=self.unreported,
            selection=narrowing(
                self.matrix,
                planned=planned,
                results=results,
                kernel_checks=len(self.planned_kernels),
                asked=self._left_out(),
            ),
        )

    def _left_out(self) -> dict[str, list[str]]:
        """Return what pytest was asked to leave out, by what a record calls it."""
        option = self.config.option
        flags = {"--lf": "lf", "--sw": "stepwise"}  # of a plugin that may be off
        asked = {
            "maxfail": [str(option.maxfail)] if self.unreported and option.maxfail else [],
            "keyword": [option.keyword] if option.keyword else [],
            "marks": [option.markexpr] if option.markexpr else [],
            "deselected": list(option.deselect or ()),
            "arguments": [text.split("::", 1)[1] for text in self.config.args if "::" in text],
            "cache": [flag for flag, name in flags.items() if getattr(option, name, False)],
        }
        return {name: values for name, values in asked.items() if values}

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
            # A wrong waiver, or a case that was never reported, has failed no test.
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
            terminalreporter.write_line(printable(f"written: {path}"))
        for sentence in self.recorded:
            terminalreporter.write_line(printable(sentence))
        if self.problem:
            missing = "the run was not recorded" if self.written else "the report was not written"
            terminalreporter.write_line(printable(f"{missing}: {self.problem}"), red=True)
        colour = {"green": True} if record.passed else {"red": True}
        terminalreporter.write_line(_banner(record), bold=True, **colour)


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
        powers = plan_power(matrix.settings, matrix.cases, load_margins(matrix.settings.margins))
    except ClipqError:
        return ""  # collection, or the case itself, fails with this error and shows it
    hard = [power for power in powers if power.problem]
    if not hard:
        return ""
    count, total = sum(power.cases for power in hard), sum(power.cases for power in powers)
    names = ", ".join(dict.fromkeys(power.key for power in hard))
    shown = names if len(names) < 90 else f"{names[:87]}..."
    return (
        f"clipq: {count} of {total} margins are smaller than these samples can decide ({shown}); "
        "`clipq power` tells how many could"
    )
