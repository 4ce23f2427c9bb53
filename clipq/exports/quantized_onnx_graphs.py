"""ONNX graphs in 8 bits, by ONNX Runtime's own quantizers.

Static quantization is as good as the choice of operators. By default it takes all that it knows,
the additions of an attention mask among them: the mask's -inf makes a scale infinite, nothing is
said, and each feature of the text tower is wrong. Products with weights are what an integer runtime
is for, and they are enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from clipq.exports.onnx_graphs import OPSET, write_onnx
from clipq.exports.recipes import Made, Recipe
from clipq.exports.tower_source import Source, TowerSource

__all__ = ["ONNXRUNTIME_DYNAMIC", "ONNXRUNTIME_STATIC", "ONNXRUNTIME_STATIC_ALL"]

_PRODUCTS = ["MatMul", "Gemm", "Conv"]
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_MADE = Made("image.onnx", "text.onnx", "image-float.onnx", "text-float.onnx", opset=str(OPSET))


class _Samples:
    """Calibration samples as ONNX Runtime's quantizers read them."""

    def __init__(self, tower: TowerSource) -> None:
        self._batches = iter([{tower.input: batch.numpy()} for batch in tower.batches])

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch; None where there is no other."""
        return next(self._batches, None)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._batches

    def __next__(self) -> dict[str, Any]:
        return next(self._batches)


def _prepared(tower: TowerSource, folder: Path) -> Path:
    """Write a tower's float graph; return where the same is ready to quantize."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = folder / f"{tower.kind}-float.onnx"
    write_onnx(tower, path)
    prepared = folder / f"{tower.kind}-prepared.onnx"
    quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
    return prepared


def _write_dynamic(source: Source, folder: Path) -> Made:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    for tower in source.towers:
        prepared = _prepared(tower, folder)
        quantize_dynamic(
            str(prepared),
            str(folder / f"{tower.kind}.onnx"),
            op_types_to_quantize=_PRODUCTS,
            weight_type=QuantType.QUInt8,  # the CPU has no convolution of int8 weights
        )
        prepared.unlink()
    return _MADE


def _write_static(source: Source, folder: Path, **options: Any) -> Made:
    from onnxruntime.quantization import QuantFormat, quantize_static

    for tower in source.towers:
        prepared = _prepared(tower, folder)
        quantize_static(
            str(prepared),
            str(folder / f"{tower.kind}.onnx"),
            _Samples(tower),
            quant_format=QuantFormat.QDQ,
            **options,
        )
        prepared.unlink()
    return _MADE


ONNXRUNTIME_DYNAMIC = Recipe(
    "onnxruntime", _write_dynamic, format="w8a8d", extra="onnxruntime", packages=_PACKAGES
)
"""Weights in 8 bits per tensor; activations in 8 bits, their range taken from each batch."""

ONNXRUNTIME_STATIC = Recipe(
    "onnxruntime",
    partial(_write_static, op_types_to_quantize=_PRODUCTS, per_channel=True),
    format="w8a8",
    extra="onnxruntime",
    packages=_PACKAGES,
)
"""Weights in 8 bits per channel, activations in 8 bits; products with weights alone."""

ONNXRUNTIME_STATIC_ALL = Recipe(
    "onnxruntime",
    _write_static,
    format="w8a8",
    extra="onnxruntime",
    packages=_PACKAGES,
    broken="the attention mask's -inf makes a scale infinite; use onnxruntime-static",
)
"""Broken: ONNX Runtime's default operators. It shows what a gate and its lint are for."""
