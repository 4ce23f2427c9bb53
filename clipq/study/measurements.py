"""What several run records measured of the same models on the same probes, as one thing.

Records are put together only where they are about the same: equal weights of a model, equal samples
of a probe, equal values of FP32, one definition of a metric. Whatever differs is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scipy.special import ndtri

from clipq.cases import FP32, Case, Cell
from clipq.errors import StudyError, listed
from clipq.estimate import Estimate
from clipq.records import CaseResult, RunRecord
from clipq.study.configurations import Configuration, configuration
from clipq.study.effects import Point, Series, mean_of

__all__ = ["Measurements", "PairedError", "gather"]

PairedError = Callable[[CaseResult, CaseResult], Estimate | None]
"""From the same case of two candidates to a paired estimate; None where there is none."""

_SAME = {"models": "weights_sha256", "probes": "fingerprint"}
_NOISE = frozenset({"gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"})
_BLUR = frozenset({"defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur"})


@dataclass(frozen=True, slots=True)
class Measurements:
    """All cases of some records, by model, configuration, probe and metric.

    Args:
        results: by case id.
        evidence: of all records, by kind.
        configurations: of each model, in the order of their texts.
        paired: where paired errors of two candidates come from; None: errors are added.
    """

    results: Mapping[str, CaseResult]
    evidence: Mapping[str, Mapping[str, Any]]
    configurations: Mapping[str, tuple[Configuration, ...]]
    paired: PairedError | None = None
    _seeds: Mapping[tuple[str, str], Mapping[int, str]] = field(default_factory=dict, repr=False)

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
        return tuple(sorted(self._seeds.get((model, of.text), {})))

    def has(self, model: str, probe: str, metric: str) -> bool:
        """Whether a metric of a probe was measured of any of a model's quantizers."""
        found = self.configurations[model]
        return any(self._results(model, each, probe, metric) for each in found)

    def in_distribution(self, model: str) -> str | None:
        """Return the in-distribution probe that a model was measured on."""
        known = self.probes("in-distribution")
        has = {r.probe for r in self.results.values() if r.model == model}
        return next((probe for probe in known if probe in has), None)

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
        return bins

    def baseline(self, model: str, probe: str, metric: str) -> tuple[float, int] | None:
        """Return FP32's value and its number of samples."""
        for found in self.configurations[model]:
            for result in self._results(model, found, probe, metric).values():
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

    def paired_error(self, one: str, other: str) -> float | None:
        """Return the standard error of the difference of two cases, if predictions are at hand."""
        if self.paired is None:
            return None
        estimate = self.paired(self.results[one], self.results[other])
        return None if estimate is None else estimate.standard_error

    def _mean(
        self, model: str, of: Configuration, probes: Sequence[str], metric: str, *, level: bool
    ) -> Series | None:
        found = []
        for probe in probes:
            points = {}
            for seed, result in self._results(model, of, probe, metric).items():
                point = _point(result, level=level)
                if point is not None:
                    points[seed] = point
            if not points:
                return None
            found.append(Series(points, of.draws))
        return mean_of(found)

    def _results(
        self, model: str, of: Configuration, probe: str, metric: str
    ) -> dict[int, CaseResult]:
        found = {}
        for seed, text in self._seeds.get((model, of.text), {}).items():
            result = self.results.get(Case(Cell(model, text, probe), metric).id)
            if result is not None:
                found[seed] = result
        return found


