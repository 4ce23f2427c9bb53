"""Compile the CUDA C++ kernels, load them, and say what they ask of a GPU."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from clipq.errors import KernelError
from clipq.kernels.compiled import ARCHITECTURES, Resources

__all__ = ["cuda_home", "load_native", "native_resources"]

_HERE = Path(__file__).parent
_FLAGS = ["-O3", "--fmad=false"]  # fused multiply-adds would round otherwise than torch does
_ENTRY = re.compile(
    r"entry function '\S*?(?P<kernel>static|dynamic)_kernelI(?P<types>\w+?)EEv\S*'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<spilled>\d+) bytes spill stores.*?"
    r"Used (?P<registers>\d+) registers[^\n]*",
    re.DOTALL,
)
_SHARED = re.compile(r"(\d+) bytes smem")
_TYPES = {"13__nv_bfloat16": "bfloat16", "6__half": "float16", "f": "float32"}
_WARPS = 8  # kThreads of rounding.cu


def cuda_home() -> Path:
    """Return the folder of the CUDA toolkit: ``$CUDA_HOME``, where nvcc lies, /usr/local/cuda.

    An nvcc on the PATH may be a script that calls another: a folder counts if it has headers.

    Raises:
        KernelError: there is none.
    """
    nvcc = shutil.which("nvcc")
    candidates = [Path(os.environ["CUDA_HOME"])] if os.environ.get("CUDA_HOME") else []
    candidates += [Path(nvcc).resolve().parents[1]] if nvcc else []
    candidates.append(Path("/usr/local/cuda"))
    for folder in candidates:
        if (folder / "bin" / "nvcc").exists() and (folder / "include/cuda_runtime.h").exists():
            return folder
    raise KernelError(
        f"no CUDA toolkit in {', '.join(map(str, candidates))}",
        hint="install nvcc and its headers, or set CUDA_HOME to the folder that has bin/nvcc",
    )


_loaded: list[Path] = []  # a library is loaded once: its operators cannot be defined again


def load_native(architectures: Sequence[int] = ()) -> Path:
    """Compile, link and load the operators `torch.ops.clipq_native.*`; kept for the next time.

    Args:
        architectures: compute capabilities without their dot; empty for that of this machine's GPU,
            or `ARCHITECTURES` without one. Only the first call of a process builds anything.

    Returns:
        The library.

    Raises:
        KernelError: there is no toolkit, or it does not compile.
    """
    if _loaded:
        return _loaded[0]
    home = cuda_home()
    if not architectures and not torch.cuda.is_available():
        architectures = ARCHITECTURES
    if architectures:
        listed = ";".join(f"{number // 10}.{number % 10}" for number in architectures)
        os.environ["TORCH_CUDA_ARCH_LIST"] = listed
    os.environ["CUDA_HOME"] = str(home)
    from torch.utils import cpp_extension

    cpp_extension.CUDA_HOME = str(home)  # read once, where the module was imported before
    try:
        library = cpp_extension.load(
            "clipq_native",
            [str(_HERE / "operators.cpp"), str(_HERE / "rounding.cu")],
            extra_cflags=["-O2"],
            extra_cuda_cflags=_FLAGS,
            is_python_module=False,
        )
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        raise KernelError(
            f"the CUDA C++ kernels do not build: {error}",
            hint="ninja, a C++ compiler and a CUDA toolkit of torch's major version are needed",
        ) from error
    _register_fakes()
    _loaded.append(Path(library))
    return _loaded[0]


def _register_fakes() -> None:
    from clipq.kernels.tensors import code_dtype

    def codes(x: Tensor, scale: Tensor, zero: Tensor, low: int, high: int, *rest: int) -> Tensor:
        return x.new_empty(x.shape, dtype=code_dtype(low, high))

    def same(x: Tensor, *rest: object) -> Tensor:
        return x.new_empty(x.shape)

    torch.library.register_fake("clipq_native::quantize", codes)
    torch.library.register_fake("clipq_native::fake_quantize", same)
    torch.library.register_fake("clipq_native::fake_quantize_dynamic", same)


def native_resources(architecture: int) -> list[Resources]:
    """Compile rounding.cu for one architecture and return what each kernel in it asks for.

    Raises:
        KernelError: there is no toolkit, or it does not compile.
    """
    command = [str(cuda_home() / "bin" / "nvcc"), *_FLAGS, "--resource-usage", "-std=c++17"]
    command += ["-cubin", f"-arch=sm_{architecture}", "-o", os.devnull, str(_HERE / "rounding.cu")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise KernelError(
            f"rounding.cu does not compile for sm_{architecture}: {done.stderr.strip()}",
            hint="nvcc 12.8 or newer knows sm_80, sm_90 and sm_100",
        )
    return [_resources(entry, architecture) for entry in _ENTRY.finditer(done.stderr + done.stdout)]


def _resources(entry: re.Match[str], architecture: int) -> Resources:
    types = entry["types"]
    value = next(name for code, name in _TYPES.items() if types.startswith(code))
    if entry["kernel"] == "dynamic":
        kernel = "native-fake-quantize-dynamic"
    else:
        kernel = "native-quantize" if "Lb1" in types else "native-fake-quantize"
    before, codes, _ = types.partition("Lb1")
    code = {"a": " to int8", "h": " to uint8"}[before[-1]] if codes else ""
    shared = _SHARED.search(entry[0])
    return Resources(
        kernel,
        value + code,
        architecture,
        int(entry["registers"]),
        int(entry["stack"]),
        int(entry["spilled"]),
        int(shared[1]) if shared else 0,
        _WARPS,
        0.0,
    )
