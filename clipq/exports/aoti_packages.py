"""Towers compiled ahead of time for this machine's processor, by AOTInductor.

A compiler for C++ is needed, here; what it makes runs on processors like this one only.
"""

from __future__ import annotations

from pathlib import Path

from clipq.exports.exported_programs import exported
from clipq.exports.recipes import Made, Recipe
from clipq.exports.tower_source import Source

__all__ = ["AOTI_FLOAT"]


def _write(source: Source, folder: Path) -> Made:
    from torch._inductor import aoti_compile_and_package, config

    for tower in source.towers:
        path = folder / f"{tower.kind}.pt2"
        # Compiled anew each time: what others compiled is no part of what is made.
        with config.patch({"force_disable_caches": True}):
            aoti_compile_and_package(exported(tower), package_path=str(path))
    return Made("image.pt2", "text.pt2")


AOTI_FLOAT = Recipe("torch-export", _write)
"""FP32, compiled for this machine."""
