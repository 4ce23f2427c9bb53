"""Units measured by themselves are what a gate measures of them, bit for bit."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, field, replace
from pathlib import Path

import clipq
import pytest

from clipq.errors import BaselineError, SweepError
from clipq.settings import load_settings
from clipq.sweep.local_engine import LocalExecutor
from clipq.sweep.measuring import UnitWork
from clipq.sweep.units import CalibrationDraw, Unit

REPOSITORY = Path(__file__).parents[3]
PROBES, METRICS = ("id", "textures", "calibration"), ("top1", "ece", "auroc-mcm")


@dataclass
class Kept:
    parts: dict = field(default_factory=dict)

    def commit(self, unit, rows, *, evidence):
        self.parts[unit] = rows, evidence
        return True


@dataclass
class JsonFolder:
    folder: str

    def commit(self, unit, rows, *, evidence):
        content = {"rows": [row.to_plain() for row in rows], "evidence": evidence}
        Path(self.folder, f"{unit.id}.json").write_text(json.dumps(content, sort_keys=True))
        return True
