"""A history to show trends on: the sample run, drawn again and again around its measured values.

Each day's loss is the measured one plus noise of its standard error; a change is planted in a few
cases. The gallery says that these values are drawn.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from clipq.records import CaseResult, RunRecord
from clipq.verdicts import Verdict

_STEP_DAY, _STEPPING, _STEP_MARGINS = 38, 0.06, 0.8
_LEFT_OUT = "rtn:w4a4"  # fails from the first day to the last: no trend
_JUDGED = (Verdict.PASS, Verdict.IMPROVED, Verdict.INCONCLUSIVE, Verdict.FAIL)


def simulated_runs(record: RunRecord, *, days: int, seed: int) -> Iterator[RunRecord]:
    """Yield one run a day."""
    rng = np.random.default_rng(seed)
    kept = [case for case in record.cases if case.quantizer != _LEFT_OUT]
    kept[0] = replace(kept[0], evidence=record.evidence())
    stepping = rng.uniform(size=len(kept)) < _STEPPING
    first = datetime.datetime.fromisoformat(record.started) - datetime.timedelta(days=days)
    for day in range(days):
        started = first + datetime.timedelta(days=day)
        cases = tuple(
            _drawn(case, rng, step=bool(steps) and day >= _STEP_DAY)
            for case, steps in zip(kept, stepping, strict=True)
        )
        yield replace(
            record,
            cases=cases,
            planned=len(cases),
            started=started.isoformat().replace("+00:00", "Z"),
            commit={
                "sha": rng.bytes(20).hex(),
                "date": started.isoformat(),
                "subject": f"a commit of day {day + 1}",
                "branch": "main",
                "dirty": False,
            },
        )


def _drawn(case: CaseResult, rng: np.random.Generator, *, step: bool) -> CaseResult:
    noise = float(rng.normal())
    if case.verdict not in _JUDGED or not case.estimate.standard_error:
        return case  # nothing was resampled: nothing is known of its noise
    estimate = case.estimate
    measured, margin = estimate.loss or 0.0, estimate.margin or 0.0
    change = noise * estimate.standard_error + (_STEP_MARGINS * margin if step else 0.0)
    loss, half = measured + change, 1.96 * estimate.standard_error
    verdict = Verdict.INCONCLUSIVE
    if loss + half < margin:
        verdict = Verdict.PASS
    elif loss - half > margin:
        verdict = Verdict.FAIL
    worse = 1.0 if case.direction == "lower" else -1.0
    observed = None if case.observed is None else case.observed + worse * change
    return replace(
        case,
        verdict=verdict,
        observed=observed,
        estimate=replace(estimate, loss=loss, low=loss - half, high=loss + half),
    )
