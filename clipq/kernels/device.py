"""Where a kernel can run: a GPU that is new enough, or the CPU under Triton's interpreter."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from clipq.errors import KernelError

__all__ = [
    "CAPABILITY",
    "capability",
    "check_devices",
    "interpreting",
    "launching_on",
    "unusable",
    "use_interpreter",
]

CAPABILITY = (8, 0)
"""Least compute capability of clipq's kernels: bfloat16 and int8 tensor cores."""
_PROGRAMS = "clipq.kernels.programs."  # modules of Triton programs
_LIBRARY = ("triton.language.standard", "triton.language.random", "triton.language")


def interpreting() -> bool:
    """Return whether Triton interprets kernels, on the CPU."""
    if importlib.util.find_spec("triton") is None:
        return False
    import triton

    return bool(triton.knobs.runtime.interpret)


def use_interpreter() -> None:
    """Interpret kernels on the CPU from now on; slow, exact, needs no GPU.

    Raises:
        KernelError: kernels were loaded for a GPU already, or Triton is not installed.
    """
    if importlib.util.find_spec("triton") is None:
        raise KernelError("Triton is not installed", hint="pip install triton (Linux)")
    loaded = any(name.startswith(_PROGRAMS) for name in sys.modules)
    if loaded and not interpreting():
        raise KernelError(
            "kernels were loaded for a GPU before the interpreter was asked for",
            hint="set TRITON_INTERPRET=1 in the environment of the process",
        )
    _mend_interpreter()
    if interpreting():
        return
    import triton

    triton.knobs.runtime.interpret = True
    # `triton.jit` decides when it decorates: Triton's own functions, which torch may have imported
    # before, are decorated again.
    for name in _LIBRARY:
        if name in sys.modules:
            importlib.reload(sys.modules[name])


@cache
def _mend_interpreter() -> None:
    """Let arguments bound loops: numpy 2.4 refuses how Triton 3.6, of torch 2.11, reads them."""
    if not version("triton").startswith("3.6."):
        return
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def mended(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = mended


def capability(device: torch.device) -> tuple[int, int]:
    """Return the compute capability of a CUDA device."""
    return torch.cuda.get_device_capability(device)


def unusable(device: torch.device, *, least: tuple[int, int] = CAPABILITY) -> str:
    """Return why Triton kernels cannot run on a device, "" where they can."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if device.type == "cuda":
        actual = capability(device)
        if actual < least:
            wanted, has = (".".join(map(str, pair)) for pair in (least, actual))
            return f"the GPU has compute capability {has}, the kernel needs {wanted}"
        return "kernels are interpreted, on the CPU alone" if interpreting() else ""
    if device.type == "cpu":
        return "" if interpreting() else "the CPU runs kernels by Triton's interpreter alone"
    return f"no kernel runs on {device.type}"


def check_devices(*tensors: Tensor | None, least: tuple[int, int] = CAPABILITY) -> torch.device:
    """Return the one device of all tensors.

    Raises:
        KernelError: they lie on several, or on one that cannot run the kernel.
    """
    devices = {tensor.device for tensor in tensors if tensor is not None}
    if len(devices) != 1:
        names = ", ".join(sorted(map(str, devices)))
        raise KernelError(
            f"tensors on several devices: {names}", hint="move all of them to one device"
        )
    device = devices.pop()
    reason = "" if device.type == "meta" else unusable(device, least=least)
    if reason:
        raise KernelError(
            f"a kernel was called with tensors on {device}: {reason}",
            hint="use a CUDA device, or TRITON_INTERPRET=1 to interpret on the CPU",
        )
    return device


@contextmanager
def launching_on(device: torch.device) -> Iterator[None]:
    """Launch on the tensors' own device, whichever is current, on its current stream."""
    if device.type != "cuda":
        if interpreting():
            _mend_interpreter()
        yield
        return
    with torch.cuda.device(device):
        yield
