"""Making, updating and verifying baselines: what `clipq baseline` does.

Nothing here runs in a test; a baseline changes only on purpose, with a reason, and keeps what was
approved first, so that slow drift stays visible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from clipq.errors import BaselineError
from clipq.evaluation.evaluator import Evaluator
from clipq.evaluation.plan import FP32, Case, plan
from clipq.gate.baseline import Baseline, BaselineValue
from clipq.gate.sentinel import SAMPLES, drift
from clipq.metrics import metrics

__all__ = ["Change", "approve_first", "approve_update", "changes", "measure", "problems"]


@dataclass(frozen=True, slots=True)
class Change:
    """One baseline value that differs between two baselines; `loss` > 0 means the new is worse."""

    key: str
    old: float | None
    new: float | None
    first: float | None
    loss: float | None
    unit: str


def measure(evaluator: Evaluator, model: str) -> Baseline:
    """Evaluate FP32 on every probe and metric that the matrix plans for a model."""
    settings = evaluator.settings
    measured = {Case(model, FP32, case.probe, case.metric) for case in plan(settings)}
    values: dict[str, BaselineValue] = {}
    known = evaluator.evaluate(model, FP32, settings.in_distribution.name)
    found = {
        probe.name: evaluator.evaluate(model, FP32, probe.name)
        for probe in settings.probes
        if probe.role != "calibration"
    }
    for case in sorted(measured):
        metric = metrics.get(case.metric)
        value = metric.compute(found[case.probe].predictions, known.predictions)
        finite = float(value) if np.isfinite(value) else None
        if finite is None and metric.reference == "baseline":
            raise BaselineError(
                f"FP32 {model}: {case.probe}.{case.metric} is {value}",
                hint="a baseline must be finite: check the model and the probe",
            )
        key = f"{case.probe}.{case.metric}"
        values[key] = BaselineValue(finite, metric.unit, metric.version, finite)
    return Baseline(
        model=model,
        source=settings.model(model).source,
        environment=evaluator.environment,
        identity={k: v for k, v in known.identity.items() if k != "probe"},
        probes={name: result.identity["probe"] for name, result in found.items()},
        values=values,
        history=(),
        predictions={name: result.predictions for name, result in found.items()},
    )


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


def changes(old: Baseline, new: Baseline) -> tuple[Change, ...]:
    """Return every value that differs, worst first; added and removed ones included."""
    found = []
    for key in sorted({*old.values, *new.values}):
        before, after = old.values.get(key), new.values.get(key)
        if before is not None and after is not None and before.value == after.value:
            continue
        a = before.value if before else None
        b = after.value if after else None
        metric = key.partition(".")[2]
        loss = metrics.get(metric).loss(a, b) if a is not None and b is not None else None
        present = after or before
        found.append(
            Change(key, a, b, before.first if before else b, loss, present.unit if present else "")
        )
    return tuple(sorted(found, key=lambda change: (-(change.loss or 0.0), change.key)))


def flips(old: Baseline, new: Baseline, probe: str) -> int | None:
    """Return how many samples changed their predicted class; None where samples differ."""
    if probe not in old.predictions or probe not in new.predictions:
        return None
    before, after = old.predictions[probe], new.predictions[probe]
    if not np.array_equal(before.column("id"), after.column("id")):
        return None
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
    for what, before, after in (
        ("identity", stored.identity, fresh.identity),
        ("probe", stored.probes, fresh.probes),
    ):
        found += [
            f"{what} {name} is {after.get(name)}, stored {before.get(name)}"
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name)
        ]
    for change in changes(stored, fresh):
        small = change.loss is not None and abs(change.loss) <= 1e-6 * max(1, abs(change.old or 0))
        if not small:
            found.append(f"{change.key}: stored {change.old}, measured {change.new}")
    return found
