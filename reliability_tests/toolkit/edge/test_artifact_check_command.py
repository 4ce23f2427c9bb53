"""`clipq artifact check`: what is wrong with an artifact, before a gate judges it.

The runtime here answers from a table of what FP32 makes of the same inputs, so that what is wrong
with an artifact is exactly what a test put there.
"""

import argparse
import json
from contextlib import redirect_stdout
from hashlib import sha256
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from clipq.artifact_settings import ArtifactSettings
from clipq.cases import Candidate
from clipq.cli import main
from clipq.cli.artifact_check import declare
from clipq.cli.artifact_choice import given_artifact
from clipq.evaluation.artifact_checkup import Checkup, Examiner
from clipq.gating.latency import load_latencies
from clipq.runtimes import TowerFacts, runtimes
from clipq.settings import ModelSettings, Settings, load_settings

REPOSITORY = Path(__file__).parents[3]
RUNTIME = """
import os
from hashlib import sha256
import numpy as np
from clipq.runtimes import Finding, Look, TowerFacts, runtimes

class Tower:
    def __init__(self, path, session):
        with np.load(path) as held:
            self.table = dict(zip(held["keys"].tolist(), held["features"]))
        self.kind = path.name.partition("-")[0]
        narrow = self.kind == "narrow"
        self.facts = TowerFacts(precision="bf16" if narrow else "f32", provider="table")

    def run(self, inputs):
        if self.kind == "dies":
            os.abort()
        rows = inputs["input"]
        found = np.stack([self.table[sha256(row.tobytes()).hexdigest()] for row in rows])
        if self.kind == "batched":
            found = found + 0.05 * found.mean(axis=0)
        return found

class Recorded:
    version, packages, extra = 1, ("numpy",), ""
    def sidecars(self, path): return ()
    def look(self, path):
        wrong = Finding("infinite-scale", "the scale 'mask' is infinite", "leave the mask float")
        found = (wrong,) if path.name.startswith("infinite") else ()
        return Look(path.stat().st_size, {"MatMulInteger": 12}, {"MatMul": 2}, "20", findings=found)
    def open(self, path, ports, session): return Tower(path, session)

runtimes.add("recorded", Recorded())
"""
KINDS = {
    "sound": "sound",
    "broken": "sound",
    "narrow": "narrow",
    "batched": "batched",
    "dies": "dies",
    "infinite": "sound",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    (root / "recorded_runtime.py").write_text(RUNTIME)
    lines = f"""
        [clipq]
        plugins = ["recorded_runtime"]
        batch_size = 64
        [matrix]
        quantizers = ["rtn:w8"]
        [[models]]
        name = "vit"
        source = "local-dir:{REPOSITORY}/fixtures/models/vit-clean"
        [[probes]]
        name = "id"
        role = "in-distribution"
        source = "webdataset:{REPOSITORY}/fixtures/data/shapes"
        [[probes]]
        name = "calibration"
        role = "calibration"
        split = "calibration"
        source = "webdataset:{REPOSITORY}/fixtures/data/shapes"
    """
    for name, image in KINDS.items():
        text = name if name in ("broken", "infinite") else "sound"
        session = '\nsession = { precision = "f32" }' if name == "narrow" else ""
        lines += f"""
        [[artifacts]]
        name = "{name}"
        model = "vit"
        runtime = "recorded"
        image = "{image}-image.npz"
        text = "{text}-text.npz"{session}
        """
    lines += """
        [[artifacts]]
        name = "missing"
        model = "vit"
        runtime = "recorded"
        image = "nothing.npz"
        text = "fp32"
    """
    (root / "clipq.toml").write_text("\n".join(line.strip() for line in lines.splitlines()))
    settings = load_settings(root / "clipq.toml")
    shown = Examiner(settings)._reference(Checkup(Candidate("vit", "sound")))
    for kind in KINDS:
        for tower, features in shown.features.items():
            keys = [sha256(row.numpy().tobytes()).hexdigest() for row in shown.inputs[tower]]
            made = features[::-1] if (kind, tower) == ("broken", "text") else features
            np.savez(root / f"{kind}-{tower}.npz", keys=keys, features=made)
    yield root
    runtimes._objects.pop("recorded", None)


def check(project, capsys, *arguments):
    code = main(["--config", str(project / "clipq.toml"), "artifact", "check", *arguments])
    return code, capsys.readouterr().out


@pytest.fixture(scope="module")
def found(project):
    """Return the exit code and what is said of each artifact, all examined in one run."""
    out = StringIO()
    with redirect_stdout(out):
        code = main(
            ["--config", str(project / "clipq.toml"), "artifact", "check", "--json", "--no-time"]
        )
    document = json.loads(out.getvalue())
    return code, document, {each["name"]: each for each in document["artifacts"]}


def test_what_is_wrong_with_one_keeps_nobody_from_the_others(found):
    code, document, artifacts = found
    assert code == 1
    assert document["schema"] == "clipq-artifact-check/1"
    assert list(artifacts) == [*KINDS, "missing"]
    wrong = {name for name, each in artifacts.items() if each["wrong"]}
    assert wrong == {"broken", "narrow", "dies", "infinite", "missing"}
    assert document["wrong"] == len(wrong)


def test_code_that_makes_both_towers_needs_no_text_and_no_file_is_called_as_fp32_is():
    parser = argparse.ArgumentParser()
    declare(parser.add_subparsers())
    model = ModelSettings("vit", "local-dir:vit")
    settings = Settings(Path("clipq.toml"), (model,), (), ())

    def given(*files):
        words = ["check", "--model", "vit", "--runtime", "torch", *files]
        artifact = given_artifact(parser.parse_args(words), settings)
        return artifact.name, Path(artifact.image).name, artifact.text

    assert given("--image", "deploy.py:make") == ("deploy", "deploy.py:make", "")
    assert given("--image", "fp32.pt2", "--text", "fp32") == ("file-fp32", "fp32.pt2", "fp32")


def test_to_look_up_features_that_were_brought_is_no_time_of_a_tower():
    phone = ArtifactSettings("phone", "vit", "features", image="phone", text="text.npz")
    examiner = object.__new__(Examiner)
    examiner.settings = Settings(Path("clipq.toml"), (), (), (), artifacts=(phone,))
    found = Checkup(Candidate("vit", "phone"), facts={"text": TowerFacts()})
    examiner._time(found)
    assert found.speeds == {}


def test_an_artifact_that_answers_as_fp32_does_is_sound(found):
    sound = found[2]["sound"]
    assert sound["steps"] == ["lint", "opening", "parity", "batch"]
    assert sound["findings"] == []
    towers = {each["tower"]: each for each in sound["parity"]}
    assert list(towers) == ["image", "text", "both"]
    for each in towers.values():
        assert (each["images"], each["flips"], each["verdict"]) == (64, 0.0, "sound")
        assert each["cosine_min"] == pytest.approx(1.0)
        assert each["difference"] == 0.0
    assert sound["files"]["image"]["quantized"] == {"MatMulInteger": 12}
    assert sound["executed"]["image"] == {"precision": "f32", "provider": "table"}
    assert sound["versions"]["numpy"] == np.__version__


def test_a_broken_text_tower_is_named_beside_an_image_tower_that_is_sound(found):
    broken = found[2]["broken"]
    verdicts = {each["tower"]: each["verdict"] for each in broken["parity"]}
    assert verdicts == {"image": "sound", "text": "broken", "both": "broken"}
    (finding,) = [each for each in broken["findings"] if each["wrong"]]
    assert finding["kind"] == "parity"
    assert finding["problem"].startswith("text tower: its features are not FP32's: cosine ")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("narrow", "image tower: bf16 is executed by table, f32 was asked for"),
        ("infinite", "text tower: the scale 'mask' is infinite"),
    ],
)
def test_what_lint_and_opening_find_is_named_with_its_tower(found, name, problem):
    assert problem in [each["problem"] for each in found[2][name]["findings"]]


