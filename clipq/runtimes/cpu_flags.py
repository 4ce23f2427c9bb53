"""Instruction sets of this processor that change what integer and half-precision kernels answer.

Without VNNI an int8 kernel adds pairs of products in 16 bits, which saturate; with AMX or
AVX512-BF16 a runtime may execute FP32 graphs in bfloat16. The same file then gives other numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

__all__ = ["NUMERIC_FLAGS", "cpu_flags"]

NUMERIC_FLAGS = (
    *("avx2", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_int8", "amx_bf16", "amx_tile", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)
"""As Linux calls them in /proc/cpuinfo, of x86-64 and of 64-bit ARM."""


@cache
def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Return which of `NUMERIC_FLAGS` the processor has; () where the system does not tell.

    >>> set(cpu_flags()) <= set(NUMERIC_FLAGS)
    True
    """
    try:
        text = path.read_text()
    except OSError:
        return ()
    return _flags(text.splitlines())


def _flags(lines: Iterable[str]) -> tuple[str, ...]:
    for line in lines:
        name, _, values = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return tuple(flag for flag in NUMERIC_FLAGS if flag in values.split())
    return ()
