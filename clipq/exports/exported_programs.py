"""Towers as torch's exported programs."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.export import Dim, ExportedProgram

from clipq.artifact_settings import LARGEST_BATCH
from clipq.exports.recipes import Made, Recipe
from clipq.exports.tower_source import Source, TowerSource

__all__ = ["exported", "write_program"]


def exported(tower: TowerSource, *, largest: int = LARGEST_BATCH) -> ExportedProgram:
    """Return a tower as a graph of torch's operators.

    Args:
        tower: which.
        largest: batch that a graph which takes any has to take.
    """
    shapes = None if tower.batch else {tower.input: {0: Dim("batch", min=1, max=largest)}}
    return torch.export.export(tower.module, (tower.example,), dynamic_shapes=shapes, strict=False)


def write_program(program: ExportedProgram, path: Path) -> None:
    """Write an exported program as a .pt2 archive.

    What the exporter keeps of Python's stack is left out: it says where on this machine the code
    of torch and open_clip lies.
    """
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    torch.export.save(program, path)


def _write(source: Source, folder: Path) -> Made:
    for tower in source.towers:
        write_program(exported(tower), folder / f"{tower.kind}.pt2")
    return Made("image.pt2", "text.pt2")


TORCH_EXPORT_FLOAT = Recipe("torch-export", _write)
"""FP32 as exported."""
