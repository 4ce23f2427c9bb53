"""A reader's repository: one model, a few hundred images in each layout, a gate that has run."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image

from clipq.exports import recipes
from clipq.models import ModelSource, load_model
from clipq.quant import quantizers
from clipq.records import RunRecord
from clipq.runtimes import runtimes

# What the tests here share; importlib mode puts no folder of tests on the path.
sys.path.insert(0, str(Path(__file__).parent))

from page_session import PageSession, _environment
from small_data import part
from transformers_twin import transformers_twin
from warm_process import WarmProcess

REPOSITORY = Path(__file__).parents[3]
_DATA = REPOSITORY / "fixtures" / "data"
_MODEL = "local-dir:fixtures/models/vit-clean"
_IMAGES = {"test": 256, "calibration": 128}
_SETTINGS = """\
[clipq]
policy = "ci"

[matrix]
quantizers = ["rtn:w8a8", "rtn:w4a4"]
metrics = ["top1", "ece", "auroc-mcm"]

[[models]]
name = "vit-clean"
source = "local-dir:models/vit-clean"

[[probes]]
name = "id"
role = "in-distribution"
source = "webdataset:data/shapes"
group = "colour"

[[probes]]
name = "calibration"
role = "calibration"
source = "webdataset:data/shapes"
split = "calibration"

[[probes]]
name = "digits"
role = "ood"
source = "webdataset:data/digits"
"""
_MARGINS = """\
[[margin]]
formats = "*"
[margin.metrics]
"*" = 0.05
nll = 0.2

[[margin]]
formats = "w4a4"
[margin.metrics]
top1 = 0.12
"""


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory, warm_process: WarmProcess) -> Path:
    """Return the folder of programs that a page's commands find first."""
    folder = tmp_path_factory.mktemp("programs")
    warm_process.write_programs(folder)
    return folder


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, worker_id: str, programs: Path) -> Path:
    """Return the project that pages start from: made once for all workers, never changed."""
    base = tmp_path_factory.getbasetemp()
    root = (base if worker_id == "master" else base.parent) / "reader"
    with FileLock(f"{root}.lock"):
        if not root.with_suffix(".complete").is_file():
            shutil.rmtree(root, ignore_errors=True)
            _make(root, programs)
            root.with_suffix(".complete").touch()
    return root


@pytest.fixture
def session(
    prepared: Path, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PageSession]:
    """Yield a page's own copy of the project, as the working folder.

    Quantizers, runtimes, recipes and modules that a page brings go with it.
    """
    root = tmp_path / "project"
    shutil.copytree(prepared, root, symlinks=True)
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(root)
    known = {registry: set(registry.names()) for registry in (quantizers, recipes, runtimes)}
    modules = set(sys.modules)
    yield PageSession(root, programs)
    for registry, names in known.items():
        for name in set(registry.names()) - names:
            registry.remove(name)
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(f"{root}{os.sep}"):
            del sys.modules[name]


def _make(root: Path, programs: Path) -> None:
    shutil.copytree(REPOSITORY / "fixtures" / "models" / "vit-clean", root / "models" / "vit-clean")
    part(_DATA / "shapes", root / "data" / "shapes", _IMAGES)
    part(_DATA / "digits", root / "data" / "digits", {"test": 256})
    _as_folders(root / "data" / "shapes", root / "data" / "photos")
    _as_list(root / "data" / "digits", root / "data" / "scans")
    twin = transformers_twin(load_model(ModelSource.parse(_MODEL, base_dir=REPOSITORY)).model)
    twin.save_pretrained(root / "models" / "vit-clean-hf")
    (root / "clipq.toml").write_text(_SETTINGS)
    (root / "baselines").mkdir()
    (root / "baselines" / "margins.toml").write_text(_MARGINS)
    (root / ".gitignore").write_text(".clipq/\n")
    failed = _sample()
    for name, run in (("yesterday.json", failed), ("report.json", _passed(failed))):
        (root / name).write_text(json.dumps(run.to_plain(), allow_nan=False))
    for command in (
        "git init -q -b main && git add -A && git commit -q -m start",
        "clipq history record yesterday.json && clipq history record report.json",
        "clipq baseline create",
    ):
        subprocess.run(
            ["bash", "-eu", "-c", command],
            cwd=root,
            env=_environment(root, programs),
            check=True,
            capture_output=True,
        )


def _sample() -> RunRecord:
    """Return the gallery's run."""
    packed = (REPOSITORY / "docs" / "examples" / "report.json.gz").read_bytes()
    return RunRecord.from_plain(json.loads(gzip.decompress(packed)))


def _passed(run: RunRecord) -> RunRecord:
    """Return a run of a whole matrix, one without the quantizer that fails."""
    cases = [case for case in run.cases if case.quantizer != "rtn:w4a4"]
    cases[0] = replace(cases[0], evidence=run.evidence())
    return replace(run, cases=tuple(cases), planned=len(cases), selection={})


def _samples(folder: Path, split: str) -> list[tuple[str, bytes, int]]:
    """Return key, image file and label of each sample of a shard."""
    with tarfile.open(folder / split / "0.tar") as shard:
        files = {member.name: shard.extractfile(member).read() for member in shard}  # type: ignore[union-attr]
    keys = sorted({name.partition(".")[0] for name in files})
    return [(key, files[f"{key}.webp"], int(files[f"{key}.cls"])) for key in keys]


def _as_folders(source: Path, target: Path) -> None:
    """Write a folder per class, and the templates of prompts."""
    names = (source / "classnames.txt").read_text().splitlines()
    for split in _IMAGES:
        for name in names:
            (target / split / name.replace(" ", "_")).mkdir(parents=True)
        for key, image, label in _samples(source, split):
            (target / split / names[label].replace(" ", "_") / f"{key}.webp").write_bytes(image)
    shutil.copy(source / "zeroshot_classification_templates.txt", target)


def _as_list(source: Path, target: Path) -> None:
    """Write PNGs, and a list of them."""
    (target / "images").mkdir(parents=True)
    lines = []
    for key, image, label in _samples(source, "test"):
        Image.open(io.BytesIO(image)).save(target / "images" / f"{key}.png")
        lines.append(f"images/{key}.png {label}")
    (target / "test.txt").write_text("\n".join(lines) + "\n")
