"""Records and units put together, where they are about the same.

That is: equal weights of a model, equal samples of a probe, equal values of FP32, one definition of
a metric. Whatever differs is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from clipq.cases import Cell
from clipq.errors import StudyError, listed
from clipq.records import CaseResult, RunRecord
from clipq.study.calculable import calculable_result, is_beyond
from clipq.study.configurations import Configuration, configuration
from clipq.study.drawn_results import DrawnResults, MeasuredUnit
from clipq.study.measurements import Measurements, PairedError

__all__ = ["gather"]

_SAME = {"models": "weights_sha256", "probes": "fingerprint"}
_FACTS = ("weight_bits", "bytes", "milliseconds", "trained")
_DIGITS = 12
"""Of a digest that messages show."""


def gather(
    records: Iterable[RunRecord | MeasuredUnit], *, paired: PairedError | None = None
) -> Measurements:
    """Put records, and units of sweeps, together.

    Each is let go when it was read, so that they may come one by one.

    Args:
        records: of runs, or units; a candidate may be in several as long as they say the same of
            it.
        paired: where paired errors of two candidates come from.

    Raises:
        StudyError: there is nothing to put together, or records contradict each other.

    >>> from clipq.cases import Case
    >>> from clipq.estimate import Estimate
    >>> from clipq.verdicts import Verdict
    >>> estimate = Estimate(loss=0.01, standard_error=0.002)
    >>> case = CaseResult(Case.parse("vit/quarot:w8a8,seed=1/id.ece"), Verdict.PASS, baseline=0.05,
    ...                   observed=0.06, direction="lower", estimate=estimate)
    >>> found = gather([RunRecord("ci", 1, (case,))])
    >>> found.models, [each.text for each in found.configurations["vit"]]
    (('vit',), ['quarot:w8a8'])
    """
    gathered = _Gathered()
    read = 0
    for record in records:
        read += 1
        gathered.add(record)
    if not gathered.results:
        raise StudyError(
            f"{read} record{'' if read == 1 else 's'} without a quantized candidate"
            if read
            else "no record was given",
            hint="give report.json files of `clipq gate`, runs of the history store, or a sweep",
        )
    _check_baselines(gathered.results.values())
    return gathered.measurements(paired)


class _Gathered:
    """What was read so far."""

    def __init__(self) -> None:
        self.results: dict[str, CaseResult] = {}
        self.evidence: dict[str, dict[str, Any]] = {}
        self.candidates: dict[str, DrawnResults] = {}
        self.named: dict[str, tuple[str, int, int]] = {}
        self.versions: dict[str, int] = {}
        self.beyond: list[str] = []

    def add(self, record: RunRecord | MeasuredUnit) -> None:
        """Take a record's cases, and what is known of its candidates."""
        known = record.evidence()
        for kind, about in _SAME.items():
            entries = known.get(kind, {})
            _check_same(kind, about, self.evidence.get(kind, {}), entries)
            self.evidence.setdefault(kind, {}).update(entries)
        artifacts = known.get("artifacts", {})
        figures = known.get("figures", {})
        unit = record if isinstance(record, MeasuredUnit) else MeasuredUnit("", (), {})
        for result in record.cases:
            candidate = result.case.candidate
            ours = str(candidate.base) not in artifacts and str(candidate) not in artifacts
            if not ours or candidate.is_reference:
                continue
            name = result.id + unit.suffix
            if is_beyond(result):
                self.beyond.append(name)
            result = calculable_result(result)
            _check_version(self.versions.setdefault(result.metric, result.metric_version), result)
            _check_case(name, self.results.get(name), result)
            self.results[name] = result
            key = f"{candidate}{unit.suffix}"
            held = self.candidates.get(key)
            if held is None:
                held = self.candidates[key] = DrawnResults(result.quantizer, unit.suffix)
                self.named[key] = (result.model, unit.samples, unit.seed)
            held.unit = held.unit or unit.id
            held.results[result.probe, result.metric] = result
            if unit.id:
                held.units.setdefault((result.probe, result.metric), unit.id)
            if not held.facts:
                held.facts = _facts(known.get("quantizers", {}).get(str(candidate), {}))
            spectrum = figures.get(str(result.case.cell), {}).get("spectrum")
            held.spectrum = held.spectrum or spectrum or {}
        of_fp32 = self.evidence.setdefault("figures", {})
        for cell, drawn in figures.items():
            if Cell.parse(cell).candidate.is_reference:
                of_fp32.setdefault(cell, {}).update(drawn)

    def measurements(self, paired: PairedError | None) -> Measurements:
        """Return all of it, by configuration and seed."""
        drawn: dict[tuple[str, str], dict[int, DrawnResults]] = {}
        configurations: dict[str, dict[str, Configuration]] = {}
        for key, held in self.candidates.items():
            model, samples, of_draw = self.named[key]
            found, seed = configuration(
                held.quantizer,
                trained=bool(held.facts.get("trained")),
                samples=samples,
                drawn=of_draw,
            )
            of_model = configurations.setdefault(model, {})
            if found.draws or found.text not in of_model:  # one of several texts may name no seed
                of_model[found.text] = found
            seeds = drawn.setdefault((model, found.text), {})
            if seeds.setdefault(seed, held) is not held:
                raise StudyError(
                    f"{model}: {seeds[seed].quantizer!r} and {held.quantizer!r} are one "
                    "candidate, written twice",
                    hint=f"write one of them (seed={seed} is what the other means), and run it "
                    "again",
                )
        ordered = {key: dict(sorted(seeds.items())) for key, seeds in drawn.items()}
        frozen = {model: tuple(sorted(own.values())) for model, own in configurations.items()}
        beyond = tuple(self.beyond)
        return Measurements(self.results, self.evidence, frozen, ordered, paired, beyond)


def _facts(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a study asks of a quantizer's evidence; the rest of it is large."""
    return {name: said[name] for name in _FACTS if name in said}


def _check_same(
    kind: str, about: str, known: Mapping[str, Any], entries: Mapping[str, Any]
) -> None:
    for name, entry in entries.items():
        before, now = known.get(name, {}).get(about), entry.get(about)
        if name in known and before != now:
            what = "weights" if kind == "models" else "samples"
            raise StudyError(
                f"records differ in the {what} of {kind[:-1]} {name!r}: "
                f"{str(before)[:_DIGITS]} and {str(now)[:_DIGITS]}",
                hint="give records of the same models on the same probes",
            )


def _check_version(known: int, result: CaseResult) -> None:
    """Refuse two definitions of a metric, whichever candidates they were measured of."""
    if known != result.metric_version:
        raise StudyError(
            f"records differ in the definition of {result.metric}: version {known} "
            f"and {result.metric_version}",
            hint="run the older one again",
        )


def _check_case(name: str, known: CaseResult | None, result: CaseResult) -> None:
    if known is None:
        return
    before, now = (
        (r.observed, r.estimate.loss, r.estimate.standard_error) for r in (known, result)
    )
    if not all(_equal(a, b) for a, b in zip(before, now, strict=True)):
        raise StudyError(
            f"{name} is in two records that differ: {known.observed} and {result.observed} "
            f"(standard errors {before[2]} and {now[2]})",
            hint="give one of them; another environment, other code or another number of "
            "replicates made the difference. A sweep's folder may hold parts of an earlier plan: "
            "give the plan",
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
