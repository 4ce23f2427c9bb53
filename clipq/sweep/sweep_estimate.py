"""What a sweep will take: time, money and disk, from what units of its kinds took."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from clipq.errors import SweepError

__all__ = ["Kind", "Prices", "SweepEstimate", "Taken", "estimate", "kind_of"]

Kind = tuple[str, str]
"""Model and method: units of one kind take about as long as each other."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a unit took, or one on average.

    Args:
        seconds: of processors.
        gpu_seconds: that it held a GPU for.
    """

    seconds: float
    gpu_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Prices:
    """What an hour costs, in any currency.

    Args:
        processor: of one processor; None where it is not known.
        gpu: likewise, of one GPU.
    """

    processor: float | None = None
    gpu: float | None = None

    def cost(self, taken: Taken) -> float | None:
        """Return what some time costs; None where no price is known."""
        if self.processor is None and self.gpu is None:
            return None
        spent = taken.seconds * (self.processor or 0.0) + taken.gpu_seconds * (self.gpu or 0.0)
        return spent / 3600.0


@dataclass(frozen=True, slots=True)
class SweepEstimate:
    """What units will take, as far as it can be told.

    Args:
        processor_seconds: of all of them.
        gpu_seconds: likewise.
        seconds: from the first to the last, at least.
        cost: in whatever unit hours' prices were given in; None where none was.
        disk: bytes of their parts; None where no part was measured.
        basis: what it rests on, in words.
    """

    processor_seconds: float
    gpu_seconds: float
    seconds: float
    cost: float | None
    disk: int | None
    basis: str


def kind_of(unit: str) -> Kind:
    """Return the kind of a unit, from its name.

    >>> kind_of("vit-clean/rot+lsq:w4a8,steps=100@vision"), kind_of("vit-clean/ort-int8")
    (('vit-clean', 'rot+lsq'), ('vit-clean', 'ort-int8'))
    """
    model, _, quantizer = unit.partition("/")
    return model, re.split(r"[:,@ ]", quantizer, maxsplit=1)[0]


def estimate(
    units: Mapping[Kind, int],
    taken: Mapping[Kind, Sequence[Taken]],
    *,
    processes: int = 1,
    prices: Prices = Prices(),
    part_bytes: float | None = None,
) -> SweepEstimate | None:
    """Return what units will take; None where nothing is known of any.

    A unit is supposed to take the mean of its kind. Where none of that was measured, the mean of
    its method's, with whatever model; where there is none, the mean of all.

    Args:
        units: how many, of each kind.
        taken: what some of them took.
        processes: that work at once, each on a unit.
        prices: of an hour.
        part_bytes: of a part on average.

    Raises:
        SweepError: a time, a price or a number of processes that cannot be.

    >>> quick, slow = ("vit", "rtn"), ("vit", "lsq")
    >>> found = estimate({quick: 900, slow: 100}, {quick: [Taken(7.0), Taken(9.0)]}, processes=2)
    >>> found.processor_seconds, found.seconds
    (8000.0, 4000.0)
    >>> found.basis
    '2 units that were measured; 100 units are of models and methods of which none was'
    >>> known = {quick: [Taken(8.0)], slow: [Taken(80.0)]}
    >>> estimate({quick: 900, slow: 100}, known, prices=Prices(0.05)).processor_seconds
    15200.0
    """
    every = [one for each in taken.values() for one in each]
    shortest = min((one.seconds for one in every), default=1.0)
    priced = [price for price in (prices.processor, prices.gpu) if price is not None]
    if processes < 1 or any(price < 0 for price in priced) or not shortest > 0:
        raise SweepError(
            f"{processes} processes at {', '.join(f'{one:g}' for one in priced) or 'no price'}, "
            f"{shortest:g} seconds a unit",
            hint="give one process or more, prices of 0 or more, and seconds above 0",
        )
    if not every:
        return None
    total = Taken(0.0)
    unknown = 0
    for kind, count in units.items():
        like, exactly = _like(kind, taken)
        unknown += 0 if exactly else count
        total = Taken(
            total.seconds + count * fmean(one.seconds for one in like),
            total.gpu_seconds + count * fmean(one.gpu_seconds for one in like),
        )
    number = sum(units.values())
    return SweepEstimate(
        processor_seconds=total.seconds,
        gpu_seconds=total.gpu_seconds,
        seconds=max(total.seconds, total.gpu_seconds) / min(processes, max(number, 1)),
        cost=prices.cost(total),
        disk=None if part_bytes is None else round(number * part_bytes),
        basis=_basis(len(every), unknown),
    )


def _like(kind: Kind, taken: Mapping[Kind, Sequence[Taken]]) -> tuple[list[Taken], bool]:
    """Return what units took that are like one of a kind; whether they are of the very kind."""
    if taken.get(kind):
        return list(taken[kind]), True
    of_method = [one for (_, method), each in taken.items() if method == kind[1] for one in each]
    return of_method or [one for each in taken.values() for one in each], False


def _basis(measured: int, unknown: int) -> str:
    said = f"{measured:,} {'unit that was' if measured == 1 else 'units that were'} measured"
    if not unknown:
        return said
    return f"{said}; {unknown:,} units are of models and methods of which none was"
