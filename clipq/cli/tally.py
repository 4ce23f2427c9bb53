"""What a run of the matrix has done, and an estimate of how long the rest takes.

The first case of a cell (model, quantizer, probe) pays for its encoding, which takes seconds to
minutes; the others read what it made, in milliseconds. And encodings of the same run differ by
probe far more than by model: a probe has a hundred images or fifty thousand. A rate of cases per
second would promise far too long after each encoding and far too little before the next. So the
rest is estimated from its parts:

    (sum over cells not begun of what a first case of that probe took
     + other cases left x what other cases took) / processes that were busy

"What it took" is the lower median of the last `_RECENT` first cases on that probe (of all probes
where there is none yet), and the mean of the last `_OTHERS` other cases. Busy processes are
measured: the seconds that all finished cases took together, per second of the run.

Two kinds of cases say nothing of the rest. Those that began before any had ended also load
libraries, models and FP32's predictions: they count only while there is nothing else, and make the
first estimates too long. And a process that waits for another's encoding does so once a cell: its
time is part of what the cell's first case took, not of what other cases take.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass

from clipq.cases import Case
from clipq.cli.progress import duration
from clipq.errors import ClipqError
from clipq.node_ids import bracketed

__all__ = ["Tally", "Unit", "unit_of"]

_RECENT = 9
_OTHERS = 200
_NAMES = {"passed": "pass", "failed": "fail", "skipped": "skip"}
_FIRST = ("pass", "fail", "suspect", "inconclusive")
_WAITING_SECONDS = 1.0
"""An other case of at least so long, and half as long as its cell's first, waited for that one."""
_SOONEST_SECONDS = 2.0
"""No estimate before: what a run begins with is not like the rest of it."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What is encoded once: `what` is a candidate (or a kernel), `probe` may be ""."""

    what: str
    probe: str = ""


def unit_of(node_id: str) -> Unit:
    """Return the unit of a test: its case's cell, a kernel, or else its file."""
    name = bracketed(node_id)
    if not name:
        return Unit(node_id.partition("::")[0])
    try:
        cell = Case.parse(name).cell
    except ClipqError:
        return Unit(name.rpartition("/")[0] or name)
    return Unit(str(cell.candidate), cell.probe)


class Tally:
    """Counts and times of one run. Times are seconds of one clock that counts up."""

    def __init__(self) -> None:
        self.planned = 0
        self.done = 0
        self.last = ""
        self._begun_at = 0.0
        self._counts: Counter[str] = Counter()
        self._left: Counter[Unit] = Counter()
        self._encoding: dict[Unit, float] = {}  # seconds of a unit's first case, and of waiting
        self._starting: list[Unit] = []  # units that began with the run
        self._recent: defaultdict[str, deque[Unit]] = defaultdict(lambda: deque(maxlen=_RECENT))
        self._first_end: float | None = None
        self._others: deque[float] = deque(maxlen=_OTHERS)
        self._busy = 0.0
        self._until = 0.0

    def plan(self, units: Iterable[Unit]) -> None:
        """Expect one case for each unit given (a unit is given once a case)."""
        self._left.update(units)
        self.planned = self._left.total()

    def start(self, now: float) -> None:
        """Begin to count time."""
        self._begun_at = self._until = now

    def count(self, category: str) -> None:
        """Count one outcome, named as pytest or a verdict names it."""
        self._counts[_NAMES.get(category, category)] += 1

    def finish(self, unit: Unit, seconds: float, now: float) -> None:
        """Note that a case of `unit` ended after `seconds`."""
        self.done += 1
        self.last = unit.what
        self._left[unit] -= 1
        self._busy += seconds
        self._until = now
        if self._first_end is None:
            self._first_end = now
        if unit not in self._encoding:
            starting = now - seconds < self._first_end
            (self._starting if starting else self._recent[unit.probe]).append(unit)
            self._encoding[unit] = seconds
        elif seconds >= max(_WAITING_SECONDS, self._encoding[unit] / 2):
            self._encoding[unit] += seconds
        else:
            self._others.append(seconds)

    def left_seconds(self, now: float) -> float | None:
        """Return about how long the rest takes; None where nothing can be said yet."""
        elapsed = self._until - self._begun_at
        if not self._encoding or elapsed <= 0 or now - self._begun_at < _SOONEST_SECONDS:
            return None
        if self.done >= self.planned:
            return 0.0
        medians = {probe: self._median(units) for probe, units in self._recent.items()}
        any_probe = (
            statistics.median_low(medians.values()) if medians else self._median(self._starting)
        )
        other = statistics.fmean(self._others) if self._others else 0.0
        rest = 0.0
        for unit, cases in self._left.items():
            if cases > 0 and unit not in self._encoding:
                rest += medians.get(unit.probe, any_probe) + (cases - 1) * other
            elif cases > 0:
                rest += cases * other
        busy = max(self._busy / elapsed, 1e-3)
        # Since the last case ended, part of the rest was done.
        return max(0.0, rest / busy - (now - self._until))

    def _median(self, units: Iterable[Unit]) -> float:
        return statistics.median_low(self._encoding[unit] for unit in units)

    def text(self, now: float) -> str:
        """Return all of it as one line."""
        share = self.done / self.planned if self.planned else 0.0
        order = [*_FIRST, *sorted(set(self._counts) - set(_FIRST))]
        counts = ", ".join(f"{self._counts[name]:,} {name}" for name in order if self._counts[name])
        left = self.left_seconds(now)
        parts = [
            f"{self.done:,}/{self.planned:,} cases ({share:.0%})",
            counts,
            duration(now - self._begun_at),
            "" if self.done >= self.planned else f"ETA {'?' if left is None else duration(left)}",
            self.last,
        ]
        return " | ".join(part for part in parts if part)
