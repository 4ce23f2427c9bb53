"""The controller's part of the plugin: collect results, and notice what is missing.

Results are collected from test reports on the controller, the same way for `-n0` and `-n auto`: a
killed worker then loses one case, and that case is reported as an error.
"""

from __future__ import annotations

import datetime
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from clipq.errors import ClipqError
from clipq.pytest_asked import SHARED
from clipq.pytest_items import Collected, named
from clipq.records import CaseResult, KernelResult, RunRecord
from clipq.redaction import redacted
from clipq.terminal import printable
from clipq.verdicts import Verdict

if TYPE_CHECKING:
    from clipq.cases import Case
    from clipq.gating.matrix import Matrix
    from clipq.settings import Settings

__all__ = ["KERNEL_PROPERTY", "NO_RUN", "PROPERTY", "REFUSED", "RunCollector", "result_of"]

PROPERTY = "clipq"
KERNEL_PROPERTY = "clipq-kernel"
REFUSED = "clipq-refused"
_COLLECTING = {
    "collectonly": "--collect-only",
    "showfixtures": "--fixtures",
    "show_fixtures_per_test": "--fixtures-per-test",
}
"""Options of pytest with which it collects tests and runs none."""
NO_RUN = {
    **_COLLECTING,
    "markers": "--markers",
    "help": "--help",
    "version": "--version",
    "setuponly": "--setup-only",
    "setupplan": "--setup-plan",
    "cacheshow": "--cache-show",
}
"""Options of pytest with which no test runs, by the names of their values."""


def result_of(report: pytest.TestReport) -> CaseResult | None:
    """Return the case result that a test report carries, if any."""
    return next(map(CaseResult.from_json, _said(report, PROPERTY)), None)


class Planner(Protocol):
    """Knows what a run is about; asked only once a test may be clipq's."""

    @property
    def settings(self) -> Settings: ...
    @property
    def matrix(self) -> Matrix: ...


