"""What an ONNX file says of itself: quantized operators, what is left in float, what is wrong."""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import numpy_helper
from onnx_models import HEAD, saved, saved_apart
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from clipq.artifact_settings import SessionSettings
from clipq.errors import ArtifactError
from clipq.runtimes import Finding, Look, TowerPorts, runtimes
from clipq.runtimes.onnx_constants import constant_findings
from clipq.runtimes.onnx_file import OnnxFile
from clipq.runtimes.onnx_graph import OnnxGraph
from clipq.runtimes.onnx_operators import is_quantized
from clipq.testing import SmallInputs, small_clip

RUNTIME = runtimes.get("onnxruntime")
RNG = np.random.default_rng(0)
W = RNG.standard_normal((4, 4)).astype(np.float32)
Q = RNG.integers(-100, 100, (4, 4)).astype(np.int8)
ONE, ZERO = np.float32(0.1), np.int8(0)
X_PAIR = "xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z)"


def looked(path: Path, graph: str, /, head: str = HEAD, **tensors: np.ndarray) -> Look:
    return RUNTIME.look(saved(path, graph, head, **tensors))


def kinds(look: Look, *, wrong: bool) -> set[str]:
    return {each.kind for each in look.findings if each.wrong == wrong}


def finding(look: Look, kind: str) -> Finding:
    (found,) = (each for each in look.findings if each.kind == kind)
    return found


@pytest.mark.parametrize(
    ("body", "quantized", "in_float"),
    [
        ("y = MatMul(x, w)", {}, {"MatMul": 1}),
        ("t = Transpose(w) y = MatMul(x, t)", {}, {"MatMul": 1}),
        ("h = Identity(w) y = Gemm(x, h)", {}, {"Gemm": 1}),
        ("t = Mul(w, s) y = MatMul(x, t)", {}, {"MatMul": 1}),
        ("y = MatMul(w, x)", {}, {"MatMul": 1}),
        ("t = Transpose(x) y = MatMul(x, t)", {}, {}),  # attention's have no weights
        ("d = DequantizeLinear(q, s, z) y = MatMul(x, d)", {"MatMul (weights only)": 1}, {}),
        ("f = Cast<to=1>(q) d = Mul(f, s) y = MatMul(x, d)", {"MatMul (weights only)": 1}, {}),
        (
            "wq = QuantizeLinear(w, s, z) d = DequantizeLinear(wq, s, z) t = Transpose(d) "
            f"{X_PAIR} y = Gemm(xd, t)",
            {"Gemm (QDQ)": 1},
            {},
        ),
        (f"d = DequantizeLinear(q, s, z) {X_PAIR} y = MatMul(xd, d)", {"MatMul (QDQ)": 1}, {}),
        (f"{X_PAIR} y = MatMul(xd, w)", {}, {"MatMul": 1}),  # only one side was rounded
        (f"{X_PAIR} t = Transpose(xd) y = MatMul(xd, t)", {"MatMul (QDQ)": 1}, {}),
        (
            f"{X_PAIR} a = Add(xd, xd) aq = QuantizeLinear(a, s, z) y = DequantizeLinear(aq, s, z)",
            {"Add (QDQ)": 1},
            {},
        ),
        (f"{X_PAIR} y = Add(xd, xd)", {}, {}),  # in float: nothing rounds it again
        (
            "xq, xs, xz = DynamicQuantizeLinear(x) i = MatMulInteger(xq, q, xz) "
            "f = Cast<to=1>(i) b = Mul(xs, s) y = Mul(f, b)",
            {"DynamicQuantizeLinear": 1, "MatMulInteger": 1},
            {},
        ),
        (
            "xq = QuantizeLinear(x, s, z) yq = QLinearMatMul(xq, s, z, q, s, z, s, z) "
            "y = DequantizeLinear(yq, s, z)",
            {"QLinearMatMul": 1},
            {},
        ),
        (
            "y = com.microsoft.MatMulNBits<K=4, N=4, bits=4, block_size=16>(x, packed, n)",
            {"MatMulNBits": 1},
            {},
        ),
        (
            "c = ReduceMax<keepdims=0>(b) y = If (c) <"
            "then_branch = t () => (float[B, 4] a) { a = MatMul(x, w) }, "
            "else_branch = e () => (float[B, 4] a) { d = DequantizeLinear(q, s, z) "
            "a = MatMul(x, d) }>",
            {"MatMul (weights only)": 1},
            {"MatMul": 1},
        ),
    ],
)
def test_products_are_counted_by_what_both_of_their_sides_are(tmp_path, body, quantized, in_float):
    packed, n = np.zeros((4, 1, 8), np.uint8), np.ones(4, np.float32)
    graph = f"g (float[B, 4] x) => (float[B, 4] y) {{ {body} }}"
    tensors = {"w": W, "q": Q, "s": ONE, "z": ZERO, "packed": packed, "n": n, "b": np.array([True])}
    look = looked(tmp_path / "g.onnx", graph, **tensors)
    assert (look.quantized, look.in_float) == (quantized, in_float)
    assert ("left-in-float" in kinds(look, wrong=False)) == bool(quantized and in_float)


