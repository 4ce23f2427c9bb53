"""How fast clipq's Triton kernels are, beside ceilings measured in the same run.

Memory-bound kernels are compared with a copy of as many bytes on the device, W8A8 with
`torch._int_mm` on the same operands, and each with torch's own operation where there is one. A
kernel's bytes are those it must move: each input read once, each output written once. Times are of
the device alone, replayed from a graph; what a call costs the host is a figure of its own, which
bounds small tensors that no graph holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from clipq.kernels import hadamard_kernel, linear_kernels, rounding_kernels

__all__ = ["SIZES", "Bench", "Sizes", "bench"]

_REPEATS = 30
_WAITING = (  # rivals that wait for the device
    "torch.quantize_per_tensor",
    "torch.fake_quantize_per_channel_affine",
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is measured: by default ViT-L/14 at a batch of 256.

    Args:
        tokens: rows of activations.
        width: of the residual stream.
        hidden: of the MLP.
        few: rows of weight-only products.
        mebibytes: of tensors that are rounded.
    """

    tokens: int = 256 * 257
    width: int = 1024
    hidden: int = 4096
    few: tuple[int, ...] = (1, 16)
    mebibytes: tuple[int, ...] = (64, 256)


SIZES = Sizes()


@dataclass(frozen=True, slots=True)
class Bench:
    """One kernel at one size; times are medians, in seconds.

    Args:
        kernel: its name.
        case: what it was given.
        seconds: of the kernel, on the device.
        host_seconds: that a call of it keeps the host, before the device has done anything.
        moved: bytes it must move.
        operations: multiplications and additions; 0 where memory bounds it.
        ceiling: what bounds it.
        ceiling_seconds: of the ceiling, on as many bytes or on the same operands.
        rival: torch's own operation, "" where there is none.
        rival_seconds: of the rival, 0 where there is none.
    """

    kernel: str
    case: str
    seconds: float
    host_seconds: float
    moved: int
    operations: int
    ceiling: str
    ceiling_seconds: float
    rival: str = ""
    rival_seconds: float = 0.0

    @property
    def share(self) -> float:
        """Return the kernel's share of the ceiling's rate; 1 is the ceiling."""
        return self.ceiling_seconds / self.seconds


def bench(device: torch.device, sizes: Sizes = SIZES) -> Iterator[Bench]:
    """Measure every kernel; yield as each is done.

    Args:
        device: a GPU; on a CPU, where kernels are interpreted, times mean nothing.
        sizes: of the tensors.

    Raises:
        KernelError: kernels do not run on the device.
    """
    runner = _Runner(device)
    yield from _rounding(runner, sizes)
    yield from _layer_norm(runner, sizes)
    yield from _transforms(runner, sizes)
    yield from _products(runner, sizes)
    yield from _weight_only(runner, sizes)


