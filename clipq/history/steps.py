"""Where a case's level changed over the runs of a store, and whether that is more than noise.

Equal code gives equal results, so a case's loss is constant from run to run until something
changes; an environment may add jitter, and single runs may be odd. Per case:

1. Runs without a value are left out.
2. The jitter is estimated from differences of consecutive runs (their median), so steps do not
   inflate it. It is never taken below a fiftieth of the margin.
3. Runs that differ from the median of their neighbours by more than five times the jitter are *odd*
   and left out: one or two runs never make a step.
4. The rest is segmented optimally (least squares, at least three runs per level, one penalty per
   step: PELT of the library ruptures).
5. A step stays if it is worth a tenth of the margin and a t-test with the scatter around all levels
   confirms it at the penalty's own error rate, which guards short histories, whose jitter is
   poorly known.

docs/trends.md states the false alarms and detections that were measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from clipq.history.model import TrendTable

__all__ = ["LEAST_RUNS", "Levels", "Step", "find_levels", "find_steps", "losses", "yardsticks"]

LEAST_RUNS = 3
"""Runs that a level has at least; fewer at the end of a history are a step not yet confirmed."""
_LEAST_CHANGE = 0.1  # of the margin: smaller changes decide nothing
_LEAST_JITTER = _LEAST_CHANGE / 5
_ODD = 5.0  # times the jitter
_NEIGHBOURS = 5
_PENALTY = 13.0  # in squared jitters, per step
_MEDIAN_OF_DIFFERENCES = 0.9538725524  # of |x - y|, x and y standard normal
_FARTHEST = 1e4  # jitters from the median: keeps the library's sums of squares exact


@dataclass(frozen=True, slots=True)
class Levels:
    """A series cut into levels. Positions count columns of the series, gaps included.

    Args:
        starts: first run of each level but the first, increasing.
        odd: runs that belong to no level.
        pending: first of the last one or two runs, where those left the level; None otherwise.
        jitter: standard deviation from run to run, in the unit of the series.
    """

    starts: tuple[int, ...] = ()
    odd: tuple[int, ...] = ()
    pending: int | None = None
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """A change of level of one case.

    Args:
        case: row of the trend table.
        run: column of the first run at the new level.
        last: column of the last run before it that has a value: whatever changed came after `last`
            and not after `run`.
        before: median loss of the level before, in the metric's unit.
        after: median loss of the new level.
        margins: change in margins; positive is worse. NaN without a margin.
        errors: change in standard errors of the loss; NaN where nothing was resampled.
        jitter: standard deviation from run to run, in the metric's unit.
        reference: change of FP32's value at the same place; NaN where there is none.
        confirmed: whether at least `LEAST_RUNS` runs are at the new level.
    """

    case: int
    run: int
    last: int
    before: float
    after: float
    margins: float
    errors: float
    jitter: float
    reference: float
    confirmed: bool

    @property
    def change(self) -> float:
        """Change of the loss in the metric's unit; positive is worse."""
        return self.after - self.before

    @property
    def by_reference(self) -> bool:
        """Whether FP32's value moved by at least half as much: the quantizer may be innocent."""
        return abs(self.reference) >= 0.5 * abs(self.change)


def find_steps(table: TrendTable) -> tuple[tuple[Step, ...], tuple[Levels, ...]]:
    """Return every case's steps, newest and largest first, and the levels of each case.

    >>> from clipq.history.model import RunInfo
    >>> runs = tuple(RunInfo(f"run{n}", n, "2026-01-31", {}, "ci", True, 1) for n in range(10))
    >>> loss = np.repeat([[0.01, 0.03]], 5, axis=1)
    >>> case = ("vit/rtn:w8/id.top1",), ("fraction",), ("higher",), np.array([0.02])
    >>> fp32, verdicts = np.full((1, 10), 0.9), np.zeros((1, 10), np.int8)
    >>> steps, _ = find_steps(TrendTable(runs, *case, fp32 - loss, fp32, loss, loss / 10, verdicts))
    >>> steps[0].run, round(steps[0].margins, 6)  # from the sixth run on worse by a margin
    (5, 1.0)
    """
    series = losses(table)
    yards = yardsticks(table)
    margins = _margins(table)
    steps: list[Step] = []
    levels = [Levels()] * len(table.cases)
    for case in map(int, _moving(series, _LEAST_CHANGE * yards)):
        of_case = levels[case] = find_levels(series[case], yard=float(yards[case]))
        steps += _steps(table, series[case], case, of_case, margin=float(margins[case]))
    steps.sort(key=lambda s: (-s.run, -abs(np.nan_to_num(s.margins)), s.case))
    return tuple(steps), tuple(levels)


