"""OpenVINO answers as numpy does, says what it executes, and refuses in one sentence."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from onnx_models import IMAGES, saved, saved_apart

from clipq.artifact_settings import SessionSettings
from clipq.errors import ArtifactError
from clipq.runtimes import TowerPorts, runtimes
from clipq.runtimes.precision import precision_findings

openvino = pytest.importorskip("openvino")
ops = pytest.importorskip("openvino.opset13")

RUNTIME = runtimes.get("openvino")
IMAGE, TEXT = TowerPorts("image"), TowerPorts("text")
RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((192, 16)).astype(np.float32)
PIXELS = RNG.standard_normal((3, 3, 8, 8)).astype(np.float32)
EXACT = PIXELS.reshape(3, -1).astype(np.float64) @ WEIGHT.astype(np.float64)
F32 = SessionSettings(precision="f32", threads=1)


def images():
    taken = ops.parameter([-1, 3, 8, 8], np.float32, "pixel_values")
    taken.output(0).set_names({"pixel_values"})
    return taken, ops.reshape(taken, ops.constant([0, -1]), special_zero=True)


def written(path, taken, result, *, fp16=False):
    result.output(0).set_names({"features"})
    openvino.save_model(openvino.Model([result], [taken], "g"), path, compress_to_fp16=fp16)
    return path


def product(path, *, weight=WEIGHT, fp16=False):
    taken, flat = images()
    weights = ops.constant(weight)
    if weight.dtype == np.float16:
        weights = ops.convert(weights, "f32")
    return written(path, taken, ops.matmul(flat, weights, False, False), fp16=fp16)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return product(tmp_path_factory.mktemp("openvino") / "image.xml")


@pytest.fixture
def text(tmp_path):
    taken = ops.parameter([-1, 4], np.int64, "ids")
    taken.output(0).set_names({"ids"})
    return written(tmp_path / "text.xml", taken, ops.convert(taken, "f32"))


def opened(path, ports=IMAGE, session=F32):
    return RUNTIME.open(path, ports, session)


def told(call, *args, **kwargs):
    with pytest.raises(ArtifactError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def relative(features):
    return np.abs(features - EXACT).max() / np.abs(EXACT).max()


@pytest.mark.parametrize("asked", ["", "f32", "bf16", "f16"])
def test_what_a_tower_says_that_it_executes_is_as_exact_as_that_is(image, asked):
    tower = opened(image, session=SessionSettings(precision=asked, threads=1))
    error = relative(tower.run({"input": PIXELS}))
    executed = tower.facts.precision
    assert executed in ("f32", "bf16", "f16")
    assert error < 1e-5 if executed == "f32" else 1e-5 < error < 2e-2
    (*kinds,) = [(each.kind, each.wrong) for each in precision_findings(asked, tower.facts)]
    if executed == asked or (executed == "f32" and not asked):
        assert kinds == []
    else:
        assert kinds == [("precision", bool(asked))]


def test_weights_held_in_half_and_widened_are_not_called_half_precision(tmp_path):
    path = product(tmp_path / "image.xml", fp16=True)
    tower = opened(path)
    held = PIXELS.reshape(3, -1) @ WEIGHT.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(tower.run({"input": PIXELS}), held, rtol=1e-4, atol=1e-4)
    assert (tower.facts.precision, tower.facts.said["stored"]) == ("f32", "f16")
    assert precision_findings("", tower.facts) == ()


def test_an_onnx_file_is_read_with_what_belongs_to_it(tmp_path):
    graph = f"image ({IMAGES}) => (float[B, 16] y) {{ f = Flatten(x) y = MatMul(f, w) }}"
    path = saved(tmp_path / "image.onnx", graph, w=WEIGHT)
    assert relative(opened(path).run({"input": PIXELS})) < 1e-5
    assert RUNTIME.look(path).in_float == {"MatMul": 1}
    apart = saved_apart(tmp_path / "apart.onnx", graph, w=WEIGHT)
    (beside,) = RUNTIME.sidecars(apart)
    beside.unlink()
    assert beside.name in told(opened, apart)


def test_a_graph_says_what_is_quantized_and_what_is_not(tmp_path):
    taken, flat = images()
    limits = [ops.constant(np.float32(each)) for each in (-4, 4, -4, 4)]
    activations = ops.fake_quantize(flat, *limits, 256)
    stored = ops.constant(RNG.integers(-127, 128, (192, 16)).astype(np.int8))
    scales = ops.constant(np.full((1, 16), 0.01, np.float32))
    weights = ops.multiply(ops.convert(stored, "f32"), scales)
    first = ops.matmul(activations, weights, False, False)
    second = ops.matmul(first, ops.constant(np.eye(16, dtype=np.float32)), False, False)
    path = written(tmp_path / "image.xml", taken, second)
    look = RUNTIME.look(path)
    assert look.quantized == {"FakeQuantize": 1, "MatMul with i8 weights": 1}
    assert look.in_float == {"MatMul": 1}
    assert look.findings == ()
    assert look.bytes == sum(each.stat().st_size for each in (path, *RUNTIME.sidecars(path)))
    assert opened(path).run({"input": PIXELS}).shape == (3, 16)


@pytest.mark.parametrize(
    ("low", "kind", "wrong"),
    [(-np.inf, "infinite-scale", True), (-65504.0, "wide-scale", True), (-8.0, "", False)],
)
def test_a_range_that_a_mask_was_in_is_seen_before_the_graph_is_run(tmp_path, low, kind, wrong):
    taken, flat = images()
    limits = [ops.constant(np.float32(each)) for each in (low, 4, low, 4)]
    path = written(tmp_path / "image.xml", taken, ops.fake_quantize(flat, *limits, 256))
    found = [(each.kind, each.wrong) for each in RUNTIME.look(path).findings]
    assert found == ([(kind, wrong)] if kind else [])


@pytest.mark.parametrize(
    ("value", "kind", "wrong"), [(-np.inf, "mask", False), (np.nan, "non-finite", True)]
)
def test_a_mask_of_minus_infinity_is_noted_and_nan_is_wrong(tmp_path, value, kind, wrong):
    taken, flat = images()
    mask = ops.constant(np.full((1, 192), value, np.float32))
    path = written(tmp_path / "image.xml", taken, ops.add(flat, mask))
    assert [(each.kind, each.wrong) for each in RUNTIME.look(path).findings] == [(kind, wrong)]


def test_weights_that_half_precision_cannot_hold_are_found(tmp_path):
    weight = WEIGHT.astype(np.float16)
    weight[3, 4] = np.inf
    (finding,) = RUNTIME.look(product(tmp_path / "image.xml", weight=weight)).findings
    assert (finding.kind, finding.wrong) == ("non-finite-weights", True)
    assert "1 of 3,072 values" in finding.problem


def test_more_free_axes_than_the_batch_are_noted(tmp_path):
    taken = ops.parameter([-1, 3, -1, -1], np.float32, "x")
    path = written(tmp_path / "image.xml", taken, ops.reduce_mean(taken, ops.constant([2, 3])))
    (finding,) = RUNTIME.look(path).findings
    assert "axis 2, 3" in finding.problem
    assert not finding.wrong


def test_the_bin_beside_an_ir_belongs_to_it(image, tmp_path):
    (weights,) = RUNTIME.sidecars(image)
    assert weights == image.with_suffix(".bin")
    path = tmp_path / "image.xml"
    shutil.copy(image, path)
    assert f"{path.with_suffix('.bin')}, which holds the weights" in told(opened, path)
    path.with_suffix(".bin").write_bytes(weights.read_bytes()[:100])
    for call in (opened, RUNTIME.look):
        assert "has 100 bytes, image.xml needs 12," in told(call, path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"hello", "is text, not an OpenVINO IR or an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "is XML or HTML"),
        (b'<?xml version="1.0"?><net name="g" version="11"><layers>', "damaged or truncated"),
        (b"PK\x03\x04 and no more", "truncated zip archive"),
        (b"<\0\0\0ET12eh00", 'that is run by runtime = "executorch"'),
    ],
)
def test_what_is_no_graph_is_named(tmp_path, content, says):
    path = tmp_path / "image.xml"
    path.write_bytes(content)
    for call in (opened, RUNTIME.look):
        assert says in told(call, path)
    assert "is a folder" in told(opened, tmp_path)
    assert "does not exist" in told(opened, tmp_path / "none.xml")


def test_a_wrong_input_is_refused_with_what_mends_it(image, text):
    tower, tokens = opened(image), opened(text, TEXT)
    assert "at the image size" in told(tower.run, {"input": np.zeros((2, 3, 4, 4), np.float32)})
    assert 'layout = "NCHW"' in told(tower.run, {"input": np.zeros((2, 8, 8, 3), np.float32)})
    assert "normalised" in told(tower.run, {"input": np.zeros((2, 3, 8, 8), np.uint8)})
    assert "for 5 tokens" in told(tokens.run, {"input": np.zeros((2, 5), np.int64)})
    assert 'text_dtype = "int64"' in told(tokens.run, {"input": np.zeros((2, 4), np.int32)})
    assert "swap" in told(opened, image, TEXT)
    assert "swap" in told(opened, text, IMAGE)
    named = TowerPorts("image", input="pixels")
    assert "did you mean 'pixel_values'?" in told(opened, image, named)
    assert "it has 'features'" in told(opened, image, TowerPorts("image", output="embeds"))


def test_devices_and_properties_are_openvinos_own(image):
    said = told(opened, image, session=SessionSettings(provider="NPU7"))
    assert "no device 'NPU7'" in said
    assert "CPU" in said
    misspelt = SessionSettings(options={"NUM_STREAM": 1})
    assert "did you mean 'NUM_STREAMS'?" in told(opened, image, session=misspelt)
    ours = SessionSettings(options={"INFERENCE_PRECISION_HINT": "f32"})
    assert "precision = ..." in told(opened, image, session=ours)
    refused = SessionSettings(options={"NUM_STREAMS": "many"})
    assert "cannot compile" in told(opened, image, session=refused)
    options = {"NUM_STREAMS": 1, "PERF_COUNT": True}
    facts = opened(image, session=SessionSettings(threads=1, options=options)).facts
    assert (facts.provider, facts.said["INFERENCE_NUM_THREADS"]) == ("CPU", "1")
    assert facts.said["PERF_COUNT"] in ("True", "YES")
