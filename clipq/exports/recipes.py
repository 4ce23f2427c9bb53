"""Recipes that make an artifact of a model, and the registry of recipes.

A recipe is a `Recipe`; `add` or an entry point of the group `clipq.exports` registers one::

    from clipq.exports import Made, Recipe, recipes

    def mine(source, folder):
        save(source.image.module, folder / "image.bin")
        save(source.text.module, folder / "text.bin")
        return Made("image.bin", "text.bin")

    recipes.add("mine", Recipe("my-runtime", mine, format="w8a8"))

This module imports torch for type checkers only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipq.artifact_settings import IoSettings
from clipq.registry import Registry

if TYPE_CHECKING:
    from clipq.exports.tower_source import Source

__all__ = ["Made", "Recipe", "recipes"]

EXPORTED_IO = IoSettings(
    image_input="pixel_values",
    text_input="input_ids",
)
"""What all graphs of clipq's own take; each has one output, which not every format names."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a recipe wrote, by names in its folder.

    Args:
        image: file of the image tower, or ``FILE.py:FUNCTION`` that makes the whole model.
        text: file of the text tower; "" where `image` makes both.
        float_image: the float graph that `image` was made from, where it was kept.
        float_text: likewise.
        opset: version of the operator set, or of the file format.
        batch: the only one that the graphs take; 0 for any.
        io: what the graphs take and return.

    >>> Made("image.onnx", "text.onnx", opset="20").batch
    0
    """

    image: str
    text: str = ""
    float_image: str = ""
    float_text: str = ""
    opset: str = ""
    batch: int = 0
    io: IoSettings = EXPORTED_IO


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an artifact is made.

    Args:
        runtime: that runs what is made.
        write: given what it is made of and an empty folder, writes files there.
        format: number format of what is made, for margins; "" for float.
        extra: clipq's optional extra that installs what it needs; "" where none is needed.
        packages: distributions that it needs, and whose versions are part of what is made.
        version: bumped whenever results change.
        precision: what float operations are meant to be executed in, where a runtime would choose
            another by itself; "" where it does not.
        broken: why what it makes cannot be used; "" where it can.

    >>> Recipe("onnxruntime", lambda source, folder: Made("image.onnx")).version
    1
    """

    runtime: str
    write: Callable[[Source, Path], Made]
    format: str = ""
    extra: str = ""
    packages: tuple[str, ...] = ()
    version: int = 1
    precision: str = ""
    broken: str = ""


recipes: Registry[Recipe] = Registry("recipe", group="clipq.exports")
for _module, _names in {
    "aoti_packages": ("aoti-float",),
    "executorch_programs": ("executorch-float",),
    "exported_programs": ("torch-export-float",),
    "nncf_graphs": ("openvino-int8", "openvino-int8-default"),
    "onnx_graphs": ("onnxruntime-float",),
    "openvino_graphs": ("openvino-float",),
    "quanto_programs": ("quanto-w8a8",),
    "quantized_onnx_graphs": (
        "onnxruntime-dynamic",
        "onnxruntime-static",
        "onnxruntime-static-all",
    ),
    "torchao_programs": ("torchao-int8-dynamic", "torchao-int8-weight-only"),
}.items():
    for _name in _names:
        _attribute = _name.replace("-", "_").upper()
        recipes.register_lazy(_name, f"clipq.exports.{_module}:{_attribute}")
