"""The whole study as one plain document: what its page draws and its adviser asks.

Numbers are stored once. A configuration carries its values, costs and residuals by rank; figures
say which of them are set against each other; claims and advice name configurations by their place
in the list, and these name the units of sweeps that they were measured in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from clipq.study.advice import advice_plain, criteria
from clipq.study.claim_table import answer_claims
from clipq.study.configuration_costs import COSTS, costs_of
from clipq.study.configurations import Configuration
from clipq.study.mean_spectrum import mean_spectrum
from clipq.study.measurements import Measurements
from clipq.study.statements import View
from clipq.study.study_formats import SCHEMA, claims_plain
from clipq.study.study_table import (
    COLUMNS,
    Column,
    Entry,
    entry_of,
    probes_of,
    reference_entry,
)

__all__ = ["METRICS", "PAGE_COLUMNS", "configurations_plain", "study_document"]

PAGE_COLUMNS = (
    *COLUMNS,
    Column("AUROC", "auroc-mcm", 1, "ood"),
    Column("shift top-1", "top1", 1, "shift"),
    Column("corruption top-1", "top1", 1, "corruption"),
    Column("energy in ranks 64+", "tail-energy", -1, "in-distribution"),
)
"""What the document holds of each configuration: the table's columns, and those of figures."""
METRICS = frozenset({column.metric for column in PAGE_COLUMNS} | {"top1-low", "top1-high"})
"""What claims, table, page and adviser are made of: a quarter of all that a unit has."""
_FIGURES = (
    ("calibration", "Change of ECE against FP32's confidence bias", "bias", "ece"),
    ("detection", "Change of OOD AUROC against change of ECE", "ece", "auroc-mcm"),
    ("robustness", "Change of corruption error against change of shift accuracy",
     "top1.shift", "corruption-error"),
)  # fmt: skip


