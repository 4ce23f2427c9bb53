"""ONNX Runtime opens what it can, runs it exactly, and says in one sentence what it cannot."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from onnx_models import IMAGES, model, saved, saved_apart

from clipq.artifact_settings import SessionSettings
from clipq.errors import ArtifactError
from clipq.runtimes import TowerPorts, runtimes
from clipq.runtimes.onnxruntime_session import asked_of

RUNTIME = runtimes.get("onnxruntime")
RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((192, 5)).astype(np.float32)
PIXELS = RNG.standard_normal((3, 3, 8, 8)).astype(np.float32)
TABLE = RNG.standard_normal((9, 5)).astype(np.float32)
TOKENS = RNG.integers(0, 9, (3, 4))
IMAGE = f"image ({IMAGES}) => (float[B, 5] y) {{ f = Flatten(x) y = MatMul(f, w) }}"
TEXT = (
    "text (int64[B, 4] ids) => (float[B, 5] y) "
    "{ e = Gather(table, ids) y = ReduceMean<keepdims=0>(e, axes) }"
)
AXES = np.array([1])


@pytest.fixture
def image(tmp_path):
    return saved(tmp_path / "image.onnx", IMAGE, w=WEIGHT)


@pytest.fixture
def text(tmp_path):
    return saved(tmp_path / "text.onnx", TEXT, table=TABLE, axes=AXES)


def opened(path, kind="image", /, **session):
    return RUNTIME.open(path, TowerPorts(kind), SessionSettings(**session))


def message(call, *arguments, **keywords) -> str:
    with pytest.raises(ArtifactError) as caught:
        call(*arguments, **keywords)
    assert caught.value.hint
    return str(caught.value)


def test_both_towers_return_what_the_graph_computes(image, text):
    expected = PIXELS.reshape(3, -1) @ WEIGHT
    np.testing.assert_allclose(opened(image).run({"input": PIXELS}), expected, rtol=1e-4, atol=1e-5)
    means = TABLE[TOKENS].mean(axis=1)
    np.testing.assert_allclose(opened(text, "text").run({"input": TOKENS}), means, rtol=1e-5)


def test_what_a_session_asked_for_is_what_it_runs(image):
    facts = opened(image, threads=2, precision="f32", provider="CPUExecutionProvider").facts
    assert (facts.precision, facts.provider, facts.batch) == ("f32", "CPUExecutionProvider", 0)
    assert facts.said["providers"] == ["CPUExecutionProvider"]
    tells = hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info")
    assert facts.said["nodes"] == ({"CPUExecutionProvider": 2} if tells else {})


def test_images_of_any_memory_order_are_the_same(image):
    turned = np.asfortranarray(PIXELS)
    assert np.array_equal(
        opened(image).run({"input": turned}), opened(image).run({"input": PIXELS})
    )


def test_a_mask_is_given_in_the_type_that_the_graph_takes(tmp_path):
    path = saved(
        tmp_path / "text.onnx",
        "text (int64[B, 4] ids, float[B, 4] mask) => (float[B, 4] y) "
        "{ f = Cast<to=1>(ids) y = Mul(f, mask) }",
    )
    mask = np.array([[1, 1, 0, 0]] * 3)
    tower = RUNTIME.open(path, TowerPorts("text", mask="mask"), SessionSettings())
    assert np.array_equal(tower.run({"input": TOKENS, "mask": mask}), TOKENS * mask)
    assert "'mask' float32" in message(opened, path, "text")


def test_an_initializer_that_is_listed_as_an_input_need_not_be_given(tmp_path):
    old = '<ir_version: 3, opset_import: ["" : 12]>'
    graph = IMAGE.replace(f"({IMAGES})", f"({IMAGES}, float[192, 5] w)")
    tower = opened(saved(tmp_path / "image.onnx", graph, old, w=WEIGHT))
    assert tower.run({"input": PIXELS}).shape == (3, 5)


def test_a_graph_of_one_batch_says_so(tmp_path):
    path = saved(tmp_path / "image.onnx", IMAGE.replace("[B", "[2"), w=WEIGHT)
    tower = opened(path)
    assert tower.facts.batch == 2
    assert "call it with 2 samples" in message(tower.run, {"input": PIXELS})


def test_a_batch_that_was_fixed_inside_is_told_from_a_wrong_input(tmp_path):
    graph = IMAGE.replace("Flatten(x)", "Reshape(x, two)")
    path = saved(tmp_path / "image.onnx", graph, w=WEIGHT, two=np.array([2, 192]))
    said = message(opened(path).run, {"input": PIXELS})
    assert "image.onnx on (3, 3, 8, 8): " in said
    assert "a batch or a length was fixed inside" in said
    assert "onnxruntime_src" not in said


def test_values_of_a_graph_may_lie_beside_it(tmp_path):
    path = saved_apart(tmp_path / "image.onnx", IMAGE, w=WEIGHT)
    data = tmp_path / "image.onnx.data"
    assert RUNTIME.sidecars(path) == (data,)
    whole = opened(saved(tmp_path / "whole.onnx", IMAGE, w=WEIGHT)).run({"input": PIXELS})
    assert np.array_equal(opened(path).run({"input": PIXELS}), whole)
    for damage, says in ((lambda: data.write_bytes(b"short"), "holds 5 bytes"), (data.unlink, "")):
        damage()
        for call in (opened, RUNTIME.look):
            said = message(call, path)
            assert str(data) in said
            assert (says or "is not there") in said
    assert RUNTIME.sidecars(path) == (data,)


def test_values_of_inner_graphs_have_sidecars_too(tmp_path):
    branch = "g () => (float[4] a) { a = Constant<value = float[4] {1, 2, 3, 4}>() }"
    proto = model(
        "g (bool c) => (float[4] y) { y = If (c) <then_branch = "
        f"{branch}, else_branch = {branch}> }}"
    )
    inner = proto.graph.node[0].attribute[1].g.node[0].attribute[0].t
    inner.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(inner)))
    onnx.external_data_helper.set_external_data(inner, "inner.bin", offset=0, length=16)
    inner.ClearField("raw_data")
    path = tmp_path / "g.onnx"
    path.write_bytes(proto.SerializeToString())
    assert RUNTIME.sidecars(path) == (tmp_path / "inner.bin",)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "a/../../b", "C:\\x.bin"])
def test_values_outside_of_the_folder_are_refused(tmp_path, location):
    proto = model(IMAGE, w=WEIGHT)
    tensor = proto.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    path = tmp_path / "image.onnx"
    path.write_bytes(proto.SerializeToString())
    for call in (RUNTIME.sidecars, RUNTIME.look, opened):
        assert "outside of its folder" in message(call, path)


def test_a_file_that_is_cut_short_anywhere_is_said_to_be_damaged(image, tmp_path):
    whole, cut = image.read_bytes(), tmp_path / "cut.onnx"
    for size in (*range(3, 40), *range(40, len(whole), 97), len(whole) - 1):
        cut.write_bytes(whole[:size])
        for call in (RUNTIME.sidecars, RUNTIME.look, opened):
            assert str(cut) in message(call, cut)
    assert f"cut.onnx is damaged or truncated ({len(whole) - 1:,} bytes)" in message(opened, cut)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"folder", "is a folder"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"<html>404</html>", "XML or HTML"),
        (b"\x00\xff\x13\x37" * 50, "not an ONNX model"),
    ],
)
def test_what_is_no_onnx_file_is_named(tmp_path, content, says):
    path = tmp_path / "image.onnx"
    if content == b"folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    for call in (RUNTIME.sidecars, RUNTIME.look, opened):
        assert says in message(call, path)


def test_swapped_towers_are_noticed_before_anything_runs(image, text):
    assert "swap `image` and `text`" in message(opened, image, "text")
    assert "swap `image` and `text`" in message(opened, text, "image")


@pytest.mark.parametrize(
    ("tower", "given", "says"),
    [
        ("image", PIXELS[:, :, :6, :6], "(?, 3, 8, 8), but is given float32 (3, 3, 6, 6)"),
        ("image", PIXELS.transpose(0, 2, 3, 1), 'layout = "NCHW"'),
        ("image", PIXELS.astype(np.uint8), 'pixels = "normalised"'),
        ("text", TOKENS[:, :3], "(?, 4), but is given int64 (3, 3)"),
        ("text", TOKENS.astype(np.int32), 'text_dtype = "int64"'),
        ("text", TOKENS + 9, "text.onnx on (3, 4): "),  # tokens of a larger vocabulary
    ],
)
def test_an_input_that_does_not_fit_is_shown_beside_what_the_graph_takes(
    image, text, tower, given, says
):
    path = image if tower == "image" else text
    assert says in message(opened(path, tower).run, {"input": given})


@pytest.mark.parametrize(
    ("ports", "says"),
    [
        (TowerPorts("image", input="pixels"), "no input 'pixels'; it has 'x'"),
        (TowerPorts("image", output="embeds"), "no output 'embeds'; it has 'y'"),
        (TowerPorts("image", mask="mask"), "no input 'mask'; it has 'x'"),
    ],
)
def test_a_name_that_the_graph_lacks_is_shown_with_those_that_it_has(image, ports, says):
    assert says in message(RUNTIME.open, image, ports, SessionSettings())


@pytest.mark.parametrize(
    ("session", "says"),
    [
        ({"provider": "TensorrtExecutionProvider"}, "without TensorrtExecutionProvider"),
        ({"provider": "CPUExecutionProvder"}, "did you mean 'CPUExecutionProvider'"),
        ({"precision": "bf16"}, "in f32, not in bf16"),
        ({"options": {"enable_mem_patern": False}}, "did you mean 'enable_mem_pattern'"),
        ({"options": {"enable_mem_pattern": "no"}}, "it takes bool; its default is True"),
        ({"options": {"graph_optimization_level": "ALL"}}, "ORT_ENABLE_ALL"),
        ({"options": {"intra_op_num_threads": 4}}, "threads"),
        (
            {"options": {"session.disable_prepaking": "1"}},
            "did you mean 'session.disable_prepacking'",
        ),
    ],
)
def test_a_session_that_cannot_be_had_is_refused(image, session, says):
    assert says in message(opened, image, **session)


def test_the_runtimes_own_options_reach_it(image, tmp_path):
    written = tmp_path / "optimized.onnx"
    options = {
        "graph_optimization_level": "ORT_DISABLE_ALL",
        "optimized_model_filepath": str(written),
        "session.disable_prepacking": True,
    }
    opened(image, options=options)
    kept = [node.op_type for node in onnx.load(written).graph.node]
    assert kept == ["Flatten", "MatMul"]


@pytest.mark.parametrize(
    ("session", "precision", "options"),
    [
        ({}, "tf32", {}),  # as it comes, products of floats keep 10 bits of 23
        ({"precision": "f32"}, "f32", {"use_tf32": "0"}),
        (
            {"options": {"use_tf32": False, "device_id": 1}},
            "f32",
            {"use_tf32": "0", "device_id": "1"},
        ),
    ],
)
def test_float32_on_a_gpu_is_not_tf32(monkeypatch, session, precision, options):
    provider = "CUDAExecutionProvider"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [provider])
    asked = asked_of(onnxruntime, SessionSettings(provider=provider, **session))
    assert (asked.precision, asked.provider_options) == (precision, options)


def test_a_gpu_does_not_contradict_itself(monkeypatch):
    provider = "CUDAExecutionProvider"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [provider])
    for contradiction in ({"precision": "bf16"}, {"precision": "f32", "options": {"use_tf32": 1}}):
        settings = SessionSettings(provider=provider, **contradiction)
        assert provider in message(asked_of, onnxruntime, settings)


@pytest.mark.parametrize(
    ("head", "says"),
    [
        ('<ir_version: 99, opset_import: ["" : 21]>', r"reads, which is up to IR version \d+"),
        ('<ir_version: 10, opset_import: ["" : 99]>', r"reads, which is up to opset \d+; .* 99 "),
    ],
)
def test_a_graph_that_is_newer_than_the_runtime_says_what_it_reads(tmp_path, head, says):
    said = message(opened, saved(tmp_path / "image.onnx", IMAGE, head, w=WEIGHT))
    assert re.search(says, said)
    assert onnxruntime.__version__ in said


def test_an_operator_that_the_runtime_lacks_is_named(tmp_path):
    graph = IMAGE.replace("Flatten(x)", "mine.Pool(x)")
    head = '<ir_version: 10, opset_import: ["" : 21, "mine" : 1]>'
    said = message(opened, saved(tmp_path / "image.onnx", graph, head, w=WEIGHT))
    assert "uses an operator that onnxruntime" in said
    assert "mine:Pool" in said


def test_a_graph_in_types_that_a_provider_does_not_execute_is_told_from_a_damaged_one(tmp_path):
    halves = IMAGE.replace("float[", "bfloat16[")
    path = saved(tmp_path / "image.onnx", halves, w=WEIGHT.astype(ml_dtypes.bfloat16))
    said = message(opened, path)
    assert "cannot execute an operator" in said
    assert "MatMul" in said
    assert "float32" in said


def test_onnx_runtimes_own_format_runs_and_is_not_looked_into(image, tmp_path):
    own = tmp_path / "image.ort"
    options = {"optimized_model_filepath": str(own), "session.save_model_format": "ORT"}
    expected = opened(image, options=options).run({"input": PIXELS})
    assert np.array_equal(opened(own).run({"input": PIXELS}), expected)
    assert RUNTIME.sidecars(own) == ()
    (found,) = RUNTIME.look(own).findings
    assert (found.kind, found.wrong) == ("not-looked-into", False)
