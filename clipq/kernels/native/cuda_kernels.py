"""The CUDA C++ kernels with what they claim: built at the first call.

What a package of yours writes to take part: a callable, a spec, and an entry point of the group
``clipq.kernels`` that names the `Kernel`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clipq.kernels.kernel_spec import Kernel, KernelSpec
from clipq.kernels.native.build import load_native

__all__ = ["FAKE_QUANTIZE", "FAKE_QUANTIZE_DYNAMIC", "QUANTIZE"]


def quantize(**arguments: Any) -> Tensor:
    """Return codes; arguments as `clipq.kernels.rounding_kernels.quantize`, without `out`."""
    load_native()
    result: Tensor = torch.ops.clipq_native.quantize(**arguments)
    return result


def fake_quantize(**arguments: Any) -> Tensor:
    """Return values on the grid; arguments as `quantize`."""
    load_native()
    result: Tensor = torch.ops.clipq_native.fake_quantize(**arguments)
    return result


def fake_quantize_dynamic(**arguments: Any) -> Tensor:
    """Return values on grids of their rows' or groups' own ranges."""
    load_native()
    result: Tensor = torch.ops.clipq_native.fake_quantize_dynamic(**arguments)
    return result


QUANTIZE = Kernel(
    quantize, KernelSpec(operation="quantize", operator="clipq_native::quantize"), "CUDA C++"
)
FAKE_QUANTIZE = Kernel(
    fake_quantize,
    KernelSpec(operation="fake-quantize", operator="clipq_native::fake_quantize"),
    "CUDA C++",
)
FAKE_QUANTIZE_DYNAMIC = Kernel(
    fake_quantize_dynamic,
    KernelSpec(
        operation="fake-quantize-dynamic",
        granularities=("row", "group"),
        operator="clipq_native::fake_quantize_dynamic",
    ),
    "CUDA C++",
)
