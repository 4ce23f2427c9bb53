"""Artifacts in the place of quantizers: real files, made by recipes, run by ONNX Runtime."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from clipq.artifact_settings import ArtifactSettings
from clipq.cases import Candidate
from clipq.errors import ArtifactError, ClipqError
from clipq.evaluation.artifact_files import ArtifactFiles
from clipq.evaluation.artifact_module import ArtifactModule
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.tower_process import TowerProcess
from clipq.runtimes import TowerFacts
from clipq.settings import load_settings

INT8 = Candidate("vit-clean", "int8")
TABLE = """
[[artifacts]]
name = "{name}"
model = "vit-clean"
runtime = "{runtime}"
{rest}
"""
MADE = TABLE.format(name="int8", runtime="onnxruntime", rest='recipe = "onnxruntime-dynamic"')
FILES = 'image = "deploy/image.onnx"\ntext = "deploy/text.onnx"\n'


def table(rest: str = FILES, *, name: str = "int8", runtime: str = "onnxruntime") -> str:
    return TABLE.format(name=name, runtime=runtime, rest=rest)


@pytest.fixture
def evaluator(project):
    """An evaluator of the project with these artifacts."""

    def make(*tables: str) -> Evaluator:
        return Evaluator(load_settings(project.settings(after="".join(tables))))

    return make


@pytest.fixture
def deployed(project, evaluator):
    """Files of an int8 export in the project's folder `deploy`."""
    made = Path(next(iter(evaluator(MADE).encoders.artifacts.files(INT8).sha256["image"])))
    made = project.root / made
    shutil.copytree(made.parent, project.root / "deploy")
    return project.root / "deploy"


def scores(evaluator: Evaluator, candidate: Candidate = INT8) -> np.ndarray:
    return evaluator.evaluate(candidate.on("digits")).predictions.column("mcm")


def test_an_exported_graph_says_what_its_model_says(evaluator, deployed):
    """The float graphs that it was quantized from, and both towers of them alone."""
    graphs = 'image = "deploy/image-float.onnx"\n'
    found = evaluator(
        table(graphs + 'text = "deploy/text-float.onnx"', name="both"),
        table(graphs + 'text = "fp32"\nbatch = 7', name="vision"),
    )
    fp32 = found.encodings.features(INT8.reference.on("id"))
    for name in ("both", "vision"):
        candidate = Candidate("vit-clean", name)
        features = found.encodings.features(candidate.on("id"))
        assert np.abs(features - fp32).max() < 1e-4
        head = found.encodings.head(candidate)
        assert np.allclose(
            head.embeddings, found.encodings.head(INT8.reference).embeddings, atol=1e-5
        )
        found.evaluate(candidate.on("id"))  # equal to FP32, and no error
    assert found.encoders.artifacts.files(Candidate("vit-clean", "vision")).text is None


def test_a_swapped_file_is_never_served_from_the_cache(evaluator, deployed):
    before = scores(evaluator(table()))
    shutil.copy(deployed / "image-float.onnx", deployed / "aside.onnx")
    shutil.move(deployed / "image.onnx", deployed / "int8.onnx")
    shutil.move(deployed / "aside.onnx", deployed / "image.onnx")
    swapped = scores(evaluator(table()))
    assert not np.array_equal(before, swapped)
    shutil.copy(deployed / "int8.onnx", deployed / "image.onnx")
    assert np.array_equal(scores(evaluator(table())), before)


@pytest.mark.parametrize(
    "other",
    [
        FILES + "batch = 32",
        FILES + 'session = { env = { ONEDNN_MAX_CPU_ISA = "AVX2" } }',
        FILES + "session = { threads = 2 }",
        FILES + 'io = { image_input = "pixel_values" }',
        FILES.replace("deploy/text.onnx", "fp32"),
    ],
)
def test_whatever_can_move_a_number_identifies_a_result(evaluator, deployed, other):
    found = evaluator(table(), table(other, name="other"), table(name="renamed"))
    keys = [
        found.encodings.features_key(Candidate("vit-clean", name).on("id"))
        for name in ("int8", "other", "renamed")
    ]
    assert keys[0] != keys[1]
    assert keys[0] == keys[2]  # a name is nobody's identity


def test_files_that_trade_places_identify_another_result(project, evaluator):
    folder = project.root / "phone"
    folder.mkdir()
    for name in ("id", "digits"):
        np.savez(folder / f"{name}.npz", ids=np.array([name]), features=np.ones((1, 2)))
    key = INT8.on("id")
    rest = table('image = "phone"\nhead = "phone/id.npz"', runtime="features")
    before = evaluator(rest).encodings.features_key(key)
    (folder / "id.npz").rename(folder / "aside")
    (folder / "digits.npz").rename(folder / "id.npz")
    (folder / "aside").rename(folder / "digits.npz")
    assert evaluator(rest.replace("phone/id", "phone/digits")).encodings.features_key(key) != before


