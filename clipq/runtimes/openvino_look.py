"""What an OpenVINO graph says of itself before it is run: nothing is compiled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from clipq.runtimes.finding import Finding
from clipq.runtimes.openvino_files import FLOATS, graph_files, ports_of, read_graph
from clipq.runtimes.runtime import Look, Port

__all__ = ["look_at"]

_PRODUCTS = ("Convolution", "GroupConvolution", "MatMul")
_KEEPING = ("Convert", "FakeQuantize", "Multiply", "Reshape", "Squeeze", "Subtract", "Transpose")
"""Operators that stand between stored weights and the product that takes them."""
_WIDE_STEP = 100.0
"""No activation of a CLIP needs such a step: a mask of large negative numbers was in the range."""


def look_at(path: Path) -> Look:
    """Return what an IR or an .onnx says of itself.

    `quantized` counts FakeQuantize (activations) and products with narrow weights by the type
    that these are stored in; `in_float` products with float weights.

    Raises:
        ArtifactError: the file or what belongs to it is missing, truncated or of another format.

    >>> import tempfile
    >>> import numpy as np, openvino, openvino.opset13 as ops
    >>> x = ops.parameter([-1, 4], np.float32, "x")
    >>> product = ops.matmul(x, ops.constant(np.ones((4, 2), np.float32)), False, False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "image.xml")
    ...     openvino.save_model(openvino.Model([product], [x], "g"), path)
    ...     look_at(path).in_float
    {'MatMul': 1}
    """
    graph = read_graph(path)
    quantized: Counter[str] = Counter()
    in_float: Counter[str] = Counter()
    findings: list[Finding] = []
    judged: set[str] = set()
    for node in graph.get_ordered_ops():
        kind = node.get_type_name()
        if kind == "FakeQuantize":
            quantized[kind] += 1
            findings += _of_range(node, judged)
        elif kind in _PRODUCTS and (chain := _weights(node)):
            stored = chain[-1].get_element_type().get_type_name()
            narrow = stored not in FLOATS or any(_is(each, "FakeQuantize") for each in chain)
            if narrow:
                quantized[f"{kind} with {stored} weights"] += 1
            else:
                in_float[kind] += 1
            findings += _of_weights(node, chain, judged)
    findings += [found for node in graph.get_ops() for found in _of_constant(node, judged)]
    inputs = ports_of(graph.inputs)
    return Look(
        bytes=sum(each.stat().st_size for each in (path, *graph_files(path))),
        quantized=dict(sorted(quantized.items())),
        in_float=dict(sorted(in_float.items())),
        opset=_opset(graph),
        inputs=inputs,
        outputs=ports_of(graph.outputs),
        findings=(*findings, *_free_sizes(inputs)),
    )


def _is(node: Any, kind: str) -> bool:
    return bool(node.get_type_name() == kind)


def _source(node: Any, place: int) -> Any:
    return node.input(place).get_source_output().get_node()


def _to_constant(node: Any) -> list[Any]:
    """Return the nodes up to the constant that a value is made of; [] where it is computed."""
    chain = [node]
    while not _is(chain[-1], "Constant"):
        if chain[-1].get_type_name() not in _KEEPING:
            return []
        chain.append(_source(chain[-1], 0))
    return chain


def _weights(product: Any) -> list[Any]:
    """Return the chain to a product's weights, on whichever side; [] of one of two activations."""
    return _to_constant(_source(product, 1)) or _to_constant(_source(product, 0))


def _values(constant: Any) -> np.ndarray:
    """Return a float constant's values; an empty array of any other."""
    word = constant.get_element_type().get_type_name()
    if word not in FLOATS:
        return np.empty(0, np.float32)
    return np.asarray(constant.get_data(dtype=np.float32) if word == "bf16" else constant.data)


def _of_range(node: Any, judged: set[str]) -> Iterator[Finding]:
    """Judge the limits of a FakeQuantize: a step of (high - low) / (levels - 1)."""
    limits = []
    for place in range(1, 5):
        chain = _to_constant(_source(node, place))
        if not chain:
            return
        judged.add(chain[-1].get_friendly_name())
        limits.append(_values(chain[-1]).astype(np.float64))
    name = f"FakeQuantize {node.get_friendly_name()!r}"
    flat = np.concatenate([each.reshape(-1) for each in limits])
    if not np.isfinite(flat).all():
        worst = flat[~np.isfinite(flat)][0]
        yield Finding(
            "infinite-scale",
            f"{name} has a range up to {worst}: everything that it quantizes becomes zero or NaN",
            "leave out of quantization what a mask of -inf reaches: attention's Add and Softmax",
        )
        return
    step = float(np.max(limits[3] - limits[2])) / max(1, node.get_attributes()["levels"] - 1)
    if step > _WIDE_STEP:
        yield Finding(
            "wide-scale",
            f"{name} has a step of {step:.3g}: values that differ by less become equal",
            "leave out of quantization what a mask of large negative numbers reaches",
        )


def _of_weights(product: Any, chain: list[Any], judged: set[str]) -> Iterator[Finding]:
    """Judge a product's stored weights, and the scales that they are multiplied by."""
    name = f"{product.get_type_name()} {product.get_friendly_name()!r}"
    scales = [
        scale[-1]
        for each in chain
        if _is(each, "Multiply") and (scale := _to_constant(_source(each, 1)))
    ]
    for constant, kind, what in (
        (chain[-1], "non-finite-weights", "weights"),
        *((scale, "infinite-scale", "a scale") for scale in scales),
    ):
        if constant.get_friendly_name() in judged:
            continue
        judged.add(constant.get_friendly_name())
        values = _values(constant)
        if bad := int(np.count_nonzero(~np.isfinite(values))):
            yield Finding(
                kind,
                f"{name} has {what} with {bad:,} of {values.size:,} values that are not finite",
                "export the model again; FP16 ends at 65504: compress_to_fp16=False keeps FP32",
            )


def _of_constant(node: Any, judged: set[str]) -> Iterator[Finding]:
    """Judge a constant that is no weight: -inf is what a mask is made of, NaN never is meant."""
    if not _is(node, "Constant") or node.get_friendly_name() in judged:
        return
    values = _values(node)
    if np.isfinite(values).all():
        return
    name = f"the constant {node.get_friendly_name()!r} {tuple(values.shape)}"
    if np.isnan(values).any() or np.isposinf(values).any():
        yield Finding("non-finite", f"{name} holds NaN or inf", "export the model again")
        return
    yield Finding(
        "mask", f"{name} holds -inf, as an attention mask does: no range may be taken of it",
        wrong=False,
    )  # fmt: skip


def _opset(graph: Any) -> str:
    """Return the newest operator set that a graph takes an operator of."""
    names = {node.type_info.version_id for node in graph.get_ops()}
    numbers = [int(name[5:]) for name in names if name.startswith("opset") and name[5:].isdigit()]
    return f"opset{max(numbers)}" if numbers else ""


def _free_sizes(inputs: tuple[Port, ...]) -> Iterator[Finding]:
    """Note inputs of which more than the batch is free: nothing refuses another image size."""
    for port in inputs:
        free = [str(axis) for axis, size in enumerate(port.shape) if axis and size < 0]
        if free:
            yield Finding(
                "free-size",
                f"input {port.name!r} takes any size along axis {', '.join(free)}",
                "fix all axes but the batch at export, so that a wrong size is refused",
                wrong=False,
            )
