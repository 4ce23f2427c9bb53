"""Scales and zero points that quantize nothing sensible: infinite, zero, absurdly large.

A static quantizer takes a scale from the range that a tensor had on some samples. Where it takes
one of a tensor that a mask of minus infinity was added to, the scale is infinite, and no runtime
says a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

import numpy as np

from clipq.runtimes.finding import Finding
from clipq.runtimes.onnx_graph import OnnxGraph, Placed
from clipq.runtimes.onnx_operators import is_quantized

__all__ = ["scale_findings", "scale_names"]

_LARGEST = 1e4
"""A step that no activation of a CLIP needs: int8 would reach a million."""
_LARGEST_LOGIT = 8.0
"""A step between two attention logits; weights of attention then differ 3,000-fold, or not."""
_NORMAL = float(np.finfo(np.float32).tiny)
_PRODUCTS_ONLY = (
    "quantize products only, op_types_to_quantize=['MatMul', 'Gemm', 'Conv']: the range was taken "
    "over a tensor that an attention mask had been added to (recipe onnxruntime-static)"
)
_AGAIN = "quantize it again, with calibration data that are finite and not constant"
_SIGNLESS = re.compile("QuantizeLinear|QLinear")


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    says: str
    fix: str
    wrong: bool = True


_INFINITE = _Kind("infinite-scale", "", _PRODUCTS_ONLY)
_NAN = _Kind("nan-scale", "", _AGAIN)
_NEGATIVE = _Kind("negative-scale", "", _AGAIN)
_HUGE = _Kind("huge-scale", ", which int8 takes beyond a million", _PRODUCTS_ONLY)
_COARSE = _Kind("coarse-softmax", ", a step that no softmax of attention survives", _PRODUCTS_ONLY)
_ZERO = _Kind("zero-scale", ", no number to divide by", _AGAIN)
_DEAD = _Kind("zero-scale", " for some channels, whose weights become zero", "", wrong=False)
_POINT = _Kind("zero-point", ", outside of what is quantized", _AGAIN)


def scale_findings(graph: OnnxGraph, inputs: Mapping[tuple[str, str], list[str]]) -> list[Finding]:
    """Return what is wrong with the scales and zero points of a graph, one finding of a kind.

    Args:
        graph: to look through.
        inputs: of every operator, by domain and type: what its inputs are called.
    """
    found: dict[_Kind, dict[str, str]] = {}
    softmaxes = [node for node in graph.nodes if node.op == "Softmax"]
    logits = {graph.behind(node.inputs[0], node)[0] for node in softmaxes}
    for node in graph.nodes:
        for name, kind, value in _judged(graph, node, inputs, logits=logits):
            what = "zero point" if kind is _POINT else "scale"
            found.setdefault(kind, {}).setdefault(
                name, f"the {what} {name!r} of {node} is {value:g}{kind.says}"
            )
    return [
        Finding(kind.name, _first_of(list(places.values())), kind.fix, wrong=kind.wrong)
        for kind, places in found.items()
    ]


def scale_names(graph: OnnxGraph, inputs: Mapping[tuple[str, str], list[str]]) -> set[str]:
    """Return the names of all scales of a graph; arguments as of `scale_findings`."""
    return {
        name
        for node in graph.nodes
        for name, what in _parameters(graph, node, inputs)
        if what == "scale"
    }


def _first_of(sentences: list[str]) -> str:
    more = len(sentences) - 1
    return sentences[0] + (f"; so {'are' if more > 1 else 'is'} {more} more" if more else "")


def _judged(
    graph: OnnxGraph,
    node: Placed,
    inputs: Mapping[tuple[str, str], list[str]],
    *,
    logits: Set[str],
) -> Iterator[tuple[str, _Kind, float]]:
    """Yield the name, kind and offending value of every bad scale or zero point of a node."""
    for name, what in _parameters(graph, node, inputs):
        value = graph.value(name, node)
        if value is None or not value.size:
            continue
        floats = np.asarray(value, dtype=np.float64)
        if what == "zero point":
            bad = _outside(node, floats, value.dtype)
            if bad is not None:
                yield name, _POINT, bad
            continue
        kind, offending = _kind_of(floats, is_of_logits=_is_of_logits(node, name, logits))
        if kind is _ZERO and node.op != "QuantizeLinear" and np.abs(floats).max() >= _NORMAL:
            kind = _DEAD
        if kind is _NEGATIVE and not _SIGNLESS.match(node.op):
            kind = None  # a weight's may be: MatMulNBits is often stored so
        if kind is not None:
            yield name, kind, offending


def _parameters(
    graph: OnnxGraph, node: Placed, inputs: Mapping[tuple[str, str], list[str]]
) -> Iterator[tuple[str, str]]:
    """Yield the names of a node's scales and zero points, and which of the two each is."""
    if node.op == "Mul":  # a product's scales are multiplied apart from it, after MatMulInteger
        for name, other in zip(node.inputs, reversed(node.inputs), strict=True):
            if _is_measured_scale(graph, other, node):
                yield name, "scale"
        return
    if not is_quantized(node.op):
        return
    formal = inputs.get((node.node.domain, node.op), [])
    if node.op == "QLinearConcat":  # the one that takes any number, three by three
        formal = [*formal[:2], *["x", "x_scale", "x_zero_point"] * len(node.inputs)]
    for name, called in zip(node.inputs, formal, strict=False):
        if name and ("scale" in called.lower() or called == "absmax"):
            yield name, "scale"
        elif name and "zero_point" in called.lower():
            yield name, "zero point"


def _is_measured_scale(graph: OnnxGraph, name: str, at: Placed) -> bool:
    moved, made = graph.behind(name, at)
    return (
        isinstance(made, Placed)
        and made.op == "DynamicQuantizeLinear"
        and bool(moved == made.node.output[1])
    )


def _is_of_logits(node: Placed, name: str, logits: Set[str]) -> bool:
    """Whether a scale is of what a softmax reads."""
    if node.op == "QLinearSoftmax":
        return bool(name == node.inputs[1])
    return node.op == "DequantizeLinear" and node.node.output[0] in logits


def _kind_of(scales: np.ndarray, *, is_of_logits: bool) -> tuple[_Kind | None, float]:
    """Return what is wrong with a scale's values, and the one to show; the worst first."""
    if np.isnan(scales).any():
        return _NAN, float("nan")
    for kind, bad in (
        (_INFINITE, np.isinf(scales)),
        (_NEGATIVE, scales < 0),
        (_HUGE, np.abs(scales) > _LARGEST),
        (_COARSE, (scales > _LARGEST_LOGIT) & is_of_logits),
        (_ZERO, np.abs(scales) < _NORMAL),
    ):
        if bad.any():
            return kind, float(scales[bad].flat[0])
    return None, 0.0


def _outside(node: Placed, points: np.ndarray, dtype: np.dtype) -> float | None:
    """Return a zero point that cannot be meant; None where all can."""
    bits = next((each.i for each in node.node.attribute if each.name == "bits"), 0)
    if bits and dtype.kind == "f":  # MatMulNBits takes them as floats
        outside = ~((points >= 0) & (points < 2**bits))
    elif node.op == "DequantizeLinear" and dtype == np.int32:  # a bias, which has none
        outside = points != 0
    else:
        return None
    return float(points[outside].flat[0]) if outside.any() else None
