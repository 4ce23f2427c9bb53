"""What decides a unit's result is in its context, and nothing else: edits of a small project."""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipq.errors import BaselineError, ProbeError, SweepError
from clipq.evaluation.identity import files_identity
from clipq.evaluation.trained_manifest import TrainedManifest
from clipq.evaluation.training_unit import TrainingUnit
from clipq.metrics import metrics
from clipq.quant import quantizers
from clipq.settings import load_settings
from clipq.sweep.sweep_folder import settle
from clipq.sweep.unit_context import UnitContexts

SETTINGS = """
[matrix]
quantizers = ["rtn:w8"]
metrics = ["top1", "ece", "i2t-recall-1"]
[[models]]
name = "vit"
source = "local-dir:models/vit"
[[probes]]
name = "id"
role = "in-distribution"
source = "webdataset:data/seen"
[[probes]]
name = "calibration"
role = "calibration"
source = "webdataset:data/calibration"
[[probes]]
name = "fgsm"
role = "adversarial"
source = "webdataset:data/seen"
attack = "fgsm"
epsilon = 1.0
[[probes]]
name = "captions"
role = "retrieval"
source = "webdataset:data/captions"
[[probes]]
name = "proxy"
role = "proxy"
source = "webdataset:data/proxy"
[[artifacts]]
name = "looked-up"
model = "vit"
runtime = "features"
image = "deploy/image.npz"
text = "deploy/text.npz"
[[artifacts]]
name = "made"
model = "vit"
runtime = "onnxruntime"
recipe = "onnxruntime-dynamic"
"""
METHOD = '''
"""A method, for a test."""

from clipq.quant import quantizers


@quantizers.register("context-mine")
def context_mine(model, spec, calibration):
    return model
'''
OWN = "context-mine"
TUNED = "awq+logit-scale"
TRAINED = "lsq,objective=distil"
METHODS = ("rtn", "gptq", TRAINED, OWN, "rtn,table=table.txt", TUNED, "looked-up", "made")
CAPTIONS = ("a red circle", "the blue square", "a photo", "a drawing")


@dataclass
class Folder:
    """A project without anything that could be run."""

    root: Path

    def contexts(self, **globs: tuple[str, ...]) -> UnitContexts:
        return UnitContexts(load_settings(self.root / "clipq.toml"), **globs)

    def everything(self) -> dict[str, dict[str, str]]:
        contexts = self.contexts()
        return {method: contexts.parts("vit", method) for method in METHODS}

    def files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.root.rglob("*") if path.is_file()}

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.root / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def state(self, quantizer: str) -> None:
        """Say that a quantizer of the model was trained."""
        settings = load_settings(self.root / "clipq.toml")
        parent = files_identity(settings.model("vit"), root=self.root)
        unit = TrainingUnit("vit", quantizer, {}, parent, {})
        TrainedManifest(unit, "0" * 64).write(settings.trained / "made")

    def shard(self, name: str, *, seed: int, captions: tuple[str, ...] = CAPTIONS) -> None:
        """Write a split of pictures, those whose caption is "" without one."""
        split = self.root / "data" / name / "test"
        split.mkdir(parents=True, exist_ok=True)
        (split.parent / "classnames.txt").write_text("circle\nsquare\n")
        (split.parent / "zeroshot_classification_templates.txt").write_text("a {c}\n")
        (split / "nshards.txt").write_text("1")
        generator = np.random.default_rng(seed)
        with tarfile.open(split / "0.tar", "w") as shard:
            for row, caption in enumerate(captions):
                pixels = generator.integers(0, 256, (8, 8, 3), np.uint8)
                picture = io.BytesIO()
                Image.fromarray(pixels).save(picture, "PNG")
                for ending, content in (
                    ("cls", str(row % 2).encode()),
                    ("png", picture.getvalue()),
                    ("txt", caption.encode()),
                ):
                    if not content:
                        continue
                    member = tarfile.TarInfo(f"{name}-{seed}-{row}.{ending}")
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    made = Folder(tmp_path / "project")
    made.root.mkdir()
    monkeypatch.chdir(made.root)  # where a table of formats is looked for
    (made.root / "clipq.toml").write_text(SETTINGS)
    for seed, name in enumerate(("seen", "calibration", "captions", "proxy")):
        made.shard(name, seed=seed)
    for name, content in (
        ("models/vit/open_clip_model.safetensors", "weights"),
        ("models/vit/vocabulary.txt", "words"),
        ("baselines/vit.json", "{}"),
        ("baselines/vit.safetensors", "columns"),
        ("baselines/margins.toml", "[[margin]]\n"),
        ("deploy/image.npz", "features of images"),
        ("deploy/text.npz", "features of texts"),
        ("table.txt", "a table of formats"),
        ("mine.py", METHOD),
    ):
        (made.root / name).parent.mkdir(parents=True, exist_ok=True)
        (made.root / name).write_text(content)
    text = {"tokenizer_kwargs": {"bpe_path": "vocabulary.txt"}}
    config = {"model_cfg": {"embed_dim": 8, "text_cfg": text}}
    (made.root / "models/vit/open_clip_config.json").write_text(json.dumps(config))
    monkeypatch.syspath_prepend(str(made.root))
    import_module("mine")  # which registers itself: what does so counts as the method's code
    yield made
    quantizers.remove(OWN)
    del sys.modules["mine"]


