"""Making, updating and verifying baselines: what `clipq baseline` does.

Nothing here runs in a test; a baseline changes only on purpose, with a reason, and keeps what was
approved first, so that what was lost slowly stays visible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from clipq.cases import FP32, Candidate, split_key
from clipq.errors import BaselineError
from clipq.estimate import Estimate
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.plan import plan
from clipq.evaluation.resampling import Resampler, Tables
from clipq.evaluation.subject import Subject, subject_of
from clipq.gating.baseline import Baseline, BaselineValue
from clipq.gating.differences import Difference
from clipq.gating.loss_estimator import LossEstimator
from clipq.gating.margins import Margins
from clipq.gating.sentinel import SAMPLES, drift
from clipq.gating.verdict import Evidence
from clipq.metrics import metrics
from clipq.settings import Settings

__all__ = [
    "ValueChange",
    "approve_first",
    "approve_update",
    "changes",
    "flips",
    "measure",
    "paired_differences",
    "problems",
    "worse_since_first",
]


@dataclass(frozen=True, slots=True)
class ValueChange:
    """One baseline value that differs between two baselines; `loss` > 0 means the new is worse."""

    key: str
    old: float | None
    new: float | None
    first: float | None
    loss: float | None
    unit: str


def measure(evaluator: Evaluator, model: str) -> Baseline:
    """Evaluate FP32 on every probe and metric that the matrix plans for a model.

    FP32 is encoded again with another batch size and thread count, and on a GPU where there is one:
    the largest difference of each metric is its noise floor.

    Args:
        evaluator: under policy ``release`` where a probe is kept for releases.
        model: its name.
    """
    settings, reference = evaluator.settings, Candidate(model, FP32)
    values = _values(evaluator, reference)
    noise = dict.fromkeys(values, 0.0)
    variants = _variants(settings)
    for name, variant in variants.items():
        varied = evaluator.varied(replace(settings, **variant), name)
        for key, value in _values(varied, reference).items():
            noise[key] = max(noise[key], abs(value - values[key]))
    evaluator.encoders.pin()
    stored = {}
    for key, value in values.items():
        metric = metrics.get(split_key(key)[1])
        finite = value if np.isfinite(value) else None
        if finite is None and metric.judged_by == "baseline":
            raise BaselineError(
                f"FP32 {model}: {key} is {value}",
                hint="a baseline must be finite: check the model and the probe",
            )
        known_noise = noise[key] if np.isfinite(noise[key]) else 0.0
        stored[key] = BaselineValue(finite, metric.unit, metric.version, finite, known_noise)
    found = {
        probe.name: evaluator.evaluate(reference.on(probe.name)) for probe in settings.evaluated
    }
    known = found[settings.in_distribution.name]
    subject = subject_of(evaluator.inputs, evaluator.encoders.model(model))
    return Baseline(
        model=model,
        source=settings.model(model).source,
        environment=evaluator.encoders.environment,
        identity={k: v for k, v in known.identity.items() if k != "probe"},
        probes={name: result.identity["probe"] for name, result in found.items()},
        values=stored,
        history=(),
        predictions={name: result.predictions for name, result in found.items()},
        pooled=evaluator.inputs.pooled,
        remarks=evaluator.remarks(model),
        noise_from=tuple(variants),
        measured_on=subject.facts,
        samples=_unsaid(subject, set(found)),
    )


def _unsaid(subject: Subject, measured: set[str]) -> dict[str, dict[str, np.ndarray]]:
    """Return what the prediction tables do not hold of the samples."""
    return {
        probe: {
            name: values
            for name, values in columns.items()
            if probe not in measured or name in ("image", "caption")
        }
        for probe, columns in subject.samples.items()
    }


def _values(evaluator: Evaluator, reference: Candidate) -> dict[str, float]:
    """Return FP32's value of every planned ``probe.metric`` of a model."""
    settings = evaluator.settings
    known = evaluator.evaluate(reference.on(settings.in_distribution.name)).predictions
    planned = {
        reference.on(case.probe).case(case.metric)
        for case in plan(settings)
        if case.model == reference.model
    }
    return {
        case.key: metrics.get(case.metric).compute(evaluator.evaluate(case.cell).predictions, known)
        for case in sorted(planned)
    }


