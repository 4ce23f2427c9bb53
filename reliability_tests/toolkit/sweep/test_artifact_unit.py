"""A deployed artifact is a unit like any other: what it comes to is the same in another process."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from clipq.settings import load_settings
from clipq.sweep.local_engine import LocalExecutor
from clipq.sweep.measuring import UnitWork
from clipq.sweep.part_store import PartStore
from clipq.sweep.unit_context import UnitContexts
from clipq.sweep.units import Unit

ARTIFACT = """
[[artifacts]]
name = "ort-dynamic"
model = "vit-clean"
runtime = "onnxruntime"
recipe = "onnxruntime-dynamic"
format = "w8a8d"
batch = 64
"""


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in PartStore(folder).paths()}


def test_an_artifacts_unit_has_the_same_bytes_from_here_and_from_another_process(project):
    path = project.settings(metrics=("top1",), after=ARTIFACT)
    contexts = UnitContexts(load_settings(path), probes=("id",), metrics=("top1",))
    unit = Unit("vit-clean", "ort-dynamic", context=contexts("vit-clean", "ort-dynamic"))
    here, there = project.root / "here", project.root / "there"
    work = UnitWork(path, str(here), probes=("id",), metrics=("top1",))
    work(unit)
    (row,) = PartStore(here).read(unit.id).results
    assert row.observed is not None
    assert row.observed > 0.7
    shutil.move(project.root / "clipq.toml", project.root / "moved.toml")
    other = UnitWork(project.root / "moved.toml", str(there), probes=("id",), metrics=("top1",))
    (outcome,) = LocalExecutor(1).run([unit], other, time_limit=math.inf)
    assert outcome.done, outcome.reason
    assert parts(there) == parts(here)
