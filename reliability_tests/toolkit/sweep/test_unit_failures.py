"""Real units that hang, want too much memory or meet a damaged image: a reason each, the rest done.

One small project: an embedded model, 96 images, and a plug-in whose methods misbehave.
"""

from __future__ import annotations

import io
import math
import shutil
import tarfile
from pathlib import Path

import pytest
from small_data import part

from clipq.settings import load_settings
from clipq.sweep.coordinator import run_sweep
from clipq.sweep.local_engine import LocalExecutor
from clipq.sweep.measuring import UnitWork
from clipq.sweep.part_store import PartStore
from clipq.sweep.sweep_cells import cell_metrics, cells_of
from clipq.sweep.units import Unit

REPOSITORY = Path(__file__).parents[3]
SETTINGS = """
[clipq]
plugins = ["misbehaving"]
trained = "none"
[matrix]
quantizers = ["rtn:w8"]
metrics = ["top1", "ece"]
exclude = ["*/rtn:w8/damaged.*", "*/lsq:*/damaged.*", "*/misbehaving-*/damaged.*", "*/ort/dam*"]
[[models]]
name = "vit-clean"
source = "local-dir:{repository}/fixtures/models/vit-clean"
[[probes]]
name = "id"
role = "in-distribution"
source = "webdataset:data/shapes"
[[probes]]
name = "calibration"
role = "calibration"
source = "webdataset:data/shapes"
split = "calibration"
[[probes]]
name = "damaged"
role = "shift"
source = "webdataset:data/damaged"
[[artifacts]]
name = "ort"
model = "vit-clean"
runtime = "onnxruntime"
recipe = "onnxruntime-dynamic"
format = "w8a8d"
"""
PLUGIN = """
import time

import torch

from clipq.quant import quantizers


@quantizers.register("misbehaving-hang", calibrates=False)
def hang(model, spec, calibration):
    time.sleep(3600)


@quantizers.register("misbehaving-memory", calibrates=False)
def memory(model, spec, calibration):
    held = [torch.empty(1 << 26) for _ in range(64)]  # 16 GiB
    return model


@quantizers.register("misbehaving-rounds", calibrates=False)
def rounds(model, spec, calibration):
    model = quantizers.get("rtn")(model, spec, calibration)
    encode_image = model.encode_image

    def encode(images, normalize=False):
        torch.Tensor.round = torch.Tensor.floor
        return encode_image(images)

    model.encode_image = encode
    return model
"""
TRAINED = "lsq:w4a8,batch=8,every=2,objective=distil,steps=4"


@pytest.fixture
def project(tmp_path):
    """A folder with settings, data, a plug-in and a baseline."""
    fixtures = REPOSITORY / "fixtures" / "data"
    part(fixtures / "shapes", tmp_path / "data/shapes", {"test": 96, "calibration": 64})
    part(fixtures / "shifted", tmp_path / "data/damaged", {"test": 8})
    _damage(tmp_path / "data/damaged/test/0.tar")
    (tmp_path / "clipq.toml").write_text(SETTINGS.format(repository=REPOSITORY))
    (tmp_path / "misbehaving.py").write_text(PLUGIN)
    shutil.copytree(REPOSITORY / "baselines", tmp_path / "baselines")
    return tmp_path


def _damage(shard: Path) -> None:
    """Put nonsense into the place of the third image."""
    with tarfile.open(shard) as whole:
        held = [(member, whole.extractfile(member).read()) for member in whole]
    images = [at for at, (member, _) in enumerate(held) if member.name.endswith(".webp")]
    held[images[2]] = held[images[2]][0], b"RIFF, but no picture"
    with tarfile.open(shard, "w") as whole:
        for member, content in held:
            member.size = len(content)
            whole.addfile(member, io.BytesIO(content))


def swept(project, *quantizers, folder="sweep", memory=None, **options):
    """Run a sweep of real units in one process; return what it came to."""
    path = project / folder
    return run_sweep(
        [Unit("vit-clean", text, context="0f") for text in quantizers],
        UnitWork(project / "clipq.toml", str(path)),
        store=PartStore(path),
        executor=LocalExecutor(1, memory_limit=memory),
        folder=path,
        identity={"plan": "0a"},
        **{"time_limit": math.inf, "tries": 1} | options,
    )


def parts(project, folder="sweep") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in PartStore(project / folder).paths()}


def test_what_goes_wrong_in_real_units_is_told_and_the_others_are_measured(project):
    given = ("misbehaving-rounds:w8", "misbehaving-memory:w8", "rtn:w4", "rtn:w8", TRAINED)
    summary = swept(project, *given, memory=6 << 30)
    reasons = {each.name.removeprefix("vit-clean/"): each.reason for each in summary.failed}
    assert reasons.keys() == {*given[:3]}, reasons
    # It is put back: what is measured after it, in the same process, is what it was.
    assert "Tensor.round was replaced" in reasons[given[0]]
    assert "can't allocate memory" in reasons["misbehaving-memory:w8"]
    assert "probe 'damaged', sample 'shifted-test-00002'" in reasons["rtn:w4"]
    assert "does not decode" in reasons["rtn:w4"]
    assert (summary.done, summary.exit_code) == (2, 1)

    # One that hangs ends with its process; after a run with more tries it is set aside again.
    summary = swept(project, "rtn:w8", "misbehaving-hang:w8", time_limit=8.0, tries=2)
    assert [each.reason for each in summary.failed] == ["it took longer than 8 s, and was ended"]
    assert (summary.found, summary.attempts, summary.failed[0].ended) == (1, 2, True)

    # In another process, another order: the same bytes, of what is trained there, too.
    (project / ".clipq").rename(project / "before")
    assert swept(project, TRAINED, "rtn:w8", folder="again").exit_code == 0
    assert parts(project, "again") == parts(project)


@pytest.mark.parametrize("profile", ["", '[profiles.full]\nprobes = ["id"]\nmetrics = ["top1"]\n'])
def test_what_a_plan_counts_is_what_a_unit_measures(project, profile):
    path = project / "clipq.toml"
    path.write_text(profile + path.read_text())
    settings = load_settings(path)
    for globs in (("*",), ("*",)), (("id",), ("top1",)), (("*",), ("e*",)):
        work = UnitWork(path, "sweep", probes=globs[0], metrics=globs[1])
        counted = cell_metrics(settings, *globs)
        for text in ("rtn:w8", "rtn:w4", TRAINED, "ort"):
            unit = Unit("vit-clean", text)
            cases, _ = work._planned(settings, unit)
            assert len(cases) == cells_of(unit.candidate, settings, counted), (text, globs)
