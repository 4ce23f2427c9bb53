"""What `clipq.evaluate` returns: values beside FP32's, losses with intervals, verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipq.cases import Candidate, Case
from clipq.errors import ClipqError, SettingsError, UnknownNameError, did_you_mean
from clipq.estimate import NOTHING_ESTIMATED, Estimate, number
from clipq.metrics import Predictions, metrics
from clipq.records import CaseResult
from clipq.report.tuning_text import tuning_text
from clipq.settings import StatisticsSettings
from clipq.verdicts import Verdict

if TYPE_CHECKING:
    import pandas as pd

    from clipq.evaluation.resampling import Resampler, Tables
    from clipq.gating.verdict import Evidence

__all__ = ["Evaluation", "Measurement"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One metric of a candidate beside FP32's, judged by nobody.

    Args:
        case: candidate, probe and metric.
        unit: of all numbers.
        direction: which values are better: ``lower``, ``higher`` or ``zero``.
        samples: of the probe.
        reference: FP32's value; None where it is not finite (SQNR against itself).
        observed: the candidate's value; None where it is not finite.
        estimate: the paired loss; its p-value is of no harm at all, its margin 0.
        reason: why nothing was estimated; "" where it was.

    >>> Measurement(
    ...     Case.parse("vit/rtn:w4/id.top1"), "fraction", "higher", samples=2048, reference=0.94,
    ...     observed=0.92, estimate=Estimate(loss=0.02, low=0.01, high=0.03),
    ... ).estimate.interval
    (0.01, 0.03)
    """

    case: Case
    unit: str
    direction: str
    samples: int
    reference: float | None
    observed: float | None
    estimate: Estimate
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a quantizer did to a model's reliability, beside FP32 on the same samples.

    Args:
        candidate: the model and quantizer.
        coverage: what the quantizer covers and stores.
        predictions: the candidate's per-sample tables, by probe.
        reference: FP32's, of the same samples in the same order.
        cases: of everything that was computed.
        statistics: how intervals are made.
        remarks: what a reader should know of prompts and of the calibration data.
        tuning: how the logit scale was tuned; {} where it was not.

    >>> import numpy as np
    >>> tables = [  # FP32 is right on 190 of 200 samples, the quantizer on 185 of them
    ...     Predictions({"id": np.arange(200).astype(str), "rank": np.repeat([0, 1], [n, 200 - n]),
    ...                  "confidence": np.full(200, 0.9)})
    ...     for n in (190, 185)
    ... ]
    >>> case = Case.parse("vit/rtn:w4/id.top1")
    >>> found = Evaluation(case.candidate, {}, {"id": tables[1]}, {"id": tables[0]}, (case,),
    ...                    StatisticsSettings())
    >>> loss = found["top1"].estimate
    >>> round(loss.loss, 6), round(loss.low, 3), round(loss.high, 3)  # 5 / 200
    (0.025, 0.006, 0.057)
    >>> [result.verdict.value for result in found.verdicts({"top1": 0.1})]
    ['pass']
    """

    candidate: Candidate
    coverage: Mapping[str, Any]
    predictions: Mapping[str, Predictions]
    reference: Mapping[str, Predictions]
    cases: tuple[Case, ...]
    statistics: StatisticsSettings
    remarks: tuple[str, ...] = ()
    tuning: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def measurements(self) -> tuple[Measurement, ...]:
        """One measurement per metric, in the order of the cases."""
        return tuple(map(self._measured, self.cases))

    def __getitem__(self, metric: str) -> Measurement:
        """Return one metric's measurement, by ``METRIC`` or ``PROBE.METRIC``.

        Raises:
            UnknownNameError: it was not computed.
        """
        for measurement in self.measurements:
            if metric in (measurement.case.key, measurement.case.metric):
                return measurement
        raise UnknownNameError(
            f"no metric {metric!r} was computed", hint=did_you_mean(metric, self._keys)
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row per metric: both values, loss, interval, standard error, p-value."""
        import pandas as pd

        rows = [
            {
                "probe": one.case.probe,
                "metric": one.case.metric,
                "fp32": one.reference,
                "quantized": one.observed,
                **one.estimate.to_plain(),
                "unit": one.unit,
                "direction": one.direction,
                "samples": one.samples,
            }
            for one in self.measurements
        ]
        frame = pd.DataFrame(rows).set_index(["probe", "metric"])
        return frame.drop(columns=["adjusted_p", "margin", "samples_needed"])

    def verdicts(self, margins: Mapping[str, float] | str | Path) -> tuple[CaseResult, ...]:
        """Judge metrics by margins: how much worse than FP32 is still acceptable.

        Args:
            margins: by ``METRIC`` or ``PROBE.METRIC``, in the metric's unit: what has one is
                judged; or the path of a margin file, which has one for everything.

        Raises:
            SettingsError: a margin is of nothing that was computed, or is no finite number.
        """
        from clipq.gating.decision import decide

        chosen = self._margins(margins)
        judged = [self._judged(case, margin) for case, margin in chosen.items()]
        return decide(judged, self.statistics)

    def __str__(self) -> str:
        shown = self.to_frame().drop(columns=["standard_error", "direction", "offset"])
        table = shown.to_string(float_format="{:.4g}".format, na_rep="-")
        how = f"{tuning_text(self.tuning)}\n" if self.tuning else ""
        return f"{self.candidate.quantizer} beside FP32 (loss > 0 = worse)\n{how}{table}"

    # -- how --------------------------------------------------------------------------------

    @property
    def _keys(self) -> list[str]:
        return [case.key for case in self.cases]

    @cached_property
    def _resampler(self) -> Resampler:
        from clipq.evaluation.resampling import Resampler

        return Resampler(self.statistics)

    def _margins(self, margins: Mapping[str, float] | str | Path) -> dict[Case, float]:
        from clipq.gating.margins import check_margin, load_margins

        if not isinstance(margins, Mapping):
            table = load_margins(Path(margins))
            return {case: table.margin(case) for case in self.cases}
        chosen: dict[Case, float] = {}
        for name, margin in margins.items():
            named = [case for case in self.cases if name in (case.key, case.metric)]
            if not named:
                raise SettingsError(
                    f"a margin of {name!r}, which was not computed",
                    hint=did_you_mean(name, self._keys),
                )
            if isinstance(margin, bool) or number(margin) is None:
                raise SettingsError(
                    f"margin of {name!r} is {margin!r}",
                    hint="a margin is a finite number in the metric's unit",
                )
            for case in named:
                check_margin(metrics.get(case.metric), margin, where="margins")
            chosen |= dict.fromkeys(named, float(margin))
        return chosen

    def _measured(self, case: Case) -> Measurement:
        result = self._judged(case, 0.0)
        estimate = NOTHING_ESTIMATED
        if metrics.get(case.metric).judged_by == "baseline":
            # Nobody asked for a decision: how many samples would make one says nothing.
            estimate = replace(result.estimate, samples_needed=None)
        return Measurement(
            case,
            result.unit,
            result.direction,
            result.samples,
            result.baseline,
            result.observed,
            estimate,
            result.reason if result.verdict is Verdict.ERROR else "",
        )

    def _judged(self, case: Case, margin: float) -> CaseResult:
        from clipq.gating.interval import IntervalJudge

        metric = metrics.get(case.metric)
        result = CaseResult(
            case,
            Verdict.ERROR,
            unit=metric.unit,
            direction=metric.direction,
            metric_version=metric.version,
            samples=len(self.predictions[case.probe]),
        )
        try:
            evidence = self._evidence(case, margin=margin)
            values = number(evidence.baseline), number(evidence.observed)
            result = replace(result, baseline=values[0], observed=values[1])
            judgement = IntervalJudge(self.statistics, self._resampler)(evidence)
        except ClipqError as error:
            return replace(result, reason=str(error))
        return replace(
            result,
            verdict=judgement.verdict,
            reason=judgement.reason,
            estimate=judgement.estimate.finite(),
        )

    def _evidence(self, case: Case, *, margin: float) -> Evidence:
        from clipq.gating.verdict import Evidence

        metric = metrics.get(case.metric)
        theirs, ours = self._tables(self.reference, case), self._tables(self.predictions, case)
        baseline = None
        if metric.judged_by == "baseline":
            baseline = metric.compute(theirs.predictions, theirs.in_distribution)
        observed = metric.compute(ours.predictions, ours.in_distribution)
        return Evidence(metric, baseline, observed, margin, theirs, ours)

    def _tables(self, tables: Mapping[str, Predictions], case: Case) -> Tables:
        from clipq.evaluation.resampling import Tables

        return Tables(tables[case.probe], tables["id"])
