"""Every operation that a kernel may claim, by name."""

from __future__ import annotations

from collections.abc import Callable

from clipq.kernels.kernel_spec import KernelSpec
from clipq.testing.kernels.linear_operations import LinearW4A16, LinearW8A8
from clipq.testing.kernels.operation import Operation
from clipq.testing.kernels.rounding_operations import FakeQuantize, FakeQuantizeDynamic, Quantize
from clipq.testing.kernels.rows import Hadamard, QuantizeLayerNorm

__all__ = ["operation_of"]

_OPERATIONS: dict[str, Callable[[KernelSpec], Operation]] = {
    "quantize": Quantize,
    "fake-quantize": FakeQuantize,
    "fake-quantize-dynamic": FakeQuantizeDynamic,
    "linear-w8a8": LinearW8A8,
    "linear-w4a16": LinearW4A16,
    "hadamard": Hadamard,
    "quantize-layer-norm": QuantizeLayerNorm,
}


def operation_of(spec: KernelSpec) -> Operation:
    """Return the operation that a spec names."""
    return _OPERATIONS[spec.operation](spec)