class _Runner:
    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._copies: dict[int, float] = {}

    def seconds(self, call: Callable[[], object], *, waits: bool = False) -> float:
        """Return the median time that a call, made before, takes on the device.

        Args:
            call: what is timed.
            waits: for the device, so that no graph can hold it and the host's time counts.
        """
        call()
        if self.device.type != "cuda":
            return self._on_cpu(call)
        repeated = call
        if not waits:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                call()
            repeated = graph.replay
        cache = torch.empty(2**28, dtype=torch.int8, device=self.device)
        times: list[float] = []
        for _ in range(_REPEATS):
            cache.zero_()  # no input is left in the L2 cache from the call before
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            start.record()
            repeated()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        return median(times)

    def _on_cpu(self, call: Callable[[], object]) -> float:
        started = time.perf_counter()
        call()
        return time.perf_counter() - started

    def host(self, call: Callable[[], object]) -> float:
        """Return the median time until a call returns, the device having nothing else to do."""
        times: list[float] = []
        for _ in range(_REPEATS if self.device.type == "cuda" else 1):
            times.append(self._on_cpu(call))
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        return median(times)

    def copy(self, moved: int) -> float:
        """Return how long a copy takes that reads and writes so many bytes in all."""
        if moved not in self._copies:
            source = self.empty(max(1, moved // 2), dtype=torch.int8)
            self._copies[moved] = self.seconds(partial(torch.empty_like(source).copy_, source))
        return self._copies[moved]

    def empty(self, *shape: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, device=self.device).to(dtype)

    def codes(self, *shape: int) -> Tensor:
        return torch.randint(-128, 128, shape, dtype=torch.int8, device=self.device)

    def in_memory(
        self,
        kernel: str,
        case: str,
        call: Callable[[], Tensor],
        moved: int,
        rival: str = "",
        other: Callable[[], object] | None = None,
    ) -> Bench:
        """Measure a kernel that memory bounds."""
        return Bench(
            kernel,
            case,
            self.seconds(call),
            self.host(call),
            moved,
            0,
            "device copy",
            self.copy(moved),
            rival,
            self.seconds(other, waits=rival in _WAITING) if other else 0.0,
        )


def _bytes(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _rounding(runner: _Runner, sizes: Sizes) -> Iterator[Bench]:
    for size in sizes.mebibytes:
        x = runner.normal(size * 2**18 // sizes.width, sizes.width)
        scale, rows = torch.ones((), device=runner.device), torch.ones(len(x), 1, device=x.device)
        out, codes = torch.empty_like(x), torch.empty_like(x, dtype=torch.int8)
        known: dict[str, Any] = {"low": -128, "high": 127}
        case = f"float32, {size} MiB"
        yield runner.in_memory(
            "quantize",
            case,
            partial(rounding_kernels.quantize, x, scale, out=codes, **known),
            _bytes(x, codes),
            "torch.quantize_per_tensor",
            partial(torch.quantize_per_tensor, x, 1.0, 0, torch.qint8),
        )
        zero = torch.zeros((), dtype=torch.int32, device=x.device)
        yield runner.in_memory(
            "fake-quantize",
            f"{case}, per tensor",
            partial(rounding_kernels.fake_quantize, x, scale, out=out, **known),
            _bytes(x, out),
            "torch.fake_quantize_per_tensor_affine",
            partial(torch.fake_quantize_per_tensor_affine, x, scale, zero, -128, 127),
        )
        yield runner.in_memory(
            "fake-quantize",
            f"{case}, per token",
            partial(rounding_kernels.fake_quantize, x, rows, out=out, **known),
            _bytes(x, out, rows),
            "torch.fake_quantize_per_channel_affine",
            partial(
                torch.fake_quantize_per_channel_affine,
                x,
                rows.flatten(),
                torch.zeros(len(x), dtype=torch.int32, device=x.device),
                0,
                -128,
                127,
            ),
        )
        yield runner.in_memory(
            "fake-quantize-dynamic",
            f"{case}, per token",
            partial(rounding_kernels.fake_quantize_dynamic, x, bits=8, out=out),
            _bytes(x, out),
        )


def _layer_norm(runner: _Runner, sizes: Sizes) -> Iterator[Bench]:
    x = runner.normal(sizes.tokens, sizes.width)
    weight, bias = runner.normal(sizes.width), runner.normal(sizes.width)
    codes = torch.empty_like(x, dtype=torch.int8)
    yield runner.in_memory(
        "quantize-layer-norm",
        f"float32, {sizes.tokens} x {sizes.width}",
        partial(
            rounding_kernels.quantize_layer_norm,
            x,
            weight,
            bias,
            eps=1e-5,
            scale=torch.ones((), device=x.device),
            low=-128,
            high=127,
            out=codes,
        ),
        _bytes(x, codes),
        "torch layer_norm, which writes floats",
        partial(functional.layer_norm, x, (sizes.width,), weight, bias),
    )


def _transforms(runner: _Runner, sizes: Sizes) -> Iterator[Bench]:
    base = runner.empty(12, 12, dtype=torch.float32) + 1  # any signs cost the same
    for size in (sizes.width, sizes.hidden, sizes.width * 3 // 4):
        x = runner.normal(sizes.tokens, size, dtype=torch.float16)
        matrix, out = runner.normal(size, size, dtype=torch.float16), torch.empty_like(x)
        yield runner.in_memory(
            "hadamard",
            f"float16, {sizes.tokens} x {size}",
            partial(hadamard_kernel.hadamard, x, base=base if size & (size - 1) else None, out=out),
            _bytes(x, out),
            "matmul with the matrix",
            partial(torch.matmul, x, matrix),
        )


def _products(runner: _Runner, sizes: Sizes) -> Iterator[Bench]:
    for depth, width, activation in (
        (sizes.width, 3 * sizes.width, "none"),
        (sizes.width, sizes.hidden, "gelu"),
        (sizes.hidden, sizes.width, "none"),
    ):
        x, weight = runner.codes(sizes.tokens, depth), runner.codes(width, depth)
        scale, scales = torch.ones((), device=x.device), torch.ones(width, device=x.device)
        bias = runner.normal(width)
        out = runner.empty(sizes.tokens, width, dtype=torch.float16)
        floats, float_weight = x.half(), weight.half()
        call = partial(
            linear_kernels.linear_w8a8,
            x,
            weight,
            x_scale=scale,
            weight_scale=scales,
            bias=bias,
            activation=activation,
            dtype=torch.float16,
            out=out,
        )
        yield Bench(
            "linear-w8a8",
            f"{sizes.tokens} x {depth} x {width}, {activation}, to float16",
            runner.seconds(call),
            runner.host(call),
            _bytes(x, weight, out),
            2 * sizes.tokens * depth * width,
            "torch._int_mm",
            runner.seconds(partial(torch._int_mm, x, weight.t())),
            "float16 linear",
            runner.seconds(partial(functional.linear, floats, float_weight, bias.half())),
        )


def _weight_only(runner: _Runner, sizes: Sizes) -> Iterator[Bench]:
    depth, width, group = sizes.hidden, sizes.hidden, 128
    packed = runner.codes(width, depth // 2).view(torch.uint8)
    scale = torch.ones(width, depth // group, device=runner.device)
    floats = runner.normal(width, depth, dtype=torch.float16)
    for rows in sizes.few:
        x = runner.normal(rows, depth, dtype=torch.float16)
        out = runner.empty(rows, width, dtype=torch.float16)
        yield runner.in_memory(
            "linear-w4a16",
            f"float16, {rows} x {depth} x {width}, group {group}",
            partial(linear_kernels.linear_w4a16, x, packed, scale, group=group, out=out),
            _bytes(x, packed, scale, out),
            "float16 linear",
            partial(functional.linear, x, floats),
        )
