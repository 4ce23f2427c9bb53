"""Towers as OpenVINO's intermediate representation: an .xml beside a .bin."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from clipq.exports.exported_programs import exported
from clipq.exports.recipes import Made, Recipe
from clipq.exports.tower_source import Source, TowerSource

__all__ = ["OPENVINO_FLOAT", "converted", "write_ir"]


def converted(tower: TowerSource) -> Any:
    """Return a tower as an `openvino.Model` whose output is called ``features``."""
    import openvino

    model = openvino.convert_model(exported(tower))
    model.inputs[0].get_tensor().set_names({tower.input})
    model.outputs[0].get_tensor().set_names({"features"})
    sizes = [tower.batch or -1, *tower.samples.shape[1:]]
    model.reshape({tower.input: openvino.PartialShape(sizes)})
    return model


def write_ir(model: Any, path: Path) -> None:
    """Write a model as IR, in the precision that it has; the same model gives the same bytes.

    OpenVINO numbers what it makes from the start of the process, in a file's names too.
    """
    import openvino

    seen: Counter[str] = Counter()
    for operation in model.get_ordered_ops():
        kind = operation.get_type_name()
        operation.set_friendly_name(f"{kind}_{seen[kind]}")
        seen[kind] += 1
    named = openvino.Model(
        model.get_results(), model.get_sinks(), model.get_parameters(), path.stem
    )
    for key in ("conversion_parameters", "nncf"):
        if model.has_rt_info(key):
            named.set_rt_info(model.get_rt_info(key), key)
    openvino.save_model(named, path, compress_to_fp16=False)


def _write(source: Source, folder: Path) -> Made:
    for tower in source.towers:
        write_ir(converted(tower), folder / f"{tower.kind}.xml")
    return Made("image.xml", "text.xml")


OPENVINO_FLOAT = Recipe(
    "openvino", _write, extra="openvino", precision="f32", packages=("openvino",)
)
"""FP32 as exported; which precision it runs in is the session's business."""
