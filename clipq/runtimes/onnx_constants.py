"""Constants of a graph: values that are not finite, and floats of half the bits."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from typing import Any

import numpy as np

from clipq.runtimes.finding import Finding
from clipq.runtimes.onnx_graph import FLOATS, OnnxGraph
from clipq.runtimes.onnx_operators import PRODUCTS

__all__ = ["constant_findings"]

_CHUNK = 1 << 22
"""Values looked at together: a file of gigabytes is read as it is mapped, not held."""
_HALVES = {10: "float16", 16: "bfloat16"}
_EXPONENT = {"float16": np.uint16(0x7C00), "bfloat16": np.uint16(0x7F80)}
"""Bits that are all set where a value is no finite number; of halves, numpy compares these faster
than the numbers."""
_READ_AS_WEIGHTS = {*PRODUCTS, "LayerNormalization", "BatchNormalization", "GroupNormalization"} | {
    "InstanceNormalization",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
    "Gather",
}
_DAMAGED = "the weights were damaged before or by the export: check the model that it was made from"


def constant_findings(graph: OnnxGraph, *, scales: Container[str]) -> list[Finding]:
    """Return what is to be said of the constants of a graph, other than scales.

    An attention mask holds minus infinity, which is a note; a weight that does, or a NaN, is wrong.

    Args:
        graph: to look through.
        scales: names of constants that are judged as scales.
    """
    weights = _names_of_weights(graph)
    wrong: list[str] = []
    notes: list[str] = []
    for name, tensor in _float_tensors(graph):
        if name in scales:
            continue
        values = graph.file.values(tensor)
        bad, first = _not_finite(values)
        if not bad:
            continue
        sentence = f"{name!r} holds {first:g} in {bad:,} of {values.size:,} values"
        (wrong if math.isnan(first) or name in weights else notes).append(sentence)
    found = []
    if wrong:
        found.append(Finding("non-finite-weight", _first_of(wrong), _DAMAGED))
    if notes:
        fix = "nothing, where it is an attention mask"
        found.append(Finding("infinite-constant", _first_of(notes), fix, wrong=False))
    return [*found, *_halves(graph)]


def _halves(graph: OnnxGraph) -> list[Finding]:
    sizes = dict.fromkeys((*_HALVES.values(), "all"), 0)
    for _, tensor in _float_tensors(graph):
        size = math.prod(tensor.dims)
        sizes["all"] += size
        if tensor.data_type in _HALVES:
            sizes[_HALVES[tensor.data_type]] += size
    return [
        Finding(
            "half-precision",
            f"{sizes[name]:,} of {sizes['all']:,} constants in float are {name}",
            wrong=False,
        )
        for name in _HALVES.values()
        if sizes[name]
    ]


def _float_tensors(graph: OnnxGraph) -> Iterator[tuple[str, Any]]:
    """Yield every float tensor once, by the name under which nodes read it."""
    seen: set[int] = set()
    for node in graph.nodes:
        for attribute in node.node.attribute:
            if attribute.HasField("t") and attribute.t.data_type in FLOATS:
                yield node.node.output[0], attribute.t
        for name in node.inputs:
            tensor = node.source(name)
            if getattr(tensor, "data_type", None) in FLOATS and id(tensor) not in seen:
                seen.add(id(tensor))
                yield name, tensor


def _names_of_weights(graph: OnnxGraph) -> set[str]:
    """Return the names of constants that a product, a normalization or a table look-up reads."""
    return {
        graph.behind(name, node)[0]
        for node in graph.nodes
        if node.op in _READ_AS_WEIGHTS
        for name in node.inputs
    }


def _not_finite(values: np.ndarray) -> tuple[int, float]:
    """Return how many values are not finite, and the one to show: NaN before infinity."""
    flat = values.reshape(-1)
    count, shown = 0, 0.0
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK]
        if _is_finite(chunk):
            continue
        floats = chunk.astype(np.float64)
        bad = floats[~np.isfinite(floats)]
        count += bad.size
        shown = math.nan if math.isnan(shown) or np.isnan(bad).any() else float(bad[0])
    return count, shown


def _is_finite(chunk: np.ndarray) -> bool:
    """Return whether all values are finite, in the fastest way that numpy has for their type."""
    if (mask := _EXPONENT.get(chunk.dtype.name)) is not None:
        return not ((chunk.view(np.uint16) & mask) == mask).any()
    with np.errstate(invalid="ignore"):
        return math.isfinite(chunk.min()) and math.isfinite(chunk.max())  # NaN where one is


def _first_of(sentences: list[str]) -> str:
    more = len(sentences) - 1
    return sentences[0] + (f"; so {'do' if more > 1 else 'does'} {more} more" if more else "")
