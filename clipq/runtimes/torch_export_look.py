"""What a .pt2 says of itself before it is run: nothing in it is unpickled, loaded or called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from clipq.runtimes.aoti_package import AotiPackage
from clipq.runtimes.exported_archive import ExportedArchive, ExportedNode
from clipq.runtimes.file_kinds import AOTI, EXPORTED, check_kind
from clipq.runtimes.finding import Finding
from clipq.runtimes.runtime import Look

__all__ = ["look_at_exported", "product_outputs"]

_PRODUCTS = frozenset(
    (
        *("addmm", "baddbmm", "bmm", "linear", "matmul", "mm"),
        *("conv1d", "conv2d", "conv3d", "convolution"),
        *("_int_mm", "_scaled_mm", "_weight_int4pack_mm", "_weight_int8pack_mm"),
        *("_native_multi_head_attention", "_transformer_encoder_layer_fwd"),
    )
)
_KEEPING = frozenset(
    (
        *(
            "alias",
            "clone",
            "contiguous",
            "detach",
            "to",
            "_to_copy",
            "access_subclass_inner_tensor",
        ),
        *("t", "transpose", "permute", "view", "reshape", "flatten", "squeeze", "unsqueeze"),
        *("slice", "select", "split", "split_with_sizes", "chunk", "unbind", "getitem"),
        *("mul", "sub", "dequantize_affine", "dequantize_per_channel", "dequantize_per_tensor"),
    )
)
"""Operators that stand between stored weights and the product that takes them."""
_QUANTIZING = ("onednn", "quantized", "quantized_decomposed", "torchao")


def look_at_exported(path: Path) -> Look:
    """Return what a program or an AOTInductor package says of itself.

    `quantized` counts operators of quantizing libraries, and products with integer weights;
    `in_float` products with float weights.

    Raises:
        ArtifactError: the file is missing, truncated or of another format.
    """
    if check_kind(path, (EXPORTED, AOTI)) == AOTI:
        return _of_package(path)
    archive = ExportedArchive(path)
    quantized: Counter[str] = Counter()
    in_float: Counter[str] = Counter()
    findings: list[Finding] = []
    made_by = {name: node for node in archive.nodes for name in node.outputs}
    for node in archive.nodes:
        if node.namespace in _QUANTIZING:
            quantized[node.operator] += 1
            findings += _of_scales(node)
        elif node.operator in _PRODUCTS:
            types = [kind for name in node.tensors if (kind := _stored(name, archive, made_by))]
            if narrow := [kind for kind in types if "int" in kind]:
                quantized[f"{node.operator} with {narrow[0]} weights"] += 1
            elif types:
                in_float[node.operator] += 1
    findings += _of_stored(archive)
    return Look(
        bytes=path.stat().st_size,
        quantized=dict(sorted(quantized.items())),
        in_float=dict(sorted(in_float.items())),
        opset=archive.opset,
        inputs=archive.inputs,
        outputs=archive.outputs,
        findings=tuple(findings),
    )


def product_outputs(archive: ExportedArchive) -> frozenset[str]:
    """Return the types that a program's products return, in numpy's words."""
    return frozenset(
        archive.dtype_of(name)
        for node in archive.nodes
        if node.operator in _PRODUCTS
        for name in node.outputs
    )


def _stored(name: str, archive: ExportedArchive, made_by: dict[str, ExportedNode]) -> str:
    """Return the type that a value is stored in, an integer one if it ever is; "" if computed."""
    types = [archive.dtype_of(name)]
    while name not in archive.weights:
        node = made_by.get(name)
        if node is None or node.operator not in _KEEPING or not node.tensors:
            return ""
        name = node.tensors[0]
        types.append(archive.dtype_of(name))
    return next((kind for kind in types if "int" in kind), types[-1])


def _of_scales(node: ExportedNode) -> Iterator[Finding]:
    if bad := [value for value in node.floats if not np.isfinite(value)]:
        yield Finding(
            "infinite-scale",
            f"{node.operator} of {', '.join(node.tensors[:1])} has a scale of {bad[0]}",
            "leave out of quantization what a mask of -inf reaches",
        )


def _of_stored(archive: ExportedArchive) -> Iterator[Finding]:
    for stored in archive.stored():
        if not (bad := int(np.count_nonzero(~np.isfinite(stored.values)))):
            continue
        of = f"{stored.name!r} holds {bad:,} of {stored.values.size:,} values that are not finite"
        if np.isneginf(stored.values).sum() == bad and not stored.parameter:
            yield Finding("mask", f"{of}, all -inf, as an attention mask does", wrong=False)
        else:
            yield Finding("non-finite-weights", of, "export the model again, from sound weights")
    if names := archive.pickled:
        yield Finding(
            "pickled",
            f"{len(names)} weights are pickled, {names[0]!r} first: to open the file is to run "
            "what is in it",
            "open it only if you trust who made it; torchao's unwrap_tensor_subclass before the "
            "export leaves no pickle",
            wrong=False,
        )


def _of_package(path: Path) -> Look:
    package = AotiPackage(path)
    return Look(
        bytes=path.stat().st_size,
        quantized=package.calls(narrow=True),
        in_float=package.calls(narrow=False),
        inputs=package.inputs,
        findings=(
            Finding(
                "machine-code",
                "a package of AOTInductor is a shared library, and its weights lie in it: they are "
                "not judged",
                "open it only if you trust who made it; look at the program that it was made of",
                wrong=False,
            ),
        ),
    )
