"""Artifacts are what they were made from: exporters against torch, recipes against FP32."""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip.model
import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from clipq.errors import ArtifactError, UnknownNameError
from clipq.exports import MANIFEST, Made, Manifest, Recipe, make, recipes
from clipq.exports.quanto_programs import quantized_by_quanto
from clipq.exports.torchao_programs import quantized_by_torchao
from clipq.exports.tower_source import quiet_process, source_of, state_sha256
from clipq.models import ModelSource, load_model
from clipq.testing import small_clip

FIXTURES = Path(__file__).parents[3] / "fixtures" / "models"
VOCABULARY = 50


Tower = Callable[[torch.Tensor], torch.Tensor]


def onnx_tower(path: Path, source: str) -> Tower:
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    assert [port.name for port in session.get_inputs()] == [source]
    assert [port.name for port in session.get_outputs()] == ["features"]
    return lambda batch: torch.from_numpy(session.run(None, {source: batch.numpy()})[0])


def openvino_tower(path: Path, source: str) -> Tower:
    import openvino

    model = openvino.Core().read_model(path)
    assert [port.any_name for port in model.inputs] == [source]
    assert [port.any_name for port in model.outputs] == ["features"]
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch: torch.from_numpy(np.array(compiled(batch.numpy())[0]))


def exported_tower(path: Path, source: str) -> Tower:
    program = torch.export.load(path)
    assert program.graph_signature.user_inputs == (source,)
    return program.module()


