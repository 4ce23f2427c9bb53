"""`clipq kernels compile`: what each kernel asks of a GPU; needs none."""

from __future__ import annotations

import argparse
import sys

from tabulate import tabulate

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Compile kernels for each architecture and print registers, spills and shared memory.

    Raises:
        KernelError: an unknown kernel, Triton is absent, or a kernel does not compile.
    """
    from clipq.kernels.compiled import ARCHITECTURES, compile_kernels

    rows = []
    for found in compile_kernels(options.arch or ARCHITECTURES, options.kernels):
        print(f"{found.kernel} ({found.example}), sm_{found.architecture}", file=sys.stderr)
        rows.append(
            (
                found.kernel,
                found.example,
                f"sm_{found.architecture}",
                found.registers,
                found.spill_bytes,
                found.shared_bytes,
                32 * found.warps,
            )
        )
    headers = (
        "kernel",
        "example",
        "GPU",
        "registers",
        "spilled B",
        "shared B",
        "threads",
    )
    print(tabulate(rows, headers))
    return 0