def losses(table: TrendTable) -> np.ndarray:
    """Return the series that are searched (C, R): the loss, or where a case never has one the
    observed value, turned so that more is worse.

    >>> from types import SimpleNamespace
    >>> table = SimpleNamespace(loss=np.full((1, 2), np.nan), observed=np.array([[30.0, 28.0]]),
    ...                         directions=("higher",))  # of a TrendTable
    >>> losses(table).tolist()
    [[-30.0, -28.0]]
    """
    series = np.where(np.isfinite(table.loss), table.loss, np.nan)
    without = np.flatnonzero(~np.isfinite(series).any(axis=1))
    for case in without:
        observed = np.where(np.isfinite(table.observed[case]), table.observed[case], np.nan)
        turned = {"higher": -observed, "zero": np.abs(observed)}
        series[case] = turned.get(table.directions[case], observed)
    return np.asarray(series, dtype=np.float64)


def yardsticks(table: TrendTable) -> np.ndarray:
    """Return what a change is measured by (C,): the margin; without one the standard error; without
    that a hundredth of the level.

    >>> from types import SimpleNamespace
    >>> table = SimpleNamespace(margins=np.array([0.02, np.nan]), baseline=np.full((2, 3), 0.9),
    ...                         error=np.full((2, 3), 0.005), observed=np.full((2, 3), 0.89))
    >>> yardsticks(table).tolist()  # the margin; the standard error
    [0.02, 0.005]
    """
    margins = _margins(table)
    yards = np.where(np.isfinite(margins), margins, 0.0).astype(np.float64)
    for case in np.flatnonzero(yards == 0.0):
        error = _median(table.error[case])
        level = _median(np.abs(table.observed[case]))
        yards[case] = error if error > 0.0 else 0.01 * level if level > 0.0 else 1e-9
    return yards


def _margins(table: TrendTable) -> np.ndarray:
    """Return the sizes of margins (C,); NaN where a case is held against a limit, not FP32."""
    relative = np.isfinite(table.baseline).any(axis=1)
    return np.asarray(np.where(relative, np.abs(table.margins), np.nan))


def find_levels(values: Sequence[float] | np.ndarray, *, yard: float) -> Levels:
    """Cut one series into levels.

    Args:
        values: one per run, in time's order (R,); NaN where a run has none.
        yard: size of a change that matters (the margin), above 0, in the unit of `values`.

    >>> find_levels([0.01] * 5 + [0.03] * 5, yard=0.02).starts  # a new level from the sixth run on
    (5,)
    >>> find_levels([0.01] * 9 + [0.03], yard=0.02).pending  # one run is no level yet
    9
    """
    series = np.asarray(values, dtype=np.float64)
    present = np.flatnonzero(np.isfinite(series))
    known = series[present]
    if len(known) <= LEAST_RUNS or np.ptp(known) < _LEAST_CHANGE * yard:
        return Levels()
    jitter = _jitter(known, floor=_LEAST_JITTER * yard)
    odd = _odd(known, jitter=jitter, least=_LEAST_CHANGE * yard)
    tail = _tail(odd, known)
    if odd.all():  # of an even number of runs the median may be none of them
        odd[:tail] = False
    usual = np.flatnonzero(~odd)
    starts: list[int] = []
    if np.ptp(known[usual]) >= _LEAST_CHANGE * yard:
        starts = _segment(known[usual], jitter=jitter)
    starts = _confirmed(known[usual], starts, least=_LEAST_CHANGE * yard, yard=yard)
    return Levels(
        starts=tuple(int(present[usual[start]]) for start in starts),
        odd=tuple(int(present[i]) for i in np.flatnonzero(odd) if tail is None or i < tail),
        pending=None if tail is None else int(present[tail]),
        jitter=jitter,
    )


