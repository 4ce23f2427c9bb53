"""How a run ends: reports written, the run kept, and a last line that is the exit code.

The conclusion is printed when pytest is done with everything else, for only then is its exit code
known: a report that could not be written, a failing test of somebody else or an interruption make
it 1, 130, 143 or 129, and the line says FAILED whenever it is not 0.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Generator
from contextlib import suppress
from typing import Any

import pytest

from clipq.errors import ClipqError
from clipq.pytest_collector import RunCollector
from clipq.pytest_interrupts import Interrupts
from clipq.pytest_workers import WorkerWatch
from clipq.records import RunRecord
from clipq.terminal import printable, say

__all__ = ["Conclusion", "banner"]

_INTERNAL_ERROR = 3
_ENDED_EARLY = (2, _INTERNAL_ERROR)


class Conclusion:
    """Ends the run that a collector gathered.

    Args:
        config: of the controlling process.
        collector: of the run.
        interrupts: what asked it to end.
        workers: that ran it.
    """

    def __init__(
        self,
        config: pytest.Config,
        collector: RunCollector,
        interrupts: Interrupts,
        workers: WorkerWatch,
    ) -> None:
        self.config = config
        self.passed = False
        """Whether the run is over, complete, and said so: all that makes an exit code 0 true."""
        self.concluded = False
        self._collector, self._interrupts, self._workers = collector, interrupts, workers
        self._session: pytest.Session | None = None
        self._record: RunRecord | None = None
        self._written: list[str] = []
        self._kept: tuple[str, ...] = ()
        self._problem = ""
        self._over = False

    # -- what happens -----------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        self._finish()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self._record is not None:
            from clipq.report.text import summary

            terminalreporter.section("clipq reliability report")
            terminalreporter.write_line(summary(self._record))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_unconfigure(self) -> Generator[None, object, object]:
        self._finish()  # pytest leaves out the session's end where its start failed
        failed = True
        try:
            found = yield
            failed = False
        finally:
            if self._collector.anything and self._session is not None:
                self._conclude(self._session, failed=failed)
            elif self._workers.lost:
                self._say(f"clipq: {self._workers.lost}", red=True)
        return found

    # -- the end ----------------------------------------------------------------------------

    def _finish(self) -> None:
        """Write the reports and keep the run, once; set pytest's exit code."""
        session = self._session
        if session is None or self._over:
            return
        self._over = True
        if session.exitstatus in _ENDED_EARLY or self._interrupts.exit_code:
            self._collector.miss_matrix()
        if self._collector.anything and not self._unheard(session):
            self._report(session)
        if self._workers.lost and session.exitstatus == _INTERNAL_ERROR:
            session.exitstatus = 1
        session.exitstatus = self._interrupts.exit_code or session.exitstatus

    def _unheard(self, session: pytest.Session) -> bool:
        """Whether no test ran for the reason that pytest's output cannot be written.

        A report that says so of every case would take the place of one of a run.
        """
        if session.exitstatus != _INTERNAL_ERROR or self._collector.reported_any:
            return False
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is None:
            return False
        try:
            terminal.write_line("")
            terminal.flush()
        except (OSError, ValueError):
            return True
        return False

    def _report(self, session: pytest.Session) -> None:
        from clipq.report import write_reports

        try:
            record = self._record = self._collector.record
            settings = self._collector.settings
            self._written = write_reports(record, settings.report)
            if settings.history.record and not self._interrupts.exit_code:
                self._keep(record)
        except ClipqError as error:
            self._problem = str(error)
        except Exception as error:  # of clipq, or of a report format that somebody registered
            self._problem = f"{type(error).__name__}: {error}"
            self._say(traceback.format_exc())
            session.exitstatus = session.exitstatus or _INTERNAL_ERROR
        # A wrong waiver, or a case that was never reported, has failed no test.
        if session.exitstatus == 0 and not self._sound:
            session.exitstatus = 1

    def _keep(self, record: RunRecord) -> None:
        """Record the run in the history store: a narrowed one only where it was asked for.

        Raises:
            ClipqError: the store cannot be reached or written; the report is there to record later.
        """
        from clipq.history.keep import keep_run

        if record.narrowed and not self.config.getoption("--clipq-record"):
            self._kept = (f"not recorded: {record.partial}; --clipq-record keeps it",)
            return
        self._kept = keep_run(record, self._collector.settings)

    @property
    def _sound(self) -> bool:
        return self._record is not None and self._record.passed and not self._problem

    def _conclude(self, session: pytest.Session, *, failed: bool) -> None:
        if session.exitstatus == 0 and (failed or not self._sound):
            session.exitstatus = 1  # somebody set it to 0 after `_finish`
        for path in self._written:
            self._say(f"written: {path}")
        for sentence in self._kept:
            self._say(sentence)
        if self._problem:
            missing = "the run was not recorded" if self._written else "the report was not written"
            self._say(f"{missing}: {self._problem}", red=True)
        because = [self._interrupts.said or self._workers.lost]
        if self._problem:
            because.append("the run was not recorded" if self._written else "no report was written")
        if self._collector.failed_elsewhere:
            because.append(f"{self._collector.failed_elsewhere} failures outside of the gate")
        code = int(session.exitstatus)
        line = banner(self._record, code, because=[reason for reason in because if reason])
        self.passed = code == 0
        self.concluded = True
        self._say(line, bold=True, **({"green": True} if self.passed else {"red": True}))

    def _say(self, text: str, **markup: bool) -> None:
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        with suppress(OSError, ValueError):  # whoever read has gone; the exit code says it all
            if terminal is not None:
                terminal.write_line(printable(text), **markup)
                terminal.flush()
            else:
                say(text)
                sys.stdout.flush()


def banner(record: RunRecord | None, code: int, *, because: list[str]) -> str:
    """Return the last line of a run: PASSED where the exit code is 0, and only there.

    Args:
        record: of the run; None where it could not be put together.
        code: pytest's exit code.
        because: what else than the record fails the run.

    >>> banner(RunRecord("ci", 0, ()), 1, because=["interrupted"])
    'RELIABILITY GATE FAILED: interrupted; nothing was measured; policy ci'
    """
    if record is None:
        reasons = [*because, "there is no record of the run"]
        return f"RELIABILITY GATE FAILED: {'; '.join(reasons)}"
    part = f"; {record.partial}" if record.partial else ""
    end = f"policy {record.policy}{part}"
    ran = sum(row.outcome != "not-run" for row in record.kernels)
    if code == 0:
        kernels = f", {ran} kernel checks" if record.kernels else ""
        return f"RELIABILITY GATE PASSED: {len(record.cases):,} cases{kernels}, {end}"
    reasons = [*because, *_faults(record, ran)]
    return f"RELIABILITY GATE FAILED: {'; '.join(reasons) or f'pytest exits {code}'}; {end}"


def _faults(record: RunRecord, ran: int) -> list[str]:
    faults = []
    if record.blocking:
        faults.append(f"{len(record.blocking):,} of {len(record.cases):,} cases block")
    if record.broken_kernels:
        faults.append(f"{len(record.broken_kernels)} of {ran} kernel checks fail")
    if record.kernels and not ran and not record.cases:
        faults.append("no kernel check could run")
    if not record.cases and not record.kernels:
        faults.append("nothing was measured")
    if record.unreported:
        faults.append(f"{len(record.unreported):,} that were planned were never reported")
    if record.refusal:
        faults.append(f"policy {record.policy} refuses a part")
    if len(record.problems) == 1:
        faults.append(record.problems[0])
    elif record.problems:
        faults.append(f"{len(record.problems)} problems of the run as a whole")
    return faults
