"""Units and results to store, for tests of a sweep's parts."""

from __future__ import annotations

from clipq.cases import Case
from clipq.records import CaseResult
from clipq.sweep.units import CalibrationDraw, Unit
from clipq.verdicts import Verdict

UNITS = [
    Unit("vit", "rtn:w8"),
    Unit("vit", "rtn:w4,exclude=blocks.0/*@vision", CalibrationDraw(64, 2), "0f"),
    Unit("vit", "quarot:w4a8,seed=3+logit-scale"),
]
EVIDENCE = {"models": {"vit": {"digest": "0f"}}, "probes": {"id": {"samples": 512}}}


def result(unit, name="id.ece", /, **more):
    """Return one result of a unit."""
    case = Case.parse(f"{unit.candidate}/{name}")
    return CaseResult(case, **{"verdict": Verdict.PASS, "observed": 0.5} | more)


def results(unit, count=3):
    """Return results of a unit, sorted as a part has them."""
    return [result(unit, f"id.m{number}", observed=number / 7) for number in range(count)]


def many(count):
    """Return units, sorted by id."""
    return sorted((Unit("vit", f"rtn:w{number}") for number in range(count)), key=lambda u: u.id)


def rows_of(store):
    """Return everything of a store, so that a NaN equals another."""
    return [repr(part) for part in store.everything()]
