"""Kernels on whole rows with one planted bug each, in torch, and healthy twins."""

from __future__ import annotations

from functools import partial

import torch
from broken_rounding_kernels import codes_in_torch
from torch import Tensor

from clipq.kernels.kernel_spec import Kernel, KernelSpec
from clipq.kernels.tensors import check_dtype, check_shape
from clipq.quant.transforms.hadamard import hadamard_matrix

LAYER_NORM = KernelSpec(
    operation="quantize-layer-norm",
    dtypes=("float32",),
    granularities=("tensor",),
    ulps=16,
    runs_on="cpu",
)
TRANSFORM = KernelSpec(
    operation="hadamard",
    dtypes=("float32", "float16"),
    sizes=(1, 2, 12, 64, 96, 768, 1024, 3072, 4096),
    ulps=8,
    runs_on="cpu",
)


def layer_norm_in_torch(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    eps: float,
    scale: Tensor,
    zero_point: Tensor | None,
    low: int,
    high: int,
    bug: str = "",
) -> Tensor:
    check_dtype("x", x, (torch.float32,))
    width, rows = x.shape[-1], x.shape[:-1].numel()
    counted = x
    if bug == "last value of aligned rows not counted" and width % 256 == 0:
        counted = x[..., :-1]
    mean = counted.mean(-1, keepdim=True)
    if bug == "variance by mean squares":
        variance = (x.square().mean(-1, keepdim=True) - mean.square()).clamp(min=0)
    else:
        variance = (counted - mean).square().mean(-1, keepdim=True)
    if bug == "variance of a sample" and width >= 512:
        variance = variance * (width / (width - 1))
    values = (x - mean) / (variance + eps).sqrt()
    values = values if weight is None else values * weight
    if bias is not None and not (bug == "bias ignored without a weight" and weight is None):
        values = values + bias
    codes = codes_in_torch(values, scale, zero_point, low=low, high=high)
    if bug == "rows beyond two a processor" and rows > 264:
        codes.flatten(0, -2)[264:] = 0
    return codes


def transform_in_torch(
    x: Tensor, signs: Tensor | None, *, inverse: bool, base: Tensor | None, bug: str = ""
) -> Tensor:
    check_dtype("x", x, (torch.float32, torch.float16))
    size = x.shape[-1]
    if size not in TRANSFORM.sizes:
        raise ValueError(f"size {size}")
    for part, shape in ((signs, (size,)), (base, (12, 12))):
        if part is not None:
            check_shape("signs or base", part, shape)
            if part.device != x.device:
                raise ValueError("tensors on several devices")
    rest = size if base is None else size // 12
    values = x.float()
    if signs is not None and not inverse:
        values = values * signs
    values = (values.unflatten(-1, (-1, rest))) @ hadamard_matrix(rest).float()
    if base is not None:
        turned = inverse and not (bug == "inverse without signs is forward" and signs is None)
        matrix = base.t() if turned else base
        values = (values.transpose(-1, -2) @ matrix).transpose(-1, -2)
    values = values.flatten(-2) / size**0.5
    if bug == "wide rows in half precision" and size > 1024:
        values = values.half().float()
    if signs is not None and inverse:
        values = values * signs
    return values.to(x.dtype)


HEALTHY = {
    "layer norm in torch": Kernel(layer_norm_in_torch, LAYER_NORM),
    "transform in torch": Kernel(transform_in_torch, TRANSFORM),
}

BROKEN: dict[str, tuple[str, Kernel]] = {
    bug: (check, Kernel(partial(layer_norm_in_torch, bug=bug), LAYER_NORM))
    for bug, check in {
        "variance by mean squares": "takes-extreme-scales",
        "last value of aligned rows not counted": "matches-reference",
        "variance of a sample": "matches-reference",
        "bias ignored without a weight": "matches-reference",
        "rows beyond two a processor": "matches-reference",
    }.items()
}
BROKEN |= {
    bug: ("matches-reference", Kernel(partial(transform_in_torch, bug=bug), TRANSFORM))
    for bug in ("inverse without signs is forward", "wide rows in half precision")
}
"""The check that must catch each bug, and the kernel."""
