"""Towers as ONNX graphs, by torch's exporter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from clipq.exports.exported_programs import exported
from clipq.exports.recipes import Made, Recipe
from clipq.exports.tower_source import Source, TowerSource

__all__ = ["OPSET", "write_onnx"]

OPSET = 20


def write_onnx(tower: TowerSource, path: Path) -> None:
    """Write a tower as an ONNX graph whose output is called ``features``.

    What the exporter keeps of Python's stack is left out: it says where on this machine the code
    of torch and open_clip lies.
    """
    program: Any = torch.onnx.export(
        exported(tower),
        (),
        dynamo=True,
        opset_version=OPSET,
        input_names=[tower.input],
        output_names=["features"],
        verbose=False,
    )
    _forget_stack(program.model)
    program.save(str(path))


def _forget_stack(model: Any) -> None:
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()


def _write(source: Source, folder: Path) -> Made:
    for tower in source.towers:
        write_onnx(tower, folder / f"{tower.kind}.onnx")
    return Made("image.onnx", "text.onnx", opset=str(OPSET))


ONNXRUNTIME_FLOAT = Recipe(
    "onnxruntime", _write, extra="onnxruntime", packages=("onnx", "onnxruntime", "onnxscript")
)
"""FP32 as exported."""
