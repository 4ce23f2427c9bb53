"""What is wrong with an artifact, or worth knowing of it, found without judging a metric."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    Args:
        kind: a short name, e.g. ``infinite-scale``, ``precision``, ``batch-dependence``.
        problem: one sentence with the place and the offending value.
        fix: what mends it; "" where nothing has to.
        wrong: whether it cannot be meant, so that `clipq artifact check` fails.

    >>> Finding("precision", "it ran in bf16, not in f32", "ask for precision = 'f32'").wrong
    True
    """

    kind: str
    problem: str
    fix: str = ""
    wrong: bool = True

    def of_tower(self, tower: str) -> Finding:
        """Return the finding, its sentence beginning with the tower that it was made in.

        >>> Finding("mask", "a constant holds -inf").of_tower("text").problem
        'text tower: a constant holds -inf'
        """
        return replace(self, problem=f"{tower} tower: {self.problem}")

    def to_plain(self) -> dict[str, str | bool]:
        """Return the finding as strict-JSON values."""
        return asdict(self)
