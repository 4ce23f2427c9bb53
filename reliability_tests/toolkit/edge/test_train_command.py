"""`clipq train` and what a gate makes of it: trained, resumed, shown, found, gated, refused."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import clipq
from clipq.cases import Candidate
from clipq.cli import main
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.mixture_evaluator import MixtureEvaluator
from clipq.evaluation.trained_folder import STATE, TrainedFolder, write_trained
from clipq.evaluation.trained_manifest import TRAINED
from clipq.evaluation.training_unit import UNIT
from clipq.settings import load_settings

REPOSITORY = Path(__file__).parents[3]
DATA = REPOSITORY / "fixtures" / "data"
LONG = "lsq:w4a8,batch=32,every=6,lr=3e-4,pairs=160,steps=24@vision"
"""Long enough to be better than where it begins."""
SHORT = "lsq:w4a8,batch=8,every=2,learn=steps,pairs=40,steps=4@vision"
SETTINGS = """\
[clipq]
cache = "{cache}"

[matrix]
quantizers = {quantizers}
metrics = ["top1", "ece", "nll"]

[[models]]
name = "vit-clean"
source = "local-dir:{fixtures}/models/vit-clean"

[[probes]]
name = "id"
role = "in-distribution"
group = "colour"
source = "webdataset:{fixtures}/data/shapes"
samples = {samples}

