"""Whether floats are executed in the precision that was asked for, or that the file holds.

A runtime may narrow them without a word: OpenVINO runs an FP32 graph in BF16 wherever the CPU can.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from clipq.errors import ArtifactError
from clipq.runtimes.finding import Finding
from clipq.runtimes.runtime import TowerFacts

__all__ = ["check_as_exported", "narrowest", "precision_findings"]

_MANTISSA = {"f64": 52, "f32": 23, "tf32": 10, "f16": 10, "bf16": 7}
"""Bits after the leading one: what decides how much of a product's value is lost."""
_WORDS = {"bfloat16": "bf16", "float16": "f16", "float32": "f32", "float64": "f64"}
"""Of numpy's names of types, from the narrowest."""


def precision_findings(asked: str, facts: TowerFacts, /) -> tuple[Finding, ...]:
    """Return what is to be said of the precision that a tower is executed in.

    Args:
        asked: the session's ``precision``; "" where nothing was asked.
        facts: of the open tower. ``said["stored"]`` is the precision of the float weights in its
            file, ``f32`` where nothing is said.

    >>> precision_findings("f32", TowerFacts(precision="bf16"))[0].problem
    'bf16 is executed, f32 was asked for'
    >>> precision_findings("", TowerFacts(precision="f32"))
    ()
    """
    executed = facts.precision
    if not executed or executed == asked:
        return ()
    by = f" by {facts.provider}" if facts.provider else ""
    if asked:
        problem = f"{executed} is executed{by}, {asked} was asked for"
        fix = f'ask for precision = "{executed}", or run it where {asked} is supported'
        return (Finding("precision", problem, fix),)
    stored = str(facts.said.get("stored") or "f32")
    if _MANTISSA.get(executed, 0) >= _MANTISSA.get(stored, 0):
        return ()
    return (
        Finding(
            "precision",
            f"{executed} is executed{by}, the file holds {stored}, and nothing was asked for: "
            "another processor may execute it otherwise",
            f'say what is meant: session = {{ precision = "{stored}" }}',
            wrong=False,
        ),
    )


def narrowest(types: Collection[str]) -> str:
    """Return the narrowest float type among some, named as in sessions; "" where there is none.

    Args:
        types: in numpy's words.

    >>> narrowest({"int64", "float32", "bfloat16"})
    'bf16'
    """
    return next((word for name, word in _WORDS.items() if name in types), "")


def check_as_exported(asked: str, executed: str, path: Path) -> None:
    """Refuse another precision than that of a file in which it was decided at export.

    Args:
        asked: the session's ``precision``; "" where nothing was asked.
        executed: what the file's float operations are in; "" where it has none.
        path: the file, for messages.

    Raises:
        ArtifactError: another one is asked for.

    >>> check_as_exported("bf16", "f32", Path("image.pte"))
    Traceback (most recent call last):
    clipq.errors.ArtifactError: image.pte executes float operations in f32, as it was exported, ...
      fix: export the model in bf16, or say precision = "f32"
    """
    if asked and executed and asked != executed:
        raise ArtifactError(
            f"{path} executes float operations in {executed}, as it was exported, not in {asked}",
            hint=f'export the model in {asked}, or say precision = "{executed}"',
        )
