"""Towers as ExecuTorch programs whose products XNNPACK computes."""

from __future__ import annotations

from pathlib import Path

from clipq.artifact_settings import IoSettings
from clipq.exports.exported_programs import exported
from clipq.exports.recipes import Made, Recipe
from clipq.exports.tower_source import Source

__all__ = ["EXECUTORCH_FLOAT"]

_LARGEST_BATCH = 64
"""Memory is planned ahead, for the largest batch that a program has to take."""


def _write(source: Source, folder: Path) -> Made:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    for tower in source.towers:
        lowered = to_edge_transform_and_lower(
            exported(tower, largest=_LARGEST_BATCH), partitioner=[XnnpackPartitioner()]
        )
        program = lowered.to_executorch()
        (folder / f"{tower.kind}.pte").write_bytes(program.buffer)
    return Made("image.pte", "text.pte", io=IoSettings())  # a .pte keeps no names


EXECUTORCH_FLOAT = Recipe("executorch", _write, extra="executorch", packages=("executorch",))
"""FP32 as exported; takes batches of at most 64."""