def changes(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> set[str]:
    """Return which parts differ, of which methods where it is not of all."""
    found = {
        method: {name for name in parts if parts[name] != after[method].get(name)}
        for method, parts in before.items()
    }
    everywhere = set.intersection(*found.values())
    return everywhere | {f"{m}: {n}" for m, own in found.items() for n in own - everywhere}


EDITS = {
    "a model's weights": (
        lambda it: it.edit("models/vit/open_clip_model.safetensors", "weights", "others"),
        {"model"},
    ),
    "its vocabulary": (
        lambda it: it.edit("models/vit/vocabulary.txt", "words", "others"),
        {"model"},
    ),
    "a margin": (
        lambda it: it.edit("baselines/margins.toml", "\n", "\n# wider\n"),
        {"margins"},
    ),
    "the baseline's values": (lambda it: it.edit("baselines/vit.json", "{}", "{ }"), {"baseline"}),
    "its columns": (
        lambda it: it.edit("baselines/vit.safetensors", "columns", "others"),
        {"baseline"},
    ),
    "an image of a probe": (lambda it: it.shard("seen", seed=9), {"probes"}),
    "an image of the calibration split": (lambda it: it.shard("calibration", seed=9), {"probes"}),
    "a caption that is retrieved": (
        lambda it: it.shard("captions", seed=2, captions=(*CAPTIONS[:3], "another")),
        {"probes"},
    ),
    "a caption of the proxy": (
        lambda it: it.shard("proxy", seed=3, captions=(*CAPTIONS[:3], "another")),
        {f"{TUNED}: pairs", f"{TRAINED}: pairs"},
    ),
    "an image of the proxy": (
        lambda it: it.shard("proxy", seed=9),
        {f"{TUNED}: pairs", f"{TRAINED}: pairs"},
    ),
    "what was trained elsewhere": (lambda it: it.state("lsq:w4a8"), {f"{TRAINED}: trained"}),
    "how a probe is attacked": (
        lambda it: it.edit("clipq.toml", "epsilon = 1.0", "epsilon = 2.0"),
        {"probes"},
    ),
    "prompts": (
        lambda it: it.edit(
            "data/seen/zeroshot_classification_templates.txt", "a {c}", "the {c}"
        ),
        {"probes"},
    ),
    "which metrics": (lambda it: it.edit("clipq.toml", '"ece", ', ""), {"metrics"}),
    "a statistic": (
        lambda it: it.edit("clipq.toml", "[matrix]", "[statistics]\nalpha = 0.1\n[matrix]"),
        {"statistics"},
    ),
    "the batch": (
        lambda it: it.edit("clipq.toml", "[matrix]", "[clipq]\nbatch_size = 8\n[matrix]"),
        {"numerics", "looked-up: method"},
    ),
    "a method's code": (lambda it: it.edit("mine.py", "return model", "return  model"),
                        {f"{OWN}: method"}),
    "a table of formats": (
        lambda it: it.edit("table.txt", "formats", "others"),
        {"rtn,table=table.txt: method"},
    ),
    "a file of an artifact": (
        lambda it: it.edit("deploy/text.npz", "texts", "others"),
        {"looked-up: method"},
    ),
    "an artifact's batch": (
        lambda it: it.edit("clipq.toml", 'recipe = "onnx', 'batch = 4\nrecipe = "onnx'),
        {"made: method"},
    ),
}  # fmt: skip
NO_EDITS = {
    "what was trained of another method": lambda it: it.state("pact:w4a8"),
    "nothing": lambda it: None,
    "a reason": lambda it: it.edit("clipq.toml", 'name = "id"', 'name = "id"\nreason = "why"'),
    "where reports go": lambda it: it.edit(
        "clipq.toml", "[matrix]", '[clipq]\nreport = "elsewhere"\ncache = "there"\n[matrix]'
    ),
    "a gate's quantizers": lambda it: it.edit("clipq.toml", '"rtn:w8"', '"rtn:w8", "rtn:w4"'),
    "a gate's profile": lambda it: it.edit(
        "clipq.toml", "[[models]]", '[profiles.full]\nmetrics = ["top1"]\n[[models]]'
    ),
    "an artifact's place": lambda it: (
        (it.root / "deploy/text.npz").rename(it.root / "elsewhere.npz"),
        it.edit("clipq.toml", "deploy/text.npz", "elsewhere.npz"),
    ),
}


def test_each_edit_of_what_decides_a_result_changes_its_part_and_no_other(folder):
    original = folder.files()
    before = folder.everything()
    wrong = {}
    cases = EDITS | {name: (edit, set()) for name, edit in NO_EDITS.items()}
    for name, (edit, expected) in cases.items():
        edit(folder)
        if (found := changes(before, folder.everything())) != expected:
            wrong[name] = found
        for path in folder.files():
            path.unlink()
        for path, content in original.items():
            path.write_bytes(content)
    assert wrong == {}


def test_a_project_may_lie_elsewhere_and_a_metric_may_have_another_version(folder, monkeypatch):
    before = folder.everything()
    moved = Folder(folder.root.parent / "elsewhere" / "deeper")
    shutil.copytree(folder.root, moved.root)
    assert changes(before, moved.everything()) == set()
    newer = replace(metrics.get("ece"), version=99)
    monkeypatch.setitem(metrics._objects, "ece", newer)
    assert changes(before, folder.everything()) == {"metrics"}


def test_contexts_tell_methods_and_globs_apart_and_a_refusal_names_what_changed(folder):
    contexts = folder.contexts()
    assert len({contexts("vit", method) for method in METHODS}) == len(METHODS)
    assert contexts("vit", "rtn") != folder.contexts(metrics=("top1",))("vit", "rtn")
    pairs = [("vit", method) for method in METHODS]
    settle(folder.root / "sweep", contexts.identity(pairs, plan="0f"))
    folder.edit("mine.py", "return model", "return  model")
    folder.shard("proxy", seed=9)
    with pytest.raises(SweepError) as refused:
        settle(folder.root / "sweep", folder.contexts().identity(pairs, plan="0f"))
    assert refused.value.problem.endswith(
        "another one than this: changed: method context-mine (of vit); "
        "changed: pairs awq+logit-scale (of vit); changed: pairs lsq,objective=distil (of vit)"
    )


def test_lacking_pairs_are_none_and_a_damaged_shard_or_no_baseline_is_an_error(folder):
    folder.edit("clipq.toml", 'role = "proxy"', 'role = "shift"')
    folder.shard("calibration", seed=1, captions=("", "", "", ""))
    assert folder.contexts().parts("vit", TUNED)["pairs"] == ""
    shard = folder.root / "data/seen/test/0.tar"
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(ProbeError, match=r"shard .*0\.tar .*is truncated or damaged"):
        folder.contexts().parts("vit", "rtn")
    (folder.root / "baselines" / "vit.json").unlink()
    with pytest.raises(BaselineError, match="clipq baseline create vit"):
        folder.contexts().parts("vit", "rtn")