@pytest.mark.parametrize(("batch", "calls"), [(100, [100] * 7 + [68]), (500, [500, 268])])
def test_calls_are_batches_of_the_declared_size(evaluator, deployed, monkeypatch, batch, calls):
    """The settings' batch_size is 256, and neither divides nor limits what is deployed."""
    made = []
    run = TowerProcess.run

    def noted(self, tower, inputs):
        made.append(len(inputs["input"]))
        return run(self, tower, inputs)

    monkeypatch.setattr(TowerProcess, "run", noted)
    found = evaluator(table(FILES + f"batch = {batch}"))
    found.encodings.encode(found.encoders.encoder(INT8), INT8.on("digits"))
    assert made == calls


@pytest.mark.parametrize(("fixed", "batch"), [((10, 10), 10), ((10, 0), 256), ((0, 0), 256)])
def test_the_batch_that_graphs_fix_is_the_one_that_is_judged(fixed, batch):
    class Fixed:
        def open(self, path, ports):
            return TowerFacts(batch=fixed[ports.kind == "text"])

    artifact = ArtifactSettings("int8", "vit-clean", "onnxruntime", image="i", text="t")
    files = ArtifactFiles(Path("i"), Path("t"))
    assert ArtifactModule(artifact, files, Fixed(), None, batch=256).batch == batch


def test_a_record_says_what_was_run(evaluator):
    found = evaluator(MADE)
    said = found.evaluate(INT8.on("id")).evidence["artifacts"][str(INT8)]
    assert said["runtime"] == "onnxruntime"
    assert said["versions"]["onnxruntime"]
    assert said["looks"]["image"]["quantized"]
    assert said["executed"]["text"]["provider"] == "CPUExecutionProvider"
    assert said["bytes"] < 1.2e6
    # One scale for all of a batch: what ONNX Runtime's dynamic quantization is known for.
    assert {each["kind"] for each in said["findings"]} == {"batch-dependence"}


def test_features_and_class_embeddings_may_come_from_elsewhere(project, evaluator):
    fp32 = evaluator()
    folder = project.root / "phone"
    folder.mkdir()
    order = np.random.default_rng(0)
    for probe in ("id", "digits", "calibration"):
        features = fp32.encodings.features(INT8.reference.on(probe))
        ids = np.array(fp32.inputs.sample_info(probe).ids)
        rows = order.permutation(len(ids))
        np.savez(folder / f"{probe}.npz", ids=ids[rows], features=features[rows])
    head, names = fp32.encodings.head(INT8.reference), fp32.inputs.known.classnames
    np.savez(project.root / "classes.npz", ids=np.array(names), features=head.embeddings)
    rest = 'image = "phone"\nhead = "classes.npz"'
    found = evaluator(table(rest, name="phone", runtime="features"))
    phone = Candidate("vit-clean", "phone")
    assert np.allclose(scores(found, phone), scores(found, phone.reference), atol=1e-6)
    assert found.batches.check(phone) == ()
    said = found.evaluate(phone.on("digits")).evidence["artifacts"][str(phone)]
    assert "bytes" not in said  # features are not what ships

    ids = np.load(folder / "id.npz")
    np.savez(folder / "id.npz", ids=ids["ids"][1:], features=ids["features"][1:])
    again = evaluator(table(rest, name="phone", runtime="features"))
    assert np.array_equal(scores(again, phone), scores(found, phone))  # other probes go on
    with pytest.raises(ArtifactError, match=r"(?s)phone.*missing"):
        again.evaluate(phone.on("id"))
    wide = np.tile(head.embeddings, 2)
    np.savez(project.root / "classes.npz", ids=np.array(names), features=wide)
    with pytest.raises(ClipqError, match="'phone': its class embeddings have"):
        scores(evaluator(table(rest, name="phone", runtime="features")), phone)


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        (FILES.replace("image.onnx", "imgae.onnx"), "no file .*imgae.onnx(?s:.*)image.onnx"),
        (FILES + "io = { image_input = 'pixels' }", "pixels.*(?s:.*)pixel_values"),
        (FILES.replace("text.onnx", "image.onnx"), "text"),
        (FILES + "io = { output = 'normalised' }", "said to be normalised"),
        (FILES + 'session = { provider = "CUDAExecutionProvider" }', "CPUExecutionProvider"),
        ('recipe = "onnxruntime-dynamik"', "did you mean 'onnxruntime-dynamic'"),
        ('recipe = "openvino-float"', "makes files of runtime 'openvino'"),
        ('recipe = "onnxruntime-dynamic"\nformat = "w4"', "makes w8a8d, not format = 'w4'"),
    ],
)
def test_a_mistake_is_one_clear_message_and_others_go_on(evaluator, deployed, rest, said):
    found = evaluator(table(rest), table(FILES, name="good"))
    with pytest.raises(ClipqError, match=said) as error:
        scores(found)
    assert "int8" in str(error.value)
    assert len(scores(found, Candidate("vit-clean", "good")))