def gather(records: Iterable[RunRecord], *, paired: PairedError | None = None) -> Measurements:
    """Put records together.

    Args:
        records: of runs; a candidate may be in several as long as they say the same of it.
        paired: where paired errors of two candidates come from.

    Raises:
        StudyError: there is nothing to put together, or records contradict each other.

    >>> from clipq.verdicts import Verdict
    >>> estimate = Estimate(loss=0.01, standard_error=0.002)
    >>> case = CaseResult(Case.parse("vit/quarot:w8a8,seed=1/id.ece"), Verdict.PASS, baseline=0.05,
    ...                   observed=0.06, direction="lower", estimate=estimate)
    >>> found = gather([RunRecord("ci", 1, (case,))])
    >>> found.models, [each.text for each in found.configurations["vit"]]
    (('vit',), ['quarot:w8a8'])
    """
    results: dict[str, CaseResult] = {}
    evidence: dict[str, dict[str, Any]] = {}
    read = 0
    for record in records:
        read += 1
        known = record.evidence()
        for kind, entries in known.items():
            _check_same(kind, evidence.get(kind, {}), entries)
            evidence.setdefault(kind, {}).update(entries)
        artifacts = known.get("artifacts", {})
        for result in record.cases:
            candidate = result.case.candidate
            ours = str(candidate.base) not in artifacts and str(candidate) not in artifacts
            if not ours or candidate.is_reference:
                continue
            _check_case(results.get(result.id), result)
            results[result.id] = result
    if not results:
        raise StudyError(
            f"{read} record{'' if read == 1 else 's'} without a quantized candidate"
            if read
            else "no record was given",
            hint="give report.json files of `clipq gate`, or runs of the history store",
        )
    _check_baselines(results.values())
    seeds: dict[tuple[str, str], dict[int, str]] = {}
    configurations: dict[str, dict[str, Configuration]] = {}
    for result in results.values():
        said = evidence.get("quantizers", {}).get(str(result.case.candidate), {})
        found, seed = configuration(result.quantizer, trained=bool(said.get("trained")))
        of_model = configurations.setdefault(result.model, {})
        if found.draws or found.text not in of_model:  # one of several texts may name no seed
            of_model[found.text] = found
        held = seeds.setdefault((result.model, found.text), {})
        if held.setdefault(seed, result.quantizer) != result.quantizer:
            raise StudyError(
                f"{result.model}: {held[seed]!r} and {result.quantizer!r} are one candidate, "
                "written twice",
                hint=f"write one of them (seed={seed} is what the other means), and run it again",
            )
    frozen = {model: tuple(sorted(found.values())) for model, found in configurations.items()}
    return Measurements(results, evidence, frozen, paired, seeds)


def _point(result: CaseResult, *, level: bool) -> Point | None:
    estimate = result.estimate
    if result.observed is None or estimate.standard_error is None:
        return None
    if level:
        value = result.observed
    elif result.baseline is None:
        return None
    else:
        value = result.observed - result.baseline
    return Point(value, _widest(estimate), (result.id,))


def _widest(estimate: Estimate) -> float:
    """Return the standard error, or the one whose normal interval covers the recorded one.

    Intervals that follow scores, or skewness, are wider on a side than their standard error says.
    """
    error = estimate.standard_error or 0.0
    if estimate.loss is None or estimate.interval is None:
        return error
    reach = max(estimate.loss - estimate.interval[0], estimate.interval[1] - estimate.loss)
    return max(error, reach / -float(ndtri(0.025)))


def _check_same(kind: str, known: Mapping[str, Any], entries: Mapping[str, Any]) -> None:
    about = _SAME.get(kind)
    if about is None:
        return
    for name, entry in entries.items():
        before, now = known.get(name, {}).get(about), entry.get(about)
        if name in known and before != now:
            what = "weights" if kind == "models" else "samples"
            raise StudyError(
                f"records differ in the {what} of {kind[:-1]} {name!r}: {str(before)[:12]} and "
                f"{str(now)[:12]}",
                hint="give records of the same models on the same probes",
            )


def _check_case(known: CaseResult | None, result: CaseResult) -> None:
    if known is None:
        return
    if known.metric_version != result.metric_version:
        raise StudyError(
            f"records differ in the definition of {result.metric}: version {known.metric_version} "
            f"and {result.metric_version}",
            hint="run the older one again",
        )
    before, now = (
        (r.observed, r.estimate.loss, r.estimate.standard_error) for r in (known, result)
    )
    if not all(_equal(a, b) for a, b in zip(before, now, strict=True)):
        raise StudyError(
            f"{result.id} is in two records that differ: {known.observed} and {result.observed} "
            f"(standard errors {before[2]} and {now[2]})",
            hint="give one of them; another environment, or another number of replicates, made the "
            "difference",
        )


def _check_baselines(results: Iterable[CaseResult]) -> None:
    """Refuse values against FP32s that differ: changes against them are of two things."""
    known: dict[tuple[str, str], CaseResult] = {}
    differing = []
    for result in results:
        if result.baseline is None:
            continue
        first = known.setdefault((result.model, result.case.key), result)
        if not _equal(first.baseline, result.baseline):
            # As many digits as it takes to see it: other last ones are another machine's.
            apart = (f"{first.baseline:.6g}", f"{result.baseline:.6g}")
            before, now = (first.baseline, result.baseline) if len({*apart}) == 1 else apart
            differing.append(
                f"{result.model} {result.case.key}: {before} ({first.quantizer}) and "
                f"{now} ({result.quantizer})"
            )
    if differing:
        raise StudyError(
            f"records differ in FP32's values: {listed(differing, between='; ')}",
            hint="give records that were judged against the same baselines, of one machine",
        )


def _equal(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
