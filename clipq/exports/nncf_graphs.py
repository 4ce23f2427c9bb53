"""OpenVINO's representation in 8 bits, by NNCF's post-training quantization."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from clipq.exports.openvino_graphs import converted, write_ir
from clipq.exports.recipes import Made, Recipe
from clipq.exports.source import Source, TowerSource

__all__ = ["OPENVINO_INT8", "OPENVINO_INT8_DEFAULT"]

_PACKAGES = ("nncf", "openvino")


def _write(source: Source, folder: Path, *, transformer: bool) -> Made:
    import nncf

    nncf.set_log_level(logging.ERROR)
    for tower in source.towers:
        model = converted(tower)
        write_ir(model, folder / f"{tower.kind}-float.xml")
        quantized = nncf.quantize(
            model,
            nncf.Dataset(_batches(tower)),
            subset_size=len(_batches(tower)),
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        )
        write_ir(quantized, folder / f"{tower.kind}.xml")
    return Made("image.xml", "text.xml", "image-float.xml", "text-float.xml")


def _batches(tower: TowerSource) -> list[object]:
    """Return calibration samples one by one, or in the batch that the graph takes."""
    return (
        [batch.numpy() for batch in tower.batches]
        if tower.batch
        else list(tower.samples[:, None].numpy())
    )


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