def test_functions_of_the_models_own_are_looked_into(tmp_path):
    path = saved(
        tmp_path / "g.onnx",
        "g (float[B, 4] x) => (float[B, 4] y) { y = own.linear(x, w) } "
        '<domain: "own", opset_import: ["" : 21]> linear (a, b) => (c) { c = MatMul(a, b) }',
        '<ir_version: 10, opset_import: ["" : 21, "own" : 1]>',
        w=W,
    )
    look = RUNTIME.look(path)
    assert look.in_float == {"MatMul": 1}
    assert look.findings == ()


def test_what_is_left_in_float_is_named_with_its_share_of_all_weights(tmp_path):
    look = looked(
        tmp_path / "g.onnx",
        "g (float[B, 4] x) => (float[B, 12] y) "
        "{ d = DequantizeLinear(q, s, z) h = MatMul(x, d) y = MatMul(h, proj) }",
        q=Q,
        s=ONE,
        z=ZERO,
        proj=np.ones((4, 12), np.float32),
    )
    left = finding(look, "left-in-float")
    assert not left.wrong
    assert left.problem == (
        "1 products with weights are left in float, 75% of all weights of products: proj"
    )


def test_every_operator_of_the_runtime_with_zero_points_counts_as_quantized():
    schemas = onnxruntime.capi.onnxruntime_pybind11_state.get_all_operator_schema()
    with_points = {
        schema.name
        for schema in schemas
        if any("zero_point" in each.name for each in schema.inputs)
    }
    assert len(with_points) > 20
    assert {name for name in with_points if not is_quantized(name)} == set()


SCALED = (
    "g (float[B, 4] x) => (float[B, 4] y) "
    "{ [quantize] xq = QuantizeLinear(x, s, z) [back] y = DequantizeLinear(xq, s, z) }"
)


@pytest.mark.parametrize(
    ("scale", "kind"),
    [
        (np.inf, "infinite-scale"),
        (np.nan, "nan-scale"),
        (0.0, "zero-scale"),
        (1e-42, "zero-scale"),
        (-0.5, "negative-scale"),
        (1e30, "huge-scale"),
    ],
)
def test_a_scale_that_cannot_be_meant_is_named_with_its_node_and_value(tmp_path, scale, kind):
    look = looked(tmp_path / "g.onnx", SCALED, s=np.float32(scale), z=ZERO)
    found = finding(look, kind)
    assert found.wrong
    assert f"the scale 's' of QuantizeLinear 'quantize' is {np.float32(scale):g}" in found.problem
    assert found.fix
    assert kinds(look, wrong=True) == {kind}


