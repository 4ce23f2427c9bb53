"""One run of a sweep: units that lack their part are done, failures tried again, then set aside."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from clipq.errors import SweepError
from clipq.sweep.attempts import Attempt, Attempts
from clipq.sweep.end_signals import Ended, ended_by_signals
from clipq.sweep.executor import Coming, Executor, Outcome, Work
from clipq.sweep.spending import Spending
from clipq.sweep.sweep_folder import claimed, settle
from clipq.sweep.units import Unit

__all__ = ["Parts", "SweepSummary", "run_sweep"]

_IN_VAIN = 8
"""Attempts in a row that find no space to write to: the others would be made in vain."""
_FULL = "no space to write to"
_NO_SPACE = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EROFS)))
"""What the system says then; of an outcome there is only its text, whatever the engine."""


class Parts(Protocol):
    """What a run asks of the store."""

    def has(self, unit_id: str) -> bool: ...

    def ids(self) -> set[str]: ...


@dataclass(frozen=True, slots=True)
class SweepSummary:
    """What a run of a sweep came to.

    Args:
        done: units whose part was made in this run.
        found: units whose part was there already.
        failed: the last attempt at each unit that has no part, of those tried often enough.
        left: units that were not come to, for the run was ended or its time over; at least, for
            those that a plan has not told of yet are not counted.
        attempts: in this run.
        seconds: processor seconds of this run's attempts.
        gpu_seconds: likewise, of GPUs.
        ended_by: "SIGINT", "SIGTERM", "budget", "no space to write to: ..." or "".
        untold: attempts that could not be written down.

    >>> SweepSummary(done=3).exit_code, SweepSummary(failed=(Attempt("0f", "a/b", "no"),)).exit_code
    (0, 1)
    """

    done: int = 0
    found: int = 0
    failed: tuple[Attempt, ...] = ()
    left: int = 0
    attempts: int = 0
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    ended_by: str = ""
    untold: int = 0

    @property
    def exit_code(self) -> int:
        """0 where every unit has its part, 1 where not; 130 and 143 of a signal, as shells say."""
        if self.ended_by.startswith("SIG"):
            return 128 + signal.Signals[self.ended_by].value
        return int(bool(self.failed or self.left))

    def __str__(self) -> str:
        lines = [
            f"{self.done:,} units done in {self.attempts:,} attempts, {self.found:,} there before"
        ]
        if self.failed:
            lines.append(f"{len(self.failed):,} set aside:")
            lines += [f"  {each.name}: {each.reason.splitlines()[0]}" for each in self.failed]
        if self.ended_by and (self.left or self.ended_by.startswith("SIG")):
            lines.append(f"ended by {self.ended_by}; 'clipq sweep resume' goes on")
        if self.untold:
            lines.append(f"{self.untold:,} attempts could not be written down")
        return "\n".join(lines)


def run_sweep(
    units: Iterable[Unit],
    work: Work,
    *,
    store: Parts,
    executor: Executor,
    folder: Path,
    identity: Mapping[str, str],
    another: bool = False,
    tries: int = 3,
    time_limit: float,
    budget_seconds: float | None = None,
    spending: Spending | None = None,
    planned: Iterable[Unit] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> SweepSummary:
    """Do the units that have no part in the store, each until it succeeds or failed `tries` times.

    Failed attempts of earlier runs count: what was set aside stays so, until its sweep is asked
    for with more tries. What failed in an earlier run comes last. An attempt that ended after it
    had committed the part is no failure. One that was ended from outside says little of its unit:
    five of them count as one try. So do, in later runs, those that found no space to write to.

    Args:
        units: of the plan; read once, as they are needed.
        work: commits the part of a unit.
        store: where parts are.
        executor: the engine.
        folder: of the sweep; one run at a time.
        identity: what decides the units and their results, as `settle` compares it.
        another: whether the folder may have been another sweep's before.
        tries: attempts at a unit, one or more.
        time_limit: seconds that a unit may take.
        budget_seconds: after which no unit is begun; None for no end.
        spending: likewise, for what all attempts took, in earlier runs too.
        planned: the units once more, to count what is to be done; read with `progress` alone.
        progress: called with (what, units that ended, units that this run has to do).

    Raises:
        SweepError: another run is at the folder, it is another sweep's, or the engine cannot work.

    >>> from tempfile import TemporaryDirectory
    >>> class Stored(set):
    ...     has, ids = set.__contains__, set.copy
    >>> class Here:
    ...     def run(self, units, work, *, time_limit):
    ...         for unit in units:
    ...             work(unit)
    ...             yield Outcome(unit)
    >>> stored, plan = Stored(), [Unit("vit", "rtn:w8"), Unit("vit", "rtn:w4")]
    >>> with TemporaryDirectory() as folder:
    ...     summary = run_sweep(
    ...         plan, lambda unit: stored.add(unit.id), store=stored, executor=Here(),
    ...         folder=Path(folder), identity={}, time_limit=60.0,
    ...     )
    >>> summary.done, summary.exit_code
    (2, 0)
    """
    if tries < 1:
        raise SweepError(f"tries = {tries}", hint="a unit is tried once or more often")
    with claimed(folder):
        settle(folder, identity, another=another)
        attempts = Attempts(folder / "attempts")
        run = _Run(store, attempts, tries, budget_seconds, spending, progress)
        try:
            with ended_by_signals() as run.check_signals:
                run.all(units, planned, work, executor, time_limit)
        except Ended as ended:
            run.ended_by = ended.name
        return run.summary()


@dataclass
class _Run:
    """What a run has come to so far."""

    store: Parts
    attempts: Attempts
    tries: int
    budget: float | None
    spending: Spending | None
    progress: Callable[[str, int, int], None] | None
    total: int = 0
    done: int = 0
    found: int = 0
    aside: int = 0
    tried: int = 0
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    left: int = 0
    ended_by: str = ""
    again: list[Unit] = field(default_factory=list)
    failed: dict[str, Attempt] = field(default_factory=dict)
    under_way: dict[str, Unit] = field(default_factory=dict)
    in_vain: int = 0
    no_space: Counter[str] = field(default_factory=Counter)
    start: float = field(default_factory=time.monotonic)
    check_signals: Callable[[], None] = lambda: None

    def all(
        self,
        units: Iterable[Unit],
        planned: Iterable[Unit],
        work: Work,
        executor: Executor,
        time_limit: float,
    ) -> None:
        """Do them, and then those that failed, until none is left to be tried."""
        there = self.store.ids()
        if self.progress is not None:
            self.total = sum(unit.id not in there for unit in planned)
        coming = self._wanted(units, there)
        while True:
            ahead = Coming(coming, over=self._over)
            with _closed_after(executor.run(ahead, work, time_limit=time_limit)) as outcomes:
                for outcome in outcomes:
                    self._take(outcome)
            if not self.again or self._over():
                self.left += len(self.again)
                return
            coming = self._begun(self.again)
            self.again = []

    def _wanted(self, units: Iterable[Unit], there: set[str]) -> Iterator[Unit]:
        suspected: list[Unit] = []  # what ends processes again would keep the others waiting
        for unit in units:
            if unit.id in there:
                self.found += 1
            elif self.attempts.tries(unit.id) >= self.tries:
                self.failed[unit.id] = self.attempts.reasons[unit.id]
                self.aside += 1
            elif unit.id in self.attempts.failures:
                suspected.append(unit)
            else:
                yield from self._begun([unit])
        yield from self._begun(suspected)

    def _begun(self, units: Iterable[Unit]) -> Iterator[Unit]:
        for unit in units:
            if self._over():
                self.left += 1
                continue
            self.under_way[unit.id] = unit
            yield unit

    def _over(self) -> bool:
        self.check_signals()  # engines ask again and again: none of them is lost
        if self.budget is not None and time.monotonic() - self.start >= self.budget:
            self.ended_by = "budget"
        if self.spending is not None and not self.ended_by:
            self.ended_by = self.spending.reached(self.attempts.seconds, self.attempts.gpu_seconds)
        return bool(self.ended_by)

    def _take(self, outcome: Outcome) -> None:
        unit = outcome.unit
        if not outcome.done and self.store.has(unit.id):  # it ended between commit and saying so
            outcome = replace(outcome, reason="", ended=False, outside=False)
        elif outcome.done and not self.store.has(unit.id):
            why = "it was said to be done, and its part is not in the store"
            outcome = replace(outcome, reason=why)
        no_space = any(said in outcome.reason for said in _NO_SPACE)
        self.in_vain = self.in_vain + 1 if no_space else 0
        self.no_space[unit.id] += no_space
        self.attempts.add(replace(outcome, outside=outcome.outside or no_space))
        self.under_way.pop(unit.id, None)
        self.tried += 1
        self.seconds += outcome.seconds
        self.gpu_seconds += outcome.gpu_seconds
        if outcome.done:
            self.done += 1
        elif self.attempts.tries(unit.id) < self.tries and self.no_space[unit.id] < self.tries:
            self.again.append(unit)
        else:
            self.failed[unit.id] = self.attempts.reasons[unit.id]
        if self.in_vain >= _IN_VAIN and not self.ended_by:
            self.ended_by = f"{_FULL}: {outcome.reason.splitlines()[0]}"
        self._tell()

    def _tell(self) -> None:
        # Of what this run does: what it finds takes no time, and would make the rest look short.
        if self.progress is not None:
            ended = self.done + len(self.failed) - self.aside
            self.progress("units", ended, max(0, self.total - self.aside))

    def summary(self) -> SweepSummary:
        self.attempts.write()
        left = self.left + len(self.under_way)
        if self.ended_by.startswith("SIG"):
            left += len(self.again)
        return SweepSummary(
            self.done,
            self.found,
            tuple(sorted(self.failed.values(), key=lambda each: (each.name, each.unit_id))),
            left,
            self.tried,
            self.seconds,
            self.gpu_seconds,
            self.ended_by,
            len(self.attempts.unwritten),
        )


@contextmanager
def _closed_after(outcomes: Iterator[Outcome]) -> Iterator[Iterator[Outcome]]:
    """Close what an engine gave, if it can be: its processes end."""
    try:
        yield outcomes
    finally:
        if isinstance(outcomes, Generator):
            outcomes.close()
