"""OpenVINO's representation in 8 bits, by NNCF's post-training quantization."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from clipq.exports.openvino_graphs import converted, write_ir
from clipq.exports.recipes import Made, Recipe
from clipq.exports.tower_source import Source

__all__ = ["OPENVINO_INT8", "OPENVINO_INT8_DEFAULT"]

_PACKAGES = ("nncf", "openvino")


def _write(source: Source, folder: Path, *, transformer: bool) -> Made:
    import nncf

    for tower in source.towers:
        model = converted(tower)
        write_ir(model, folder / f"{tower.kind}-float.xml")
        # In batches: NNCF takes the mean over what it is given of each one's largest value, so that
        # images one by one would be clipped to a mean image's range.
        batches = [batch.numpy() for batch in tower.batches]
        quantized = nncf.quantize(
            model,
            nncf.Dataset(batches),
            subset_size=len(batches),
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        )
        write_ir(quantized, folder / f"{tower.kind}.xml")
    return Made("image.xml", "text.xml", "image-float.xml", "text-float.xml")


OPENVINO_INT8 = Recipe(
    "openvino",
    partial(_write, transformer=True),
    format="w8a8",
    extra="openvino",
    precision="f32",
    packages=_PACKAGES,
)
"""With NNCF's settings for transformers: activations are smoothed, attention is treated apart."""

OPENVINO_INT8_DEFAULT = Recipe(
    "openvino",
    partial(_write, transformer=False),
    format="w8a8",
    extra="openvino",
    precision="f32",
    packages=_PACKAGES,
)
"""With NNCF's defaults, which are for convolutional networks."""