@pytest.mark.parametrize("scale", [1e-12, 0.1, 100.0])
def test_a_scale_that_can_be_meant_is_not_mentioned(tmp_path, scale):
    assert looked(tmp_path / "g.onnx", SCALED, s=np.float32(scale), z=ZERO).findings == ()


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("s = Mul(bad, one) y = QuantizeLinear(x, s, z)", "s"),
        ("s = Div(one, none) y = QuantizeLinear(x, s, z)", "s"),
        ("m = ReduceMax<keepdims=0>(mask) s = Div(m, one) y = QuantizeLinear(x, s, z)", "s"),
        ("y = QLinearMatMul(xi, one, z, q, one, z, bad, z)", "bad"),
        ("y = com.microsoft.QLinearConcat<axis=0>(one, z, xi, bad, z)", "bad"),
        (
            "xq, xs, xz = DynamicQuantizeLinear(x) i = MatMulInteger(xq, q, xz) "
            "f = Cast<to=1>(i) b = Mul(xs, bad) a = Mul(f, b) y = QuantizeLinear(a, one, z)",
            "bad",
        ),
        ("d = DequantizeLinear(xi, bad, z) y = QuantizeLinear(d, one, z)", "bad"),
    ],
)
def test_an_infinite_scale_is_found_wherever_it_comes_from(tmp_path, body, name):
    look = looked(
        tmp_path / "g.onnx",
        f"g (float[B, 4] x, int8[B, 4] xi) => (int8[B, 4] y) {{ {body} }}",
        bad=np.float32(np.inf),
        one=np.float32(1),
        none=np.float32(0),
        mask=np.array([0, np.inf], np.float32),
        q=Q,
        z=ZERO,
    )
    problem = finding(look, "infinite-scale").problem
    assert problem.startswith(f"the scale {name!r} of ")
    assert problem.endswith(" is inf")


def test_a_channel_of_scale_zero_is_a_note_and_a_weight_of_nothing_else_is_wrong(tmp_path):
    graph = (
        "g (float[B, 4] x) => (float[B, 4] y) "
        "{ d = DequantizeLinear<axis=1>(q, s, z) y = MatMul(x, d) }"
    )
    points, scales = np.zeros(4, np.int8), np.array([0, 1, 1, 1], np.float32)
    one = looked(tmp_path / "one.onnx", graph, q=Q, s=scales, z=points)
    assert not finding(one, "zero-scale").wrong
    every = looked(tmp_path / "every.onnx", graph, q=Q, s=0 * scales, z=points)
    assert finding(every, "zero-scale").wrong


def test_a_blockwise_weight_may_have_negative_scales_and_no_zero_point_out_of_range(tmp_path):
    graph = (
        "g (float[B, 4] x) => (float[B, 4] y) { [nbits] y = "
        "com.microsoft.MatMulNBits<K=4, N=4, bits=4, block_size=16>(x, packed, n, p) }"
    )
    packed, scales = np.zeros((4, 1, 8), np.uint8), np.full(4, -0.5, np.float32)
    fine = looked(tmp_path / "f.onnx", graph, packed=packed, n=scales, p=np.full(4, 8, np.float32))
    assert fine.findings == ()
    bad = looked(tmp_path / "b.onnx", graph, packed=packed, n=scales, p=np.full(4, 16, np.float32))
    assert "the zero point 'p' of MatMulNBits 'nbits' is 16," in finding(bad, "zero-point").problem


def test_a_bias_has_no_zero_point(tmp_path):
    graph = (
        "g (float[B, 4] x) => (float[B, 4] y) { b = DequantizeLinear(bias, s, z) y = Add(x, b) }"
    )
    look = looked(
        tmp_path / "g.onnx", graph, bias=np.ones(4, np.int32), s=ONE, z=np.array(3, np.int32)
    )
    assert finding(look, "zero-point").wrong


class _Tokens(CalibrationDataReader):
    def __init__(self, name: str, batches: list[np.ndarray]) -> None:
        self.batches = [{name: batch} for batch in batches]

    def get_next(self):
        return self.batches.pop() if self.batches else None