def towers(manifest: Manifest, folder: Path, model: nn.Module) -> tuple[Tower, Tower]:
    """Open the towers of an artifact."""
    if manifest.runtime == "torch":
        file, _, function = manifest.image.partition(":")
        spec = importlib.util.spec_from_file_location("made", folder / file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        built = getattr(module, function)(copy.deepcopy(model))
        return built.encode_image, built.encode_text
    kinds = {"onnxruntime": onnx_tower, "openvino": openvino_tower, "torch-export": exported_tower}
    opened = kinds[manifest.runtime]
    return (
        opened(folder / manifest.image, manifest.io.image_input),
        opened(folder / manifest.text, manifest.io.text_input),
    )


def embedded(name: str) -> nn.Module:
    return load_model(ModelSource.parse(f"local-dir:{FIXTURES / name}", base_dir=Path())).model


def inputs(model: nn.Module, count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images and tokens; every text has one end, as tokenizers write it."""
    generator = torch.Generator().manual_seed(1)
    size = model.visual.image_size
    height, width = size if isinstance(size, tuple) else (size, size)
    images = torch.randn(count, 3, height, width, generator=generator)
    text = getattr(model, "text", model)
    tokens = torch.randint(1, 40, (count, text.context_length), generator=generator)
    tokens[:, -1] = 45
    return images, tokens


def one_layer() -> nn.Module:
    """A CLIP as small as CLIPs get, whose export takes no time; the mask of its text is causal."""
    block = {"layers": 1, "width": 64}
    vision = {**block, "head_width": 32, "patch_size": 16, "image_size": 32}
    text = {**block, "heads": 2, "context_length": 12, "vocab_size": VOCABULARY}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return open_clip.model.CLIP(24, vision, text).eval().requires_grad_(False)


def opened(manifest: Manifest, folder: Path, model: nn.Module):
    with quiet_process():
        return towers(manifest, folder, model)


# Each architecture and each exporter; ONNX of the first and the last is in the embedded matrix.
EXPORTS = [
    ("vit-clean", "openvino-float"),
    ("vit-noisy", "torch-export-float"),
    ("resnet", "onnxruntime-float"),
    ("resnet", "torch-export-float"),
    ("siglip", "openvino-float"),
]


@pytest.mark.parametrize(("name", "recipe"), EXPORTS)
def test_an_export_encodes_as_torch_does_at_any_batch(name, recipe, tmp_path):
    model = embedded(name)
    images, tokens = inputs(model)
    before = state_sha256(model)
    manifest = make(recipe, model, images, tokens, tmp_path / "made")
    image, text = opened(manifest, tmp_path / "made", model)
    with torch.no_grad():
        for count in (1, 6):
            for tower, encode, batch in (
                (image, model.encode_image, images[:count]),
                (text, model.encode_text, tokens[:count]),
            ):
                torch.testing.assert_close(tower(batch), encode(batch), atol=1e-4, rtol=0)
    assert manifest == Manifest.read(tmp_path / "made")
    assert manifest.state_sha256 == before == state_sha256(model)
    assert manifest.logit_scale == pytest.approx(float(model.logit_scale.exp()))
    assert (manifest.logit_bias != 0) == (name == "siglip")


@pytest.mark.parametrize(
    ("recipe", "least_cosine", "times"),
    [
        ("onnxruntime-dynamic", 0.995, 1),
        ("onnxruntime-static", 0.99, 2),
        ("openvino-int8", 0.99, 2),
        ("torchao-int8-dynamic", 0.99, 2),
        ("torchao-int8-weight-only", 0.999, 1),
        ("quanto-w8a8", 0.97, 2),
    ],
)
def test_a_recipe_makes_the_same_bytes_again_and_features_near_those_of_fp32(
    recipe, least_cosine, times, tmp_path
):
    """Twice where what makes it is another library's than in a line above."""
    model = one_layer()
    images, tokens = inputs(model)
    first = make(recipe, model, images, tokens, tmp_path / "1")
    torch.rand(3)  # whatever a process did before
    for number in range(2, times + 1):
        assert make(recipe, model, images, tokens, tmp_path / str(number)) == first
    image, text = opened(first, tmp_path / "1", model)
    with torch.no_grad():
        for tower, encode, batch in (
            (image, model.encode_image, images),
            (text, model.encode_text, tokens),
        ):
            cosine = cosine_similarity(tower(batch), encode(batch))
            assert least_cosine < cosine.min() < 1 - 1e-7, "quantized, and no worse than that"
        if first.float_image:
            floats = replace(first, image=first.float_image, text=first.float_text)
            for tower, encode, batch in zip(
                opened(floats, tmp_path / "1", model),
                (model.encode_image, model.encode_text),
                (images, tokens),
                strict=True,
            ):
                torch.testing.assert_close(tower(batch), encode(batch), atol=1e-4, rtol=0)


def test_onnx_runtimes_default_operators_give_the_text_tower_an_infinite_scale(tmp_path):
    import onnx
    import onnx.numpy_helper

    model = one_layer()
    images, tokens = inputs(model)
    manifest = make("onnxruntime-static-all", model, images, tokens, tmp_path / "made")

    def finite(name: str) -> bool:
        graph = onnx.load(tmp_path / "made" / name).graph
        return all(
            bool(torch.tensor(onnx.numpy_helper.to_array(values)).isfinite().all())
            for values in graph.initializer
            if values.name.endswith("_scale")
        )

    assert finite(manifest.image)
    assert not finite(manifest.text)
    assert "-inf" in recipes.get("onnxruntime-static-all").broken
    _, text = opened(manifest, tmp_path / "made", model)
    cosine = cosine_similarity(text(tokens), model.encode_text(tokens))
    assert not cosine.min() > 0.9


@pytest.mark.parametrize("family", ["vit", "modified-resnet", "siglip"])
def test_torchao_and_quanto_reach_every_product_with_a_weight(family):
    """By themselves they miss in_proj_weight, proj and text_projection."""
    with quiet_process():
        by_torchao = quantized_by_torchao(small_clip(family), "w8")
        by_quanto = quantized_by_quanto(small_clip(family))
    linear = [module for module in by_torchao.modules() if isinstance(module, nn.Linear)]
    assert {type(layer.weight).__name__ for layer in linear} == {"Int8Tensor"}
    left = {type(m) for m in by_quanto.modules()} & {nn.Linear, nn.Conv2d, nn.MultiheadAttention}
    assert left == set()
    for model in (by_torchao, by_quanto):
        raw = [name for name, _ in model.named_parameters() if name.endswith("proj")]
        assert raw == []


def test_a_fixed_batch_is_the_only_one_and_files_tell_nothing_of_this_machine_or_its_images(
    tmp_path,
):
    model = one_layer()
    images, tokens = inputs(model)
    manifest = make("torch-export-float", model, images, tokens, tmp_path / "made", batch=4)
    assert Manifest.read(tmp_path / "made").batch == 4
    image, _ = opened(manifest, tmp_path / "made", model)
    torch.testing.assert_close(image(images[:4]), model.encode_image(images[:4]))
    with pytest.raises(Exception, match=r"4"):
        image(images)
    stored = b"".join(path.read_bytes() for path in (tmp_path / "made").iterdir())
    assert images[0].numpy().tobytes()[:64] not in stored
    assert b"site-packages" not in stored
    assert str(Path(__file__).parents[3]).encode() not in stored


def test_each_tower_holds_its_own_weights_alone():
    for family in ("vit", "custom-text", "modified-resnet", "coca"):
        model = small_clip(family)
        source = source_of(model, *inputs(model, 2))
        names = [{name for name, _ in tower.module.named_parameters()} for tower in source.towers]
        assert not names[0] & names[1]
        assert all(name.startswith("model.visual.") for name in names[0])
        assert not any("visual" in name or "logit" in name for name in names[1])


def test_a_batch_that_samples_do_not_fill_is_filled_with_the_first_again():
    model = one_layer()
    images, tokens = inputs(model)
    assert [len(batch) for batch in source_of(model, images, tokens, batch=4).image.batches] == [4]
    again = source_of(model, images[:3], tokens, batch=4).image.batches
    assert [len(batch) for batch in again] == [4]
    torch.testing.assert_close(again[0][3], images[0])


def writes(*names: str):
    """A recipe that writes some files in no time."""

    def write(source, folder):
        for name in names:
            (folder / name).write_bytes(name.encode())
        return Made(*names)

    return Recipe("torch-export", write)


@pytest.fixture
def register():
    """Registers recipes for one test."""
    added = []

    def add(name, recipe):
        recipes.add(name, recipe)
        added.append(name)
        return name

    yield add
    for name in added:
        recipes.remove(name)


def made_of(recipe: str, folder: Path, **changes) -> Manifest:
    model = one_layer()
    images, tokens = inputs(model, 2)
    given = {"images": images, "tokens": tokens, "model": model} | changes
    return make(recipe, given["model"], given["images"], given["tokens"], folder)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"images": torch.zeros(2, 32, 32)}, r"images are torch.float32 of shape \(2, 32, 32\)"),
        ({"images": torch.zeros(2, 3, 32, 32, dtype=torch.float64)}, "images are torch.float64"),
        ({"images": torch.full((1, 3, 32, 32), torch.nan)}, "images hold NaN"),
        ({"tokens": torch.zeros(0, 12, dtype=torch.int64)}, r"tokens are .* \(0, 12\)"),
        ({"tokens": torch.zeros(2, 12)}, "tokens are torch.float32"),
        ({"model": nn.Linear(2, 2)}, "Linear has no encode_image and no encode_text"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_sentence(changes, problem, tmp_path, register):
    name = register("quick", writes("image.bin", "text.bin"))
    with pytest.raises(ArtifactError, match=problem):
        made_of(name, tmp_path / "made", **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_that_fails_leaves_nothing(tmp_path, register):
    def write(source, folder):
        (folder / "image.bin").write_bytes(b"half")
        raise ValueError("no operator for erf\nand a long trace")

    name = register("failing", Recipe("onnxruntime", write))
    with pytest.raises(ArtifactError, match="recipe 'failing' failed: ValueError: no operator"):
        made_of(name, tmp_path / "made")
    other = register("forgetful", Recipe("onnxruntime", lambda source, folder: Made("i.bin")))
    with pytest.raises(ArtifactError, match=r"'forgetful' did not write i\.bin"):
        made_of(other, tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_is_missing_is_named_with_its_extra(tmp_path, register):
    recipe = replace(writes("i.bin"), packages=("no-such-library",), extra="openvino")
    name = register("lacking", recipe)
    with pytest.raises(ArtifactError) as caught:
        made_of(name, tmp_path / "made")
    assert "needs no-such-library, which is not installed" in caught.value.problem
    assert caught.value.hint == "pip install 'pytest-clipq[openvino]'"


def test_a_folder_with_files_is_left_alone(tmp_path, register):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="is not an empty folder"):
        made_of(register("quick", writes("image.bin")), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_recipe_that_nobody_registered_is_guessed_at():
    with pytest.raises(UnknownNameError, match="unknown recipe 'onxruntime-static'") as caught:
        make("onxruntime-static", nn.Identity(), torch.zeros(1), torch.zeros(1), Path("none"))
    assert caught.value.hint.startswith("did you mean 'onnxruntime-static'")


def test_a_manifest_is_held_against_its_files(tmp_path, register):
    folder = tmp_path / "made"
    made_of(register("quick", writes("image.bin", "text.bin")), folder)
    plain = json.loads((folder / MANIFEST).read_text())
    (folder / "text.bin").write_bytes(b"swapped")
    with pytest.raises(ArtifactError, match=r"text.bin is not the file that was made"):
        Manifest.read(folder)
    (folder / "text.bin").unlink()
    with pytest.raises(ArtifactError, match=r"text.bin cannot be read"):
        Manifest.read(folder)
    plain["artifact"]["files"] = {"../../elsewhere.bin": "0" * 64}
    (folder / MANIFEST).write_text(json.dumps(plain))
    with pytest.raises(ArtifactError, match="is elsewhere"):
        Manifest.read(folder)
    (folder / MANIFEST).write_text('{"schema": "clipq-artifact/9", "artifact": {}}')
    with pytest.raises(ArtifactError, match="schema = 'clipq-artifact/9'"):
        Manifest.read(folder)
