"""What an ONNX file says of itself before it is run: operators, sizes, and what is wrong in it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from clipq.errors import ArtifactError, listed
from clipq.runtimes.finding import Finding
from clipq.runtimes.onnx_constants import constant_findings
from clipq.runtimes.onnx_file import OnnxFile
from clipq.runtimes.onnx_graph import OnnxGraph
from clipq.runtimes.onnx_operators import Operators, operators_of
from clipq.runtimes.onnx_scales import scale_findings, scale_names
from clipq.runtimes.runtime import Look, Port

__all__ = ["look_at", "versions_of"]

_SPARE = 0.1
"""Share of a sidecar that may be padding."""


def look_at(file: OnnxFile, onnxruntime: Any) -> Look:
    """Return what a file says of itself.

    Args:
        file: of the graph; its sidecars are read too.
        onnxruntime: the module `onnxruntime`, whose operators it is held against.

    Raises:
        ArtifactError: a sidecar is missing, or the values do not fit their sizes.
    """
    file.check_sidecars()
    if file.proto is None:
        return Look(
            bytes=file.bytes,
            findings=(
                Finding(
                    "not-looked-into",
                    f"{file.path.name} is in ONNX Runtime's own format, which only it reads",
                    "look at the .onnx file that it was made from",
                    wrong=False,
                ),
            ),
        )
    schemas = _schemas(onnxruntime)
    graph = OnnxGraph(file)
    _check_arity(graph, schemas)
    formal = {key: [each.name for each in schema.inputs] for key, schema in schemas.items()}
    operators = operators_of(graph)
    inputs, outputs = _ports(file.proto)
    return Look(
        bytes=file.bytes,
        quantized=operators.quantized,
        in_float=operators.in_float,
        opset=versions_of(file.proto),
        inputs=inputs,
        outputs=outputs,
        findings=(
            *_of_versions(file, onnxruntime),
            *_of_operators(graph, onnxruntime, formal),
            *scale_findings(graph, formal),
            *constant_findings(graph, scales=scale_names(graph, formal)),
            *_left_in_float(operators),
            *_of_batch(inputs),
            *_of_sidecars(file),
        ),
    )


@cache
def _schemas(onnxruntime: Any) -> dict[tuple[str, str], Any]:
    """Return the newest schema of every operator of ONNX Runtime, by domain and type."""
    state = onnxruntime.capi.onnxruntime_pybind11_state
    return {
        (schema.domain, schema.name): schema
        for schema in sorted(state.get_all_operator_schema(), key=lambda each: each.since_version)
    }


def _check_arity(graph: OnnxGraph, schemas: Mapping[tuple[str, str], Any]) -> None:
    """Raise where a node has fewer inputs or outputs than its operator: what follows counts on."""
    for each in graph.nodes:
        schema = schemas.get((each.node.domain, each.op))
        least = (schema.min_input, schema.min_output) if schema is not None else (0, 0)
        held = len(each.node.input), len(each.node.output)
        if held[0] < least[0] or held[1] < max(1, least[1]):
            raise ArtifactError(
                f"{graph.file.path}: a {each.op} has {held[0]} inputs and {held[1]} outputs; it "
                f"needs {least[0]} and {max(1, least[1])}",
                hint="the file is damaged; copy it again, or export the model again",
            )


def versions_of(proto: Any) -> str:
    """Return the operator sets that a model uses and its format's version, for a sentence.

    Args:
        proto: onnx's ModelProto.

    >>> import onnx
    >>> versions_of(onnx.parser.parse_model(
    ...     '<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1, "ai.onnx.ml" : 5]> '
    ...     'g (float[4] x) => (float[4] y) { y = com.microsoft.QuickGelu(x) }'))
    '20, com.microsoft 1 (IR 10)'
    """
    used = {"", "ai.onnx", *(node.domain for node in proto.graph.node)}
    sets = [
        f"{each.domain} {each.version}".strip()
        for each in proto.opset_import
        if each.domain in used
    ]
    return f"{', '.join(sets)} (IR {proto.ir_version})"


def _of_versions(file: OnnxFile, onnxruntime: Any) -> list[Finding]:
    """Ask the runtime itself, with a graph that does nothing, whether it reads these versions."""
    from onnx import TensorProto, helper

    one = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", one[:1], one[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = file.proto.ir_version
    del model.opset_import[:]
    model.opset_import.extend(file.proto.opset_import)
    if not any(each.domain in ("", "ai.onnx") for each in model.opset_import):
        model.opset_import.append(helper.make_opsetid("", 20))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    except Exception:  # every binding error has a class of its own, below Exception
        return [
            Finding(
                "version",
                f"onnxruntime {onnxruntime.__version__} does not read opset "
                f"{versions_of(file.proto)}",
                "export it with an older opset_version, or update onnxruntime",
            )
        ]
    return []


def _of_operators(
    graph: OnnxGraph, onnxruntime: Any, formal: Mapping[tuple[str, str], list[str]]
) -> list[Finding]:
    unknown = {
        f"{each.node.domain or 'ai.onnx'}:{each.op}": None
        for each in graph.nodes
        if (each.node.domain.removeprefix("ai.onnx") or "", each.op) not in formal
        and (each.node.domain, each.op) not in formal
    }
    if not unknown:
        return []
    return [
        Finding(
            "unknown-operator",
            f"onnxruntime {onnxruntime.__version__} has no operator {listed(list(unknown))}",
            "export it without; operators of a library of one's own are not loaded",
        )
    ]


def _left_in_float(operators: Operators) -> list[Finding]:
    if not operators.quantized or not operators.in_float:
        return []
    count = sum(operators.in_float.values())
    return [
        Finding(
            "left-in-float",
            f"{count} products with weights are left in float, {operators.float_share:.0%} of all "
            f"weights of products: {listed(operators.float_weights)}",
            wrong=False,
        )
    ]


def _of_batch(inputs: tuple[Port, ...]) -> list[Finding]:
    return [
        Finding(
            "fixed-batch",
            f"{port.name!r} takes batches of {port.batch} only",
            "export it with a dynamic batch axis, or write its batch",
            wrong=False,
        )
        for port in inputs
        if len(port.shape) > 1 and port.batch > 0
    ]


def _of_sidecars(file: OnnxFile) -> list[Finding]:
    held = sum(each.stat().st_size for each in file.sidecars)
    spare = held - file.bytes_used
    if spare <= _SPARE * held:
        return []
    return [
        Finding(
            "unused-bytes",
            f"{spare:,} of {held:,} bytes beside {file.path.name} belong to no tensor",
            "delete the sidecar before the graph is saved again: saving appends to it",
            wrong=False,
        )
    ]


def _ports(proto: Any) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    constants = {each.name for each in proto.graph.initializer}
    return (
        tuple(_port(each) for each in proto.graph.input if each.name not in constants),
        tuple(_port(each) for each in proto.graph.output),
    )


def _port(info: Any) -> Port:
    import onnx

    tensor = info.type.tensor_type
    dtype = ""
    if tensor.elem_type in onnx.helper.get_all_tensor_dtypes():
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    sizes = (each.dim_value if each.HasField("dim_value") else -1 for each in tensor.shape.dim)
    return Port(info.name, dtype, tuple(sizes))