@dataclass
class _Text:
    folder: Path
    tokens: np.ndarray

    def quantized(self, mask: float, **options: object) -> Path:
        """Quantize the text tower statically, its mask's minus infinity put in place of."""
        proto = onnx.load(self.folder / "text.onnx")
        for node in proto.graph.node:
            for attribute in node.attribute:
                values = numpy_helper.to_array(attribute.t) if attribute.HasField("t") else W
                if np.isinf(values).any():
                    masked = np.where(np.isinf(values), np.float32(mask), values)
                    attribute.t.CopyFrom(numpy_helper.from_array(masked))
        before, after = self.folder / "before.onnx", self.folder / f"{mask}.onnx"
        onnx.save(proto, before)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of dividing by infinity: it warns, and goes on
            quantize_static(before, after, _Tokens("x", [self.tokens]), **options)
        return after

    def cosine(self, path: Path) -> float:
        """Return the mean cosine to the float tower's features."""
        made = [
            RUNTIME.open(each, TowerPorts("text"), SessionSettings()).run({"input": self.tokens})
            for each in (self.folder / "text.onnx", path)
        ]
        exact, candidate = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in made)
        return float((exact * candidate).sum(axis=1).mean())


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> _Text:
    """A CLIP's text tower, exported."""
    folder, clip, inputs = tmp_path_factory.mktemp("text"), small_clip(), SmallInputs(count=16)

    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.clip = clip

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.clip.encode_text(x)

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter: it is the one that takes a second
        torch.onnx.export(
            Tower().eval(),
            (inputs.texts,),
            folder / "text.onnx",
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "B"}, "y": {0: "B"}},
        )
    torch.backends.mha.set_fastpath_enabled(fast)
    return _Text(folder, inputs.texts.numpy())


PRODUCTS = {"op_types_to_quantize": ["MatMul", "Gemm", "Conv"]}


def test_the_mask_of_a_float_text_tower_is_a_note(text):
    look = RUNTIME.look(text.folder / "text.onnx")
    assert kinds(look, wrong=True) == set()
    assert "holds -inf in 66 of 144 values" in finding(look, "infinite-constant").problem
    assert look.quantized == {}
    assert look.in_float == {"MatMul": 7, "Gemm": 2}  # 4 per block; the projection


def test_static_quantization_of_a_text_tower_with_default_operators_is_wrong_before_it_runs(text):
    broken = text.quantized(-np.inf)
    look = RUNTIME.look(broken)
    found = finding(look, "infinite-scale")
    assert found.wrong
    assert " is inf; so are 3 more" in found.problem
    assert "op_types_to_quantize=['MatMul', 'Gemm', 'Conv']" in found.fix
    assert text.cosine(broken) < 0.9


def test_a_finite_mask_ruins_the_scores_that_it_is_added_to_as_well(text):
    broken = text.quantized(-1e4)
    assert finding(RUNTIME.look(broken), "coarse-softmax").wrong
    assert text.cosine(broken) < 0.9


def test_with_products_only_nothing_is_wrong(text):
    sound = text.quantized(-np.inf, **PRODUCTS)
    look = RUNTIME.look(sound)
    assert kinds(look, wrong=True) == set()
    assert look.in_float == {}
    assert look.quantized["MatMul (QDQ)"] == 7 + 4  # two of each block are attention's own
    assert text.cosine(sound) > 0.97


@pytest.mark.parametrize(
    ("value", "role", "wrong"),
    [
        (-np.inf, "y = Add(x, c)", False),
        (np.nan, "y = Add(x, c)", True),
        (-np.inf, "y = MatMul(x, c)", True),
        (np.inf, "t = Transpose(c) y = MatMul(x, t)", True),
    ],
)
@pytest.mark.parametrize("save", [saved, saved_apart])
def test_a_constant_that_is_not_finite_is_wrong_where_it_is_a_weight(
    tmp_path, value, role, wrong, save
):
    values = W.copy()
    values[2, 1] = value
    graph = f"g (float[4, 4] x) => (float[4, 4] y) {{ {role} }}"
    look = RUNTIME.look(save(tmp_path / "g.onnx", graph, c=values))
    (found,) = (each for each in look.findings if "'c'" in each.problem)
    assert found.wrong == wrong
    assert found.problem == f"'c' holds {value:g} in 1 of 16 values"


@settings(max_examples=40)
@given(data=st.data(), dtype=st.sampled_from(["float16", "bfloat16", "float32", "float64"]))
def test_values_that_are_not_finite_are_counted_in_every_float_type(one_folder, data, dtype):
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    with np.errstate(over="ignore"):
        values = data.draw(hnp.arrays(np.float32, hnp.array_shapes(max_side=5))).astype(kind)
    onnx_type = {"float32": "float", "float64": "double"}.get(dtype, dtype)
    shape = ", ".join(map(str, values.shape))
    graph = f"g ({onnx_type}[{shape}] x) => ({onnx_type}[{shape}] y) {{ y = Add(x, c) }}"
    path = saved(one_folder / "g.onnx", graph, c=values)
    found = constant_findings(OnnxGraph(OnnxFile(path)), scales=())
    stated = [each for each in found if each.kind != "half-precision"]
    bad = int((~np.isfinite(values.astype(np.float64))).sum())
    assert len(stated) == (bad > 0)
    assert all(f" in {bad:,} of {values.size:,} values" in each.problem for each in stated)
    assert len(found) - len(stated) == (kind.itemsize == 2)


