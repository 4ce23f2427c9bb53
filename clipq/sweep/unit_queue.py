"""Units that an engine has read ahead, of which those of a model that is loaded are taken first."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice

from clipq.sweep.executor import Coming
from clipq.sweep.units import Unit

__all__ = ["UnitQueue"]


class UnitQueue:
    """Units to come, of which a few are read ahead.

    Args:
        units: in order. Where `Coming` says that it is over, what was read ahead is dropped.

    >>> queue = UnitQueue(Unit(model, "rtn:w4") for model in ("vit", "resnet", "vit"))
    >>> queue.read(3)
    3
    >>> [queue.take(model, others).model for model, others in (("vit", ()), ("", {"vit"}))]
    ['vit', 'resnet']
    """

    def __init__(self, units: Iterable[Unit]) -> None:
        self._given = units
        self._units = iter(units)
        self._ahead: list[Unit] = []

    def read(self, count: int) -> int:
        """Read on until so many units are ahead; return how many are, fewer where units end."""
        if isinstance(self._given, Coming) and self._given.over():
            self._ahead.clear()
        self._ahead.extend(islice(self._units, max(0, count - len(self._ahead))))
        return len(self._ahead)

    def take(self, model: str, others: Collection[str]) -> Unit | None:
        """Return the next of the units read; None where there is none.

        Args:
            model: that is loaded where the unit goes; its units come first.
            others: models that are loaded elsewhere; their units come last.
        """
        if not self._ahead:
            return None
        ranked = [
            (unit.model != model, unit.model in others, at) for at, unit in enumerate(self._ahead)
        ]
        return self._ahead.pop(min(ranked)[2])
