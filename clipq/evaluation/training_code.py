"""What identifies the code that trains a quantizer: method, trainer and objective."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from clipq.dependencies.import_graph import dependencies
from clipq.dependencies.installed import versions_behind
from clipq.evaluation.identity import method_identity
from clipq.provenance import digest, sha256_file

__all__ = ["training_code"]

_TRAINER = Path(__file__).resolve().parents[1] / "training"


def training_code(quantizer: str, objective: Any) -> dict[str, str | int]:
    """Return what identifies the code that trains a quantizer.

    Args:
        quantizer: its text.
        objective: what is minimised; of one that is not clipq's, the files behind it count.

    >>> sorted(training_code("rtn:w8", len))
    ['code_sha256', 'method_version', 'training_sha256']
    """
    found = {**method_identity(quantizer), "training_sha256": _trainer_hash()}
    module = str(getattr(objective, "__module__", "") or type(objective).__module__)
    if module.partition(".")[0] in ("clipq", "builtins"):
        return found
    behind = dependencies(module)
    files = sorted((path.name, sha256_file(path)) for path in behind.files)
    return found | {"objective_sha256": digest([files, versions_behind(behind.packages)])}


@cache
def _trainer_hash() -> str:
    """Return the sha256 (hex) of every source of the trainer, and of what calls it."""
    total = hashlib.sha256()
    for path in [*sorted(_TRAINER.rglob("*.py")), Path(__file__).with_name("training_run.py")]:
        content = path.read_bytes()
        total.update(f"{path.name}:{len(content)}\n".encode() + content)
    return total.hexdigest()