def test_dependence_on_the_batch_is_a_note(found):
    batched = found[2]["batched"]
    notes = [each for each in batched["findings"] if each["kind"] == "batch-dependence"]
    assert [each["wrong"] for each in notes] == [False]
    assert notes[0]["problem"].startswith("features of images depend on the batch: encoded one")


def test_one_that_dies_and_one_that_is_not_there_say_so_once(found):
    dies, missing = found[2]["dies"], found[2]["missing"]
    assert dies["steps"] == ["lint", "opening"]
    assert "died of signal 6 (SIGABRT) while running the image tower" in dies["error"]["problem"]
    assert missing["steps"] == []
    assert missing["error"]["problem"].endswith("nothing.npz")


def test_text_output_prints_the_lint_before_anything_runs_and_keeps_the_times(project, capsys):
    latency = project / "latency.toml"
    code, out = check(project, capsys, "infinite", "broken", "--latency", str(latency))
    assert code == 1
    lines = out.splitlines()
    steps = [line[2:12].strip() for line in lines if line[2:3].strip()]
    once = ["lint", "opening", "parity", "batch", "time", "in all"]
    assert steps[:6] == ["t/broken:", "lint", "opening", "parity", "WRONG", "batch"]
    assert lines[0] == "vit/broken: runtime recorded, batch 64, 1 thread"
    start = lines.index("vit/infinite: runtime recorded, batch 64, 1 thread")
    assert "operator set 20; quantized: 12 MatMulInteger; products in float: 2 MatMul" in lines[1]
    assert lines[start + 3] == "  WRONG     text tower: the scale 'mask' is infinite"
    assert [line[2:12].strip() for line in lines[start + 5 :] if line[2:3].strip()] == once[1:]
    known = {"vit/broken", "vit/infinite", "vit/fp32"}
    kept = load_latencies(latency, known)
    assert set(kept.milliseconds) == known
    assert kept.evidence("vit/broken")["ratio_to_fp32"] > 0
    assert kept.measured["vit/broken"] == "recorded, batch 64, threads 1"


def test_files_that_nobody_declared_are_checked_where_the_command_is_called(
    project, capsys, monkeypatch
):
    monkeypatch.chdir(project)
    given = ("--model", "vit", "--runtime", "recorded", "--image", "sound-image.npz", "--no-time")
    code, out = check(project, capsys, *given, "--text", "fp32")
    assert code == 0
    assert out.startswith("vit/sound-image: runtime recorded, batch 64, 1 thread")
    assert "nothing wrong, no notes" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sond"], "no artifact matches 'sond'"),
        (["--runtime", "recorded"], "--runtime without --model and --image and --text"),
        (["--image", "a.onnx"], "--image is of files that are not declared"),
        (["sound", "--runtime", "recorded"], "both 'sound' and --runtime"),
        (["--latency", "l.toml", "--no-time"], "--latency keeps times and --no-time"),
        (
            ["--runtime", "record", "--model", "vit", "--image", "a", "--text", "b"],
            "unknown runtime 'record'",
        ),
        (
            [
                "--runtime",
                "recorded",
                "--model",
                "vit",
                "--image",
                "a",
                "--text",
                "b",
                "--io",
                "x=1",
            ],
            "--io 'x=1'",
        ),
    ],
)
def test_wrong_usage_is_one_message(project, capsys, arguments, said):
    assert main(["--config", str(project / "clipq.toml"), "artifact", "check", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"clipq: {said}")
