"""One process's part of a gate: evaluates cases, judges them, explains them."""

from __future__ import annotations

import copy
import datetime
import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any

from clipq.cases import FP32, Candidate, Case, Cell
from clipq.errors import BaselineError, ClipqError
from clipq.estimate import number
from clipq.evaluation.evaluator import Evaluated, Evaluator
from clipq.evaluation.plan import planned_candidates
from clipq.evaluation.resampling import Resampler, Tables
from clipq.gating.baseline import Baseline, load_baseline
from clipq.gating.commands import Commands
from clipq.gating.comparable import Comparability
from clipq.gating.families import Families
from clipq.gating.interval import IntervalJudge
from clipq.gating.latency import Latencies, load_latencies
from clipq.gating.margins import Margins, load_margins
from clipq.gating.soundness import remarks
from clipq.gating.stall import StallWatch
from clipq.gating.verdict import Evidence, Judge, Judgement
from clipq.gating.waivers import Waivers, load_waivers
from clipq.metrics import metrics
from clipq.records import CaseResult
from clipq.settings import Settings
from clipq.verdicts import EXCUSABLE, Verdict

__all__ = ["Gate"]

log = logging.getLogger(__name__)


class Gate:
    """Judges cases in this process.

    What `check` returns depends on the case's candidate alone, whatever else is judged beside it.

    Args:
        settings: what is evaluated, against which baselines and margins.
        evaluator: where predictions come from.
        families: which cases are judged together; by default, each by itself.
        judge: how a value becomes a verdict; by default, paired intervals.
        today: by which waivers expire; by default, today's date (UTC).
        stall: told whenever a case is being measured; by default, nobody watches.
        figures: whether what reports draw of a cell is made and named in results.
    """

    def __init__(
        self,
        settings: Settings,
        evaluator: Evaluator,
        *,
        families: Families | None = None,
        judge: Judge | None = None,
        today: datetime.date | None = None,
        stall: StallWatch | None = None,
        figures: bool = True,
    ) -> None:
        self._stall, self._figures = stall, figures
        self.settings = settings
        self.today = today or datetime.datetime.now(datetime.UTC).date()
        self.evaluator = evaluator
        statistics = settings.statistics
        resampler = Resampler(statistics, threads=settings.threads)
        self._families = families or Families(statistics)
        self._judge = judge or IntervalJudge(statistics, resampler)
        self._baselines: dict[str, Baseline | None] = {}
        self._comparability = Comparability(
            evaluator, settings.in_distribution.name, settings.calibration.name
        )
        self._figure_keys: dict[Cell, str] = {}
        self._remarks: dict[str, list[str]] = {}

    @cached_property
    def commands(self) -> Commands:
        """Commands that results tell their reader to type."""
        return Commands(self.settings)

    @cached_property
    def margins(self) -> Margins:
        """The margin table."""
        return load_margins(self.settings.margins, self.settings)

    @cached_property
    def latencies(self) -> Latencies:
        """Latencies measured elsewhere; none where the settings name no file."""
        planned = planned_candidates(self.settings)
        known = {str(form) for candidate in planned for form in (candidate, candidate.base)}
        known |= {str(Candidate(model.name, FP32)) for model in self.settings.models}
        return load_latencies(self.settings.latency, known)

    @cached_property
    def waivers(self) -> Waivers:
        """The waivers; none where there is no file."""
        return load_waivers(self.settings.waivers)

    def beside(self, families: Families, evaluator: Evaluator) -> Gate:
        """Return a gate of other cases that shares what this one found of FP32 and baselines."""
        other = copy.copy(self)
        other._families, other.evaluator = families, evaluator
        return other

    def check(self, case: Case) -> CaseResult:
        """Evaluate and judge one case; an error of any part becomes its verdict.

        Expected failures and waivers are taken into account.
        """
        try:
            result = self.unexcused(case)
            result = replace(result, next_command=self.commands.next(case, result.verdict))
            return self.waivers.apply(_expected(result, self.margins), today=self.today)
        except ClipqError as error:
            return self._failed(case, str(error))

    def unexcused(self, case: Case) -> CaseResult:
        """Evaluate and judge one case; no expected failure, no waiver and no command is looked up.

        An error of any part becomes its verdict.
        """
        try:
            return self._families.verdict(case, self._measure, self._lost)
        except ClipqError as error:
            return self._failed(case, str(error))

    def judge(self, case: Case, observed: Tables) -> Judgement:
        """Judge a case by predictions that come from elsewhere.

        Raises:
            BaselineError: there is no baseline value for the case.
            StatisticsError: the predictions and the baseline's are not paired.
        """
        baseline = self._baseline(case.model)
        if baseline is None or case.key not in baseline.values:
            raise BaselineError(
                f"no baseline value for {case}", hint=f"clipq baseline create {case.model}"
            )
        return self._judge(self._evidence(case, baseline, observed))

    # -- from a case to a judgement ---------------------------------------------------------

    def _measure(self, case: Case) -> CaseResult:
        watched = self._stall.measuring(case.candidate) if self._stall else nullcontext()
        try:
            with watched:
                return self._measured_alone(case)
        except ClipqError as error:
            return self._failed(case, str(error))
        except Exception as error:  # of one case, and not of all that are judged with it
            log.exception("%s could not be measured", case)
            return self._failed(case, f"{type(error).__name__}: {error}")

    def _lost(self, case: Case, why: str) -> CaseResult:
        return self._failed(case, f"{case.cell} could not be measured: {why}")

    def _failed(self, case: Case, reason: str) -> CaseResult:
        return self._result(case, Judgement(Verdict.ERROR, reason))

    def _measured_alone(self, case: Case) -> CaseResult:
        baseline = self._baseline(case.model)
        stored = baseline.values.get(case.key) if baseline else None
        if case.candidate.is_reference:
            reason = f"the baseline holds {case.key}, the matrix does not"
            value = stored.value if stored else None
            return self._result(case, Judgement(Verdict.VANISHED, reason), baseline=value)
        if baseline is None or stored is None:
            where = self.settings.baselines / f"{case.model}.json"
            return self._result(case, Judgement(Verdict.MISSING, f"no {case.key} in {where}"))
        evaluated = self.evaluator.evaluate(case.cell)
        blocked = self._comparability.obstacle(case, baseline, stored, evaluated)
        if blocked is not None:
            return self._result(case, blocked, baseline=stored.value, evaluated=evaluated)
        known = self.evaluator.evaluate(case.cell.on(self.settings.in_distribution.name))
        tables = Tables(evaluated.predictions, known.predictions)
        evidence = self._evidence(case, baseline, tables)
        return self._result(
            case,
            self._judge(evidence),
            baseline=evidence.baseline,
            observed=evidence.observed,
            evaluated=evaluated,
        )

    def _evidence(self, case: Case, baseline: Baseline, observed: Tables) -> Evidence:
        metric, stored = metrics.get(case.metric), baseline.values[case.key]
        known = baseline.predictions[self.settings.in_distribution.name]
        return Evidence(
            metric=metric,
            baseline=None if metric.judged_by == "limit" else stored.value,
            observed=metric.compute(observed.predictions, observed.in_distribution),
            margin=self.margins.margin(case, stored.value),
            baseline_tables=Tables(baseline.predictions[case.probe], known),
            observed_tables=observed,
            noise=stored.noise,
        )

    def _baseline(self, model: str) -> Baseline | None:
        if model not in self._baselines:
            self._baselines[model] = load_baseline(self.settings.baselines, model)
        return self._baselines[model]

    # -- from a judgement to a result -------------------------------------------------------

    def _result(
        self,
        case: Case,
        judgement: Judgement,
        *,
        baseline: float | None = None,
        observed: float | None = None,
        evaluated: Evaluated | None = None,
    ) -> CaseResult:
        metric = metrics.get(case.metric) if case.metric in metrics else None
        return CaseResult(
            case,
            judgement.verdict,
            reason=judgement.reason,
            unit=metric.unit if metric else "",
            direction=metric.direction if metric else "",
            metric_version=metric.version if metric else 0,
            samples=judgement.samples or (len(evaluated.predictions) if evaluated else 0),
            baseline=number(baseline),
            observed=number(observed),
            estimate=judgement.estimate.finite(),
            noise=number(judgement.noise),
            evidence=self._measured(case, evaluated) | self._compared_with(case.model),
        )

    def _measured(self, case: Case, evaluated: Evaluated | None) -> dict[str, Any]:
        """Return what a record says of how a case was measured; figures by their keys."""
        if evaluated is None:
            return {}
        evidence: dict[str, Any] = dict(evaluated.evidence)
        pair = str(case.candidate)
        for kind in ("quantizers", "artifacts"):
            if pair in evidence.get(kind, {}):
                known = evidence[kind][pair] | self.latencies.evidence(pair)
                evidence[kind] = evidence[kind] | {pair: known}
        if not self._figures:
            return evidence
        evidence["figures"] = {
            str(cell): {"key": self._figure_key(cell)} for cell in (case.cell.reference, case.cell)
        }
        return evidence

    def _figure_key(self, cell: Cell) -> str:
        """Return the key of a cell's figures, which are in the cache then."""
        if cell not in self._figure_keys:
            self.evaluator.figures(cell)
            self._figure_keys[cell] = self.evaluator.figures_key(cell)
        return self._figure_keys[cell]

    def _compared_with(self, model: str) -> dict[str, Mapping[str, Any]]:
        """Return what a record says of a model's baseline; {} where there is none to read."""
        try:
            stored = self._baseline(model)
        except BaselineError:
            return {}  # the case itself fails with this error and shows it
        if stored is None:
            return {}
        if model not in self._remarks:
            self._remarks[model] = remarks(stored, self.settings.in_distribution.name)
        latest = stored.history[-1] if stored.history else {}
        provenance = {
            "file": self.commands.shown(self.settings.baselines / f"{stored.model}.json"),
            "columns_sha256": stored.digest,
            "approved": str(latest.get("date", "")),
            "reason": str(latest.get("reason", "")),
            "remarks": self._remarks[model],
        }
        return {"baselines": {model: provenance}}


def _expected(result: CaseResult, margins: Margins) -> CaseResult:
    """Turn an expected failure into `waived`, and its unexpected success into a failure."""
    expected = margins.expected_failure(result.case)
    if expected is None:
        return result
    if result.verdict in EXCUSABLE:
        return replace(result, verdict=Verdict.WAIVED, reason=f"expected: {expected.reason}")
    if result.verdict in (Verdict.PASS, Verdict.IMPROVED):
        return replace(
            result,
            verdict=Verdict.FAIL,
            reason=f"expected to fail ({expected.reason}), but it did not: remove the entry "
            f"from {margins.path.name}",
            next_command=f"edit {margins.path}",
        )
    return result
