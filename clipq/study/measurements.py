"""What runs and sweeps measured of the same models on the same probes, as one thing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from scipy.special import ndtri

from clipq.cases import FP32, Cell
from clipq.estimate import Estimate
from clipq.records import CaseResult
from clipq.study.calculable import calculable
from clipq.study.configurations import Configuration
from clipq.study.drawn_results import DrawnResults
from clipq.study.effects import Point, Series, mean_of

__all__ = ["Measurements", "PairedError"]

PairedError = Callable[[CaseResult, CaseResult], Estimate | None]
"""From the same case of two candidates to a paired estimate; None where there is none."""

_NOISE = frozenset({"gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"})
_BLUR = frozenset({"defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur"})


@dataclass(frozen=True)
class Measurements:
    """All cases of some records and units, by model, configuration, probe and metric.

    Args:
        results: by case id; where a part of the calibration split was drawn, with the draw behind.
        evidence: of all records, by kind: models, probes, figures of FP32.
        configurations: of each model, in the order of their texts.
        drawn: by model and configuration, then by seed.
        paired: where paired errors of two candidates come from; None: errors are added.
        beyond: cases of which a number is too large to calculate with, and counts as not measured.
    """

    results: Mapping[str, CaseResult]
    evidence: Mapping[str, Mapping[str, Any]]
    configurations: Mapping[str, tuple[Configuration, ...]]
    drawn: Mapping[tuple[str, str], Mapping[int, DrawnResults]] = field(
        default_factory=dict, repr=False
    )
    paired: PairedError | None = None
    beyond: tuple[str, ...] = ()

    @property
    def models(self) -> tuple[str, ...]:
        """The models, sorted."""
        return tuple(sorted(self.configurations))

    def probes(self, role: str, *, distance: str = "") -> tuple[str, ...]:
        """Return the probes of a role, and of a distance where one is asked for."""
        return tuple(
            name
            for name, seen in sorted(self.evidence.get("probes", {}).items())
            if seen.get("role") == role and (not distance or seen.get("distance") == distance)
        )

    def seeds(self, model: str, of: Configuration) -> tuple[int, ...]:
        """Return the seeds that a configuration was measured with."""
        return tuple(sorted(self.drawn.get((model, of.text), {})))

    def units(self, model: str, of: Configuration) -> tuple[str, ...]:
        """Return the ids of the units behind a configuration, by seed; "" of a run's record."""
        found = self.drawn.get((model, of.text), {})
        return tuple(found[seed].unit for seed in sorted(found))

    def units_of(self, cases: Iterable[str]) -> list[str]:
        """Return the ids of the units that cases were measured in, sorted; none of records."""
        return sorted({self._unit_of[case] for case in cases if case in self._unit_of})

    @cached_property
    def _unit_of(self) -> dict[str, str]:
        return {
            held.results[key].id + held.suffix: unit
            for by_seed in self.drawn.values()
            for held in by_seed.values()
            for key, unit in held.units.items()
        }

    def has(self, model: str, probe: str, metric: str) -> bool:
        """Whether a metric of a probe was measured of any of a model's quantizers."""
        return (model, probe, metric) in self._measured

    def probes_with(
        self, model: str, role: str, metric: str, *, distance: str = ""
    ) -> tuple[str, ...]:
        """Return the probes of a role that have a metric of a model; other models may have more."""
        found = self.probes(role, distance=distance)
        return tuple(probe for probe in found if self.has(model, probe, metric))

    def in_distribution(self, model: str) -> str | None:
        """Return the in-distribution probe that a model was measured on."""
        known = self.probes("in-distribution")
        measured = {(model, probe) for model, probe, _ in self._measured}
        return next((probe for probe in known if (model, probe) in measured), None)

    def corrupted_by(self, kind: str) -> tuple[str, ...]:
        """Return the probes whose images have ``noise``, or ``blur``, and nothing else."""
        among = {"noise": _NOISE, "blur": _BLUR}[kind]
        found = set()
        for cell, drawn in self.evidence.get("figures", {}).items():
            probe = Cell.parse(cell).probe
            if drawn.get("groups") and set(drawn["groups"]) <= among:
                found.add(probe)
        return tuple(name for name in self.probes("corruption") if name in found)

    def calibration_bins(self, model: str, probe: str) -> Mapping[str, Sequence[Any]] | None:
        """Return FP32's reliability bins: samples, confidence and accuracy of each."""
        figures = self.evidence.get("figures", {}).get(str(Cell(model, FP32, probe)), {})
        bins: Mapping[str, Sequence[Any]] | None = figures.get("calibration")
        told = [one for numbers in (bins or {}).values() for one in numbers if one is not None]
        return bins if all(calculable(one) is not None for one in told) else None

    def baseline(self, model: str, probe: str, metric: str) -> tuple[float, int] | None:
        """Return FP32's value and its number of samples."""
        for found in self.configurations[model]:
            for _, result in self._results(model, found, probe, metric).values():
                if result.baseline is not None:
                    return result.baseline, result.samples
        return None

    def change(
        self, model: str, of: Configuration, probes: Sequence[str], metric: str
    ) -> Series | None:
        """Return what a configuration changes of a metric: its value minus FP32's, by seed.

        Of several probes, the mean over them.
        """
        return self._mean(model, of, probes, metric, level=False)

    def level(
        self, model: str, of: Configuration, probes: Sequence[str], metric: str
    ) -> Series | None:
        """Return a metric's own values, by seed, with the errors of their losses."""
        return self._mean(model, of, probes, metric, level=True)

    def values(
        self, model: str, of: Configuration, probes: Sequence[str], metric: str
    ) -> Series | None:
        """Return a metric's own values, by seed: of those whose errors are known.

        Where none is (nothing was resampled), of all: numbers that no interval belongs to.
        """
        known = self.level(model, of, probes, metric)
        return known or self._mean(model, of, probes, metric, level=True, known=False)

    def margin(
        self, model: str, of: Configuration, probes: Sequence[str], metric: str
    ) -> float | None:
        """Return the margin that results were judged by, the mean over probes; None of none."""
        found = []
        for probe in probes:
            own = next(iter(self._results(model, of, probe, metric).values()), None)
            if own is None or own[1].estimate.margin is None:
                return None
            found.append(own[1].estimate.margin)
        return sum(found) / len(found) if found else None

    def paired_error(self, one: str, other: str) -> float | None:
        """Return the standard error of the difference of two cases, if predictions are at hand."""
        if self.paired is None:
            return None
        estimate = self.paired(self.results[one], self.results[other])
        return None if estimate is None else estimate.standard_error

    def _mean(
        self,
        model: str,
        of: Configuration,
        probes: Sequence[str],
        metric: str,
        *,
        level: bool,
        known: bool = True,
    ) -> Series | None:
        found = []
        for probe in probes:
            points = {}
            for seed, (name, result) in self._results(model, of, probe, metric).items():
                point = _point(name, result, level=level, known=known)
                if point is not None:
                    points[seed] = point
            if not points:
                return None
            found.append(Series(points, of.draws))
        return mean_of(found)

    def _results(
        self, model: str, of: Configuration, probe: str, metric: str
    ) -> dict[int, tuple[str, CaseResult]]:
        """Return results with their ids, by seed."""
        found = {}
        for seed, held in self.drawn.get((model, of.text), {}).items():
            result = held.results.get((probe, metric))
            if result is not None:
                found[seed] = (result.id + held.suffix, result)
        return found

    def unit(self, metric: str) -> str:
        """Return a metric's unit; "" of one that was not measured."""
        return self._units.get(metric, "")

    @cached_property
    def _units(self) -> dict[str, str]:
        return {each.metric: each.unit for each in self.results.values()}

    @cached_property
    def _measured(self) -> frozenset[tuple[str, str, str]]:
        """Models, probes and metrics of which anything was measured."""
        return frozenset(
            (each.model, each.probe, each.metric)
            for each in self.results.values()
            if each.observed is not None
        )


def _point(name: str, result: CaseResult, *, level: bool, known: bool) -> Point | None:
    estimate = result.estimate
    if result.observed is None or (known and estimate.standard_error is None):
        return None
    if level:
        value = result.observed
    elif result.baseline is None:
        return None
    else:
        value = result.observed - result.baseline
    return Point(value, _widest(estimate), (name,))


def _widest(estimate: Estimate) -> float:
    """Return the standard error, or the one whose normal interval covers the recorded one.

    Intervals that follow scores, or skewness, are wider on a side than their standard error says.
    """
    error = estimate.standard_error or 0.0
    if estimate.loss is None or estimate.interval is None:
        return error
    reach = max(estimate.loss - estimate.interval[0], estimate.interval[1] - estimate.loss)
    return max(error, reach / -float(ndtri(0.025)))
