"""What a .pte says of itself before it is run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clipq.runtimes.executorch_program import ExecuTorchProgram
from clipq.runtimes.file_kinds import EXECUTORCH, check_kind
from clipq.runtimes.finding import Finding
from clipq.runtimes.runtime import Look

__all__ = ["look_at_pte"]

_PRODUCTS = ("addmm", "bmm", "convolution", "linear", "mm")
_QUANTIZING = ("cortex_m::", "quantized_decomposed::", "torchao::")


def look_at_pte(path: Path) -> Look:
    """Return what a program says of itself.

    `quantized` counts operators of quantizing libraries, `in_float` products that are neither
    delegated nor quantized. What a backend does with its share is not in the file's graph.

    Raises:
        ArtifactError: the file is missing, truncated or of another format.
    """
    check_kind(path, (EXECUTORCH,))
    program = ExecuTorchProgram(path)
    plain = {name.partition("::")[2]: count for name, count in program.operators.items()}
    quantized = {
        name.partition("::")[2]: count
        for name, count in program.operators.items()
        if name.startswith(_QUANTIZING)
    }
    in_float = {name: count for name, count in plain.items() if name in _PRODUCTS}
    return Look(
        bytes=program.size,
        quantized=dict(sorted(quantized.items())),
        in_float=dict(sorted(in_float.items())),
        inputs=program.inputs,
        outputs=program.outputs,
        findings=tuple(_findings(program)),
    )


def _findings(program: ExecuTorchProgram) -> Iterator[Finding]:
    for backend, count in sorted(program.delegates.items()):
        yield Finding(
            "delegated",
            f"{count} parts are executed by {backend}: which of its products are quantized is not "
            "in the file's graph",
            wrong=False,
        )
    batches = {port.batch for port in program.inputs}
    if batches and -1 not in batches:
        yield Finding(
            "fixed-batch",
            f"it takes {min(batches)} samples at a time and no other number",
            wrong=False,
        )
