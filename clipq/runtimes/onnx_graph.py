"""The nodes of an ONNX graph, those of inner graphs too, and where their inputs come from."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipq.runtimes.onnx_file import OnnxFile

__all__ = ["FLOATS", "INTEGERS", "MOVES", "OnnxGraph", "Placed"]

FLOATS = frozenset({1, 10, 11, 16})
"""onnx's FLOAT, FLOAT16, DOUBLE and BFLOAT16."""
INTEGERS = frozenset({2, 3, 4, 5, 21, 22, 25, 26} | {17, 18, 19, 20, 23})
"""What quantized values are stored as: integers of 2 to 16 bits, floats of 4 and 8."""
MOVES = frozenset(
    {"Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Slice"}
    | {"Split", "Gather", "GatherND", "Cast", "CastLike", "Concat", "Shape", "Tile", "Pad"}
)
"""Operators that compute nothing."""

_LOOK_UPS = ("Gather", "GatherND")
_CARRIES = MOVES - {"Concat", "Shape", "Pad"}
"""Of these, those whose first input is what they return, in part or in another order."""
_FOLDED_NODES, _FOLDED_READS, _FOLDED_VALUES = 32, 256, 2**24
"""What is computed to know a scale; a damaged graph may go in circles."""
_DEFAULT_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True, slots=True)
class Placed:
    """A node, and what the names that it reads stand for.

    Args:
        node: onnx's NodeProto.
        scope: by name, the TensorProto of an initializer or the `Placed` that computes it.
    """

    node: Any
    scope: ChainMap[str, Any]

    @property
    def op(self) -> str:
        """Type of the operator."""
        return str(self.node.op_type)

    @property
    def inputs(self) -> list[str]:
        """Names that it reads; "" where one is left out."""
        return list(self.node.input)

    def __str__(self) -> str:
        return f"{self.op} {(self.node.name or self.node.output[0])!r}"

    def source(self, name: str) -> Any:
        """Return what a name stands for; None for an input of the graph."""
        return self.scope.get(name)


class OnnxGraph:
    """A graph to ask questions of. Functions of the model's own are written out.

    Args:
        file: that holds it; not of ONNX Runtime's own format.

    Attributes:
        nodes: all of them, in the order of the file.
    """

    def __init__(self, file: OnnxFile) -> None:
        self.file = file
        self.proto = file.proto
        if self.proto.functions:
            from onnx import inliner

            self.proto = inliner.inline_local_functions(self.proto)
        self.nodes = tuple(_placed(self.proto.graph, ChainMap()))
        self._folded: dict[tuple[int, str], np.ndarray | None] = {}

    def constant(self, name: str, at: Placed) -> Any:
        """Return the tensor that a name stands for, behind whatever only moves it; None for others.

        Args:
            name: that `at` reads.
            at: where it is read.
        """
        _, source = self.behind(name, at)
        if not isinstance(source, Placed):
            return source
        return _value_of(source.node) if source.op == "Constant" else None

    def producer(self, name: str, at: Placed) -> Placed | None:
        """Return the node that computes a name, behind whatever only moves it."""
        _, source = self.behind(name, at)
        return source if isinstance(source, Placed) else None

    def behind(self, name: str, at: Placed) -> tuple[str, Any]:
        """Return what a name is moved from, and what that stands for: a tensor, a node or None."""
        source = at.source(name)
        for _ in range(_FOLDED_NODES):
            if not isinstance(source, Placed) or not _carries(source):
                break
            name = source.inputs[0]
            source = source.source(name)
        return name, source

    def value(self, name: str, at: Placed) -> np.ndarray | None:
        """Return the value of a name that depends on no input; None where it does, or is costly."""
        source = at.source(name)
        if source is not None and not isinstance(source, Placed):
            return self.file.values(source)
        key = (id(at.scope), name)
        if key not in self._folded:
            self._folded[key] = self._fold(name, at)
        return self._folded[key]

    def _fold(self, name: str, at: Placed) -> np.ndarray | None:
        found = _ancestors(name, at)
        if found is None:
            return None
        nodes, tensors = found
        from onnx import helper, numpy_helper
        from onnx.reference import ReferenceEvaluator

        values = [numpy_helper.from_array(self.file.values(each), each.name) for each in tensors]
        graph = helper.make_graph(
            [each.node for each in nodes],
            "scale",
            [],
            [helper.make_empty_tensor_value_info(name)],
            initializer=values,
        )
        model = helper.make_model(graph, opset_imports=self.proto.opset_import)
        try:
            with np.errstate(all="ignore"):
                results: Any = ReferenceEvaluator(model).run(None, {})
        except Exception:  # of any kind: what the reference cannot compute is not judged
            return None
        return np.asarray(results[0])


def _carries(node: Placed) -> bool:
    if node.op in _LOOK_UPS:  # of fixed rows; a table that tokens are looked up in is computed with
        index = node.source(node.inputs[1])
        return not isinstance(index, Placed) or index.op == "Constant"
    return node.op in _CARRIES and bool(node.inputs)


def _placed(graph: Any, outer: ChainMap[str, Any]) -> Iterator[Placed]:
    scope: ChainMap[str, Any] = outer.new_child()
    scope.update({tensor.name: tensor for tensor in graph.initializer})
    own = [Placed(node, scope) for node in graph.node]
    for each in own:
        scope.update({output: each for output in each.node.output if output})
    for each in own:
        yield each
        for attribute in each.node.attribute:
            if attribute.HasField("g"):
                yield from _placed(attribute.g, scope)
            for inner in attribute.graphs:
                yield from _placed(inner, scope)


def _value_of(node: Any) -> Any:
    """Return a Constant's value as a TensorProto; None where it is sparse or a text."""
    from onnx import numpy_helper

    for attribute in node.attribute:
        if attribute.HasField("t"):
            return attribute.t
        if attribute.name == "value_float":
            return numpy_helper.from_array(np.asarray(attribute.f, dtype=np.float32))
        if attribute.name == "value_floats":
            return numpy_helper.from_array(np.asarray(attribute.floats, dtype=np.float32))
        if attribute.name == "value_int":
            return numpy_helper.from_array(np.asarray(attribute.i, dtype=np.int64))
        if attribute.name == "value_ints":
            return numpy_helper.from_array(np.asarray(attribute.ints, dtype=np.int64))
    return None


def _ancestors(name: str, at: Placed) -> tuple[list[Placed], list[Any]] | None:
    """Return the nodes, in order, and the tensors that make a name; None if too many."""
    nodes: dict[str, Placed] = {}
    tensors: dict[str, Any] = {}
    waiting = [(name, at)]
    for _ in range(_FOLDED_READS):
        if not waiting:
            break
        wanted, reader = waiting.pop()
        source = reader.source(wanted)
        if source is None or len(nodes) > _FOLDED_NODES:
            return None
        if not isinstance(source, Placed):
            tensors[wanted] = source
            continue
        if source.node.domain not in _DEFAULT_DOMAINS or source.op.startswith("Random"):
            return None
        key = source.node.output[0]
        nodes[key] = nodes.pop(key, source)  # an ancestor comes after all that need it
        waiting += [(each, source) for each in source.inputs if each]
    if waiting or sum(int(np.prod(each.dims)) for each in tensors.values()) > _FOLDED_VALUES:
        return None
    return list(reversed(nodes.values())), list(tensors.values())
