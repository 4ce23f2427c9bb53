"""Whether floats are executed in the precision that was asked for, or that the file holds.

A runtime may narrow them without a word: OpenVINO runs an FP32 graph in BF16 wherever the CPU can.
"""

from __future__ import annotations

from clipq.runtimes.finding import Finding
from clipq.runtimes.runtime import TowerFacts

__all__ = ["precision_findings"]

_MANTISSA = {"f64": 52, "f32": 23, "tf32": 10, "f16": 10, "bf16": 7}
"""Bits after the leading one: what decides how much of a product's value is lost."""


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
