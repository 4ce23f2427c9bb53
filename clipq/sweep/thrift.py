"""Successive halving by seeds: later seeds of the best configurations alone, where a plan asks.

Decisions are a function of the plan's units and their stored losses: neither the order in which
units were done, nor the engine, nor how often a sweep was interrupted has a part in them.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Annotated

from clipq.errors import ClipqError, SweepError, did_you_mean
from clipq.quant import QuantizerSpec
from clipq.shapes import Meta, Text
from clipq.sweep.units import Unit

__all__ = ["Dropped", "Thrift", "dropped", "rungs"]

_Share = Annotated[float, Meta(gt=0, le=1, description="a number above 0 and at most 1")]


@dataclass(frozen=True, slots=True)
class Thrift:
    """What a plan's table `[thrift]` says.

    Args:
        metric: whose loss against FP32 decides.
        probe: that it is measured on.
        keep: share of a model's configurations that go on from one seed to the next; rounded up.
    """

    metric: Text
    probe: Text
    keep: _Share = 0.5

    def check(self, metrics: Mapping[str, Sequence[str]]) -> None:
        """See that the plan measures what decides.

        Args:
            metrics: of each probe, as the plan has them.

        Raises:
            SweepError: it does not.

        >>> Thrift("ecee", "id").check({"id": ("ece", "top1")})
        Traceback (most recent call last):
        clipq.errors.SweepError: [thrift]: the plan measures no metric 'ecee' on 'id'
          fix: did you mean 'ece'? known: ece, top1
        """
        if self.probe not in metrics:
            raise SweepError(
                f"[thrift]: the plan measures no probe {self.probe!r}",
                hint=did_you_mean(self.probe, metrics),
            )
        if self.metric not in metrics[self.probe]:
            raise SweepError(
                f"[thrift]: the plan measures no metric {self.metric!r} on {self.probe!r}",
                hint=did_you_mean(self.metric, metrics[self.probe]),
            )

    def __str__(self) -> str:
        return f"a further seed for the best {self.keep:.0%} by {self.metric} on {self.probe}"


@dataclass(frozen=True, slots=True)
class Dropped:
    """A unit that is not measured, and why.

    Args:
        unit_id: of the unit.
        name: the unit, as people read it.
        loss: mean of its configuration over the seeds before.
        cut: the largest such mean that was kept.
        seeds: how many there were before.
    """

    unit_id: str
    name: str
    loss: float
    cut: float
    seeds: int


def _configuration(unit: Unit) -> tuple[str, str, int]:
    """Return what units that differ in nothing but their seed have in common.

    >>> from clipq.sweep.units import CalibrationDraw
    >>> _configuration(Unit("vit", "quarot:w4a8,seed=1", CalibrationDraw(64, 1)))
    ('vit', 'quarot:w4a8', 64)
    """
    quantizer = unit.quantizer
    try:
        spec = QuantizerSpec.parse(quantizer)
        options = tuple(one for one in spec.options if one[0] != "seed")
        quantizer = str(replace(spec, options=options))
    except ClipqError:
        pass  # an artifact's name: there is one of it
    return unit.model, quantizer, unit.calibration.samples


def rungs(units: Sequence[Unit]) -> list[list[Unit]]:
    """Return the first unit of every configuration, then the second ones, and so on, in order.

    >>> units = [Unit("vit", text) for text in ("quarot:w4,seed=0", "quarot:w4,seed=1", "rtn:w4")]
    >>> [[one.quantizer for one in rung] for rung in rungs(units)]
    [['quarot:w4,seed=0', 'rtn:w4'], ['quarot:w4,seed=1']]
    """
    seen: Counter[tuple[str, str, int]] = Counter()
    found: dict[int, list[Unit]] = defaultdict(list)
    for unit in units:
        configuration = _configuration(unit)
        found[seen[configuration]].append(unit)
        seen[configuration] += 1
    return [found[at] for at in sorted(found)]


def dropped(
    units: Sequence[Unit], losses: Mapping[str, float], *, seeds: int, keep: float
) -> list[Dropped]:
    """Return the units beyond the first `seeds` of each configuration that are not measured.

    After each seed, configurations of a model that have a further one are ranked by their mean loss
    so far, equal ones by their names; of those, the best are kept. One of which a loss is missing,
    since a unit failed or its metric has no value, is kept and not ranked.

    Args:
        units: of the plan.
        losses: by units' ids; more is worse.
        seeds: that were measured, of each configuration that had not been dropped.
        keep: share of a model's configurations that goes on.

    >>> units = [Unit("vit", f"quarot:w{bits},seed={at}") for bits in (8, 4) for at in (0, 1)]
    >>> losses = {units[0].id: 0.01, units[2].id: 0.20}
    >>> [(one.name, one.loss, one.cut) for one in dropped(units, losses, seeds=1, keep=0.5)]
    [('vit/quarot:w4,seed=1', 0.2, 0.01)]
    """
    found: list[Dropped] = []
    left = _by_configuration(units)
    for at in range(1, seeds + 1):
        by_model: dict[str, list[tuple[float, tuple[str, str, int]]]] = defaultdict(list)
        for configuration, own in left.items():
            values = [losses.get(unit.id, math.nan) for unit in own[:at]]
            if len(own) > at and all(map(math.isfinite, values)):
                by_model[configuration[0]].append((fmean(values), configuration))
        for ranked in by_model.values():
            ranked.sort()
            kept = math.ceil(round(keep * len(ranked), 9))  # 0.07 x 100 is 7.000000000000001
            for loss, configuration in ranked[kept:]:
                cut = ranked[kept - 1][0]
                found += [
                    Dropped(unit.id, str(unit), loss, cut, at)
                    for unit in left.pop(configuration)[at:]
                ]
    return found


def _by_configuration(units: Sequence[Unit]) -> dict[tuple[str, str, int], list[Unit]]:
    found: dict[tuple[str, str, int], list[Unit]] = {}
    for unit in units:
        found.setdefault(_configuration(unit), []).append(unit)
    return found
