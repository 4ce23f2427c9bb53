"""Ahead-of-time compilation of clipq's Triton kernels, and what the compiler says of them.

Needs no GPU: each kernel is launched on tensors without memory, at shapes of CLIP ViT-L/14, and the
launches that it would make are compiled for each architecture. Registers, spills and shared memory
are what Triton and `ptxas` report.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipq.errors import KernelError, did_you_mean
from clipq.kernels import hadamard_kernel, linear_kernels, rounding_kernels
from clipq.kernels.device import interpreting
from clipq.kernels.launch import Launch, recorded

__all__ = ["ARCHITECTURES", "EXAMPLES", "Resources", "compile_kernels"]

ARCHITECTURES = (80, 90, 100)
"""Compute capabilities: A100, H100 and H200, B200."""

_ROWS = 256 * 257  # tokens of ViT-L/14 at a batch of 256
_TYPES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.int32: "i32",
}
_USED = re.compile(r"Used (\d+) registers")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


@dataclass(frozen=True, slots=True)
class Resources:
    """What one launch asks of a GPU.

    Args:
        kernel: its name.
        example: which launch of it.
        architecture: compute capability, 90 for 9.0.
        registers: per thread.
        stack_bytes: per thread; not zero where an array went to local memory.
        spill_bytes: written and read again, per thread.
        shared_bytes: per program.
        warps: per program.
        seconds: of compiling, nearly none where it was cached.
    """

    kernel: str
    example: str
    architecture: int
    registers: int
    stack_bytes: int
    spill_bytes: int
    shared_bytes: int
    warps: int
    seconds: float


def compile_kernels(
    architectures: Sequence[int] = ARCHITECTURES, names: Sequence[str] = ()
) -> Iterator[Resources]:
    """Compile kernels, all or those named, for each architecture; yield as each is done.

    Raises:
        KernelError: Triton is absent or interprets, an unknown name, or a kernel that does not
            compile.
    """
    if importlib.util.find_spec("triton") is None:
        raise KernelError("Triton is not installed", hint="pip install triton (Linux)")
    if interpreting():
        raise KernelError(
            "kernels that are interpreted cannot be compiled",
            hint="unset TRITON_INTERPRET and start again",
        )
    for name in names:
        if name not in EXAMPLES:
            raise KernelError(f"no kernel {name!r} to compile", hint=did_you_mean(name, EXAMPLES))
    for name in names or EXAMPLES:
        for example, call in EXAMPLES[name].items():
            for launch in recorded(call):
                for architecture in architectures:
                    yield _compile(name, example, launch, architecture)


def _compile(name: str, example: str, launch: Launch, architecture: int) -> Resources:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constants, attributes = _specialised(launch)
    source = ASTSource(launch.program, signature, constants, attributes)
    started = time.perf_counter()
    try:
        compiled = triton.compile(
            source, target=GPUTarget("cuda", architecture, 32), options=launch.options
        )
    except Exception as error:
        raise KernelError(
            f"{name} ({example}) does not compile for sm_{architecture}: "
            f"{type(error).__name__}: {error}"
        ) from error
    seconds = time.perf_counter() - started
    registers, stack, spilled = _assembled(compiled.asm["ptx"], architecture)
    return Resources(
        name,
        example,
        architecture,
        registers,
        stack,
        spilled,
        int(compiled.metadata.shared),
        launch.warps,
        seconds,
    )


def _specialised(
    launch: Launch,
) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int, ...], Any]]:
    """Return signature, constants and attributes as a launch on a GPU would choose them."""
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    given: Mapping[str, Any] = {**launch.arguments, **launch.constants}
    for position, name in enumerate(launch.program.arg_names):
        value = given[name]
        if name in launch.constants or value is None or (isinstance(value, int) and value == 1):
            signature[name] = "constexpr"
            constants[name] = value
        elif isinstance(value, Tensor):
            signature[name] = f"*{_TYPES[value.dtype]}"
            attributes[position,] = [["tt.divisibility", 16]]  # what an allocator returns is
        elif isinstance(value, int):
            signature[name] = "i32" if abs(value) < 2**31 else "i64"
            if value % 16 == 0:
                attributes[position,] = [["tt.divisibility", 16]]
        else:
            signature[name] = "fp32"
    return signature, constants, attributes


def _assembled(ptx: str, architecture: int) -> tuple[int, int, int]:
    """Return registers, stack and spilled bytes, from the assembler's own report."""
    from triton.backends.nvidia.compiler import get_ptxas

    target = re.search(r"\.target (sm_\w+)", ptx)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.ptx")
        path.write_text(ptx)
        done = subprocess.run(
            [
                get_ptxas(architecture).path,
                "-v",
                f"--gpu-name={target[1] if target else f'sm_{architecture}'}",
                str(path),
                "-o",
                str(Path(folder, "kernel.cubin")),
            ],
            capture_output=True,
            text=True,
        )
    used, spills = _USED.search(done.stderr), _SPILLS.search(done.stderr)
    if done.returncode or used is None or spills is None:
        raise KernelError(f"ptxas failed for sm_{architecture}: {done.stderr.strip()}")
    return int(used[1]), int(spills[1]), int(spills[2]) + int(spills[3])


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _round(granularity: str, **options: Any) -> Tensor:
    x = _empty(_ROWS, 1024)
    scale = {"tensor": _empty(), "row": _empty(_ROWS, 1), "group": _empty(_ROWS, 32)}[granularity]
    group = 32 if granularity == "group" else None
    return rounding_kernels.fake_quantize(x, scale, low=-128, high=127, group=group, **options)