def study_document(
    measurements: Measurements,
    *,
    towers: str = "vision",
    seconds: Mapping[str, float] | None = None,
    milliseconds: Mapping[str, float] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the study as plain data for strict JSON; docs/study-data.md describes each key.

    Args:
        measurements: of records and units.
        towers: which quantized towers claims are about.
        seconds: processor seconds of units, by id.
        milliseconds: per image where it is deployed, by ``model/quantizer``.
        provenance: where the measurements come from.

    >>> from clipq.cases import Case
    >>> from clipq.estimate import Estimate
    >>> from clipq.records import CaseResult
    >>> from clipq.study import MeasuredUnit, gather
    >>> from clipq.verdicts import Verdict
    >>> case = CaseResult(Case.parse("vit/rtn:w4a8@vision/id.top1"), Verdict.PASS, baseline=0.9,
    ...                   observed=0.8, estimate=Estimate(loss=0.1, standard_error=0.01))
    >>> probes = {"probes": {"id": {"role": "in-distribution"}}}
    >>> document = study_document(gather([MeasuredUnit("0f", (case,), probes)]))
    >>> one, = document["configurations"]
    >>> one["quantizer"], one["units"], round(one["values"]["top1"]["change"], 3)
    ('rtn:w4a8@vision', ['0f'], -0.1)
    """
    listed = [(m, c) for m in measurements.models for c in measurements.configurations[m]]
    configurations = configurations_plain(measurements, seconds=seconds, milliseconds=milliseconds)
    places = {(model, each.text): place for place, (model, each) in enumerate(listed)}
    return {
        "schema": SCHEMA,
        "kind": "study",
        "provenance": dict(provenance or {}),
        "towers": towers,
        "columns": [_column(measurements, column) for column in PAGE_COLUMNS],
        "costs": [dict(cost) for cost in COSTS],
        "models": [_model(measurements, model) for model in measurements.models],
        "configurations": configurations,
        "figures": [{"key": key, "title": title, "x": x, "y": y} for key, title, x, y in _FIGURES],
        "claims": _claims(measurements, towers, places),
        "advice": advice_plain(configurations, criteria(COLUMNS)),
    }


def configurations_plain(
    measurements: Measurements,
    *,
    models: Sequence[str] = (),
    seconds: Mapping[str, float] | None = None,
    milliseconds: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Return the configurations of the document, of some models or of all.

    Args:
        measurements: of records and units.
        models: which; all by default.
        seconds: processor seconds of units, by id.
        milliseconds: per image where it is deployed, by ``model/quantizer``.
    """
    return [
        _configuration(measurements, model, each, ranks, seconds or {}, milliseconds or {})
        for model in models or measurements.models
        for ranks in (_spectrum(measurements, model).get("rank"),)
        for each in measurements.configurations[model]
    ]


def _column(measurements: Measurements, column: Column) -> dict[str, Any]:
    return {
        "key": column.key,
        "title": column.title,
        "metric": column.metric,
        "better": "higher" if column.sign > 0 else "lower",
        "role": column.role,
        "distance": column.distance or None,
        "level": column.level,
        "unit": measurements.unit(column.metric),
    }


def _model(measurements: Measurements, model: str) -> dict[str, Any]:
    bias = View(measurements, model).bias
    bounds = None if bias is None else bias.interval()
    entries = {c.key: reference_entry(measurements, model, c) for c in PAGE_COLUMNS}
    known = measurements.in_distribution(model)
    bins = measurements.calibration_bins(model, known) if known else None
    spectrum = _spectrum(measurements, model)
    declared = measurements.evidence.get("models", {}).get(model, {})
    return {
        "name": model,
        "source": declared.get("source"),
        "weights_sha256": declared.get("weights_sha256"),
        "bias": None
        if bias is None or bounds is None
        else {"value": bias.value, "low": bounds[0], "high": bounds[1]},
        "calibration": bins,
        "fp32": {key: None if one is None else one.value for key, one in entries.items()},
        "probes": {c.key: list(probes_of(measurements, model, c)) for c in PAGE_COLUMNS},
        "spectrum": {name: spectrum[name] for name in ("rank", "signal")} if spectrum else None,
    }


def _spectrum(measurements: Measurements, model: str) -> dict[str, Any]:
    """Return the first spectrum of a model; its ranks are those that residuals are shown at."""
    found = (
        mean_spectrum(measurements, model, each) for each in measurements.configurations[model]
    )
    return next((one for one in found if one), {})


def _configuration(
    measurements: Measurements,
    model: str,
    of: Configuration,
    ranks: Sequence[int] | None,
    seconds: Mapping[str, float],
    milliseconds: Mapping[str, float],
) -> dict[str, Any]:
    spectrum = mean_spectrum(measurements, model, of)
    kind = "noise" if of.method == "noise" else "qat" if of.trained else "ptq"
    return {
        "id": f"{model}/{of.text}",
        "model": model,
        "quantizer": of.text,
        "kind": kind,
        "method": of.method,
        "bits": of.bits or None,
        "towers": of.towers,
        "tuned": of.tuned,
        "trained": of.trained,
        "draws": of.draws,
        "calibration_samples": of.samples or None,
        "seeds": list(measurements.seeds(model, of)) if of.draws else [],
        "units": list(measurements.units(model, of)),
        "costs": costs_of(measurements, model, of, seconds=seconds, milliseconds=milliseconds),
        "values": {
            column.key: _value(measurements, model, of, column, entry)
            for column in PAGE_COLUMNS
            if (entry := entry_of(measurements, model, of, column)) is not None
        },
        "residual": spectrum["residual"] if spectrum and spectrum["rank"] == ranks else None,
    }


def _value(
    measurements: Measurements, model: str, of: Configuration, column: Column, entry: Entry
) -> dict[str, Any]:
    effect = entry.effect
    probes = probes_of(measurements, model, column)
    return {
        "value": _finite(entry.value),
        "change": _finite(entry.change),
        "low": _finite(entry.low),
        "high": _finite(entry.high),
        "sampling": None if effect is None else _finite(effect.sampling),
        "drawn": None if effect is None else _finite(math.sqrt(effect.drawn)),
        "seeds": None if effect is None else effect.seeds,
        "better": entry.better,
        "worse": entry.worse,
        "by_seed": [_finite(value) for value in _by_seed(measurements, model, of, column, probes)],
        "margin": None
        if column.level
        else _finite(measurements.margin(model, of, probes, column.metric)),
    }


def _by_seed(
    measurements: Measurements,
    model: str,
    of: Configuration,
    column: Column,
    probes: Sequence[str],
) -> list[float | None]:
    """Return a configuration's own value with each of its seeds, as its units are ordered."""
    values = measurements.values(model, of, probes, column.metric)
    points = {} if values is None else values.points
    seeds = measurements.seeds(model, of)
    return [points[seed].value if seed in points else None for seed in seeds]


def _claims(
    measurements: Measurements, towers: str, places: Mapping[tuple[str, str], int]
) -> list[dict[str, Any]]:
    """Return the claims, each with the places of configurations in place of cases."""
    of_case = {
        result.id + held.suffix: places[key]
        for key, by_seed in measurements.drawn.items()
        for held in by_seed.values()
        for result in held.results.values()
    }
    found = []
    for claim in claims_plain(answer_claims(measurements, towers=towers))["claims"]:
        cases: Sequence[str] = claim.pop("cases")
        found.append(claim | {"configurations": sorted({of_case[case] for case in cases})})
    return found


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
