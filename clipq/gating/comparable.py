"""Whether a result may be compared with its baseline at all; if not, that is the verdict."""

from __future__ import annotations

import math

from clipq.cases import Case, Cell
from clipq.evaluation.evaluator import Evaluated, Evaluator
from clipq.evaluation.subject import subject_of
from clipq.gating.baseline import Baseline, BaselineValue
from clipq.gating.differences import Difference
from clipq.gating.sentinel import SAMPLES, drift
from clipq.gating.verdict import Judgement
from clipq.metrics import metrics
from clipq.verdicts import Verdict

__all__ = ["Comparability"]


class Comparability:
    """Looks for what forbids a comparison; what holds for many cases is found out once.

    Args:
        evaluator: encodes FP32 again for the sentinel.
        known: name of the in-distribution probe.
        calibration: name of the calibration split.
    """

    def __init__(self, evaluator: Evaluator, known: str, calibration: str) -> None:
        self._evaluator = evaluator
        self._known = known
        self._calibration = calibration
        self._differences: dict[tuple[str, str], str] = {}
        self._altered: dict[tuple[str, str], str] = {}
        self._scalars: dict[Cell, str] = {}
        self._drifts: dict[str, str] = {}

    def obstacle(
        self, case: Case, baseline: Baseline, stored: BaselineValue, evaluated: Evaluated
    ) -> Judgement | None:
        """Return the verdict on a case that cannot be compared; None where it can."""
        reason = (
            self._alteration(case, baseline, stored)
            or self._other_identity(case, baseline, evaluated)
            or _other_version(case, stored)
        )
        if reason:
            return Judgement(Verdict.INCOMPARABLE, reason)
        moved = self._drift(case.model, baseline)
        if moved:
            return Judgement(Verdict.DRIFTED, moved)
        other = self._other_scalars(case, baseline)
        return Judgement(Verdict.INCOMPARABLE, other) if other else None

    def _alteration(self, case: Case, baseline: Baseline, stored: BaselineValue) -> str:
        """Return why a stored value does not follow from the columns stored beside it, or ""."""
        key = (case.model, case.key)
        if key not in self._altered:
            metric, tables = metrics.get(case.metric), baseline.predictions
            own = metric.compute(tables[case.probe], tables[self._known])
            same_version = metric.version == stored.version
            wrong = stored.value is not None and same_version and not _close(own, stored.value)
            said = f"the baseline says {stored.value}, its own columns give {own}"
            self._altered[key] = said if wrong else ""
        return self._altered[key]

    def _other_identity(self, case: Case, baseline: Baseline, evaluated: Evaluated) -> str:
        """Return what is not what the baseline was made with, in words, or ""."""
        made_with, here = baseline.identity_of(case.probe), evaluated.identity
        if all(made_with.get(name) == value for name, value in here.items()):
            return ""
        key = (case.model, case.probe)
        if key not in self._differences:
            self._differences[key] = self._difference(case, baseline, evaluated)
        return self._differences[key]

    def _difference(self, case: Case, baseline: Baseline, evaluated: Evaluated) -> str:
        inputs = self._evaluator.inputs
        live = subject_of(inputs, self._evaluator.encoders.model(case.model))
        pairs = {case.probe: evaluated.identity}
        if case.probe in inputs.pooled:
            pooled = (*baseline.pooled.get(case.probe, ()),), (*inputs.pooled[case.probe],)
            if pooled[0] != pooled[1]:
                before, now = (", ".join(names) or "nothing" for names in pooled)
                return f"probe {case.probe!r} pools {now}, the baseline's pooled {before}"
            cells = [case.cell.on(name) for name in pooled[1]]
            pairs = {cell.probe: self._evaluator.evaluate(cell).identity for cell in cells}
        said = [
            Difference(baseline.subject, live, probe, self._known, self._calibration).said(
                baseline.identity_of(probe), identity
            )
            for probe, identity in pairs.items()
        ]
        return "; ".join(dict.fromkeys(filter(None, said)))

    def _other_scalars(self, case: Case, baseline: Baseline) -> str:
        """Return which number of a probe, stored beside no columns, is not FP32's, or ""."""
        cell = case.cell.reference
        if cell not in self._scalars:
            live = self._evaluator.evaluate(cell).predictions.scalars
            stored = baseline.predictions[cell.probe].scalars
            self._scalars[cell] = "; ".join(
                f"the baseline says that {name} of FP32 is {stored.get(name)}, here it is {value}"
                for name, value in sorted(live.items())
                if not _near(stored.get(name), value)
            )
        return self._scalars[cell]

    def _drift(self, model: str, baseline: Baseline) -> str:
        """Return how FP32 itself moved on this machine, or ""."""
        if model not in self._drifts:
            live = self._evaluator.live_reference(model, SAMPLES)
            self._drifts[model] = drift(live, baseline, self._known)
        return self._drifts[model]


def _other_version(case: Case, stored: BaselineValue) -> str:
    current = metrics.get(case.metric).version
    if current == stored.version:
        return ""
    return f"metric {case.metric} is version {current}, the baseline's is {stored.version}"


def _close(first: float, second: float) -> bool:
    return math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-9)


def _near(stored: float | None, live: float) -> bool:
    """Whether two machines may differ by so much; an edit that could decide a case is larger."""
    return stored is not None and (
        math.isclose(stored, live, rel_tol=0.01, abs_tol=1e-3)
        or (math.isnan(stored) and math.isnan(live))
    )
