"""One process's part of a gate: evaluates cases, judges them, explains them."""

from __future__ import annotations

import datetime
import math
from functools import cached_property
from typing import Any

from clipq.errors import BaselineError, ClipqError
from clipq.evaluation.evaluator import Evaluated, Evaluator
from clipq.evaluation.plan import FP32, Case, planned_quantizers
from clipq.evaluation.resampling import Resampler, Sample
from clipq.gating.baseline import Baseline, load_baseline, load_values
from clipq.gating.commands import Commands
from clipq.gating.interval import IntervalJudge
from clipq.gating.latency import Latencies, load_latencies
from clipq.gating.margins import Margins, load_margins
from clipq.gating.sentinel import SAMPLES, drift
from clipq.gating.verdict import Evidence, Judge, Judgement
from clipq.gating.waivers import Waivers, load_waivers
from clipq.metrics import metrics
from clipq.records import CaseResult, Verdict, number
from clipq.settings import Settings

__all__ = ["Gate", "vanished_cases"]


def vanished_cases(settings: Settings, planned: tuple[Case, ...]) -> tuple[Case, ...]:
    """Return a case for every baseline value that the whole matrix no longer measures.

    A metric that disappears must not pass by absence: each becomes a case of the ``fp32``
    quantizer whose verdict is `vanished`.
    """
    measured = {(case.model, f"{case.probe}.{case.metric}") for case in planned}
    found = []
    for model in settings.models:
        for key in load_values(settings.baselines, model.name) or {}:
            if (model.name, key) not in measured:
                probe, _, metric = key.partition(".")
                found.append(Case(model.name, FP32, probe, metric))
    return tuple(sorted(found))