def _dynamic_gradient(rows: int, width: int) -> Tensor:
    x = _empty(rows, width)
    return rounding_kernels.fake_quantize_dynamic_gradient(
        x, x, bits=8, asymmetric=False, group=None
    )


def _w8a8(rows: int, depth: int, width: int, activation: str) -> Tensor:
    return linear_kernels.linear_w8a8(
        _empty(rows, depth, dtype=torch.int8),
        _empty(width, depth, dtype=torch.int8),
        x_scale=_empty(),
        weight_scale=_empty(width),
        bias=_empty(width),
        activation=activation,
        dtype=torch.float16,
    )


def _w4a16(rows: int, depth: int, width: int, dtype: torch.dtype) -> Tensor:
    return linear_kernels.linear_w4a16(
        _empty(rows, depth, dtype=dtype),
        _empty(width, depth // 2, dtype=torch.uint8),
        _empty(width, depth // 128),
        group=128,
        bias=_empty(width),
    )


def _transform(size: int) -> Tensor:
    base = _empty(12, 12) if size % 12 == 0 else None
    return hadamard_kernel.hadamard(
        _empty(_ROWS, size, dtype=torch.float16), _empty(size), base=base
    )


EXAMPLES: dict[str, dict[str, Callable[[], Tensor]]] = {
    "quantize": {
        "per tensor": lambda: rounding_kernels.quantize(
            _empty(_ROWS, 1024), _empty(), low=-128, high=127
        )
    },
    "fake-quantize": {
        "per tensor": lambda: _round("tensor"),
        "per token": lambda: _round("row"),
        "per group": lambda: _round("group"),
        "gradient": lambda: rounding_kernels.fake_quantize_gradient(
            _empty(_ROWS, 1024),
            _empty(_ROWS, 1024),
            _empty(_ROWS, 1),
            None,
            low=-128,
            high=127,
            group=None,
        ),
    },
    "fake-quantize-dynamic": {
        "per token": lambda: rounding_kernels.fake_quantize_dynamic(_empty(_ROWS, 1024), bits=8),
        "per group": lambda: rounding_kernels.fake_quantize_dynamic(
            _empty(_ROWS, 1024), bits=8, asymmetric=True, group=64
        ),
        "per image": lambda: rounding_kernels.fake_quantize_dynamic(
            _empty(256, 3 * 224 * 224), bits=8
        ),
        "gradient": lambda: _dynamic_gradient(_ROWS, 1024),
        "gradient, per image": lambda: _dynamic_gradient(256, 3 * 224 * 224),
    },
    "linear-w8a8": {
        "to GELU": lambda: _w8a8(_ROWS, 1024, 4096, "gelu"),
        "few rows": lambda: _w8a8(16, 1024, 1024, "none"),
    },
    "linear-w4a16": {
        "float16, 16 rows": lambda: _w4a16(16, 4096, 1024, torch.float16),
        "float32, 64 rows": lambda: _w4a16(64, 1024, 4096, torch.float32),
    },
    "hadamard": {
        "4096": lambda: _transform(4096),
        "3072": lambda: _transform(3072),
        "64": lambda: _transform(64),
    },
    "quantize-layer-norm": {
        "1024": lambda: rounding_kernels.quantize_layer_norm(
            _empty(_ROWS, 1024),
            _empty(1024),
            _empty(1024),
            eps=1e-5,
            scale=_empty(),
            low=-128,
            high=127,
        )
    },
}
"""What is compiled: shapes of CLIP ViT-L/14, the sizes that its layers and heads have."""
