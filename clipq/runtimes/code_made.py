"""What a function in a file of the user's makes: a module, or towers, of the FP32 model."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clipq.dependencies.code_file import CodeFile
from clipq.dependencies.file_reads import watching
from clipq.errors import ArtifactError

__all__ = ["made"]


def made(
    path: Path, function: str, reference: Callable[[], Any] | None, *, known: set[Path]
) -> Any:
    """Return what a function makes, of a copy of the FP32 model where it takes an argument.

    Args:
        path: of the file.
        function: its name there.
        reference: returns the FP32 model.
        known: files that identify what is made.

    Raises:
        ArtifactError: the file or the function fails, or reads a file of the project that is not
            `known`.
    """
    where, file = f"{path.name}:{function}", CodeFile(path, ArtifactError)
    with watching() as read:
        make = file.function(file.module(), function)
        takes = _takes_model(make, where)
    arguments = [_copied(reference, where)] if takes else []
    with watching() as read_by_call:
        result = file.called(lambda: make(*arguments), f"{where} failed")
    file.refuse_undeclared(read | read_by_call, known, where=where)
    return result


def _takes_model(make: Callable[..., Any], where: str) -> bool:
    """Whether a function takes the FP32 model, as its only argument that has no default."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # written in C
        return True
    needed = [one for one in parameters if one.default is one.empty and one.kind not in
              (one.VAR_POSITIONAL, one.VAR_KEYWORD)]  # fmt: skip
    by_name = [one.name for one in needed if one.kind is one.KEYWORD_ONLY]
    if len(needed) > 1 or by_name:
        raise ArtifactError(
            f"{where} needs the arguments {', '.join(one.name for one in needed)}",
            hint="write a function of the FP32 model alone, make(model), or of nothing, make()",
        )
    return bool(needed) or any(one.name == "model" for one in parameters)


def _copied(reference: Callable[[], Any] | None, where: str) -> Any:
    if reference is None:
        raise ArtifactError(
            f"{where} takes the FP32 model, and none is given", hint="a function make() takes none"
        )
    return copy.deepcopy(reference())  # quantization is done in place