class RunCollector:
    """Gathers one run on the controlling process."""

    def __init__(self, config: pytest.Config, asked: Planner) -> None:
        self.config = config
        self._asked = asked
        self.results: dict[str, CaseResult] = {}
        self.kernels: dict[str, KernelResult] = {}
        self.collected = Collected()
        self._finished: set[str] = set()
        self._refused: dict[str, None] = {}
        self._failed_elsewhere = 0
        self.expects_matrix = False
        """Whether the matrix itself was asked for, as `clipq gate` does: then no run is no pass."""
        self._shared = ""
        self._missing_all = False
        self.started = time.perf_counter()
        self.began = datetime.datetime.now(datetime.UTC)

    @property
    def matrix(self) -> Matrix:
        """The matrix of this run."""
        return self._asked.matrix

    @property
    def settings(self) -> Settings:
        """The settings of this run."""
        return self._asked.settings

    # -- what workers share -----------------------------------------------------------------

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Give all workers of the run one folder: they judge candidates from shared cells."""
        if not self._shared:
            self._shared = tempfile.mkdtemp(prefix="clipq-run-")
        node.workerinput[SHARED] = self._shared

    @property
    def shared(self) -> Path | None:
        """The folder that workers of this machine share; None where there are none."""
        return Path(self._shared) if self._shared else None

    def pytest_unconfigure(self) -> None:
        if self._shared:
            shutil.rmtree(self._shared, ignore_errors=True)

    # -- what was planned -------------------------------------------------------------------

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any) -> None:
        left = Path(self._shared, f"{node.gateway.id}.collected")
        if left.is_file():  # a worker on another machine leaves none here; its reports tell
            self.add(Collected.read(left))

    def add(self, collected: Collected) -> None:
        """Take in what a process collected."""
        first = not self.collected.cases
        self.collected.add(collected)
        if first and collected.cases:
            with suppress(ClipqError):  # the workers' collection fails with this error
                _ = self.matrix.inputs  # as they are now
            self._note_planning()

    def _note_planning(self) -> None:
        """Say before time is spent which margins the samples cannot decide."""
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is None:
            return
        for note in (*_training_notes(self.matrix), _planning_note(self.matrix)):
            if note:
                terminal.write_line(printable(note))

    # -- what was reported ------------------------------------------------------------------

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        case, check = named(report)
        if case:
            self.collected.cases.setdefault(report.nodeid, case)
        if check:
            self.collected.checks.setdefault(report.nodeid, check)
        self._refused |= dict.fromkeys(_said(report, REFUSED))
        case = self.collected.cases.get(report.nodeid, "")
        check = self.collected.checks.get(report.nodeid, "")
        if check:
            self._kernel_reported(check, report)
        if case:
            self._case_reported(case, report)
        if report.failed and (report.when == "teardown" or not (case or check)):
            self._failed_elsewhere += 1

    def _case_reported(self, case: str, report: pytest.TestReport) -> None:
        for result in map(CaseResult.from_json, _said(report, PROPERTY)):
            if report.when == "call":
                known = self.results.setdefault(case, result)
                if known.verdict != result.verdict:
                    self.results[case] = _contradicted(known, result)
                self._finished.add(report.nodeid)
        if report.failed and report.nodeid not in self._finished:
            self._failed_outside(case, report)

    def _kernel_reported(self, check: str, report: pytest.TestReport) -> None:
        for value in _said(report, KERNEL_PROPERTY):  # a worker died: none
            result = KernelResult.from_json(value)
            if check not in self.kernels or result.outcome == "fail":
                self.kernels[check] = result
            self._finished.add(report.nodeid)
        if report.failed and report.nodeid not in self._finished:
            self._finished.add(report.nodeid)
            kernel, name = self.matrix.kernel_checks[check]
            self.kernels[check] = KernelResult(kernel, name, "fail", reason=_last_line(report))

    def _failed_outside(self, name: str, report: pytest.TestReport) -> None:
        """A fixture failed, or the worker that ran the case died: say so as the case's verdict."""
        self._finished.add(report.nodeid)
        if name in self.results:
            return
        from clipq.gating.board import CellBoard
        from clipq.gating.commands import Commands

        case, program = self.matrix.by_id[name], Commands(self.settings).program
        given_up = CellBoard(self.shared).given_up(case.candidate)
        self.results[name] = CaseResult(
            case,
            Verdict.ERROR,
            reason=f"{case.cell}: {given_up}" if given_up else _last_line(report),
            next_command=f"{program} gate -n0 -k '{case}'",
        )

    # -- the run as a whole -----------------------------------------------------------------

    @property
    def anything(self) -> bool:
        """Whether a run of ours took place."""
        option = self.config.option
        runs = not any(getattr(option, name, False) for name in _COLLECTING)
        found = self.collected.anything or bool(self._refused) or self._missing_all
        return runs and found

    @property
    def reported_any(self) -> bool:
        """Whether a case or a kernel check was."""
        return bool(self.results or self.kernels)

    def miss_matrix(self) -> None:
        """The run ended before anything was collected: all that was asked for is missing."""
        self._missing_all = self.expects_matrix and not self.collected.anything

    @property
    def failed_elsewhere(self) -> int:
        """How many failures are no verdict: of other tests, or after a case was judged."""
        return self._failed_elsewhere

    @property
    def unreported(self) -> tuple[str, ...]:
        """Ids of what was collected, or asked for, and never reported."""
        if self._missing_all:
            return tuple(sorted([*self.matrix.by_id, *self.matrix.kernel_checks]))
        known = (self.collected.cases, self.collected.checks)
        missing = {
            name for names in known for node, name in names.items() if node not in self._finished
        }
        return tuple(sorted(missing))

    @cached_property
    def record(self) -> RunRecord:
        """The run as it stood when it was first asked for: when the session ended."""
        from clipq.gating.run import assemble, narrowing

        results = list(self.results.values())
        planned = [self.matrix.by_id[name] for name in set(self.collected.cases.values())]
        checks = len(set(self.collected.checks.values()))
        if self._missing_all:
            planned, checks = list(self.matrix.cases), len(self.matrix.kernel_checks)
        return assemble(
            self.matrix,
            results,
            planned=len(planned),
            began=self.began,
            seconds=time.perf_counter() - self.started,
            kernels=list(self.kernels.values()),
            unreported=self.unreported,
            problems=tuple(self._problems(planned)),
            selection=narrowing(
                self.matrix,
                planned=planned,
                results=results,
                kernel_checks=checks,
                asked=self._left_out(),
            ),
        )

    def _problems(self, planned: list[Case]) -> Iterator[str]:
        """Yield what no case can be blamed for, and no run may pass with."""
        yield from self._refused
        for node in self.collected.stray:
            yield (
                f"{node} asks for a verdict and is of no case that was planned: "
                "a test takes `clipq_case` and `clipq_gate`, and judges that case"
            )
        lost = self.collected.dropped
        if lost and not planned and not self.collected.checks:
            yield (
                f"all {lost:,} tests of the matrix were collected and then taken away without a "
                "word: a `pytest_collection_modifyitems` of a conftest.py or a plugin drops them"
            )

    def _left_out(self) -> dict[str, list[str]]:
        """Return what pytest was asked to leave out, by what a record calls it."""
        option = self.config.option
        flags = {"--lf": "lf", "--sw": "stepwise"}  # of a plugin that may be off
        ignored = [*(option.ignore or ()), *(option.ignore_glob or ())]
        asked = {
            "maxfail": [str(option.maxfail)] if self.unreported and option.maxfail else [],
            "keyword": [option.keyword] if option.keyword else [],
            "marks": [option.markexpr] if option.markexpr else [],
            "deselected": [
                *(option.deselect or ()),
                *(["by other means"] if self.collected.dropped else []),
            ],
            "ignored": list(map(str, ignored)),
            "arguments": [text.split("::", 1)[1] for text in self.config.args if "::" in text],
            "cache": [flag for flag, name in flags.items() if getattr(option, name, False)],
        }
        return {name: values for name, values in asked.items() if values}


def _said(report: pytest.TestReport, key: str) -> Iterator[str]:
    return (str(value) for name, value in getattr(report, "user_properties", ()) if name == key)


def _last_line(report: pytest.TestReport) -> str:
    return redacted((str(report.longrepr).strip().splitlines() or ["no detail"])[-1])


def _contradicted(one: CaseResult, other: CaseResult) -> CaseResult:
    """Return what is said of a case that was judged more than once, and not always alike."""
    verdicts = " and then ".join(result.verdict.value for result in (one, other))
    return replace(
        one,
        verdict=Verdict.ERROR,
        reason=f"it was judged more than once, and was {verdicts}: a quantizer or a test that "
        "depends on what ran before it",
    )


def _training_notes(matrix: Matrix) -> Iterator[str]:
    """Say which candidates are trained before they are measured."""
    from clipq.evaluation.trained_plan import training_notes

    candidates = {case.candidate for case in matrix.cases}
    yield from (f"clipq: {note}" for note in training_notes(matrix.settings, candidates))


def _planning_note(matrix: Matrix) -> str:
    """Say which margins these samples cannot decide, or "" where they decide all."""
    from clipq.gating.margins import load_margins
    from clipq.gating.planning import plan_power

    try:
        powers = plan_power(
            matrix.settings, matrix.cases, load_margins(matrix.settings.margins, matrix.settings)
        )
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