def _variants(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the variations that FP32's noise is measured over, by description."""
    from clipq.evaluation.encode import gpu_present

    batch = 64 if settings.batch_size != 64 else 32
    threads = 2 if settings.threads == 1 else 1
    found: dict[str, dict[str, Any]] = {
        f"batch_size {batch}": {"batch_size": batch},
        f"threads {threads}": {"threads": threads},
    }
    if settings.device == "cpu" and gpu_present():
        found["device cuda"] = {"device": "cuda"}
    return found


def approve_first(new: Baseline, *, date: str) -> Baseline:
    """Return a first baseline with its history begun."""
    entry = {"date": date, "reason": "first baseline", "changed": len(new.values)}
    return replace(new, history=(entry,))


def approve_update(old: Baseline, new: Baseline, *, reason: str, date: str) -> Baseline:
    """Return the new baseline with the old one's history and first approved values.

    Raises:
        BaselineError: no reason is given.
    """
    if not reason.strip():
        raise BaselineError(
            "a baseline update needs a reason", hint="say why with --reason 'upgraded to ...'"
        )
    values = {
        key: replace(value, first=old.values[key].first) if key in old.values else value
        for key, value in new.values.items()
    }
    entry = {"date": date, "reason": reason.strip(), "changed": len(changes(old, new))}
    return replace(new, values=values, history=(*old.history, entry))


def changes(old: Baseline, new: Baseline) -> tuple[ValueChange, ...]:
    """Return every value that differs, worst first; added and removed ones included."""
    found = []
    for key in sorted({*old.values, *new.values}):
        before, after = old.values.get(key), new.values.get(key)
        if before is not None and after is not None and before.value == after.value:
            continue
        a = before.value if before else None
        b = after.value if after else None
        metric = metrics.get(split_key(key)[1])
        loss = metric.loss(a, b) if a is not None and b is not None else None
        present = after or before
        found.append(
            ValueChange(
                key, a, b, before.first if before else b, loss, present.unit if present else ""
            )
        )
    return tuple(sorted(found, key=lambda change: (-(change.loss or 0.0), change.key)))


def paired_differences(
    old: Baseline, new: Baseline, changed: Sequence[ValueChange], settings: Settings
) -> dict[str, Estimate]:
    """Return estimates of the loss new - old, for what both were resampled on.

    Empty where the samples themselves differ: there is then nothing to pair.
    """
    inside = settings.in_distribution.name
    statistics = settings.statistics
    estimate = LossEstimator(statistics, Resampler(statistics, threads=settings.threads))
    found = {}
    for change in changed:
        probe, name = split_key(change.key)
        statistic = metrics.get(name).statistic
        if change.loss is None or (statistic is not None and statistic.kind == "point"):
            continue
        if flips(old, new, probe) is None or flips(old, new, inside) is None:
            continue
        evidence = Evidence(
            metric=metrics.get(name),
            baseline=change.old,
            observed=change.new or 0.0,
            margin=0.0,
            baseline_tables=Tables(old.predictions[probe], old.predictions[inside]),
            observed_tables=Tables(new.predictions[probe], new.predictions[inside]),
        )
        found[change.key] = estimate(evidence, change.loss, margin=0.0)
    return found


def worse_since_first(
    approved: Baseline, margins: Margins, settings: Settings
) -> dict[str, tuple[float, float]]:
    """Return what has become worse since its first approval by more than its smallest margin.

    Each step of a ratchet is small; this is their sum. Maps ``probe.metric`` to (loss, margin).
    """
    smallest: dict[str, float] = {}
    for case in plan(settings):
        if case.model == approved.model and metrics.get(case.metric).judged_by == "baseline":
            smallest[case.key] = min(smallest.get(case.key, np.inf), margins.margin(case))
    found = {}
    for key, margin in smallest.items():
        value = approved.values.get(key)
        if value is None or value.value is None or value.first is None:
            continue
        loss = metrics.get(split_key(key)[1]).loss(value.first, value.value)
        if loss > margin:
            found[key] = (loss, margin)
    return found


def flips(old: Baseline, new: Baseline, probe: str) -> int | None:
    """Return how many samples changed their predicted class; None where samples differ."""
    if probe not in old.predictions or probe not in new.predictions:
        return None
    before, after = old.predictions[probe], new.predictions[probe]
    if not np.array_equal(before.column("id"), after.column("id")):
        return None
    if "prediction" not in before.columns:
        return 0
    return int((before.column("prediction") != after.column("prediction")).sum())


def problems(evaluator: Evaluator, stored: Baseline) -> Sequence[str]:
    """Return what is wrong with a stored baseline: identity, environment drift, values.

    FP32 is measured again; the sentinel's samples past every cache.
    """
    settings = evaluator.settings
    moved = drift(
        evaluator.live_reference(stored.model, SAMPLES), stored, settings.in_distribution.name
    )
    found = [moved] if moved else []
    fresh = measure(evaluator, stored.model)
    for probe in sorted({*stored.probes, *fresh.probes}):
        if probe not in stored.probes or probe not in fresh.probes:
            where = "stored" if probe in stored.probes else "measured"
            found.append(f"probe {probe} is {where} only")
            continue
        difference = Difference(
            stored.subject,
            fresh.subject,
            probe,
            settings.in_distribution.name,
            settings.calibration.name,
        )
        said = difference.said(stored.identity_of(probe), fresh.identity_of(probe))
        found += [said] if said and said not in found else []
    for change in changes(stored, fresh):
        small = change.loss is not None and abs(change.loss) <= 1e-6 * max(1, abs(change.old or 0))
        if not small:
            found.append(f"{change.key}: stored {change.old}, measured {change.new}")
    return found
