"""The engine of one machine: processes that take units one by one, and may die over them.

A process that is killed breaks the pools of `concurrent.futures` for good, so these are processes
of `multiprocessing`, each with a pipe: what ends, hangs or runs out of memory is one outcome, and
another process takes its place.
"""

from __future__ import annotations

import math
import os
import pickle
import resource
import signal
import time
from collections.abc import Iterable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from clipq.errors import SweepError
from clipq.sweep.executor import Outcome, Work
from clipq.sweep.local_worker import serve
from clipq.sweep.process_ends import ended_for_memory, how_it_ended
from clipq.sweep.unit_queue import UnitQueue
from clipq.sweep.units import Unit

__all__ = ["LocalExecutor"]

_AHEAD = 32
"""Units that are read ahead, in search of one of the model that a process has loaded."""
_DEATHS = 8
"""Processes that end, one after the other, before they have begun: then none ever will."""


class LocalExecutor:
    """Runs units in processes of this machine.

    They are spawned, not forked: torch's threads and CUDA survive no fork. They end when this
    process does, however that is.

    Args:
        processes: how many; one or more.
        memory_limit: bytes of memory of its own that each may have; None for no limit.

    Raises:
        SweepError: less than one process.

    >>> LocalExecutor(2).processes
    2
    >>> LocalExecutor(0)
    Traceback (most recent call last):
    clipq.errors.SweepError: 0 processes
      fix: give one or more: as many as there are processor cores is a good number
    """

    def __init__(self, processes: int, *, memory_limit: int | None = None) -> None:
        if processes < 1:
            hint = "give one or more: as many as there are processor cores is a good number"
            raise SweepError(f"{processes} processes", hint=hint)
        self.processes = processes
        self.memory_limit = memory_limit

    def run(self, units: Iterable[Unit], work: Work, *, time_limit: float) -> Iterator[Outcome]:
        """Yield one outcome per unit, as they end; closing the iterator ends the processes.

        Units are read as processes become free, a few ahead.

        Args:
            units: those of one model together.
            work: what is done with each; picklable.
            time_limit: seconds that a unit may take; `math.inf` for any time.

        Raises:
            SweepError: processes do not start, or `work` cannot be brought to one.
        """
        try:
            content = pickle.dumps(work)
        except Exception as error:  # whatever a class does when it is pickled
            raise SweepError(
                f"{work!r} cannot be sent to a process: {error}",
                hint="it is to be made of what pickle takes, of a class at a module's top",
            ) from error
        queue = UnitQueue(units)
        workers = [_Worker(content, time_limit, self.memory_limit) for _ in range(self.processes)]
        deaths = 0
        try:
            while True:
                for worker in workers:
                    if worker.ready and worker.unit is None:
                        other = {one.model for one in workers if one is not worker}
                        queue.read(_AHEAD)
                        unit = queue.take(worker.model, other)
                        if unit is not None:
                            worker.give(unit)
                busy = [worker for worker in workers if worker.unit is not None]
                if not busy and not queue.read(1):
                    return
                for worker in _noticed(workers):
                    began = worker.ready
                    outcome = worker.heard()
                    deaths = 0 if worker.ready or began else deaths + worker.gone
                    if deaths >= _DEATHS:
                        raise SweepError(
                            f"{deaths} processes ended before they had begun",
                            hint="what they wrote to standard error says why",
                        )
                    if worker.gone:
                        worker.end()
                        workers[workers.index(worker)] = _Worker(
                            content, time_limit, self.memory_limit, model=worker.model
                        )
                    if outcome is not None:
                        yield outcome
        finally:
            for worker in workers:
                worker.end()


class _Worker:
    """A process, and what it is at."""

    def __init__(
        self, work: bytes, time_limit: float, memory_limit: int | None, *, model: str = ""
    ) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, work, time_limit, memory_limit)
        self.process: SpawnProcess = context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe ends with the process
        self.model = model
        self.unit: Unit | None = None
        self.ready = self.gone = False
        self.deadline = math.inf
        self._time_limit = time_limit
        self._spent = 0.0
        self._ended_for_memory: int | None = None

    def give(self, unit: Unit) -> None:
        """Let it do a unit; where it ended meanwhile, that is noticed afterwards."""
        self.unit, self.model = unit, unit.model
        self._ended_for_memory = ended_for_memory()
        self.deadline = time.monotonic() + self._time_limit
        try:
            self.pipe.send(unit)
        except OSError:
            self.gone = True

    def heard(self) -> Outcome | None:
        """Return what became of its unit, where that is known now."""
        try:
            said = self.pipe.recv() if self.pipe.poll() else None
        except (EOFError, OSError, pickle.UnpicklingError):
            return self._ended("")
        if said is None:
            if time.monotonic() < self.deadline and not self.gone:
                return None
            over = f"it took longer than {self._time_limit:g} s, and was ended"
            return self._ended(over if time.monotonic() >= self.deadline else "")
        reason, seconds, stays = said
        if not self.ready:
            if reason:
                raise SweepError(f"no process can do the work: {reason}")
            self.ready, self._spent = True, seconds
            return None
        unit, self.unit, self.deadline = self.unit, None, math.inf
        self._spent += seconds
        self.gone = not stays
        return None if unit is None else Outcome(unit, reason, seconds=seconds)

    def _ended(self, reason: str) -> Outcome | None:
        unit, self.unit, self.deadline, self.gone = self.unit, None, math.inf, True
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.end()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if unit is None:
            return None
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        seconds = max(0.0, used - self._spent)
        if reason:
            return Outcome(unit, reason, ended=True, seconds=seconds)
        told = how_it_ended(self.process.exitcode, self._ended_for_memory, ended_for_memory())
        return Outcome(unit, told.reason, ended=True, seconds=seconds, outside=told.outside)

    def end(self) -> None:
        """End the process with all that it started; it may have ended."""
        if self.process.pid is not None:
            for kill in (os.killpg, os.kill):  # it may not have made a group of its own yet
                try:
                    kill(self.process.pid, signal.SIGKILL)
                except OSError:
                    continue
                break
        self.process.join()
        self.pipe.close()


def _noticed(workers: list[_Worker]) -> list[_Worker]:
    """Wait until some of them say something, end or are over their time; return those."""
    left = min(worker.deadline for worker in workers) - time.monotonic()
    if any(worker.gone for worker in workers):
        left = 0.0
    timeout = None if left == math.inf else max(0.0, left)
    pipes: dict[Connection, _Worker] = {worker.pipe: worker for worker in workers}
    spoke = {id(pipe) for pipe in wait(list(pipes), timeout)}
    now = time.monotonic()
    return [
        worker
        for worker in workers
        if id(worker.pipe) in spoke or worker.deadline <= now or worker.gone
    ]
