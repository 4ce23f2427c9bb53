"""What is to be said of weights that a tool of quantization left in float."""

from __future__ import annotations

from clipq.errors import listed
from clipq.runtimes.finding import Finding
from clipq.runtimes.runtime import TowerFacts

__all__ = ["float_share_findings"]


def float_share_findings(facts: TowerFacts, /) -> tuple[Finding, ...]:
    """Return what is worth knowing of the weights of a quantized tower that stay in float.

    Args:
        facts: of the open tower; ``said`` holds how many weights are ``quantized`` and how many are
            ``in_float``, by name, the ``share_in_float`` of the multiply-adds, and ``training``.

    >>> said = {"quantized": {"Int8Tensor": 12}, "in_float": {"in_proj_weight": 6, "proj": 1},
    ...         "share_in_float": 0.353}
    >>> print(float_share_findings(TowerFacts(said=said))[0].problem)
    35 % of the multiply-adds with weights stay in float: in_proj_weight (6), proj
    """
    found = []
    share = float(facts.said.get("share_in_float", 0.0))
    if facts.said.get("quantized") and share >= 0.005:
        names = [
            name if times == 1 else f"{name} ({times})"
            for name, times in sorted(facts.said["in_float"].items(), key=lambda one: -one[1])
        ]
        found.append(
            Finding(
                "in-float",
                f"{share:.0%} of the multiply-adds with weights stay in float: "
                f"{listed(names, most=6)}".replace("%", " %", 1),
                "tools that replace modules pass over weights that no nn.Linear holds: make "
                "attention explicit first, or accept what it costs",
                wrong=False,
            )
        )
    if facts.said.get("training"):
        found.append(
            Finding(
                "training",
                "the module is in training mode: dropout is random, and batch norm depends on the "
                "batch",
                "return module.eval()",
            )
        )
    return tuple(found)
