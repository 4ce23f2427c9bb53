"""What a sweep may spend in all its sittings: processor hours, GPU hours, money."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from clipq.errors import SweepError

__all__ = ["Spending"]


@dataclass(frozen=True, slots=True)
class Spending:
    """Limits on what all attempts of a sweep took together, failed ones and earlier runs included.

    Args:
        cpu_hours: processor hours; None for no limit, as of the others.
        gpu_hours: hours that units held a GPU for.
        cost: in the currency of the prices.
        price: of a processor hour.
        gpu_price: of a GPU's hour.

    Raises:
        SweepError: a limit that is not above 0, a price below 0, or a cost without any price.

    >>> limits = Spending(cpu_hours=2.0, cost=1.0, price=0.05, gpu_price=2.0)
    >>> limits.reached(cpu_seconds=3600.0, gpu_seconds=900.0)
    ''
    >>> limits.reached(cpu_seconds=7200.0, gpu_seconds=0.0)
    'budget of processor hours'
    >>> limits.reached(cpu_seconds=3600.0, gpu_seconds=1800.0)
    'budget of cost'
    """

    cpu_hours: float | None = None
    gpu_hours: float | None = None
    cost: float | None = None
    price: float = 0.0
    gpu_price: float = 0.0

    def __post_init__(self) -> None:
        for name in (each.name for each in fields(self)):
            given, priced = getattr(self, name), name.endswith("price")
            if given is None or (math.isfinite(given) and (given > 0 or (priced and given == 0))):
                continue
            raise SweepError(
                f"{name.replace('_', ' ')} = {given:g}",
                hint=f"give a number {'of 0 or more' if priced else 'above 0'}",
            )
        if self.cost is not None and not (self.price or self.gpu_price):
            raise SweepError(
                f"a cost of {self.cost:g} at no price",
                hint="say what an hour costs: --price of a processor, --gpu-price of a GPU",
            )

    def reached(self, cpu_seconds: float, gpu_seconds: float) -> str:
        """Return the limit that is reached, in words; "" where none is."""
        cpu, gpu = cpu_seconds / 3600.0, gpu_seconds / 3600.0
        spent = (
            ("processor hours", self.cpu_hours, cpu),
            ("GPU hours", self.gpu_hours, gpu),
            ("cost", self.cost, cpu * self.price + gpu * self.gpu_price),
        )
        over = [name for name, most, so_far in spent if most is not None and so_far >= most]
        return f"budget of {over[0]}" if over else ""
