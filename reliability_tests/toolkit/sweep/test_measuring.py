"""Units measured by themselves are what a gate measures of them, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

import clipq
from clipq.errors import ProbeError
from clipq.sweep.measuring import UnitWork
from clipq.sweep.units import CalibrationDraw, Unit


@dataclass
class Kept:
    parts: dict = field(default_factory=dict)

    def commit(self, unit, rows, *, evidence):
        self.parts[unit] = rows, evidence
        return True


def test_units_are_what_a_gate_measures_whatever_was_measured_before(project):
    """Of one process, of another, of a draw in between: each unit is measured by itself."""
    quantizers = ("rtn:w8a8", "rtn:w4")
    settings = project.settings(quantizers=quantizers)
    asked = {"probes": ("id",), "metrics": ("top1", "ece")}
    run = clipq.gate(settings, **asked, profile="full")
    expected = [replace(one, evidence={}, next_command="") for one in run.record.cases]

    work = UnitWork(settings, "", **asked, open_store=lambda _: kept)
    kept = Kept()
    first, second = (Unit("vit-clean", text) for text in quantizers)
    drawn = [replace(first, calibration=CalibrationDraw(64, seed)) for seed in (0, 1)]
    for unit in (first, *drawn, second):
        work(unit)
    assert sorted(expected, key=lambda one: one.case) == sorted(
        (row for unit in (first, second) for row in kept.parts[unit][0]), key=lambda one: one.case
    )
    observed = [[row.observed for row in kept.parts[unit][0]] for unit in (first, *drawn)]
    assert observed[0] != observed[1] != observed[2], "ranges follow from what was seen"
    assert all(row.verdict.value != "incomparable" for row in kept.parts[drawn[1]][0])

    again = UnitWork(settings, "", **asked, open_store=lambda _: other)
    other = Kept()
    for unit in (drawn[1], first):
        again(unit)
    assert all(other.parts[unit] == kept.parts[unit] for unit in other.parts)
    assert "environments" not in kept.parts[first][1]
    with pytest.raises(ProbeError, match=r"holds 512 samples, a quantizer is to see 1000000"):
        work(replace(first, calibration=CalibrationDraw(10**6)))