def _moving(series: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Return the rows whose values differ by at least `least`: of equal code there are few."""
    top = np.where(np.isnan(series), -np.inf, series).max(axis=1, initial=-np.inf)
    bottom = np.where(np.isnan(series), np.inf, series).min(axis=1, initial=np.inf)
    return np.flatnonzero(top - bottom >= least)


def _jitter(values: np.ndarray, *, floor: float) -> float:
    return max(float(np.median(np.abs(np.diff(values)))) / _MEDIAN_OF_DIFFERENCES, floor)


def _odd(values: np.ndarray, *, jitter: float, least: float) -> np.ndarray:
    """Return which values stand apart from their neighbours (N,).

    They differ from the median of five around them and, away from the ends, from the median of
    three on either side: the first run of a level is not odd because an odd one follows soon. At
    both ends the neighbours are the outermost five, so that three runs at a new level are one.
    """
    limit = max(_ODD * jitter, least)
    width = min(_NEIGHBOURS, len(values))
    medians = np.median(sliding_window_view(values, width), axis=1)
    centre = np.clip(np.arange(len(values)) - width // 2, 0, len(medians) - 1)
    odd = np.abs(values - medians[centre]) > limit
    sides = np.median(sliding_window_view(values, LEAST_RUNS), axis=1)
    inner = slice(LEAST_RUNS, len(values) - LEAST_RUNS)
    for side in (sides[: -LEAST_RUNS - 1], sides[LEAST_RUNS + 1 :]):
        odd[inner] &= np.abs(values[inner] - side) > limit
    return np.asarray(odd)


def _tail(odd: np.ndarray, values: np.ndarray) -> int | None:
    """Return where the last one or two runs leave the level together, on the same side."""
    if not odd[-1]:
        return None
    level = np.median(values[-_NEIGHBOURS:])
    together = odd[-2] and (values[-2] > level) == (values[-1] > level)
    return len(values) - (2 if together else 1)


def _segment(values: np.ndarray, *, jitter: float) -> list[int]:
    """Return where levels start, by least squares and a penalty per step."""
    if len(values) < 2 * LEAST_RUNS:
        return []
    from ruptures import KernelCPD

    scaled = np.clip((values - np.median(values)) / jitter, -_FARTHEST, _FARTHEST)
    search: Any = KernelCPD(kernel="linear", min_size=LEAST_RUNS).fit(scaled)
    return [int(end) for end in search.predict(pen=_PENALTY)[:-1]]


def _confirmed(values: np.ndarray, starts: list[int], *, least: float, yard: float) -> list[int]:
    """Drop the weakest step until every one is large enough and more than the scatter explains."""
    if not starts:
        return []
    from scipy.special import stdtrit

    rate = 0.5 * math.erfc(math.sqrt(_PENALTY / 2))  # of a normal deviate beyond sqrt(_PENALTY)
    while starts:
        edges = [0, *starts, len(values)]
        parts = [values[low:high] for low, high in pairwise(edges)]
        means = np.array([part.mean() for part in parts])
        sizes = np.array([len(part) for part in parts])
        freedom = len(values) - len(parts)
        squares = sum(float(((part - part.mean()) ** 2).sum()) for part in parts)
        # A floor of half the one used for the search: exact repetition has no scatter at all.
        scatter = max(math.sqrt(squares / freedom), 0.5 * _LEAST_JITTER * yard)
        changes = np.abs(np.diff(means))
        ratios = changes / (scatter * np.sqrt(1 / sizes[1:] + 1 / sizes[:-1]))
        strength = np.where(changes < least, 0.0, ratios / -stdtrit(freedom, rate))
        weakest = int(np.argmin(strength))
        if strength[weakest] >= 1.0:
            break
        starts = [*starts[:weakest], *starts[weakest + 1 :]]
    return starts


def _steps(
    table: TrendTable, series: np.ndarray, case: int, levels: Levels, *, margin: float
) -> list[Step]:
    usable = np.isfinite(series)
    usable[list(levels.odd)] = False
    starts = list(levels.starts)
    if levels.pending is not None:
        starts.append(levels.pending)
    edges = [0, *starts, len(series)]
    steps = []
    for low, start, high in zip(edges, edges[1:], edges[2:], strict=False):
        old, new = (
            np.flatnonzero(usable[low:start]) + low,
            np.flatnonzero(usable[start:high]) + start,
        )
        before, after = _median(series[old]), _median(series[new])
        both = np.concatenate([old, new])
        error = _median(table.error[case, both])
        change = after - before
        earlier = np.flatnonzero(np.isfinite(series[:start]))
        steps.append(
            Step(
                case=case,
                run=start,
                last=int(earlier[-1]),
                before=before,
                after=after,
                margins=change / margin if margin > 0.0 else math.nan,
                errors=abs(change) / error if error > 0.0 else math.nan,
                jitter=levels.jitter,
                reference=_median(table.baseline[case, new]) - _median(table.baseline[case, old]),
                confirmed=start != levels.pending,
            )
        )
    return steps


def _median(values: np.ndarray) -> float:
    """Return the median of the finite values; NaN where there is none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else math.nan