@pytest.fixture(scope="module")
def one_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("constants")


def test_a_look_says_sizes_versions_and_inputs(tmp_path):
    graph = "g (float[8, 4] x) => (float[8, 4] y) { y = MatMul(x, w) }"
    look = RUNTIME.look(saved_apart(tmp_path / "g.onnx", graph, w=W))
    assert look.bytes == sum(path.stat().st_size for path in tmp_path.iterdir()) > W.nbytes
    assert look.opset == "21 (IR 10)"
    assert [(port.name, port.dtype, port.shape) for port in (*look.inputs, *look.outputs)] == [
        ("x", "float32", (8, 4)),
        ("y", "float32", (8, 4)),
    ]
    assert finding(look, "fixed-batch").problem == "'x' takes batches of 8 only"
    assert not finding(look, "fixed-batch").wrong


def test_bytes_beside_a_graph_that_belong_to_no_tensor_are_noticed(tmp_path):
    graph = "g (float[B, 4] x) => (float[B, 4] y) { y = MatMul(x, w) }"
    path = saved_apart(tmp_path / "g.onnx", graph, w=W)
    with (tmp_path / "g.onnx.data").open("ab") as file:
        file.write(bytes(64))
    assert "64 of 128 bytes" in finding(RUNTIME.look(path), "unused-bytes").problem


@pytest.mark.parametrize(
    ("head", "node", "kind"),
    [
        ('<ir_version: 10, opset_import: ["" : 99]>', "Identity(x)", "version"),
        ('<ir_version: 99, opset_import: ["" : 21]>', "Identity(x)", "version"),
        ('<ir_version: 10, opset_import: ["" : 21, "mine" : 1]>', "mine.Pool(x)", "mine:Pool"),
        ('<ir_version: 10, opset_import: ["" : 21]>', "Gelufast(x)", "ai.onnx:Gelufast"),
    ],
)
def test_what_the_runtime_does_not_read_is_wrong(tmp_path, head, node, kind):
    graph = f"g (float[B, 4] x) => (float[B, 4] y) {{ y = {node} }}"
    (found,) = looked(tmp_path / "g.onnx", graph, head).findings
    assert found.wrong
    assert kind in (found.kind, found.problem.split()[-1])


def test_values_that_do_not_fit_their_sizes_are_refused(tmp_path):
    path = saved(tmp_path / "g.onnx", "g (float[B, 4] x) => (float[B, 4] y) { y = Add(x, w) }", w=W)
    proto = onnx.load(path)
    proto.graph.initializer[0].dims[0] = 5
    onnx.save(proto, path)
    with pytest.raises(ArtifactError, match=r"the values of 'w' do not fit its sizes \[5, 4\]"):
        RUNTIME.look(path)


@pytest.fixture(scope="module")
def sound(one_folder: Path) -> Path:
    graph = (
        "g (float[B, 4] x) => (float[B, 4] y) { [quantize] xq = QuantizeLinear(x, s, z) "
        "[back] xd = DequantizeLinear(xq, s, z) t = Transpose(q) d = DequantizeLinear(t, s, z) "
        "m = MatMul(xd, d) y = Softmax(m) }"
    )
    return saved_apart(one_folder / "sound.onnx", graph, q=Q, s=ONE, z=ZERO)


@settings(max_examples=60)
@given(
    changes=st.lists(st.tuples(st.integers(2, 400), st.integers(0, 255)), min_size=1, max_size=9)
)
def test_a_file_with_wrong_bytes_is_looked_into_or_refused(sound, changes):
    content = bytearray(sound.read_bytes())
    for place, byte in changes:
        content[place] = byte
    damaged = sound.with_name("damaged.onnx")
    damaged.write_bytes(content)
    with suppress(ArtifactError):
        assert RUNTIME.look(damaged).bytes > len(content)
