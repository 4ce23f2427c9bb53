"""`clipq artifact images` writes what a model is shown; what is made of it comes back."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from clipq.artifact_settings import SessionSettings
from clipq.cases import Cell
from clipq.cli import main
from clipq.errors import ArtifactError
from clipq.evaluation import image_export
from clipq.evaluation.cache import Cache
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.image_export import Form, ImageExport
from clipq.evaluation.inputs import Inputs
from clipq.models import class_embeddings
from clipq.runtimes import TowerPorts, runtimes
from clipq.runtimes.feature_files import FeatureFiles
from clipq.settings import load_settings

MORE = """
[[probes]]
name = "snowed"
role = "corruption"
source = "webdataset:{data}/shapes"
samples = 20
corruptions = ["snow", "fog"]
severities = [2]

[[probes]]
name = "captions"
role = "retrieval"
source = "webdataset:{data}/captions"

[[probes]]
name = "fgsm"
role = "adversarial"
source = "webdataset:{data}/shapes"
samples = 20
attack = "fgsm"
epsilon = 1
"""
DATA = Path(__file__).parents[3] / "fixtures" / "data"


@pytest.fixture
def settings(project, monkeypatch):
    monkeypatch.chdir(project.root)
    return load_settings(project.settings(after=MORE.format(data=DATA)))


@pytest.fixture
def export(settings, tmp_path):
    """Return what writes a few images, and the probe that they are of."""
    evaluator = Evaluator(settings)
    loaded, inputs = evaluator.encodings.encoders.model("vit-clean"), evaluator.inputs

    def start(form=None, folder="out"):
        return ImageExport(inputs, loaded, "vit-clean", tmp_path / folder, form=form or Form())

    return SimpleNamespace(start=start, inputs=inputs, loaded=loaded, folder=tmp_path / "out")


def encoded_elsewhere(written, brought):
    """Encode every file with open_clip alone, as another device would."""
    said = json.loads((written / "manifest.json").read_text())
    assert said["complete"]
    source = f"local-dir:{DATA.parent}/models/{said['model']}"
    model, _ = open_clip.create_model_from_pretrained(source)
    model.eval()
    for probe, held in said["probes"].items():
        (brought / probe).mkdir(parents=True)
        for number, shard in enumerate(held["shards"]):
            arrays = np.load(written / shard["file"])
            assert list(arrays["images"].shape[1:]) == held["shape"]
            with torch.inference_mode():
                features = model.encode_image(torch.from_numpy(arrays["images"])).numpy()
            turned = np.arange(len(features))[::-1]
            np.savez(brought / probe / f"{number}.npz", ids=arrays["ids"][turned],
                     features=features[turned])  # fmt: skip
    tokens = np.load(written / "text" / "tokens.npz")["tokens"]
    with torch.inference_mode():
        features = model.encode_text(torch.from_numpy(tokens)).numpy()
    np.savez(brought.with_suffix(".npz"), tokens=tokens, features=features)
    return said


def test_features_made_elsewhere_are_those_that_fp32_has(settings, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(image_export, "_SHARD_BYTES", 200 * 32 * 32 * 3 * 4)
    probes = ["calibration", "snowed", "captions"]
    asked = [word for name in probes for word in ("--probe", name)]
    assert main(["artifact", "images", *asked, "--output", str(tmp_path / "out"), "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "calibration: 512 images in 3 files" in shown
    assert "fgsm: not written: its images are made against each candidate" in shown
    said = encoded_elsewhere(tmp_path / "out", tmp_path / "features")
    assert sorted(said["probes"]) == sorted(probes)

    evaluator = Evaluator(settings)
    opened = evaluator.inputs.probes
    files = FeatureFiles(tmp_path / "features", {name: opened[name].ids for name in probes})
    assert files.check() == ()
    for name in probes:
        expected = evaluator.encodings.features(Cell("vit-clean", "fp32", name))
        assert files.rows(name) == pytest.approx(expected, abs=1e-5), name

    tower = runtimes.get("features").open(
        tmp_path / "features.npz", TowerPorts("text"), SessionSettings(threads=1)
    )
    cell = Cell("vit-clean", "fp32", "captions")
    loaded = evaluator.encodings.encoders.model("vit-clean")
    lines = image_export.caption_lines(opened["captions"].captions)[0]
    found = tower.run({"input": loaded.tokenizer(lines).numpy()})
    assert found == pytest.approx(evaluator.encodings.texts(cell), abs=1e-5)

    class Looked(torch.nn.Linear):
        def encode_text(self, tokens):
            return torch.from_numpy(tower.run({"input": tokens.numpy()}))

    head, known = evaluator.encodings.head(cell.candidate).embeddings, evaluator.inputs.known
    found = class_embeddings(Looked(1, 1), loaded.tokenizer, known.classnames, known.templates)
    assert found.numpy() == pytest.approx(head, abs=1e-6)

    # Made by hand as classes.json says, they are the same.
    features = np.load(tmp_path / "features.npz")["features"]
    classes = json.loads((tmp_path / "out" / "text" / "classes.json").read_text())["classes"]
    assert [one["name"] for one in classes] == list(known.classnames)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    means = np.stack([unit[one["rows"]].mean(axis=0) for one in classes])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert means == pytest.approx(head, abs=1e-5)


def test_an_interrupted_export_goes_on_and_damaged_files_are_written_again(export, monkeypatch):
    monkeypatch.setattr(image_export, "_MOST_IN_SHARD", 12)
    export.start().write(["snowed"])
    files = sorted((export.folder / "snowed").iterdir())
    assert len(files) == 4
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}
    files[1].write_bytes(files[1].read_bytes()[:-9])
    said = json.loads((export.folder / "manifest.json").read_text())
    said["complete"] = False
    del said["probes"]["snowed"]["shards"][2:]  # as if it had been stopped here
    (export.folder / "manifest.json").write_text(json.dumps(said))

    again = export.start().write(["snowed"])
    assert again["complete"]
    assert [shard["samples"] for shard in again["probes"]["snowed"]["shards"]] == [12, 12, 12, 4]
    for file, (_, written) in before.items():
        assert (file.stat().st_mtime_ns == written) == (file == files[0]), file
    # Another probe joins what is there; another form does not.
    assert set(export.start().write(["captions"])["probes"]) == {"snowed", "captions"}
    with pytest.raises(ArtifactError, match=r"holds images of another export\n.*--force"):
        export.start(Form("safetensors")).write(["snowed"])
    export.start(Form("safetensors")).write(["snowed"], force=True)
    left = {path.name for path in export.folder.rglob("*") if path.is_file()}
    assert left == {"manifest.json", "tokens.safetensors", "texts.json", "classes.json",
                    *(f"{number:05d}.safetensors" for number in range(4))}  # fmt: skip


def test_a_folder_that_holds_something_else_is_left_alone(export):
    export.folder.mkdir()
    (export.folder / "thesis.txt").write_text("mine")
    # A manifest that claims files which no export writes has none of them removed.
    claim = {"file": "../thesis.txt", "samples": 1, "sha256": ""}
    held = {"fingerprint": "", "shards": [claim, {"file": "thesis.txt"}, "x"]}
    said = {"schema": "clipq-artifact-images/1", "probes": {"snowed": held}}
    for content in ("", json.dumps(said)):
        if content:
            (export.folder / "manifest.json").write_text(content)
        with pytest.raises(ArtifactError, match="holds "):
            export.start().write(["snowed"])
    export.start().write(["snowed"], force=True)
    assert (export.folder / "thesis.txt").read_text() == "mine"


def test_every_form_holds_the_same_pixels(export, tmp_path):
    images = export.inputs.images("snowed", export.loaded.preprocess)
    for pixels in ("normalised", "unit", "bytes"):
        for layout in ("NCHW", "NHWC"):
            export.start(Form("safetensors", pixels, layout), pixels + layout).write(["snowed"])
            file = tmp_path / (pixels + layout) / "snowed" / "00000.safetensors"
            back = load_file(file)["images"]
            assert back.dtype == ("uint8" if pixels == "bytes" else "float32")
            if layout == "NCHW":
                back = back.transpose(0, 2, 3, 1)
            if pixels == "normalised":
                back = back * np.float32(0.25) + np.float32(0.5)
            if pixels != "bytes":
                back = back * 255
            assert np.array_equal(np.round(back).astype(np.uint8), images), (pixels, layout)


def test_pictures_hold_the_bytes_and_an_index_says_whose_they_are(export):
    export.start(Form("png", "bytes", "NHWC")).write(["snowed"])
    index = json.loads((export.folder / "snowed" / "00000.json").read_text())
    assert [one["id"] for one in index] == list(export.inputs.probes["snowed"].ids)
    images = export.inputs.images("snowed", export.loaded.preprocess)
    for one, expected in zip(index, images, strict=True):
        path = export.folder / "snowed" / one["file"]
        assert np.array_equal(np.asarray(Image.open(path)), expected)
    path.write_bytes(b"")
    export.start(Form("png", "bytes", "NHWC")).write(["snowed"])
    assert path.stat().st_size
    export.start().write(["snowed"], force=True)
    assert not list(export.folder.rglob("*.png"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--probe", "fgsm"], "images of probe 'fgsm' cannot be written: its images are made"),
        (["--probe", "digitz"], "'digitz'"),
        (["vit-noisy"], "'vit-noisy'"),
        (["--format", "png", "--pixels", "unit"], "PNG cannot hold unit pixels in NHWC"),
    ],
)
def test_what_cannot_be_written_is_one_message(options, said, settings, tmp_path, capsys):
    assert main(["artifact", "images", "--output", str(tmp_path / "out"), *options]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "out").exists()


def test_inputs_that_were_not_decoded_yet_are(settings, tmp_path):
    inputs = Inputs(settings, Cache(tmp_path / "fresh"))
    loaded = Evaluator(settings).encodings.encoders.model("vit-clean")
    told = []
    export = ImageExport(inputs, loaded, "vit-clean", tmp_path / "out", form=Form(),
                         progress=lambda *said: told.append(said))  # fmt: skip
    assert export.write(["snowed"])["probes"]["snowed"]["samples"] == 40
    assert told == [("writing snowed", 40, 40)]