[[probes]]
name = "calibration"
role = "calibration"
source = "webdataset:{fixtures}/data/shapes"
split = "calibration"
"""
PROXY = """
[[probes]]
name = "proxy"
role = "proxy"
source = "webdataset:{fixtures}/data/captions"
"""
MARGINS = '[[margin]]\nformats = "*"\n[margin.metrics]\n"*" = 0.05\nnll = 0.2\n'


@dataclass
class Place:
    """A project in which quantizers are trained."""

    root: Path
    cache: Path

    def settings(self, *quantizers: str, after: str = PROXY, samples: int = 200) -> Path:
        path = self.root / "clipq.toml"
        named = {"cache": self.cache, "fixtures": REPOSITORY / "fixtures", "samples": samples}
        path.write_text((SETTINGS + after).format(quantizers=list(quantizers), **named))
        return path

    def train(self, *words: object) -> int:
        settings = str(self.root / "clipq.toml")
        return main(["--config", settings, "train", *map(str, words)])

    def evaluator(self) -> Evaluator:
        return Evaluator(load_settings(self.root / "clipq.toml"))


@pytest.fixture
def place(tmp_path: Path, shared_cache: Path) -> Place:
    """A project without anything trained."""
    made = Place(tmp_path, shared_cache)
    made.settings(SHORT)
    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines" / "margins.toml").write_text(MARGINS)
    return made


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    """A folder of the short training."""
    made = Place(tmp_path_factory.mktemp("short"), shared_cache)
    made.settings(SHORT)
    assert made.train("vit-clean", SHORT, "--output", made.root / "one", "--quiet") == 0
    return made.root / "one"


def process_state() -> list[object]:
    """Return what a training could leave behind in its process."""
    return [
        torch.random.get_rng_state().tolist(),
        str(np.random.get_state()),
        random.getstate(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        dict(os.environ),
    ]


def test_a_training_is_gated_end_to_end_and_is_better_than_where_it_began(place, capsys):
    settings = place.settings(LONG, samples=0)  # of the reviewed baseline, all
    folder = place.root / "trained" / "vit-clean"
    assert place.train("vit-clean", LONG, "--output", folder) == 0
    printed, said = capsys.readouterr()
    assert tomllib.loads(printed) == {"matrix": {"quantizers": [LONG]}}
    assert "held-out loss" in said
    manifest = TrainedFolder.read(folder).manifest
    began, kept = manifest.gain
    assert kept < 0.9 * began
    assert {path.name for path in folder.iterdir()} == {STATE, TRAINED}

    stored = json.loads((REPOSITORY / "baselines" / "vit-clean.json").read_text())
    wanted = ("id.top1", "id.ece", "id.nll")
    stored["metrics"] = {key: stored["metrics"][key] for key in wanted}
    (place.root / "baselines" / "vit-clean.json").write_text(json.dumps(stored))
    columns = REPOSITORY / "baselines" / "vit-clean.safetensors"
    shutil.copy(columns, place.root / "baselines")
    run = clipq.gate(settings)
    assert {result.verdict.value for result in run.record.cases} == {"pass"}, str(run)
    (learnt,) = [made["trained"] for made in run.record.evidence()["quantizers"].values()]
    assert learnt["from"] == "folder trained/vit-clean"
    assert learnt["sha256"] == manifest.state_sha256
    assert (learnt["pairs"], learnt["held_out"], learnt["steps"]) == (144, 16, 24)
    assert learnt["parent_sha256"] == manifest.unit.parent["weights_sha256"]
    assert f"held-out loss {began:.4g} -> {kept:.4g}; folder trained/vit-clean" in str(run)

    assert place.train("vit-clean", LONG, "--output", folder) == 0
    assert "is finished: left as it is" in capsys.readouterr().err
    assert place.train("show", folder) == 0
    shown = capsys.readouterr().out
    assert f"step {manifest.best_step} has the least loss" in shown
    assert "held-out loss ▇" in shown or "held-out loss █" in shown


def test_a_gate_trains_what_no_folder_holds_once_and_says_so(place):
    quantizer = SHORT.replace("steps=4@", "seed=7,steps=4@")
    candidate = Candidate("vit-clean", quantizer)
    settings = load_settings(place.settings(quantizer))
    told: list[tuple[str, int, int]] = []
    states = Evaluator(settings, progress=lambda *how: told.append(how)).encoders.trained
    states.unit(candidate)
    before = process_state()
    made = states.folder(candidate)
    assert process_state() == before
    # What a gate's watch for stalled candidates is told.
    steps = [(f"training vit-clean/{quantizer}", step, 4) for step in (1, 2, 3, 4)]
    assert [one for one in told if one in steps] == steps
    assert made.path.parent == place.cache / "trained"
    assert states.evidence(candidate)["trained"]["from"].startswith("trained here, ")
    written = (made.path / STATE).stat().st_mtime_ns
    again = place.evaluator().encoders.trained.folder(candidate)
    assert (again.path / STATE).stat().st_mtime_ns == written
    (made.path / STATE).write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="is made again: .* is not the state that was trained"):
        mended = place.evaluator().encoders.trained.folder(candidate)
    assert mended.manifest.state_sha256 == made.manifest.state_sha256
    for name in (STATE, TRAINED):
        (made.path / name).unlink()
    (made.path / UNIT).write_text('{"schema": ')  # of what was cut off
    with pytest.warns(UserWarning, match=f"is made again: .*{UNIT} cannot be read as JSON"):
        mended = place.evaluator().encoders.trained.folder(candidate)
    assert mended.manifest.state_sha256 == made.manifest.state_sha256

    shutil.move(made.path, place.root / "trained" / "anywhere")
    states = place.evaluator().encoders.trained
    assert states.evidence(candidate)["trained"]["from"] == "folder trained/anywhere"


def test_results_belong_to_a_state_and_not_to_where_it_lies(place, short):
    candidate = Candidate("vit-clean", SHORT)
    cell = candidate.on("id")
    shutil.copytree(short, place.root / "trained" / "here")
    first = place.evaluator()
    found = first.evaluate(cell)
    key = first.encoders.identity(candidate)

    (place.root / "trained" / "here").rename(place.root / "trained" / "there")
    moved = place.evaluator()
    assert moved.encoders.identity(candidate) == key
    moved.encoders._quantize = None  # nothing is to be quantized again
    predictions = moved.evaluate(cell).evidence["predictions"]
    assert predictions == found.evidence["predictions"]
    mixture = MixtureEvaluator(moved, candidate).mixture
    mixture.keep_float(mixture.layers)  # of steps alone, float is FP32
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = mixture.model.encode_image(images)
        expected = moved.encoders.model("vit-clean").model.encode_image(images)
    assert torch.allclose(features, expected, rtol=1e-4, atol=1e-5)

    there = TrainedFolder.read(place.root / "trained" / "there")
    state = {name: values * 1.25 for name, values in there.state().items()}
    write_trained(there.path, there.manifest, state)
    changed = place.evaluator()
    assert changed.encoders.identity(candidate) != key
    assert changed.evaluate(cell).evidence["predictions"] != found.evidence["predictions"]


def test_what_was_interrupted_goes_on_to_the_same_bytes(place, short, capsys, monkeypatch):
    import clipq.training.trainer
    from clipq.cli.progress import _Silent

    folder = place.root / "one"
    whole = TrainedFolder.read(short).manifest
    monkeypatch.setitem(clipq.training.trainer.train.__kwdefaults__, "save_seconds", 0.0)

    def interrupted(self, what, done, total):
        if done == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(_Silent, "step", interrupted)
        assert place.train("vit-clean", SHORT, "--output", folder, "--quiet") == 130
    assert "interrupted at step 3; the last checkpoint is kept" in capsys.readouterr().err
    assert not (folder / TRAINED).is_file()
    assert place.train("show", folder) == 0
    assert "not finished: clipq train resume" in capsys.readouterr().out

    steps: list[int] = []
    monkeypatch.setattr(_Silent, "step", lambda self, what, done, total: steps.append(done))
    assert place.train("resume", folder, "--quiet") == 0
    assert steps == [4]
    assert TrainedFolder.read(folder).manifest.state_sha256 == whole.state_sha256
    assert [look.step for look in TrainedFolder.read(folder).manifest.losses] == [0, 2, 4]
    capsys.readouterr()
    assert place.train("resume", folder) == 0
    assert "is finished: there is nothing to go on with" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_step_that_it_comes_in(place, capsys, monkeypatch, number, code):
    from clipq.cli.progress import _Silent

    def signalled(self, what, done, total):
        if done == 2:
            signal.raise_signal(number)

    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {each: signal.signal(each, handler) for each, handler in usual.items()}
    folder = place.root / "one"
    with monkeypatch.context() as patched:
        patched.setattr(_Silent, "step", signalled)
        assert place.train("vit-clean", SHORT, "--output", folder, "--quiet") == code
    assert {each: signal.signal(each, handler) for each, handler in before.items()} == usual
    assert "interrupted at step 3; the last checkpoint is kept" in capsys.readouterr().err
    steps: list[int] = []
    monkeypatch.setattr(_Silent, "step", lambda self, what, done, total: steps.append(done))
    assert place.train("resume", folder, "--quiet") == 0
    assert steps == [4]


def test_another_recipe_data_or_code_is_refused_with_the_difference(place, short, capsys):
    folder = place.root / "one"
    folder.mkdir()
    TrainedFolder.read(short).manifest.unit.write(folder)
    said = json.loads((folder / UNIT).read_text())
    said["unit"]["recipe"]["lr"] = 0.5
    said["unit"]["data"]["proxy"] = said["unit"]["code"]["training_sha256"] = "e" * 64
    (folder / UNIT).write_text(json.dumps(said))
    assert place.train("resume", folder, "--quiet") == 2
    told = capsys.readouterr().err
    assert "holds another training: lr was 0.5, is 0.0001; proxy was eeeeeeeeeeee, is " in told
    assert "code: training_sha256 was eeeeeeeeeeee, is " in told


def test_several_trainings_have_a_folder_each_and_finished_ones_are_left(place, short, capsys):
    seeds = [SHORT.replace("steps=4@", f"seed={seed},steps=4@") for seed in (1, 2)]
    place.settings("rtn:w8", *seeds)
    output = place.root / "trained"
    assert place.train("vit-*", "lsq:*,seed=?,*", "--output", output, "--quiet") == 0
    printed = tomllib.loads(capsys.readouterr().out)
    assert printed == {"matrix": {"quantizers": sorted(seeds)}}
    found = [TrainedFolder.read(path) for path in sorted(output.iterdir())]
    assert [each.manifest.quantizer for each in found] == sorted(seeds)
    assert len({each.manifest.state_sha256 for each in found}) == 2
    when = [(each.path / STATE).stat().st_mtime_ns for each in found]
    assert place.train("vit-clean", *seeds, "--output", output, "--quiet") == 0
    assert [(each.path / STATE).stat().st_mtime_ns for each in found] == when
    capsys.readouterr()
    output.rename(place.root / "elsewhere")
    words = ("vit-clean", *seeds, "--output", place.root / "elsewhere", "--quiet")
    assert place.train(*words) == 0
    assert tomllib.loads(capsys.readouterr().out)["clipq"] == {"trained": "elsewhere"}  # of both


@pytest.mark.parametrize(
    ("words", "problem", "fix"),
    [
        (("vit-clean", "rtn:w8"), "'rtn:w8' is not trained", "lsq:w4a8"),
        (("vit-clean", "fp32"), "'fp32' is not trained", "lsq"),
        (("vit-clena", SHORT), "no model 'vit-clena'", "did you mean 'vit-clean'"),
        (("vit-clean", "lqs:w4a8"), "unknown quantizer 'lqs'", "did you mean 'lsq'"),
        (("vit-clean", "rtn:*"), "'rtn:*' fits rtn:w4", "methods that learn"),
        (("vit-clean", "pact:*"), "'pact:*' fits no quantizer of [matrix]", "in full: lsq:w4a8"),
        (("vit-clean", "files"), "'files' is an artifact of vit-clean", "train a quantizer"),
        (("vit-clean", "lsq:w4a8,objective=distill"), "unknown objective 'distill'", "'distil'"),
        (("vit-clean", "lsq:w4a8,steps=-1"), "option steps='-1'", "give a number"),
        (("vit-clean", "lsq:w4a8,steps=0"), "with steps=0 nothing is trained", "leave steps out"),
        (("vit-clean", SHORT, "--threads", "0"), "--threads 0", "from 1"),
        (("resume", "nowhere"), "nowhere holds no training", "--output"),
        (("resume", "one", "two"), "takes one folder", "clipq train resume FOLDER"),
        (("show", "nowhere"), "nowhere holds no training", "clipq train"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is_loaded(
    place, capsys, words, problem, fix, monkeypatch
):
    artifact = '[[artifacts]]\nname = "files"\nmodel = "vit-clean"\nruntime = "torch"\n'
    place.settings("rtn:w4", SHORT, after=f'{PROXY}\n{artifact}image = "x.py:f"\nio = {{{{}}}}\n')
    monkeypatch.setattr("clipq.models.loading.load_model", None)
    output = () if words[0] in ("resume", "show") else ("--output", str(place.root / "new"))
    assert place.train(*words, *output) == 2
    said = capsys.readouterr().err
    assert problem in said
    assert fix in said
    assert not (place.root / "new").exists()


def test_pairs_and_folders_that_do_not_do_are_refused(place, capsys):
    evaluated = PROXY.replace('"proxy"', '"retrieval"')
    place.settings(SHORT, after=f"{PROXY}\n{evaluated}")
    assert place.train("vit-clean", SHORT, "--output", place.root / "new", "--quiet") == 2
    assert "share" in capsys.readouterr().err
    place.settings(SHORT)
    many = SHORT.replace("batch=8", "batch=64")
    assert place.train("vit-clean", many, "--output", place.root / "few", "--quiet") == 2
    assert "a batch takes 64 pairs, and 36 are left" in capsys.readouterr().err
    assert not (place.root / "few").exists()  # or the next try would be another training
    (place.root / "full").mkdir()
    (place.root / "full" / "photo.png").write_bytes(b"")
    assert place.train("vit-clean", SHORT, "--output", place.root / "full") == 2
    assert "holds what is no training" in capsys.readouterr().err
    assert place.train("vit-clean", SHORT) == 2
    assert "needs --output" in capsys.readouterr().err


def test_python_takes_a_trained_folder_and_refuses_another(short):
    model, data = "local-dir:fixtures/models/vit-clean", f"webdataset:{DATA}/shapes"
    images = clipq.open_probe(data, split="calibration")
    made = clipq.quantize(model, SHORT, images, trained=short)
    assert made.coverage.uncovered == ()
    for quantizer, trained, problem in (
        (SHORT, None, "is trained, and no trained folder is given"),
        ("rtn:w8", short, "learns nothing"),
        (SHORT.replace("steps=4", "steps=5"), short, "is no trained state of"),
        (SHORT, REPOSITORY, "cannot be read as JSON"),
    ):
        with pytest.raises(clipq.ClipqError, match=problem):
            clipq.quantize(model, quantizer, images, trained=trained)
        with pytest.raises(clipq.ClipqError, match=problem):
            clipq.evaluate(model, quantizer, images, trained=trained, metrics=["top1"])
    with pytest.raises(clipq.ClipqError, match="from another model: weights were"):
        clipq.quantize(model.replace("clean", "noisy"), SHORT, images, trained=short)
