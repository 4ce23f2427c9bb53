"""Which operators of a graph are quantized, and which products with weights are left in float."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from clipq.runtimes.onnx_graph import FLOATS, INTEGERS, MOVES, OnnxGraph, Placed

__all__ = ["PRODUCTS", "Operators", "is_quantized", "operators_of"]

_QUANTIZED = re.compile(r"^Q[A-Z]|[Qq]uantize|NBits|Bnb4|FpQ4|Integer")
_PAIRS = ("QuantizeLinear", "DequantizeLinear")
PRODUCTS: Mapping[str, tuple[int, ...]] = {
    "MatMul": (0, 1),
    "Gemm": (0, 1),
    "Conv": (0, 1),
    "ConvTranspose": (0, 1),
    "Einsum": (0, 1),
    "FusedMatMul": (0, 1),
    "FusedGemm": (0, 1),
    "FusedConv": (0, 1),
    "Attention": (0, 1),
    "LSTM": (0, 1, 2),
    "GRU": (0, 1, 2),
    "RNN": (0, 1, 2),
}
"""Operators that multiply matrices, and which of their inputs are multiplied. The standard's own
`Attention` takes no weights: its inputs are computed."""
_ARITHMETIC = ("Mul", "Div", "Sub", "Add")
_DEPTH = 12


@dataclass(frozen=True, slots=True)
class Operators:
    """What a graph executes.

    Args:
        quantized: quantized operators, how many of each; ``MatMul (QDQ)`` has both sides between
            QuantizeLinear and DequantizeLinear, ``MatMul (weights only)`` multiplies in float.
        in_float: products with weights left in float, how many of each.
        float_weights: names of their weights.
        float_share: of all values of products' weights, those left in float, 0 to 1.
    """

    quantized: dict[str, int] = field(default_factory=dict)
    in_float: dict[str, int] = field(default_factory=dict)
    float_weights: tuple[str, ...] = ()
    float_share: float = 0.0


def is_quantized(op: str) -> bool:
    """Return whether an operator type computes on integers or turns floats into them.

    >>> [is_quantized(op) for op in ("QLinearMatMul", "MatMulNBits", "QuickGelu", "MatMul")]
    [True, True, False, False]
    """
    return _QUANTIZED.search(op) is not None


def operators_of(graph: OnnxGraph) -> Operators:
    """Return what a graph executes.

    Args:
        graph: whose nodes are counted, inner graphs' too.
    """
    quantized: Counter[str] = Counter()
    in_float: Counter[str] = Counter()
    left: dict[str, int] = {}
    sizes: Counter[str] = Counter()
    rounded = {
        graph.behind(node.inputs[0], node)[0] for node in graph.nodes if node.op == _PAIRS[0]
    }
    for node in graph.nodes:
        if node.op in PRODUCTS:
            made = _product(graph, node)
            if made.quantized:
                quantized[f"{node.op} ({made.quantized})"] += 1
            if made.float_weights:
                in_float[node.op] += 1
                left |= made.float_weights
            sizes["all"] += made.weights
        elif is_quantized(node.op) and node.op not in _PAIRS:
            quantized[node.op] += 1
            sizes["all"] += _integer_weights(graph, node)
        elif node.op not in (*MOVES, *_PAIRS) and _is_between_pairs(graph, node, rounded=rounded):
            quantized[f"{node.op} (QDQ)"] += 1
    return Operators(
        quantized=dict(sorted(quantized.items())),
        in_float=dict(sorted(in_float.items())),
        float_weights=tuple(left),
        float_share=sum(left.values()) / sizes["all"] if sizes["all"] else 0.0,
    )


@dataclass(frozen=True, slots=True)
class _Product:
    quantized: str
    float_weights: dict[str, int]
    weights: int


def _product(graph: OnnxGraph, node: Placed) -> _Product:
    """Return how a product is executed, by what each of its factors comes from."""
    factors = [name for at, name in enumerate(node.inputs) if at in PRODUCTS[node.op] and name]
    origins = [_origin(graph, name, node) for name in factors]
    float_weights = {
        origin.name: origin.size for origin in origins if origin.kind == "float" and origin.size > 1
    }
    kinds = {origin.kind for origin in origins}
    weights = sum(origin.size for origin in origins if origin.kind in ("float", "integers"))
    if float_weights:
        return _Product("", float_weights, weights)
    if "integers" in kinds and "computed" in kinds:
        return _Product("weights only", {}, weights)
    if kinds <= {"integers", "dequantized"}:
        return _Product("QDQ", {}, weights)
    return _Product("", {}, weights)


@dataclass(frozen=True, slots=True)
class _Origin:
    """What a factor is made of: ``float`` or ``integers`` that are constant, or what is
    ``dequantized`` or ``computed`` from the inputs of the graph."""

    kind: str
    name: str = ""
    size: int = 0


_COMPUTED = _Origin("computed")


def _origin(graph: OnnxGraph, name: str, at: Placed, *, depth: int = _DEPTH) -> _Origin:
    tensor = graph.constant(name, at)
    if tensor is not None:
        kind = {**dict.fromkeys(FLOATS, "float"), **dict.fromkeys(INTEGERS, "integers")}
        named = tensor.name or name
        return _Origin(kind.get(tensor.data_type, "computed"), named, math.prod(tensor.dims))
    made = graph.producer(name, at)
    if made is None or not depth:
        return _COMPUTED
    if made.op.startswith("Dequantize"):
        before = _origin(graph, made.inputs[0], made, depth=depth - 1)
        return before if before.kind == "integers" else replace(before, kind="dequantized")
    if made.op == "QuantizeLinear":
        before = _origin(graph, made.inputs[0], made, depth=depth - 1)
        return replace(before, kind="integers") if before.kind == "float" else _COMPUTED
    if made.op not in (*_ARITHMETIC, "Concat"):
        return _COMPUTED
    parts = []  # a weight may be scaled or put together in the graph before it is used
    for each in made.inputs:
        parts.append(_origin(graph, each, made, depth=depth - 1))
        if parts[-1].kind not in ("float", "integers"):
            return _COMPUTED
    return max(parts, key=lambda part: part.size)


def _is_between_pairs(graph: OnnxGraph, node: Placed, *, rounded: set[str]) -> bool:
    """Whether what an operator computes from comes out of DequantizeLinear, and is quantized again.

    Only then may a runtime compute it on integers; a product may with its factors alone.
    """
    if not rounded & {*node.node.output}:
        return False
    computed = [
        _origin(graph, name, node, depth=2)
        for name in node.inputs
        if name and graph.constant(name, node) is None
    ]
    return bool(computed) and all(each.kind in ("dequantized", "integers") for each in computed)


def _integer_weights(graph: OnnxGraph, node: Placed) -> int:
    """Return how many values of weights an integer product holds."""
    sizes = {attribute.name: attribute.i for attribute in node.node.attribute}
    if {"K", "N"} <= sizes.keys():  # packed below a byte
        return int(sizes["K"] * sizes["N"])
    return max(
        (
            math.prod(tensor.dims)
            for name in node.inputs
            if (tensor := graph.constant(name, node)) is not None
            if tensor.data_type in INTEGERS and len(tensor.dims) > 1
        ),
        default=0,
    )