class Gate:
    """Judges cases in this process.

    Args:
        settings: what is evaluated, against which baselines and margins.
        evaluator: where predictions come from.
        cases: number of cases in the run, for the correction of false alarms.
        judge: how a value becomes a verdict; by default, paired intervals.
        today: by which waivers expire; by default, today's date (UTC).
    """

    def __init__(
        self,
        settings: Settings,
        evaluator: Evaluator,
        *,
        cases: int = 1,
        judge: Judge | None = None,
        today: datetime.date | None = None,
    ) -> None:
        self.settings = settings
        self.today = today or datetime.datetime.now(datetime.UTC).date()
        self.evaluator = evaluator
        statistics = settings.statistics
        resampler = Resampler(statistics, threads=settings.threads)
        self._judge = judge or IntervalJudge(statistics, resampler, cases=cases)
        self._baselines: dict[str, Baseline | None] = {}
        self._drifts: dict[str, str] = {}
        self._altered_values: dict[tuple[str, str, str], str] = {}
        self._drawn: set[tuple[str, str, str]] = set()

    @cached_property
    def commands(self) -> Commands:
        return Commands(self.settings)

    @cached_property
    def margins(self) -> Margins:
        return load_margins(self.settings.margins)

    @cached_property
    def latencies(self) -> Latencies:
        quantizers = (*planned_quantizers(self.settings), FP32)
        pairs = {f"{model.name}/{name}" for model in self.settings.models for name in quantizers}
        return load_latencies(self.settings.latency, pairs)

    @cached_property
    def waivers(self) -> Waivers:
        return load_waivers(self.settings.waivers)

    def check(self, case: Case, *, expectations: bool = True) -> CaseResult:
        """Evaluate and judge one case; an error of any part becomes its verdict.

        Args:
            case: what to judge.
            expectations: whether expected failures and waivers are taken into account.
        """
        try:
            found = self._check(case)
            if not expectations:
                return found
            return self.waivers.apply(self._expected(case, found), today=self.today)
        except ClipqError as error:
            return self._result(case, Judgement(Verdict.ERROR, None, str(error)))

    def _check(self, case: Case) -> CaseResult:
        key = f"{case.probe}.{case.metric}"
        baseline = self._baseline(case.model)
        if case.quantizer == FP32:
            return self._result(
                case,
                Judgement(Verdict.VANISHED, None, f"the baseline holds {key}, the matrix does not"),
                baseline=baseline.values[key].value if baseline else None,
            )
        if baseline is None or key not in baseline.values:
            where = self.settings.baselines / f"{case.model}.json"
            return self._result(case, Judgement(Verdict.MISSING, None, f"no {key} in {where}"))
        stored = baseline.values[key]
        found = self.evaluator.evaluate(case.model, case.quantizer, case.probe)
        blocked = self._altered(case, baseline) or self._incomparable(
            case, baseline, found, stored.version
        )
        if blocked is not None:
            return self._result(case, blocked, baseline=stored.value, found=found)
        reference = self.settings.in_distribution.name
        known = self.evaluator.evaluate(case.model, case.quantizer, reference)
        evidence = self._evidence(case, baseline, Sample(found.predictions, known.predictions))
        return self._result(
            case,
            self._judge(evidence),
            baseline=evidence.baseline,
            observed=evidence.observed,
            found=found,
        )

    def judge(self, case: Case, observed: Sample) -> Judgement:
        """Judge a case by predictions that come from elsewhere.

        Raises:
            BaselineError: there is no baseline value for the case.
            StatisticsError: the predictions and the baseline's are not paired.
        """
        baseline = self._baseline(case.model)
        if baseline is None or f"{case.probe}.{case.metric}" not in baseline.values:
            raise BaselineError(
                f"no baseline value for {case.id}", hint=f"clipq baseline create {case.model}"
            )
        return self._judge(self._evidence(case, baseline, observed))

    def _evidence(self, case: Case, baseline: Baseline, observed: Sample) -> Evidence:
        metric = metrics.get(case.metric)
        stored = baseline.values[f"{case.probe}.{case.metric}"]
        reference = baseline.predictions[self.settings.in_distribution.name]
        return Evidence(
            metric=metric,
            baseline=None if metric.reference == "absolute" else stored.value,
            observed=metric.compute(observed.predictions, observed.in_distribution),
            margin=self.margins.margin(case),
            baseline_sample=Sample(baseline.predictions[case.probe], reference),
            observed_sample=observed,
            noise=stored.noise,
        )

    def _expected(self, case: Case, result: CaseResult) -> CaseResult:
        """Turn an expected failure into `waived`, and its unexpected success into a failure."""
        from dataclasses import replace

        expected = self.margins.expected_failure(case)
        if expected is None:
            return result
        if result.verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
            return replace(result, verdict=Verdict.WAIVED, reason=f"expected: {expected.reason}")
        if result.verdict in (Verdict.PASS, Verdict.IMPROVED):
            return replace(
                result,
                verdict=Verdict.FAIL,
                reason=f"expected to fail ({expected.reason}), but it did not: remove the entry "
                f"from {self.margins.path.name}",
                next_command=f"edit {self.margins.path}",
            )
        return result

    def _altered(self, case: Case, baseline: Baseline) -> Judgement | None:
        """Refuse a stored value that does not follow from the columns stored beside it."""
        key = (case.model, case.probe, case.metric)
        if key not in self._altered_values:
            metric = metrics.get(case.metric)
            stored = baseline.values[f"{case.probe}.{case.metric}"]
            tables = baseline.predictions
            reference = tables[self.settings.in_distribution.name]
            own = metric.compute(tables[case.probe], reference)
            same_version = metric.version == stored.version
            wrong = stored.value is not None and same_version and not _close(own, stored.value)
            self._altered_values[key] = (
                f"the baseline says {stored.value}, its own columns give {own}" if wrong else ""
            )
        reason = self._altered_values[key]
        return Judgement(Verdict.INCOMPARABLE, None, reason) if reason else None

    def _incomparable(
        self, case: Case, baseline: Baseline, found: Evaluated, version: int
    ) -> Judgement | None:
        stored = baseline.identity_of(case.probe)
        for name, value in found.identity.items():
            if stored.get(name) != value:
                return Judgement(
                    Verdict.INCOMPARABLE,
                    None,
                    f"{name} is {value}, the baseline was made with {stored.get(name)}",
                )
        current = metrics.get(case.metric).version
        if current != version:
            return Judgement(
                Verdict.INCOMPARABLE,
                None,
                f"metric {case.metric} is version {current}, the baseline's is {version}",
            )
        if case.model not in self._drifts:
            self._drifts[case.model] = drift(
                self.evaluator.live_reference(case.model, SAMPLES),
                baseline,
                self.settings.in_distribution.name,
            )
        moved = self._drifts[case.model]
        return Judgement(Verdict.DRIFTED, None, moved) if moved else None

    def _baseline(self, model: str) -> Baseline | None:
        if model not in self._baselines:
            self._baselines[model] = load_baseline(self.settings.baselines, model)
        return self._baselines[model]

    def _figures(self, case: Case) -> dict[str, Any]:
        """Return the figures of a case's cell and of FP32's, each once per process."""
        drawn = {}
        for quantizer in (FP32, case.quantizer):
            cell = (case.model, quantizer, case.probe)
            if cell not in self._drawn:
                self._drawn.add(cell)
                drawn["/".join(cell)] = self.evaluator.figures(*cell)
        return {name: found for name, found in drawn.items() if found}

    def _provenance(self, stored: Baseline) -> dict[str, str]:
        latest = stored.history[-1] if stored.history else {}
        return {
            "file": self.commands.shown(self.settings.baselines / f"{stored.model}.json"),
            "columns_sha256": stored.digest,
            "approved": str(latest.get("date", "")),
            "reason": str(latest.get("reason", "")),
        }

    def _result(
        self,
        case: Case,
        judgement: Judgement,
        *,
        baseline: float | None = None,
        observed: float | None = None,
        found: Evaluated | None = None,
    ) -> CaseResult:
        metric = metrics.get(case.metric) if case.metric in metrics else None
        evidence: dict[str, Any] = dict(found.evidence) if found else {}
        if found is not None:
            evidence["figures"] = self._figures(case)
        pair = f"{case.model}/{case.quantizer}"
        if pair in evidence.get("quantizers", {}):
            known = evidence["quantizers"][pair]
            evidence["quantizers"] = {pair: known | self.latencies.evidence(pair)}
        stored = self._baselines.get(case.model)
        if stored is not None:
            evidence["baselines"] = {case.model: self._provenance(stored)}
        return CaseResult(
            model=case.model,
            quantizer=case.quantizer,
            probe=case.probe,
            metric=case.metric,
            verdict=judgement.verdict,
            reason=judgement.reason,
            unit=metric.unit if metric else "",
            direction=metric.direction if metric else "",
            metric_version=metric.version if metric else 0,
            samples=len(found.predictions) if found else 0,
            baseline=number(baseline),
            observed=number(observed),
            loss=number(judgement.loss),
            margin=number(judgement.margin),
            low=number(judgement.low),
            high=number(judgement.high),
            p_value=number(judgement.p_value),
            standard_error=number(judgement.standard_error),
            samples_needed=judgement.samples_needed,
            next_command=self.commands.next(case, judgement.verdict),
            evidence=evidence,
        )


def _close(first: float, second: float) -> bool:
    return math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-9)
