"""Units that an engine has read ahead, of which those of a model that is loaded are taken first."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice
from typing import Generic, Protocol, TypeVar

from clipq.sweep.executor import Coming

__all__ = ["UnitQueue"]


class _OfModel(Protocol):
    @property
    def model(self) -> str: ...


_UnitT = TypeVar("_UnitT", bound=_OfModel)


class UnitQueue(Generic[_UnitT]):
    """Units to come, of which a few are read ahead.

    Args:
        units: in order. Where `Coming` says that it is over, what was read ahead is dropped.

    >>> from clipq.sweep.units import Unit
    >>> queue = UnitQueue(Unit(model, "rtn:w4") for model in ("vit", "resnet", "vit"))
    >>> queue.read(3)
    3
    >>> [queue.take(model, others).model for model, others in (("vit", ()), ("", {"vit"}))]
    ['vit', 'resnet']
    """

    def __init__(self, units: Iterable[_UnitT]) -> None:
        self._given = units
        self._units = iter(units)
        self._ahead: list[_UnitT] = []

    def read(self, count: int) -> int:
        """Read on until so many units are ahead; return how many are, fewer where units end."""
        if isinstance(self._given, Coming) and self._given.over():
            self._ahead.clear()
        self._ahead.extend(islice(self._units, max(0, count - len(self._ahead))))
        return len(self._ahead)

    def take(self, model: str, others: Collection[str]) -> _UnitT | None:
        """Return the next of the units read; None where there is none.

        Args:
            model: that is loaded where the unit goes; its units come first.
            others: models that are loaded elsewhere; their units come last.
        """
        best, lowest = None, (True, True)
        for at, unit in enumerate(self._ahead):
            rank = (unit.model != model, unit.model in others)
            if best is None or rank < lowest:
                best, lowest = at, rank
            if not rank[0]:
                break
        return None if best is None else self._ahead.pop(best)
