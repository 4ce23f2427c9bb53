"""Small ONNX graphs, written in the notation of `onnx.parser`, with tensors given as arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

HEAD = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>'
IMAGES = "float[B, 3, 8, 8] x"


def model(graph: str, /, head: str = HEAD, **tensors: np.ndarray) -> onnx.ModelProto:
    parsed = onnx.parser.parse_model(f"{head} {graph}")
    parsed.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(values), name) for name, values in tensors.items()
    )
    return parsed


def saved(path: Path, graph: str, /, head: str = HEAD, **tensors: np.ndarray) -> Path:
    onnx.save(model(graph, head, **tensors), path)
    return path


def saved_apart(path: Path, graph: str, /, **tensors: np.ndarray) -> Path:
    """Save a graph and its values in two files."""
    onnx.save(
        model(graph, **tensors),
        path,
        save_as_external_data=True,
        location=f"{path.name}.data",
        size_threshold=0,
    )
    return path
