"""clipq's own Triton kernels with what they claim, as the registry offers them."""

from __future__ import annotations

import clipq.kernels.operators  # noqa: F401 - registers torch.ops.clipq
from clipq.kernels import hadamard_kernel, linear_kernels, rounding_kernels
from clipq.kernels.kernel_spec import Kernel, KernelSpec

__all__ = [
    "FAKE_QUANTIZE",
    "FAKE_QUANTIZE_DYNAMIC",
    "HADAMARD",
    "LINEAR_W4A16",
    "LINEAR_W8A8",
    "QUANTIZE",
    "QUANTIZE_LAYER_NORM",
]

QUANTIZE = Kernel(
    rounding_kernels.quantize,
    KernelSpec(operation="quantize", out=True, operator="clipq::quantize", runs_on="interpreter"),
    "triton",
)
FAKE_QUANTIZE = Kernel(
    rounding_kernels.fake_quantize,
    KernelSpec(
        operation="fake-quantize",
        out=True,
        gradient=True,
        operator="clipq::fake_quantize",
        runs_on="interpreter",
    ),
    "triton",
)
FAKE_QUANTIZE_DYNAMIC = Kernel(
    rounding_kernels.fake_quantize_dynamic,
    KernelSpec(
        operation="fake-quantize-dynamic",
        granularities=("row", "group"),
        out=True,
        gradient=True,
        operator="clipq::fake_quantize_dynamic",
        runs_on="interpreter",
    ),
    "triton",
)
LINEAR_W8A8 = Kernel(
    linear_kernels.linear_w8a8,
    KernelSpec(
        operation="linear-w8a8",
        granularities=("tensor", "row"),
        bits=(8,),
        activations=linear_kernels.ACTIVATIONS,
        ulps=4,
        out=True,
        operator="clipq::linear_w8a8",
        runs_on="interpreter",
    ),
    "triton",
)
LINEAR_W4A16 = Kernel(
    linear_kernels.linear_w4a16,
    KernelSpec(
        operation="linear-w4a16",
        granularities=("group",),
        groups=(32, 128),
        ragged=False,
        bits=(4,),
        ulps=8,
        out=True,
        operator="clipq::linear_w4a16",
        runs_on="interpreter",
    ),
    "triton",
)
HADAMARD = Kernel(
    hadamard_kernel.hadamard,
    KernelSpec(
        operation="hadamard",
        sizes=(*(2**power for power in range(15)), *(12 * 2**power for power in range(11))),
        ulps=2,
        out=True,
        gradient=True,
        operator="clipq::hadamard",
        runs_on="interpreter",
    ),
    "triton",
)
QUANTIZE_LAYER_NORM = Kernel(
    rounding_kernels.quantize_layer_norm,
    KernelSpec(
        operation="quantize-layer-norm",
        granularities=("tensor",),
        ulps=16,
        out=True,
        operator="clipq::quantize_layer_norm",
        runs_on="interpreter",
    ),
    "triton",
)
